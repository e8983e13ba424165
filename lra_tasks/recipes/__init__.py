"""Recipes: the settings of a run by task, mixer and preset.

A new task gets a row in :mod:`lra_tasks.recipes.quick` and, where its papers give settings, in
:mod:`lra_tasks.recipes.paper`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from longconv._checks import check_choice
from lra_tasks.data import TASKS, create_task
from lra_tasks.mixers import defaults_of
from lra_tasks.recipes.paper import PAPER
from lra_tasks.recipes.pretraining import for_pretraining
from lra_tasks.recipes.quick import ENCODER, QUICK
from lra_tasks.recipes.settings import (
    ModelSettings,
    OptimizerSettings,
    Preset,
    PretrainingSettings,
    Recipe,
    TrainerSettings,
    VideoSettings,
)

__all__ = [
    "DEFAULT_MIXERS",
    "DEFAULT_PRESET",
    "ModelSettings",
    "OptimizerSettings",
    "Preset",
    "PretrainingSettings",
    "Recipe",
    "TrainerSettings",
    "VideoSettings",
    "create_recipe",
    "for_pretraining",
    "length_of",
    "list_presets",
    "sources_of",
]

DEFAULT_PRESET = "quick"
DEFAULT_MIXERS = {
    "smnist": "s4d",
    "pmnist": "s4d",
    "fashion": "s4d",
    "image": "s4d",
    "scifar": "s4d",
    "listops": "s4d",
    "text": "s4d",
    "retrieval": "s4d",
    "spam": "s4d",
    "pathfinder32": "s4d",
    "pathfinder64": "s4d",
    "pathx": "s4d",
    "path256": "s4d",
    "path512": "s4d",
    "sc10": "s4d",
    "sc10-half": "s4d",
    "sc10-mfcc": "s4d",
    "sc35": "s4d",
    "sc35-8k": "s4d",
    "espeak35": "s4d",
    "associative_recall": "hyena",
    "moving_mnist": "conv_s5",
    "dmlab": "conv_s5",
    "minecraft": "conv_s5",
    "habitat": "conv_s5",
}
_PRESETS = {"quick": QUICK, "encoder": ENCODER, "paper": PAPER}


def list_presets(task: str) -> tuple[str, ...]:
    """The presets that a task has.

    >>> list_presets("smnist"), list_presets("listops")
    (('quick',), ('quick', 'paper'))
    """
    return tuple(name for name, tasks in _PRESETS.items() if task in tasks)


def sources_of(task: str) -> dict[str, str]:
    """Where the settings of the preset ``paper`` of a task are published, by mixer; empty where it has none.

    >>> sources_of("sc35")["s5"]
    'github.com/lindermanlab/S5, bin/run_experiments/run_speech35.sh (arXiv:2208.04933)'
    """
    return dict(PAPER[task].sources) if task in PAPER else {}


def create_recipe(task: str, mixer: str, preset: str = DEFAULT_PRESET, data: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of a task with a mixer; a mixer's ``l_max`` is the length of the data where the preset does not say.

    That is the length with the options ``data`` of the task in place of the preset's; the recipe keeps the preset's.
    Where a preset's mixers are bidirectional, one that has the option ``causal`` in place of ``bidirectional`` isn't.

    Raises:
        ValueError: the task has no such preset, or the preset none for the mixer; it names those that exist.

    >>> create_recipe("pathfinder32", "s4d", "paper").mixer_options["d_state"]
    64
    """
    check_choice("preset", preset, list_presets(task))
    entry = _PRESETS[preset][task]
    if entry.only_named:
        check_choice(f"mixer (preset {preset!r} of {task})", mixer, list(entry.mixers))
    recipe, known = entry.recipe(mixer), defaults_of(mixer)
    options = dict(recipe.mixer_options)
    if "bidirectional" in options and "bidirectional" not in known:
        options["causal"] = not options.pop("bidirectional")
    if "l_max" in known:
        options.setdefault("l_max", length_of(task, {**recipe.data, **(data or {})}))
    return replace(recipe, mixer_options=options)


def length_of(task: str, data: Mapping[str, Any]) -> int:
    """The length of a task's data; of its defaults where its options are wrong, of which others complain.

    >>> length_of("listops", {"l_max": 512}), length_of("listops", {})
    (512, 2048)
    """
    try:
        return create_task(task, **data).length
    except (ValueError, TypeError):
        return TASKS[task].info.length
