"""Mixers: modules that mix along the sequence, (B, L, D) -> (B, L, D), or video along time; one thin file a paper."""

from __future__ import annotations

import inspect
from typing import Any

from longconv._checks import check_choice, check_options
from longconv.mixers.base import ConvolutionMixer, FilterMixer, Mixer
from longconv.mixers.conv_s5 import ConvS5
from longconv.mixers.convert import load_s4
from longconv.mixers.dss import DSS
from longconv.mixers.hyena import Hyena
from longconv.mixers.long_conv import LongConv
from longconv.mixers.lssl import LSSL
from longconv.mixers.orchid import Orchid
from longconv.mixers.s4 import S4
from longconv.mixers.s4d import S4D
from longconv.mixers.s5 import S5
from longconv.mixers.sgconv import SGConv
from longconv.mixers.video import VideoMixer

__all__ = [
    "DSS",
    "LSSL",
    "MIXERS",
    "S4",
    "S4D",
    "S5",
    "ConvS5",
    "ConvolutionMixer",
    "FilterMixer",
    "Hyena",
    "LongConv",
    "Mixer",
    "Orchid",
    "SGConv",
    "VideoMixer",
    "create_mixer",
    "list_mixers",
    "load_s4",
    "mixer_defaults",
    "mixer_options",
]

MIXERS: dict[str, type[Mixer]] = {
    "s4": S4,
    "s4d": S4D,
    "lssl": LSSL,
    "s5": S5,
    "dss": DSS,
    "sgconv": SGConv,
    "long_conv": LongConv,
    "hyena": Hyena,
    "orchid": Orchid,
    "conv_s5": ConvS5,
}
"""Every mixer by name; a new one is one row."""


def list_mixers(*, video: bool | None = None) -> list[str]:
    """The names that :func:`create_mixer` takes: those of sequences, those of video, or (None) all.

    >>> "s4d" in list_mixers(), list_mixers(video=True)
    (True, ['conv_s5'])
    """
    return [name for name, mixer in MIXERS.items() if video is None or issubclass(mixer, VideoMixer) == video]


def mixer_options(name: str) -> list[str]:
    """The options of a mixer.

    >>> "d_state" in mixer_options("s4d")
    True
    """
    return list(mixer_defaults(name))


def mixer_defaults(name: str) -> dict[str, Any]:
    """The options of a mixer with their defaults, those that it hands on to its parts behind its own.

    >>> mixer_defaults("hyena")["order"], mixer_defaults("hyena")["emb_dim"]
    (2, 3)
    """
    mixer = MIXERS[check_choice("name", name, list_mixers())]
    found: dict[str, Any] = {}
    for kind in (mixer, *mixer.handed_on):
        for option, parameter in inspect.signature(kind).parameters.items():
            if parameter.default is not inspect.Parameter.empty:
                found.setdefault(option, parameter.default)
    return found


def create_mixer(name: str, d_model: int, **options: Any) -> Mixer:
    """A mixer by name.

    Args:
        name: one of :func:`list_mixers`.
        d_model: D, features.
        **options: the mixer's own; see its class, or :func:`mixer_options`.

    Raises:
        ValueError: an unknown name, with the nearest.
        TypeError: an unknown option, with the nearest.

    >>> create_mixer("s4d", 16, d_state=32).filter(100).shape
    torch.Size([1, 16, 100])
    >>> create_mixer("s4d", 16, d_stat=32)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    TypeError: mixer 's4d' has no option 'd_stat'; did you mean 'd_state' ...
    """
    known = mixer_options(name)
    check_options(f"mixer {name!r}", options, known)
    return MIXERS[name](d_model, **options)
