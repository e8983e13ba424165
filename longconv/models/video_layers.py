"""Residual layers of video mixers over latent frames, and their streams.

Symbols: B batch, T frames; D features of a latent frame, h x w its size.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from longconv._checks import check_bool, check_choice, check_int, check_options, check_states
from longconv.mixers import MIXERS, VideoMixer, list_mixers
from longconv.mixers.frames import EPS
from longconv.models.baselines import BASELINES
from longconv.models.blocks import Block, Residual
from longconv.models.drop import active_drop
from longconv.models.hub import HubModel

VIDEO_MIXERS: dict[str, type[VideoMixer]] = {
    **{name: cast(type[VideoMixer], MIXERS[name]) for name in list_mixers(video=True)},
    **BASELINES,
}
"""The mixers of video by name: the library's, and those to compare with."""


class PixelMixer(nn.Module):
    """A video mixer over frames with their features in the last axis, as norms want them.

    Args:
        mixer: (B, T, D, h, w) -> (B, T, D, h, w).
    """

    def __init__(self, mixer: VideoMixer) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, T, h, w, D) -> (B, T, h, w, D)."""
        return self.mixer(x.movedim(-1, 2), lengths).movedim(2, -1)

    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One frame (B, h, w, D), with the state in and out."""
        y, state = self.mixer.step(x_t.movedim(-1, 1), state)
        return y.movedim(1, -1), state

    def prefill(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """A chunk (B, T, h, w, D), with the state in (None: the start) and out."""
        y, state = self.mixer.prefill(x.movedim(-1, 2), state)
        return y.movedim(2, -1), state


class VideoModel(HubModel):
    """What models of video share: residual layers of a video mixer between a way in and a way out. Abstract.

    A subclass sets ``layers``, from :func:`residual_layers`.
    """

    layers: nn.ModuleList

    def init_state(
        self, batch_size: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> tuple[Any, ...]:
        """The state before the first frame: one mixer's state a layer."""
        mixers = [module for module in self.modules() if isinstance(module, VideoMixer)]
        return tuple(mixer.init_state(batch_size, device=device, dtype=dtype) for mixer in mixers)

    def _mix(self, x: Tensor) -> Tensor:
        """(B, T, h, w, D) -> (B, T, h, w, D)."""
        for layer in self.layers:
            x = layer(x)
        return x

    def _stream(self, by: Literal["step", "prefill"], x: Tensor, state: object) -> tuple[Tensor, tuple[Any, ...]]:
        """A frame (B, h, w, D) by ``step``, or a chunk (B, T, h, w, D) by ``prefill``, with the state in and out."""
        if any(active_drop(module) for module in self.modules()):
            raise NotImplementedError(
                "this model can't stream: dropout in training mode draws other masks for each chunk; call .eval() first"
            )
        return self._advance(by, x, state)

    def _advance(self, by: Literal["step", "prefill"], x: Tensor, state: object) -> tuple[Tensor, tuple[Any, ...]]:
        """The same where dropout may be active, for training, in which every frame has masks of its own."""
        start = by == "prefill" and state is None
        given = [None] * len(self.layers) if start else check_states(state, len(self.layers))
        states = []
        for layer, before in zip(self.layers, given, strict=True):
            x, after = getattr(layer, by)(x, before)
            states.append(after)
        return x, tuple(states)


def residual_layers(
    n_layers: int,
    d_model: int,
    mixer: str,
    mixer_options: Mapping[str, Any],
    *,
    norm: str,
    prenorm: bool,
    dropout: float,
) -> nn.ModuleList:
    """Residual layers (B, T, h, w, D) -> (B, T, h, w, D) of a video mixer, with a norm before or after each.

    Args:
        n_layers: their number.
        d_model: D.
        mixer: name of the mixer, one of ``VIDEO_MIXERS``.
        mixer_options: its options.
        norm: "layer" or "rms", over the features of a pixel.
        prenorm: whether the norm comes before its mixer or after the sum.
        dropout: probability of the dropout on each branch.
    """
    kind = VIDEO_MIXERS[check_choice("mixer", mixer, list(VIDEO_MIXERS))]
    check_options(f"mixer {mixer!r}", mixer_options, list(inspect.signature(kind).parameters)[1:])
    check_choice("norm", norm, ("layer", "rms"))
    return nn.ModuleList(
        Block(
            cast(Any, PixelMixer(kind(d_model, **mixer_options))),
            Residual(
                d_model,
                norm=norm,
                prenorm=check_bool("prenorm", prenorm),
                dropout=dropout,
                tie_dropout=False,
                drop_path=0.0,
                norm_eps=EPS,
            ),
        )
        for _ in range(check_int("n_layers", n_layers))
    )
