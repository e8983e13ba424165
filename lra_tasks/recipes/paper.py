"""`--preset paper`: the settings published for Long Range Arena and Speech Commands, a row a mixer and task.

The values are those of the files that the authors publish beside their papers; ``Preset.sources`` names the file of
every row, ``lra-tasks list TASK`` prints it.

References:
    S4: How to Train Your HiPPO (Gu, Johnson, Timalsina, Rudra, Ré), arXiv:2206.12037, the second version's settings.
    S4D: On the Parameterization and Initialization of Diagonal State Space Models (Gu, Gupta, Goel, Ré),
    arXiv:2206.11893.
    LongConv: Simple Hardware-Efficient Long Convolutions for Sequence Modeling (Fu, Epstein, Nguyen, Thomas, Zhang,
    Dao, Rudra, Ré), arXiv:2302.06646.
    SGConv: What Makes Convolutional Models Great on Long Sequence Modeling? (Li, Cai, Zhang, Chen, Dey),
    arXiv:2210.09298.
    S5: Simplified State Space Layers for Sequence Modeling (Smith, Warrington, Linderman), arXiv:2208.04933.
    Hyena: Hyena Hierarchy (Poli et al.), arXiv:2302.10866.

Where an author's file and ours differ:

- S4's state spaces are one a feature; its files share one or two among all features but on Pathfinder and Path-X.
- SGConv's filters have no weight decay; its code gives them that of all parameters.
- On the 35 words S5's skip learns at ``filter_lr`` without decay, here at ``lr`` with it.
- S5's B starts from numbers of variance 1/H, H its width; its code draws them with 1/N, N the size of the real state.
- S5's running statistics of BatchNorm keep 0.95 of the former ones a step; ours 0.9, as on Pathfinder and Path-X.
- The masks of dropout inside a mixer are drawn a position, and a batch spread over several GPUs is accumulated.

None of these authors publishes such a file for sequential and permuted MNIST, for ten words as MFCC, for Pathfinder at
64, 256 and 512, or for LSSL and Orchid on any task here: there is no such preset.
"""

from __future__ import annotations

from typing import Any

from longconv.models.optim import RATES
from lra_tasks.recipes.settings import ModelSettings, OptimizerSettings, Overrides, Preset, Recipe, TrainerSettings
from lra_tasks.recipes.video import PAPER_MOVING_MNIST

_S4_FILES = "github.com/state-spaces/s4, configs/experiment"
_SAFARI_FILES = "github.com/HazyResearch/safari, configs/experiment"


def _sources(name: str) -> dict[str, str]:
    """The authors' files of a task of Long Range Arena, by mixer; all authors call it alike."""
    s4 = f"{_S4_FILES}/lra/s4-{name}.yaml"
    return {
        "s4": f"{s4} (arXiv:2206.12037)",
        "s4d": f"{s4} with a diagonal state space (arXiv:2206.11893)",
        "s5": f"github.com/lindermanlab/S5, bin/run_experiments/run_lra_{name}.sh (arXiv:2208.04933)",
        "sgconv": f"github.com/ctlllll/SGConv, configs/experiment/lra/gconv-lra-{name}.yaml on the branch preview "
        "(arXiv:2210.09298)",
        "long_conv": f"{_SAFARI_FILES}/lra/long-conv-lra-{name}.yaml (arXiv:2302.06646)",
    }


def _base(
    batch_size: int, epochs: int, *, lr: float = 0.01, d_model: int = 256, dropout: float = 0.0, prenorm: bool
) -> Recipe:
    """S4's settings of a task, which the others start from; its code ties the masks of dropout over time."""
    return Recipe(
        data={"batch_size": batch_size},
        model=ModelSettings(
            d_model=d_model, n_layers=6, norm="batch", prenorm=prenorm, dropout=dropout, tie_dropout=True
        ),
        mixer_options={"bidirectional": True, "dropout": dropout},
        optimizer=OptimizerSettings(lr=lr, weight_decay=0.05, filter_lr=0.001, warmup=0.1),
        trainer=TrainerSettings(max_epochs=epochs),
    )


def _state_spaces(
    d_state: int, *, dt_lr: float | None = None, c_lr: float | None = None, **options: float
) -> dict[str, Overrides]:
    """S4 and S4D with a state size; the rest is S4's, which decays C."""
    optimizer = {"dt_lr": dt_lr, "c_lr": c_lr, "decayed": ("C",)}
    return {
        "s4": {"mixer_options": {"d_state": d_state, **options}, "optimizer": optimizer},
        "s4d": {"mixer_options": {"d_state": d_state, "init": "legs", **options}, "optimizer": optimizer},
    }


