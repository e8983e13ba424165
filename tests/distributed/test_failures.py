"""A rank that is killed, stops, hangs or raises ends the others within their timeout, with an error that says so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from longconv import distributed
from longconv.distributed import RankError, Ranks
from tests.distributed.processes import Processes, check

TIMEOUT = 4.0
SECONDS = 100.0
"""Until the others have to have ended, on a machine that may be busy; without a timeout they would wait much longer."""


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stopped() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def raising() -> None:
    raise ArithmeticError("an error of rank 1's own")


FAILURES: dict[Callable[[], None], str] = {
    killed: "rank 1 ended",
    stopped: "rank 1 was late",
    raising: "ArithmeticError: an error of rank 1's own",
}


def step(ranks: Ranks, fail: Callable[[], None]) -> None:
    """Two layers; rank 1 fails in the backward pass between them."""
    mine = Ranks(ranks.group, timeout=TIMEOUT)
    u, k = torch.randn(2, 3, 5, requires_grad=True), torch.randn(3, 4)
    distributed.fft_conv(u, k, group=ranks).sum().backward()  # from here on all are there at once
    y = distributed.fft_conv(u, k, group=mine)
    if ranks.rank == 1:
        y.register_hook(lambda grad: fail())
        distributed.fft_conv(y, k, group=mine).sum().backward()
        return
    with pytest.raises(RankError, match=rf"rank {ranks.rank} of 3 has lost the others: one of them has failed"):
        distributed.fft_conv(y, k, group=mine).sum().backward()


@pytest.mark.parametrize("fail", FAILURES, ids=lambda fail: fail.__name__)
def test_it_ends_the_others(fail: Callable[[], None]) -> None:
    started = Processes(3)
    try:
        results = started.run(3, step, fail, seconds=SECONDS, lost=() if fail is raising else (1,))
    finally:
        started.close()
    assert [results[0], results[2]] == [None, None], results
    assert results[1] and FAILURES[fail] in results[1]


def watched(ranks: Ranks) -> None:
    """What is under way is given up after the timeout, and goes on to be under way."""
    one = torch.ones(2)
    if ranks.rank == 0:
        _, pending = ranks.start(one, [1, 1], [1, 1])
        with pytest.raises(RankError, match=r"rank 0 of 2 has lost the others: .* within 0.2 s"):
            Ranks(ranks.group, timeout=0.2).watch(pending)
        dist.send(one, 1, group=ranks.group)
    else:
        dist.recv(one, 0, group=ranks.group)
        _, pending = ranks.start(one, [1, 1], [1, 1])
    ranks.watch(pending)
    ranks.wait(pending)


def test_a_process_can_watch_over_what_the_gpu_waits_for(processes: Processes) -> None:
    check(processes, 2, watched)


PROGRAM = f"""
import os, signal, sys, torch
import torch.distributed as dist
from longconv import distributed

rank = int(sys.argv[2])
dist.init_process_group("gloo", store=dist.FileStore(sys.argv[1], 2), rank=rank, world_size=2)
ranks = distributed.Ranks(timeout={TIMEOUT})
u = torch.randn(1, 2, 8, requires_grad=True)
distributed.fft_conv(u, torch.randn(2, 8)).sum().backward()
y = distributed.fft_conv(u, torch.randn(2, 8), group=ranks)
if rank:
    os.kill(os.getpid(), signal.SIGSTOP)
y.sum().backward()
"""


def test_a_program_ends_when_a_rank_of_it_hangs(tmp_path: Path) -> None:
    """The whole process, not the call alone: nothing waits at its end for what never comes."""
    words = [sys.executable, "-c", PROGRAM, str(tmp_path / "store")]
    first, other = (subprocess.Popen([*words, rank], stderr=subprocess.PIPE, text=True) for rank in "01")
    try:
        _, errors = first.communicate(timeout=3 * SECONDS)
    finally:
        for process in (first, other):
            process.kill()
            process.communicate()
    assert first.returncode == 1, errors
    assert "RankError: rank 0 of 2 has lost the others" in errors and f"within {TIMEOUT:g} s" in errors


LAUNCHED = """
import torch
import torch.distributed as dist
from longconv import distributed

dist.init_process_group("gloo")
u = torch.randn(1, 2, 8)
distributed.fft_conv(u, torch.randn(2, 8))
if dist.get_rank():
    raise ArithmeticError("an error of rank 1's own")
distributed.fft_conv(u, torch.randn(2, 8))
"""


def test_a_job_of_torchrun_ends_when_a_rank_of_it_fails(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(LAUNCHED)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=3 * SECONDS)
    assert done.returncode == 1 and "ArithmeticError: an error of rank 1's own" in done.stderr, done.stderr
