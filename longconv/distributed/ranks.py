"""The ranks that hold a sequence together: who they are, what they send each other, and how long they wait.

Whatever goes from rank to rank goes through :meth:`Ranks.start`, an all-to-all of bytes: any dtype travels unchanged,
no arithmetic happens under way, and one place knows what a rank that fails or hangs looks like to the others.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Union

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.distributed_c10d import AllToAllOptions

from longconv._checks import check_real, describe
from longconv.distributed.cost import Machine

TIMEOUT = 300.0
"""Seconds that a rank waits for the others unless it is told another time."""

Group = Union[ProcessGroup, DeviceMesh, "Ranks", None]
"""What says which ranks hold a sequence; None: all of them."""


class RankError(RuntimeError):
    """Another rank has failed, has left or hangs: the group can't go on."""


class Ranks:
    """The ranks of a group, in the order in which their shards make the sequence.

    Args:
        group: a process group, a ``DeviceMesh`` of one dimension (``mesh["sequence"]`` of a larger one), or None for
            all ranks.
        timeout: seconds that a rank waits for the others before it raises a :class:`RankError`. With NCCL it is those
            at the beginning of a call, where the ranks agree on it. Later the GPU waits, not the process, and the
            timeout of the group itself counts, the one that ``init_process_group`` is given, after which NCCL ends
            the process.
        machine: what the ranks can do, by which ``method="auto"`` chooses; None: the figures of
            :data:`longconv.distributed.MACHINES`.

    Attributes:
        rank: the number of this process in the group.
        size: the number of ranks.
        sent: bytes that this process has sent to the others through this object.

    Raises:
        RuntimeError: there is no process group.
        TypeError: ``group`` or ``machine`` is something else.
        ValueError: a mesh of several dimensions, a group without this process, or a timeout that isn't positive.

    >>> store = torch.distributed.HashStore()
    >>> torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    >>> Ranks(timeout=60)
    Ranks(rank=0, size=1, timeout=60)
    >>> torch.distributed.destroy_process_group()
    """

    def __init__(
        self,
        group: ProcessGroup | DeviceMesh | None = None,
        *,
        timeout: float = TIMEOUT,
        machine: Machine | None = None,
    ) -> None:
        self.timeout = check_real("timeout", timeout, least=0, open_least=True)
        if not (dist.is_available() and dist.is_initialized()):
            raise RuntimeError(
                "there is no process group: start the program with torchrun and call torch.distributed."
                "init_process_group first"
            )
        self.group = _process_group(group)
        self.rank, self.size = dist.get_rank(self.group), dist.get_world_size(self.group)
        if machine is not None and not isinstance(machine, Machine):
            raise TypeError(f"machine is {describe(machine)}, expected a Machine or None")
        self.machine, self.sent = machine, 0
        if self.rank < 0:
            raise ValueError(f"group is {describe(group)}, which this process (rank {dist.get_rank()}) is no member of")

    @classmethod
    def of(cls, group: Group) -> Ranks:
        """The ranks that ``group`` stands for, or is."""
        return group if isinstance(group, Ranks) else cls(group)

    def __repr__(self) -> str:
        return f"Ranks(rank={self.rank}, size={self.size}, timeout={self.timeout:g})"

    def start(self, sent: Tensor, counts: Sequence[int], arriving: Sequence[int]) -> tuple[Tensor, Any]:
        """Begin to send ``counts[j]`` numbers of the vector ``sent`` to each rank j.

        Returns:
            The vector of what arrives, ``arriving[i]`` numbers from each rank i, and what :meth:`wait` takes; before
            that neither vector may be touched.
        """
        received = sent.new_empty(sum(arriving))
        width, options = sent.element_size(), AllToAllOptions()
        options.asyncOp, options.timeout = True, timedelta(seconds=self.timeout)
        try:
            work = self.group.alltoall_base(  # dist.all_to_all_single has the group's timeout, and ends no sooner
                received.view(torch.uint8),
                sent.view(torch.uint8),
                [width * count for count in arriving],
                [width * count for count in counts],
                options,
            )
        except RuntimeError as error:
            raise self._lost(error) from error
        self.sent += width * (sum(counts) - counts[self.rank])
        return received, (work, sent)

    def wait(self, pending: Any) -> None:
        """Wait for what :meth:`start` began; on the GPU the stream waits, not the process."""
        work, sent = pending
        try:
            if sent.is_cuda:
                work.wait()
            else:
                work.wait(timedelta(seconds=self.timeout))
        except RuntimeError as error:
            raise self._lost(error) from error

    def watch(self, pending: Any) -> None:
        """Have the process wait for what :meth:`start` began, on the GPU too, where NCCL wouldn't look at the time."""
        work, _ = pending
        deadline = time.monotonic() + self.timeout
        while not work.is_completed():
            if time.monotonic() > deadline:
                raise self._lost(RuntimeError("they don't answer"))
            time.sleep(1e-4)

    def gather(self, message: bytes, size: int) -> list[bytes]:
        """The messages of all ranks, of at most ``size`` bytes each and without zeros at their ends."""
        device = "cuda" if dist.get_backend(self.group) == "nccl" else "cpu"
        message = message[:size].ljust(size, b"\0")
        sent = torch.frombuffer(bytearray(message * self.size), dtype=torch.uint8).to(device)
        received, pending = self.start(sent, [size] * self.size, [size] * self.size)
        if sent.is_cuda:
            self.watch(pending)
        self.wait(pending)
        return [bytes(part.tolist()).rstrip(b"\0") for part in received.cpu().split(size)]

    def _lost(self, error: RuntimeError) -> RankError:
        cause = " ".join(str(error).split())
        return RankError(
            f"rank {self.rank} of {self.size} has lost the others: one of them has failed, has ended or has not come "
            f"to the same call within {self.timeout:g} s; what it says itself stands in its own output ({cause[:200]})"
        )


def _process_group(group: ProcessGroup | DeviceMesh | None) -> ProcessGroup:
    if group is None:
        world = dist.group.WORLD
        assert world is not None
        return world
    if isinstance(group, DeviceMesh):
        if group.ndim != 1:
            raise ValueError(
                f"group is a DeviceMesh of {group.ndim} dimensions {group.mesh_dim_names}, expected one: name the "
                "dimension of the sequence, such as mesh['sequence']"
            )
        return group.get_group()
    if not isinstance(group, ProcessGroup):
        raise TypeError(f"group is {describe(group)}, expected a ProcessGroup, a DeviceMesh, a Ranks or None")
    return group
