"""One row for every mixer: a row puts it through all of tests/mixers/test_contract.py and test_machinery.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from longconv import create_mixer, mixers
from longconv.mixers import ConvS5, FilterMixer, Mixer, VideoMixer
from longconv.models import ConvLSTM, FrameAttention

D_MODEL = 5


@dataclass(frozen=True)
class Row:
    """A mixer in the sizes that tests use.

    Attributes:
        options: options of every variant.
        variants: further options by the variant's name; a variant without any is always there.
        streams: whether the causal variants stream.
    """

    options: Mapping[str, Any]
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    streams: bool = False


BOTH_WAYS = {"bidirectional": {"bidirectional": True, "channels": 2}}
L_MAX = 16

MIXERS: dict[str, Row] = {
    "s4": Row(
        {"d_state": 8, "dt_min": 0.01},
        {
            "legt-2": {"init": "legt", "rank": 2, "channels": 2},
            "fourier-linear": {"init": "fourier", "activation": "silu", "output": "linear", "b_clip": None},
            "untied-rank-3": {"dt_tied": False, "rank": 3},
            "foud": {"init": "foud", "activation": None, "output": None},
            **BOTH_WAYS,
        },
        streams=True,
    ),
    "s4d": Row(
        {"d_state": 8, "dt_min": 0.01, "l_max": L_MAX},
        {
            "legs-bilinear": {"init": "legs", "discretization": "bilinear"},
            "inv-dss-2": {"init": "inv", "discretization": "dss", "channels": 2},
            "untied-linear": {"dt_tied": False, "activation": "silu", "output": "linear"},
            **BOTH_WAYS,
        },
        streams=True,
    ),
    "lssl": Row(
        {"d_state": 8, "dt_min": 0.01},
        {
            "trained-backward": {"trainable_A": True, "alpha": 1.0, "channels": 2},
            "fixed-legt": {"trainable_dt": False, "init": "legt", "output": "glu", "activation": "tanh"},
            **BOTH_WAYS,
        },
        streams=True,
    ),
    "s5": Row(
        {"d_state": 8, "dt_min": 0.01},
        {
            "bilinear-blocks": {"discretization": "bilinear", "blocks": 2, "output": "glu", "activation": "gelu"},
            "all-modes": {"conj_sym": False, "output": "half_glu2", "init": "legt"},
            "clip-plain": {"clip": True, "output": None, "activation": None},
            "bidirectional": {"bidirectional": True, "output": "linear"},
        },
        streams=True,
    ),
    "dss": Row(
        {"d_state": 8, "dt_min": 0.01, "l_max": L_MAX},
        {
            "exp": {"variant": "exp", "separate_dt": False},
            "re-im-2": {"variant": "exp-re-im-no-scale", "init": "quad", "channels": 2, "output": "glu"},
            "clip-inv": {"variant": "clip", "init": "inv", "activation": "relu"},
            **BOTH_WAYS,
        },
        streams=True,
    ),
    "sgconv": Row(
        {"l_max": L_MAX, "kernel_dim": 4},
        {
            "learnable": {"mode": "learnable", "decay_min": 0.5, "decay_max": 1.0},
            "sum": {"mode": "sum"},
            "nearest-decays": {"mode": "nearest", "decay_min": 1.0, "decay_max": 3.0},
            "cos": {"mode": "cos", "decay_min": 0.5, "decay_max": 2.0, "activation": "silu"},
            "norm-glu": {"norm": "layer", "output": "glu", "channels": 2, "init_scale": 1, "scales": 2},
            "scalar-norm": {"norm": "scalar_layer"},
            **BOTH_WAYS,
        },
        streams=True,
    ),
    "long_conv": Row(
        {"l_max": L_MAX, "init": "double_exp"},
        {
            "smooth": {"smoothing": "time", "smooth_window": 3, "channels": 2},
            "frequency": {"smoothing": "frequency", "output": None},
            "butterfly": {"transform": "butterfly"},
            "butterfly-bidirectional": {"transform": "butterfly", "bidirectional": True, "channels": 2},
            **BOTH_WAYS,
        },
        streams=True,
    ),
    "hyena": Row(
        {"l_max": L_MAX, "width": 8, "w": 4.0},
        {
            "order-4-gelu": {"order": 4, "activation": "gelu", "short_filter": 1, "shift": 0.1},
            "one-head": {
                "heads": 1,
                "order": 3,
                "emb_dim": 7,
                "num_inner_mlps": 0,
                "normalized": True,
                "modulate": False,
            },
            "outer-product": {"heads": 1, "outer_product": True},
            "bidirectional": {"bidirectional": True, "order": 3},
        },
        streams=True,
    ),
    "orchid": Row(
        {"l_max": L_MAX, "width": 8, "w": 4.0},
        {
            "correlation": {"conditioning": "correlation", "query_activation": "tanh", "kernel_width": 4},
            "spectrum": {"conditioning": "spectrum", "stages": "second", "layers": 2, "residual": False},
            "circular": {"causal": False},
            "circular-fft": {"causal": False, "transform": "fft", "conditioning": "correlation", "padding": "reflect"},
            "circular-dct": {"causal": False, "transform": "dct", "padding": "circular", "layers": 2},
            "circular-dct1": {
                "causal": False,
                "transform": "dct1",
                "conditioning": "correlation",
                "query_activation": "sigmoid",
                "query_magnitude": True,
                "short_filter": 1,
            },
        },
        streams=True,
    ),
}
"""By the name that ``create_mixer`` takes."""


@dataclass(frozen=True)
class Case:
    """One variant of a mixer."""

    mixer: str
    variant: str
    options: Mapping[str, Any]
    streams: bool

    def __str__(self) -> str:
        return f"{self.mixer}-{self.variant}"

    @property
    def bidirectional(self) -> bool:
        """Whether an output depends on the future too."""
        return _looks_ahead(self.options)

    @property
    def learned(self) -> bool:
        """Whether the mixer's convolution goes through a transform that is trained to something else."""
        return _is_learned(self.options)

    @property
    def time_invariant(self) -> bool:
        """Whether the mixer has a filter that doesn't depend on the input."""
        return mixers.MIXERS[self.mixer].filter is not Mixer.filter

    def build(self, dtype: torch.dtype = torch.float64, *, d_model: int = D_MODEL, seed: int = 0) -> Mixer:
        """A new mixer with parameters that depend on the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            mixer = create_mixer(self.mixer, d_model, **self.options)
            if self.learned:
                assert isinstance(mixer, mixers.LongConv) and mixer.butterfly is not None
                for parameter in mixer.butterfly.parameters():  # as training leaves them
                    parameter.data += 0.1 * torch.randn_like(parameter)
            return mixer.to(dtype)


def _looks_ahead(options: Mapping[str, Any]) -> bool:
    return bool(options.get("bidirectional", False)) or not options.get("causal", True)


def _is_learned(options: Mapping[str, Any]) -> bool:
    return options.get("transform") == "butterfly"


def _cases() -> list[Case]:
    return [
        Case(mixer, variant, options, row.streams and not _looks_ahead(options) and not _is_learned(options))
        for mixer, row in MIXERS.items()
        for variant, more in {"default": {}, **row.variants}.items()
        for options in [{**row.options, **more}]
    ]


MIXER_CASES = _cases()
"""Every variant of every mixer."""

LENGTH = 2 * L_MAX + 5
"""Longer than the l_max of every row, and odd."""
CHAIN = 1e-11
"""Relative L2 error in float64 of a whole mixer, computed two ways."""

every_mixer = pytest.mark.parametrize("case", MIXER_CASES, ids=str)
filter_mixers = pytest.mark.parametrize(
    "case", [case for case in MIXER_CASES if issubclass(mixers.MIXERS[case.mixer], FilterMixer)], ids=str
)
invariant_mixers = pytest.mark.parametrize("case", [case for case in MIXER_CASES if case.time_invariant], ids=str)
default_mixers = pytest.mark.parametrize("case", [case for case in MIXER_CASES if case.variant == "default"], ids=str)
streaming_mixers = pytest.mark.parametrize("case", [case for case in MIXER_CASES if case.streams], ids=str)
other_mixers = pytest.mark.parametrize("case", [case for case in MIXER_CASES if not case.streams], ids=str)


def sequence(
    batch: int = 3, length: int = LENGTH, *, dtype: torch.dtype = torch.float64, d_model: int = D_MODEL
) -> Tensor:
    """The same random input (B, L, D) every time."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, length, d_model, generator=generator, dtype=torch.float64).to(dtype)


