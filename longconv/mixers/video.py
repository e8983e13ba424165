"""What every mixer of video is.

Shapes: B batch, T frames, C = d_model features, H height, W width.
"""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from longconv import _sequence
from longconv._checks import FLOATS, check_device, check_shape, check_tensor, describe
from longconv.mixers.base import Mixer, State

FRAMES = "(B, T, C, H, W)"


class VideoMixer(Mixer):
    """A module that mixes video along time, (B, T, C, H, W) -> (B, T, C, H, W), C = d_model.

    The law of :class:`~longconv.mixers.Mixer` holds with frames (B, C, H, W) in the place of samples (B, D). A state
    of ``init_state`` fits frames of any size, until the first of them sets it.
    """

    def step(self, u_t: Tensor, state: State) -> tuple[Tensor, State]:
        """One frame: u_t (B, C, H, W) and the state before it -> y_t (B, C, H, W) and the state after it.

        Raises:
            NotImplementedError: the mixer can't stream, with the reason.
        """
        self._require_streaming()
        _sequence.require_whole("a step is one frame, of which there are no shards")
        check_tensor("u_t", u_t, "(B, C, H, W)", ndim=4, dtypes=FLOATS)
        check_shape("u_t", u_t, (None, self.d_model, None, None), "(B, C, H, W)")
        self._check_dtype("u_t", u_t)
        return self._step(u_t, state)

    def filter(self, length: int) -> Tensor:
        """A video mixer has no taps of numbers."""
        raise NotImplementedError(
            f"{type(self).__name__} has no filter of numbers: what lies between two frames are convolutions over them"
        )

    def _check_input(self, u: Tensor, lengths: Tensor | None) -> None:
        _sequence.check_mixer(self)
        if isinstance(u, Tensor) and u.ndim == 3:
            raise ValueError(
                f"u is {describe(u)}, but {type(self).__name__} mixes video: expected shape {FRAMES} with C = "
                f"{self.d_model}; for sequences (B, L, D) take another mixer, such as 's5'"
            )
        check_tensor("u", u, f"{FRAMES} with C = {self.d_model}", ndim=5, dtypes=FLOATS)
        if u.shape[2] != self.d_model:
            self._refuse_size(u)
        self._check_dtype("u", u)
        if lengths is not None:
            check_tensor("lengths", lengths, "(B,)", ndim=1, dtypes=(torch.int64, torch.int32))
            check_shape("lengths", lengths, (u.shape[0],), "(B,)")
            check_device("lengths", lengths, "u", u)

    def _refuse_size(self, u: Tensor) -> NoReturn:
        hints = {1: "(B, C, T, H, W): transpose axes 1 and 2", 4: "(B, T, H, W, C): move its last axis to place 2"}
        hint = next((f" (it looks like {text})" for axis, text in hints.items() if u.shape[axis] == self.d_model), "")
        raise ValueError(f"u is {describe(u)}, expected shape {FRAMES} = (any, any, {self.d_model}, any, any){hint}")
