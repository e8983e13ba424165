"""Causal convolution online: exactly for any filter, and at a constant cost a sample for those of few modes.

:class:`ModalConv` is for filters of few modes, k[l] = 2 Re sum_n c_n a_n^l; :class:`OnlineConv` for all others.

A stream is cut into blocks of S samples. With S_p = 2^p S, the lags of a filter are shared out among levels:

    level 0     lags [0, 2 S)       within a block sample by sample, from the blocks before by a short FFT a block
    level p     lags [S_p, 2 S_p)   the outputs [e, e + S_p) from the samples [e - 2 S_p, e), by FFTs of 2 S_p

Level p is due once in 2^p blocks: O(L log^2 L) for L samples. All channels at one time would make some steps as slow as
a whole forward pass, so every channel has a clock of its own: level p is cut into pieces of neighbouring channels whose
times e differ, and a part 1 / 2^p of the channels is due in each block. A piece of level p is due only when that piece
of level p - 1 is that holds its channels: samples go up from level to level, sums of outputs come down, and a step
touches those channels alone that are due.

Few channels can't share out the work like that. Their blocks are transformed into products of S numbers each, so that
the stream goes on block by block as one of 3 S times as many channels.

A long chunk is taken as a whole, by one convolution, and a second one gives its tail: all that the samples before its
end o add to the outputs from o on. The levels then begin anew with the samples from o on, and take up the old ones
where the tail ends.

References:
    Fast On-line Integer Multiplication (Fischer, Stockmeyer, 1974)
    Relax, but Don't be Too Lazy (van der Hoeven, 2002)
    Flash Inference: Near Linear Time Inference for Long Convolution Sequence Models and Beyond (Oncescu, Purandare,
    Idreos, Kakade, arXiv 2410.12982)
"""

from longconv.streaming.modal import ModalConv, ModalState
from longconv.streaming.online import OnlineConv
from longconv.streaming.state import OnlineState, StreamConv

__all__ = ["ModalConv", "ModalState", "OnlineConv", "OnlineState", "StreamConv"]