def _sgconv(
    kernel_dim: int,
    decay: tuple[float, float] = (2.0, 2.0),
    *,
    warmup: float,
    weight_decay: float = 0.05,
    lr: float | None = None,
    dropout: float = 0.0,
    data: dict[str, int] | None = None,
    trainer: dict[str, int] | None = None,
    model: dict[str, Any] | None = None,
    **options: object,
) -> Overrides:
    filters = {"kernel_dim": kernel_dim, "decay_min": decay[0], "decay_max": decay[1], "output": "glu"}
    return {
        "data": data or {},
        "model": {"dropout": dropout, **(model or {})},
        "mixer_options": {**filters, "dropout": dropout, **options},
        "optimizer": {"warmup": warmup, "weight_decay": weight_decay, **({} if lr is None else {"lr": lr})},
        "trainer": trainer or {},
    }


def _long_conv(
    filter_dropout: float,
    threshold: float,
    *,
    bidirectional: bool = False,
    filter_lr: float = 0.001,
    **optimizer: float,
) -> Overrides:
    """Two filters a feature, and on the pictures of Pathfinder two in each direction."""
    options = {"channels": 2, "bidirectional": bidirectional, "filter_dropout": filter_dropout, "threshold": threshold}
    return {"mixer_options": options, "optimizer": {"filter_lr": filter_lr, **optimizer}}


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
    warmup_epochs: int = 1,
    n_layers: int = 6,
    dropout: float = 0.0,
    plain: tuple[str, ...] = ("C",),
    decayed: tuple[str, ...] | None = None,
    **options: object,
) -> Overrides:
    """S5's settings; the learning rate is that of the state space times a factor.

    Those of its parameters that are ``plain`` learn as all others do, and decay where ``decayed`` does not name others.
    """
    lr = factor * filter_lr
    return {
        "data": {"batch_size": batch_size},
        "model": {"d_model": d_model, "n_layers": n_layers, "prenorm": True, "dropout": dropout},
        "mixer_options": {"d_state": d_state, "blocks": blocks, "dropout": dropout, **options},
        "optimizer": {
            "lr": lr,
            "filter_lr": filter_lr,
            **{name: lr if part in plain else None for part, name in RATES.items()},
            "decayed": plain if decayed is None else decayed,
            "weight_decay": weight_decay,
            "warmup": warmup_epochs / epochs,
        },
        "trainer": {"max_epochs": epochs},
    }


LISTOPS = Preset(
    _base(32, 40, prenorm=False),
    {
        **_state_spaces(4, dt_lr=0.01, c_lr=0.01),
        "s5": _s5(
            128,
            16,
            8,
            n_layers=8,
            batch_size=50,
            epochs=40,
            weight_decay=0.04,
            factor=3,
            plain=("B", "C"),
            C_init="lecun_normal",
            output="half_glu2",
        ),
        "sgconv": _sgconv(1, warmup=1 / 80, data={"batch_size": 50}, model={"n_layers": 8, "d_model": 128}),
        "long_conv": {
            **_long_conv(0.2, 0.002, filter_lr=5e-4, warmup=1 / 8),
            "data": {"batch_size": 50},
            "model": {"n_layers": 8, "d_model": 128},
        },
    },
    only_named=True,
    sources=_sources("listops"),
)

TEXT = Preset(
    _base(16, 32, prenorm=True),
    {
        **_state_spaces(4, dt_lr=0.01, c_lr=0.01),
        "s5": _s5(
            256, 192, 12, batch_size=50, epochs=35, weight_decay=0.07, factor=4, warmup_epochs=0, dropout=0.1,
            plain=("C", "log_dt"), C_init="lecun_normal", output="half_glu2",
        ),
        "sgconv": _sgconv(2, warmup=1 / 50),
        "long_conv": _long_conv(0.2, 0.003),
    },
    only_named=True,
    sources=_sources("imdb"),
)  # fmt: skip

RETRIEVAL = Preset(
    _base(64, 20, prenorm=True),
    {
        **_state_spaces(4, dt_lr=0.01, c_lr=0.01),
        "s5": _s5(128, 256, 16, batch_size=32, epochs=20, weight_decay=0.05, factor=2, plain=("C", "log_dt")),
        "sgconv": _sgconv(1, warmup=1 / 20),
        "long_conv": {
            **_long_conv(0.1, 0.004, filter_lr=1e-4, warmup=1 / 20),
            "data": {"batch_size": 32},
            "trainer": {"accumulate_grad_batches": 2},
        },
    },
    only_named=True,
    sources=_sources("aan"),
)

IMAGE = Preset(
    _base(50, 200, d_model=512, dropout=0.1, prenorm=False),
    {
        **_state_spaces(64),
        "s5": _s5(
            512, 384, 3, batch_size=50, epochs=250, weight_decay=0.07, factor=4.5, dropout=0.1, plain=("B", "C"),
            C_init="lecun_normal", clip=True,
        ),
        "sgconv": _sgconv(
            32, (1.0, 1.0), warmup=1 / 200, dropout=0.2, model={"norm": "layer"}, mode="learnable",
            trainable_decay=False,
        ),
        "long_conv": {**_long_conv(0.2, 0.003, warmup=1 / 200), "model": {"norm": "layer"}},
    },
    only_named=True,
    sources=_sources("cifar"),
)  # fmt: skip

