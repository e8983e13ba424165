"""`--preset quick`: small models for a 2-core machine; one base a task, and what a mixer changes in it."""

from __future__ import annotations

from lra_tasks.recipes.settings import ModelSettings, OptimizerSettings, Preset, Recipe, TrainerSettings

DIGITS = Preset(
    base=Recipe(
        data={"batch_size": 50},
        model=ModelSettings(d_model=64, n_layers=2, norm="batch", prenorm=True),
        optimizer=OptimizerSettings(lr=0.01, weight_decay=0.05, filter_lr=0.001),
        trainer=TrainerSettings(max_epochs=10),
    ),
)

LISTOPS = Preset(
    base=Recipe(
        data={"batch_size": 32},
        model=ModelSettings(d_model=64, n_layers=2, norm="batch", prenorm=False),
        optimizer=OptimizerSettings(lr=0.01, weight_decay=0.05, filter_lr=0.001),
        trainer=TrainerSettings(max_epochs=5),
    ),
)

PATHFINDER = Preset(
    base=Recipe(
        data={"batch_size": 32},
        model=ModelSettings(d_model=64, n_layers=3, norm="batch", prenorm=True),
        mixer_options={"bidirectional": True},
        optimizer=OptimizerSettings(lr=0.004, weight_decay=0.05, filter_lr=0.001),
        trainer=TrainerSettings(max_epochs=5),
    ),
)

QUICK: dict[str, Preset] = {
    "smnist": DIGITS,
    "pmnist": DIGITS,
    "listops": LISTOPS,
    "pathfinder32": PATHFINDER,
}
