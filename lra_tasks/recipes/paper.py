"""`--preset paper`: the settings published for Long Range Arena and Speech Commands, a row a mixer and task.

References:
    S4, S4D: On the Parameterization and Initialization of Diagonal State Space Models (Gu, Gupta, Goel, Ré),
    arXiv:2206.11893; trained with the settings of S4's second version: How to Train Your HiPPO (Gu, Johnson,
    Timalsina, Rudra, Ré), arXiv:2206.12037.
    LongConv: Simple Hardware-Efficient Long Convolutions for Sequence Modeling (Fu, Epstein, Nguyen, Thomas, Zhang,
    Dao, Rudra, Ré), arXiv:2302.06646.
    Sequential CIFAR-10 and ten words: the files configs/experiment/{cifar/s4-cifar,s4-sc}.yaml of
    github.com/state-spaces/s4 and cifar/long-conv-cifar.yaml of github.com/HazyResearch/safari.
    SGConv: What Makes Convolutional Models Great on Long Sequence Modeling? (Li, Cai, Zhang, Chen, Dey),
    arXiv:2210.09298.
    S5: Simplified State Space Layers for Sequence Modeling (Smith, Warrington, Linderman), arXiv:2208.04933.

None of these sources gives settings for sequential and permuted MNIST, for Pathfinder at 64, 256 and 512, or of Hyena,
LSSL and Orchid for any task here: there is no such preset. What a paper does not give (the epochs of LongConv, the
batch size of SGConv) is taken from S4. As in S4's code, the step sizes of S4 and S4D learn at the base rate on ListOps,
Text and Retrieval and at the filters' elsewhere, and no parameter of a filter has weight decay.
"""

from __future__ import annotations

from lra_tasks.recipes.settings import ModelSettings, OptimizerSettings, Overrides, Preset, Recipe, TrainerSettings
from lra_tasks.recipes.video import PAPER_MOVING_MNIST


def _base(
    batch_size: int, epochs: int, *, lr: float = 0.01, d_model: int = 256, dropout: float = 0.0, prenorm: bool
) -> Recipe:
    """S4's settings of a task, which the other papers start from."""
    return Recipe(
        data={"batch_size": batch_size},
        model=ModelSettings(d_model=d_model, n_layers=6, norm="batch", prenorm=prenorm, dropout=dropout),
        mixer_options={"bidirectional": True},
        optimizer=OptimizerSettings(lr=lr, weight_decay=0.05, filter_lr=0.001, warmup=0.1),
        trainer=TrainerSettings(max_epochs=epochs),
    )


def _state_spaces(d_state: int, dt_lr: float | None = None, **options: float) -> dict[str, Overrides]:
    """S4 and S4D with a state size; the rest is S4's."""
    optimizer = {"dt_lr": dt_lr}
    return {
        "s4": {"mixer_options": {"d_state": d_state, **options}, "optimizer": optimizer},
        "s4d": {"mixer_options": {"d_state": d_state, "init": "legs", **options}, "optimizer": optimizer},
    }


def _sgconv(kernel_dim: int, decay: tuple[float, float] = (2.0, 2.0), **model: float) -> dict[str, Overrides]:
    options = {"kernel_dim": kernel_dim, "decay_min": decay[0], "decay_max": decay[1]}
    return {"sgconv": {"model": model, "mixer_options": options}}


def _long_conv(filter_dropout: float, threshold: float, *, filter_lr: float = 0.001) -> Overrides:
    options = {"filter_dropout": filter_dropout, "threshold": threshold}
    return {"mixer_options": options, "optimizer": {"filter_lr": filter_lr}}


def _s5(
    d_model: int,
    d_state: int,
    blocks: int,
    *,
    batch_size: int,
    epochs: int,
    weight_decay: float,
    factor: float,
    filter_lr: float = 0.001,
    n_layers: int = 6,
    dropout: float = 0.0,
    **options: object,
) -> dict[str, Overrides]:
    """S5's settings; the learning rate is that of the state space times a factor."""
    return {
        "s5": {
            "data": {"batch_size": batch_size},
            "model": {"d_model": d_model, "n_layers": n_layers, "prenorm": True, "dropout": dropout},
            "mixer_options": {"d_state": d_state, "blocks": blocks, **options},
            "optimizer": {"lr": factor * filter_lr, "filter_lr": filter_lr, "weight_decay": weight_decay},
            "trainer": {"max_epochs": epochs},
        }
    }


