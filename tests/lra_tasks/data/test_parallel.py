"""Chunks in order, whatever the number of processes."""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing
from itertools import count, islice

import pytest

from lra_tasks.data.errors import KilledProcessError
from lra_tasks.data.parallel import in_order


def square(chunk: int) -> int:
    time.sleep(0.02 * (chunk % 3 == 0))
    return chunk**2


def worker(chunk: int) -> int:
    return os.getpid()


def fail_at_three(chunk: int) -> int:
    if chunk == 3:
        raise ArithmeticError("chunk three")
    return chunk


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_in_order(processes: int) -> None:
    with closing(in_order(square, count(), processes)) as results:
        assert list(islice(results, 20)) == [chunk**2 for chunk in range(20)]


def die_at_three(chunk: int) -> int:
    if chunk == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return chunk


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("n", [0, 2, 20])
def test_in_order_ends_with_its_chunks(n: int, processes: int) -> None:
    assert list(in_order(square, range(n), processes)) == [chunk**2 for chunk in range(n)]


def test_uses_and_ends_other_processes() -> None:
    with closing(in_order(worker, count(), 2)) as results:
        pids = set(islice(results, 8))
    assert os.getpid() not in pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_comes_through(processes: int) -> None:
    with (
        closing(in_order(fail_at_three, count(), processes)) as results,
        pytest.raises(ArithmeticError, match="chunk three"),
    ):
        list(islice(results, 10))


def test_a_killed_process_is_told() -> None:
    with pytest.raises(KilledProcessError, match=r"was killed, perhaps for want of memory.*--data.processes 1"):
        list(in_order(die_at_three, count(), 2))
