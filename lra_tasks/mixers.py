"""The mixers that a task can train with, and their options."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from longconv.mixers import MIXERS, Mixer, list_mixers, mixer_defaults
from longconv.models import BASELINES, SEQUENCE_BASELINES, VIDEO_MIXERS
from lra_tasks.data import VIDEO_TASKS


def list_mixers_of(task: str) -> list[str]:
    """The names of the mixers for a task: those of sequences or those of video.

    >>> "s4d" in list_mixers_of("smnist"), list_mixers_of("moving_mnist")
    (True, ['conv_s5', 'conv_lstm', 'frame_attention'])
    """
    return list(VIDEO_MIXERS) if task in VIDEO_TASKS else [*list_mixers(video=False), *SEQUENCE_BASELINES]


def class_of(mixer: str) -> type[Mixer]:
    """The class of a mixer or of one to compare with."""
    return {**MIXERS, **BASELINES, **SEQUENCE_BASELINES}[mixer]


def defaults_of(mixer: str) -> dict[str, Any]:
    """The options of such a mixer with their defaults."""
    if mixer in MIXERS:
        return mixer_defaults(mixer)
    found = inspect.signature(class_of(mixer)).parameters
    return {name: p.default for name, p in found.items() if p.default is not inspect.Parameter.empty}


def refuse_the_future(model: nn.Module, reason: str, remedy: str) -> None:
    """Raise a ValueError that names the option by which a mixer of the model sees later inputs."""
    for module in model.modules():
        for option, value in (("bidirectional", True), ("causal", False)):
            if isinstance(module, Mixer) and getattr(module, option, None) is value:
                raise ValueError(f"mixer_options.{option} is {value}, but {reason}: choose {remedy}, or a causal mixer")