LISTOPS = Preset(
    _base(32, 40, prenorm=False),
    {
        **_state_spaces(4, dt_lr=0.01),
        **_s5(128, 16, 8, n_layers=8, batch_size=50, epochs=40, weight_decay=0.04, factor=3, output="half_glu2"),
        **_sgconv(1, n_layers=8, d_model=128),
        "long_conv": {
            **_long_conv(0.2, 0.002, filter_lr=5e-4),
            "data": {"batch_size": 50},
            "model": {"n_layers": 8, "d_model": 128},
        },
    },
    only_named=True,
)

TEXT = Preset(
    _base(16, 32, prenorm=True),
    {
        **_state_spaces(4, dt_lr=0.01),
        **_s5(256, 192, 12, batch_size=50, epochs=35, weight_decay=0.07, factor=4, dropout=0.1, output="half_glu2"),
        **_sgconv(2),
        "long_conv": _long_conv(0.2, 0.003),
    },
    only_named=True,
)

RETRIEVAL = Preset(
    _base(64, 20, prenorm=True),
    {
        **_state_spaces(4, dt_lr=0.01),
        **_s5(128, 256, 16, batch_size=32, epochs=20, weight_decay=0.05, factor=2),
        **_sgconv(1),
        "long_conv": {
            **_long_conv(0.1, 0.004, filter_lr=1e-4),
            "data": {"batch_size": 32},
            "trainer": {"accumulate_grad_batches": 2},
        },
    },
    only_named=True,
)

IMAGE = Preset(
    _base(50, 200, d_model=512, dropout=0.1, prenorm=False),
    {
        **_state_spaces(64),
        **_s5(512, 384, 3, batch_size=50, epochs=250, weight_decay=0.07, factor=4.5, dropout=0.1, clip=True),
        **_sgconv(32, (1.0, 1.0), dropout=0.2),
        "long_conv": {**_long_conv(0.2, 0.003), "model": {"norm": "layer"}},
    },
    only_named=True,
)

PATHFINDER = Preset(
    _base(64, 200, lr=0.004, prenorm=True),
    {
        **_state_spaces(64),
        **_s5(192, 256, 8, batch_size=64, epochs=200, weight_decay=0.03, factor=5, filter_lr=0.0009, dropout=0.05),
        **_sgconv(32, dropout=0.2),
        "long_conv": {**_long_conv(0.3, 0.001), "optimizer": {"weight_decay": 0.03}},
    },
    only_named=True,
)

PATHX = Preset(
    _base(16, 50, lr=0.001, prenorm=True),
    {
        **_state_spaces(64, dt_min=1e-4),
        **_s5(128, 256, 16, batch_size=32, epochs=75, weight_decay=0.06, factor=3, filter_lr=0.0006, dt_min=1e-4),
        "sgconv": {
            "mixer_options": {"kernel_dim": 64, "decay_min": 1.0, "decay_max": 3.0},
            "optimizer": {"lr": 0.004},
        },
        "long_conv": {
            "mixer_options": {"filter_dropout": 0.3, "threshold": 0.001},
            "optimizer": {"lr": 0.0005, "filter_lr": 5e-4},
        },
    },
    only_named=True,
)

SPEECH = Preset(_base(16, 40, d_model=128, prenorm=True), _state_spaces(64), only_named=True)

# The authors' file for ten words: S4's first version, causal, with a plateau schedule in place of the cosine.
TEN_WORDS = Preset(
    SPEECH.base.override(
        {
            "data": {"batch_size": 20},
            "model": {"dropout": 0.1},
            "mixer_options": {"bidirectional": False},
            "optimizer": {"weight_decay": 0.0},
            "trainer": {"max_epochs": 200},
        }
    ),
    {"s4": {"mixer_options": {"d_state": 64}}},
    only_named=True,
)

# The authors' files s4-cifar and long-conv-cifar; S4's has two systems for all features, ours one a feature.
COLOUR = Preset(
    IMAGE.base.override({"model": {"tie_dropout": True}}),
    {
        "s4": {"mixer_options": {"d_state": 64}},
        "long_conv": {
            "mixer_options": {"bidirectional": False, "filter_dropout": 0.2, "threshold": 0.001},
            "trainer": {"max_epochs": 300},
        },
    },
    only_named=True,
)

PAPER: dict[str, Preset] = {
    "listops": LISTOPS,
    "text": TEXT,
    "retrieval": RETRIEVAL,
    "image": IMAGE,
    "pathfinder32": PATHFINDER,
    "pathx": PATHX,
    "sc10": TEN_WORDS,
    "sc35": SPEECH,
    "scifar": COLOUR,
    "moving_mnist": PAPER_MOVING_MNIST,
}
