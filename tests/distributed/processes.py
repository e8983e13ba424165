"""Processes that run functions together, with gloo, and end when one of them is late.

They are started once, from a server that has loaded torch, and serve groups of any number of them.
"""

from __future__ import annotations

import multiprocessing as mp
import tempfile
import time
import traceback
from collections.abc import Callable, Collection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from longconv.distributed import Ranks

Case = Callable[..., None]
"""Runs on every rank of a group, which is its first argument; a failure is an exception."""

SECONDS = 240
"""After which a case is late."""


class Processes:
    """So many processes of one group, waiting for cases."""

    def __init__(self, count: int) -> None:
        context = mp.get_context("forkserver")
        context.set_forkserver_preload(["torch", "longconv.distributed"])
        self.folder = tempfile.TemporaryDirectory()
        pairs = [context.Pipe() for _ in range(count)]
        self.pipes = [mine for mine, _ in pairs]
        store = Path(self.folder.name) / "store"
        self.processes = [
            context.Process(target=_serve, args=(rank, count, store, theirs), daemon=True)
            for rank, (_, theirs) in enumerate(pairs)
        ]
        for process in self.processes:
            process.start()

    def run(
        self, size: int, case: Case, *args: Any, seconds: float = SECONDS, lost: Collection[int] = ()
    ) -> list[str | None]:
        """What went wrong with the case on each of the first ``size`` ranks: a traceback, or None.

        Ranks that are ``lost`` are not waited for once the others have ended.
        """
        for pipe in self.pipes:
            pipe.send((size, case, args))
        deadline, results = time.monotonic() + seconds, {}
        for rank, pipe in sorted(enumerate(self.pipes), key=lambda pair: pair[0] in lost):
            try:
                late = not pipe.poll(0.0 if rank in lost else max(0.0, deadline - time.monotonic()))
                results[rank] = f"rank {rank} was late" if late else pipe.recv()
            except EOFError:
                results[rank] = f"rank {rank} ended"
        if any(result and result.startswith("rank ") for result in results.values()):
            self.close()
        return [results[rank] for rank in range(size)]

    def close(self) -> None:
        """End them."""
        for process in self.processes:
            process.kill()
            process.join()
        self.folder.cleanup()


def _serve(rank: int, count: int, store: Path, pipe: Connection) -> None:
    torch.set_num_threads(1)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=dist.FileStore(str(store), count), rank=rank, world_size=count)
    groups = {size: dist.new_group(list(range(size))) for size in range(1, count + 1)}
    while True:
        size, case, args = pipe.recv()
        result = None
        if rank < size:
            torch.manual_seed(0)
            try:
                case(Ranks(groups[size], timeout=SECONDS / 2), *args)
            except BaseException:
                result = traceback.format_exc()
        pipe.send(result)


def check(processes: Processes, size: int, case: Case, *args: Any) -> None:
    """Fail with what went wrong first, if anything did."""
    failures = [result for result in processes.run(size, case, *args) if result]
    assert not failures, "\n\n".join(failures)
