"""Sequences longer than a device holds: operators on sequences that are cut along time, a shard a rank.

================  ======================================================================================
fft_conv          long convolution, by channels, by neighbours or in four steps
short_conv        causal convolution with a few taps a channel: the samples before a shard come from its neighbours
linear_scan       states of h[t] = a[t] h[t-1] + b[t]: ranks tell each other the states at their ends
================  ======================================================================================

Launch with ``torchrun --nproc-per-node 4 program.py``, which calls ``torch.distributed.init_process_group`` ("gloo" on
the CPU, "nccl" on the GPU) and gives every rank its shard. All ranks make the same calls in the same order.
"""

from longconv.distributed.cost import MACHINES, Call, Cost, Machine, choose, cost
from longconv.distributed.fft_conv import fft_conv
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
    "choose",
    "cost",
    "fft_conv",
    "linear_scan",
    "short_conv",
]
