"""`--preset paper`: the settings published for Long Range Arena, a row a mixer and task.

References:
    S4D: On the Parameterization and Initialization of Diagonal State Space Models (Gu, Gupta, Goel, Ré),
    arXiv:2206.11893; trained with the settings of S4's second version: How to Train Your HiPPO (Gu, Johnson,
    Timalsina, Rudra, Ré), arXiv:2206.12037.
    LongConv: Simple Hardware-Efficient Long Convolutions for Sequence Modeling (Fu, Epstein, Nguyen, Thomas, Zhang,
    Dao, Rudra, Ré), arXiv:2302.06646.
    SGConv: What Makes Convolutional Models Great on Long Sequence Modeling? (Li, Cai, Zhang, Chen, Dey),
    arXiv:2210.09298.

What a paper does not give (the epochs of LongConv, the batch size of SGConv) is taken from S4. As in S4's code, the
step sizes of S4D learn at the base rate on ListOps and at the filters' on Pathfinder, and no parameter of a filter has
weight decay.
"""

from __future__ import annotations

from lra_tasks.recipes.settings import ModelSettings, OptimizerSettings, Overrides, Preset, Recipe, TrainerSettings
from lra_tasks.recipes.video import PAPER_MOVING_MNIST

LISTOPS = Recipe(
    data={"batch_size": 32},
    model=ModelSettings(d_model=256, n_layers=6, norm="batch", prenorm=False),
    mixer_options={"bidirectional": True},
    optimizer=OptimizerSettings(lr=0.01, weight_decay=0.05, filter_lr=0.001, warmup=0.1),
    trainer=TrainerSettings(max_epochs=40),
)

PATHFINDER = Recipe(
    data={"batch_size": 64},
    model=ModelSettings(d_model=256, n_layers=6, norm="batch", prenorm=True),
    mixer_options={"bidirectional": True},
    optimizer=OptimizerSettings(lr=0.004, weight_decay=0.05, filter_lr=0.001, warmup=0.1),
    trainer=TrainerSettings(max_epochs=200),
)

LISTOPS_MIXERS: dict[str, Overrides] = {
    "s4d": {"mixer_options": {"d_state": 4, "init": "legs"}, "optimizer": {"dt_lr": 0.01}},
    "long_conv": {
        "data": {"batch_size": 50},
        "model": {"n_layers": 8, "d_model": 128},
        "mixer_options": {"filter_dropout": 0.2, "threshold": 0.002},
        "optimizer": {"filter_lr": 5e-4},
    },
    "sgconv": {
        "model": {"n_layers": 8, "d_model": 128},
        "mixer_options": {"kernel_dim": 1, "decay_min": 2.0, "decay_max": 2.0},
    },
}

PATHFINDER_MIXERS: dict[str, Overrides] = {
    "s4d": {"mixer_options": {"d_state": 64, "init": "legs"}},
    "long_conv": {
        "mixer_options": {"filter_dropout": 0.3, "threshold": 0.001},
        "optimizer": {"weight_decay": 0.03},
    },
    "sgconv": {"model": {"dropout": 0.2}, "mixer_options": {"kernel_dim": 32, "decay_min": 2.0, "decay_max": 2.0}},
}

PAPER: dict[str, Preset] = {
    "listops": Preset(LISTOPS, LISTOPS_MIXERS, only_named=True),
    "pathfinder32": Preset(PATHFINDER, PATHFINDER_MIXERS, only_named=True),
    "moving_mnist": PAPER_MOVING_MNIST,
}
