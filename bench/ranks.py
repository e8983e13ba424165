"""Processes that hold the other shards of a sequence, beside this one: ``python -m bench.ranks`` is one of them.

This process is rank 0. Before it convolves its shard it tells the others to convolve theirs, by a line each.
"""

from __future__ import annotations

import atexit
import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from longconv import distributed
from longconv.distributed import Ranks

SECONDS = 60.0
"""After which a rank that doesn't come is given up."""


class Convolution(NamedTuple):
    """One sequence that is cut evenly, and the way that it is convolved by; filters are cut too."""

    batch: int
    channels: int
    length: int
    taps: int
    method: str
    ranks: int

    def shards(self) -> list[tuple[Tensor, Tensor]]:
        """The u and the k of every rank."""
        random = torch.Generator().manual_seed(0)
        u = torch.randn(self.batch, self.channels, self.length, generator=random)
        k = torch.randn(self.channels, self.taps, generator=random)
        return list(zip(u.tensor_split(self.ranks, -1), k.tensor_split(self.ranks, -1), strict=True))

    def __call__(self, u: Tensor, k: Tensor, ranks: Ranks) -> Tensor:
        """This rank's shard of y."""
        return distributed.fft_conv(u, k, filters="sharded", method=self.method, group=ranks)


class Others:
    """The other ranks, and this one in its group."""

    def __init__(self, size: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        words = [sys.executable, "-m", "bench.ranks", self.folder.name, str(size)]
        root = Path(__file__).parents[1]
        self.processes = [
            subprocess.Popen([*words, str(rank)], stdin=subprocess.PIPE, text=True, cwd=root) for rank in range(1, size)
        ]
        self.ranks = join(self.folder.name, size, 0)

    def convolve(self, it: Convolution, u: Tensor, k: Tensor) -> Tensor:
        """This rank's shard of y, while the others work on theirs; where gradients are on they go on to those."""
        line = json.dumps({"it": it, "backward": torch.is_grad_enabled()})
        for process in self.processes:
            assert process.stdin is not None
            print(line, file=process.stdin, flush=True)
        return it(u, k, self.ranks)

    def close(self) -> None:
        """End them."""
        for process in self.processes:
            process.kill()
            process.communicate()
        dist.destroy_process_group()
        self.folder.cleanup()


_here: dict[int, Others] = {}


def others(size: int) -> Others:
    """Those of a group of so many, which stay until another group is asked for."""
    if size not in _here:
        close()
        _here[size] = Others(size)
    return _here[size]


@atexit.register
def close() -> None:
    """End all other ranks."""
    while _here:
        _here.popitem()[1].close()


def join(folder: str, size: int, rank: int) -> Ranks:
    """The group, once all are there."""
    store = dist.FileStore(str(Path(folder) / "store"), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    return Ranks(timeout=SECONDS)


@functools.lru_cache(maxsize=1)
def _own(it: Convolution, rank: int) -> tuple[Tensor, Tensor]:
    u, k = it.shards()[rank]
    return u.clone(), k.clone()


def main(words: Sequence[str]) -> None:
    """Convolve what rank 0 says, until it is gone. The gradients that they start from are 0."""
    folder, size, rank = words[0], int(words[1]), int(words[2])
    torch.set_num_threads(1)
    ranks = join(folder, size, rank)
    for line in sys.stdin:
        task = json.loads(line)
        it = Convolution(*task["it"])
        u, k = (tensor.detach().requires_grad_(task["backward"]) for tensor in _own(it, rank))
        with torch.set_grad_enabled(task["backward"]):
            y = it(u, k, ranks)
            if task["backward"]:
                torch.autograd.grad(y, (u, k), torch.zeros_like(y))


if __name__ == "__main__":
    main(sys.argv[1:])