# --- video ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VideoCase:
    """One variant of a video mixer: a row puts it through all of tests/mixers/test_video_contract.py."""

    mixer: str
    variant: str
    create: Callable[..., VideoMixer]
    options: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.mixer}-{self.variant}"

    def build(self, dtype: torch.dtype = torch.float64, *, d_model: int = D_MODEL, seed: int = 0) -> VideoMixer:
        """A new mixer with parameters that depend on the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.create(d_model, **self.options).to(dtype)


VIDEO_MIXERS: dict[str, tuple[Callable[..., VideoMixer], Mapping[str, Mapping[str, Any]]]] = {
    "conv_s5": (
        ConvS5,
        {
            "default": {"d_state": 8, "dt_min": 0.01},
            "standard-excite": {"d_state": 8, "dt_min": 0.05, "output": "standard", "squeeze_excite": True},
            "resnet-excite": {"d_state": 4, "squeeze_excite": True, "activation": "silu", "groups": 1},
            "glu-bilinear": {"d_state": 8, "output": "half_glu", "discretization": "bilinear", "b_kernel": 1},
            "plain-blocks": {"d_state": 8, "output": None, "blocks": 2, "c_kernel": 1, "init": "legt", "clip": False},
        },
    ),
    "conv_lstm": (ConvLSTM, {"default": {}}),
    "frame_attention": (FrameAttention, {"default": {"heads": 1, "expansion": 2}}),
}
"""By the mixer's name: what makes it, and its variants."""

VIDEO_CASES = [
    VideoCase(mixer, variant, create, options)
    for mixer, (create, variants) in VIDEO_MIXERS.items()
    for variant, options in variants.items()
]
every_video_mixer = pytest.mark.parametrize("case", VIDEO_CASES, ids=str)

FRAMES, SIZE = 37, (4, 3)


def video(
    batch: int = 3,
    frames: int = FRAMES,
    *,
    size: tuple[int, int] = SIZE,
    dtype: torch.dtype = torch.float64,
    d_model: int = D_MODEL,
) -> Tensor:
    """The same random video (B, T, C, H, W) every time."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, frames, d_model, *size, generator=generator, dtype=torch.float64).to(dtype)
