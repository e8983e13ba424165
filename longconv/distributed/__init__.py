"""Sequences longer than a device holds: operators on sequences that are cut along time, a shard a rank.

================  ======================================================================================
fft_conv          long convolution, by channels, by neighbours or in four steps
short_conv        causal convolution with a few taps a channel: the samples before a shard come from its neighbours
linear_scan       states of h[t] = a[t] h[t-1] + b[t]: ranks tell each other the states at their ends
================  ======================================================================================

Mixers, backbones and models run on such sequences within :func:`sequence_parallel`.

All ranks make the same calls in the same order, each with its shard, and each later runs the backward pass. A program
that says so is launched with as many processes as there are ranks, on one node or on each of several:

    torchrun --standalone --nproc-per-node 4 program.py
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 program.py

and begins with ``torch.distributed.init_process_group``: "gloo" on the CPU; "cpu:gloo,cuda:nccl" on the GPU, after
``torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))`` (with "nccl" alone too, but then every call waits for the GPU,
by which the ranks agree on it). ``group=`` says which ranks hold a sequence: a process group,
one dimension of a ``DeviceMesh`` (``mesh["sequence"]``, beside one of data-parallel replicas), or a :class:`Ranks`,
which also has the time to wait for the others and the figures of the machine; without it, all ranks.

Arguments that are wrong on one rank, or don't fit those of the others, are the same kind of error on all of them, which
says who has what; the group goes on to be of use. A rank that raises by itself, is killed or hangs is a
:class:`RankError` on the others, at once or after the timeout: end the program, and torchrun ends all of it.
"""

from longconv.distributed.context import SequenceShard, sequence_parallel
from longconv.distributed.cost import MACHINES, Call, Cost, Machine, choose, cost
from longconv.distributed.fft_conv import fft_conv
from longconv.distributed.gradients import average_gradients
from longconv.distributed.linear_scan import linear_scan
from longconv.distributed.ranks import RankError, Ranks
from longconv.distributed.short_conv import short_conv

__all__ = [
    "MACHINES",
    "Call",
    "Cost",
    "Machine",
    "RankError",
    "Ranks",
    "SequenceShard",
    "average_gradients",
    "choose",
    "cost",
    "fft_conv",
    "linear_scan",
    "sequence_parallel",
    "short_conv",
]