PATHFINDER = Preset(
    _base(64, 200, lr=0.004, prenorm=True),
    {
        **_state_spaces(64),
        "s5": _s5(192, 256, 8, batch_size=64, epochs=200, weight_decay=0.03, factor=5, filter_lr=0.0009, dropout=0.05),
        "sgconv": _sgconv(32, warmup=1 / 200, weight_decay=0.03, dropout=0.2, model={"pooling": "last"}),
        "long_conv": {
            **_long_conv(0.3, 0.001, bidirectional=True, warmup=1 / 200, weight_decay=0.03),
            "model": {"pooling": "last"},
        },
    },
    only_named=True,
    sources=_sources("pathfinder"),
)

PATHX = Preset(
    _base(16, 50, lr=0.001, prenorm=True),
    {
        **_state_spaces(64, dt_min=1e-4),
        "s5": _s5(
            128, 256, 16, batch_size=32, epochs=75, weight_decay=0.06, factor=3, filter_lr=0.0006, decayed=("B", "C"),
            C_init="complex_normal", dt_min=1e-4,
        ),
        "sgconv": _sgconv(
            64, (1.0, 3.0), warmup=0.08, weight_decay=0.03, lr=0.004, trainer={"accumulate_grad_batches": 4},
            mode="cos", init_scale=1,
        ),
        "long_conv": _long_conv(0.3, 0.001, bidirectional=True, filter_lr=5e-4, lr=0.0005, warmup=1 / 50),
    },
    only_named=True,
    sources=_sources("pathx"),
)  # fmt: skip

_SPEECH_FILE = f"{_S4_FILES}/sc/s4-sc.yaml"
SPEECH = Preset(
    _base(16, 40, d_model=128, prenorm=True).override({"optimizer": {"warmup": 1 / 200}}),
    {
        **_state_spaces(64, c_lr=0.01),
        "s5": _s5(
            96, 128, 16, batch_size=16, epochs=40, weight_decay=0.04, factor=4, filter_lr=0.002, dropout=0.1,
            plain=(), C_init="lecun_normal",
        ),
    },
    only_named=True,
    sources={
        "s4": f"{_SPEECH_FILE} (arXiv:2206.11893)",
        "s4d": f"{_SPEECH_FILE} with a diagonal state space (arXiv:2206.11893)",
        "s5": "github.com/lindermanlab/S5, bin/run_experiments/run_speech35.sh (arXiv:2208.04933)",
    },
)  # fmt: skip

# S4's first version, causal, without a GLU; it lowers the rate where validation stands still, in place of a cosine.
TEN_WORDS = Preset(
    SPEECH.base.override(
        {
            "data": {"batch_size": 20},
            "model": {"dropout": 0.1},
            "mixer_options": {"bidirectional": False, "dropout": 0.1},
            "optimizer": {"weight_decay": 0.0, "warmup": 0.0},
            "trainer": {"max_epochs": 200},
        }
    ),
    {"s4": {"mixer_options": {"d_state": 64, "output": "linear"}, "optimizer": {"c_lr": 0.01}}},
    only_named=True,
    sources={"s4": f"{_S4_FILES}/s4-sc.yaml at the tag v1, with a cosine (arXiv:2111.00396)"},
)

COLOUR = Preset(
    IMAGE.base.override({"model": {"norm": "layer"}, "optimizer": {"warmup": 1 / 200}}),
    {
        "s4": _state_spaces(64, c_lr=0.01)["s4"],
        "long_conv": {**_long_conv(0.2, 0.001, warmup=1 / 300), "trainer": {"max_epochs": 300}},
    },
    only_named=True,
    sources={
        "s4": f"{_S4_FILES}/cifar/s4-cifar.yaml (arXiv:2206.12037)",
        "long_conv": f"{_SAFARI_FILES}/cifar/long-conv-cifar.yaml (arXiv:2302.06646)",
    },
)

# Ours has 20 tokens, the authors' 30, no dropout of embeddings, theirs 0.1, and a cosine where theirs falls in a line.
RECALL = Preset(
    Recipe(
        data={"batch_size": 16, "seq_len": 131072, "n_train": 4000},
        model=ModelSettings(
            d_model=64, n_layers=2, norm="layer", prenorm=True, feed_forward="mlp", expansion=4.0, pooling=None
        ),
        optimizer=OptimizerSettings(lr=5e-4, weight_decay=0.1, filter_lr=5e-4, warmup=0.1),
        trainer=TrainerSettings(max_epochs=400, accumulate_grad_batches=2),
    ),
    {"hyena": {"mixer_options": {"emb_dim": 5, "width": 64, "w": 10.0}}},
    only_named=True,
    sources={"hyena": f"{_SAFARI_FILES}/synthetics/associative_recall/hyena-131k-30vs.yaml (arXiv:2302.10866)"},
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
    "associative_recall": RECALL,
    "moving_mnist": PAPER_MOVING_MNIST,
}
