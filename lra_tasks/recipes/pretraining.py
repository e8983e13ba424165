"""What self-pretraining hides of each task, as published, and the schedule that goes with it.

References:
    Never Train from Scratch: Fair Comparison of Long-Sequence Models Requires Data-Driven Priors (Amos, Berant, Gupta),
    arXiv:2310.02980.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from longconv.models.optim import RATES
from lra_tasks.data import TASKS
from lra_tasks.recipes.settings import PretrainingSettings, Recipe

MASK_RATIOS = {"listops": 0.1}
"""Published shares of hidden positions where they differ from those of other tokens, or of other continuous inputs."""
_TOKENS, _CONTINUOUS = 0.15, 0.5

LEVELS = {name: (-1.0, 1.0) for name in ("pathfinder32", "pathfinder64", "pathx", "path256", "path512")}
"""Tasks of gray pictures whose pixels are predicted as one of 256 levels: the inputs that stand for 0 and 255."""

_LR = 0.001
"""The published learning rate, above which no part of a model learns."""


def for_pretraining(task: str, recipe: Recipe) -> Recipe:
    """The recipe of a task, of its pretraining: masked where its mixer sees the future, causal where it does not.

    >>> for_pretraining("listops", Recipe(mixer_options={"bidirectional": True})).pretraining
    PretrainingSettings(objective='masked', mask_ratio=0.1, loss='cross_entropy')
    >>> for_pretraining("sc10", Recipe()).pretraining
    PretrainingSettings(objective='causal', mask_ratio=0.5, loss='l1')
    """
    tokens = TASKS[task].info.n_tokens is not None
    options = recipe.mixer_options
    settings = PretrainingSettings(
        objective="masked" if options.get("bidirectional") or options.get("causal") is False else "causal",
        mask_ratio=MASK_RATIOS.get(task, _TOKENS if tokens else _CONTINUOUS),
        loss="cross_entropy" if tokens or task in LEVELS else "l1",
    )
    given = {name: getattr(recipe.optimizer, name) for name in ("filter_lr", *RATES.values())}
    rates = {name: min(rate, _LR) for name, rate in given.items() if rate is not None}
    optimizer: dict[str, Any] = {"lr": _LR, "schedule": "constant", **rates}
    return replace(recipe.override({"optimizer": optimizer}), pretraining=settings)
