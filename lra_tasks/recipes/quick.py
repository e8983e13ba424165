"""`--preset quick`: small models for a 2-core machine; one base a task, and what a mixer changes in it.

`--preset encoder`: the same for a task that mixers learn in another way when they see the future.
"""

from __future__ import annotations

from lra_tasks.recipes.settings import ModelSettings, OptimizerSettings, Overrides, Preset, Recipe, TrainerSettings
from lra_tasks.recipes.video import QUICK_MOVING_MNIST, QUICK_VIDEO


def _attention(max_epochs: int, **model: int) -> Overrides:
    """Attention in its usual block; it wants a lower rate than filters, and costs so much more that it gets few epochs.

    All mixers of a task take about three minutes on two cores.
    """
    return {
        "model": {"norm": "layer", "feed_forward": "mlp", **model},
        "mixer_options": {"heads": 2},
        "optimizer": {"lr": 0.001},
        "trainer": {"max_epochs": max_epochs},
    }


# State sizes that leave a step of training no slower than S4D's, and the gate that S4D has.
STATE_SPACES: dict[str, Overrides] = {
    "lssl": {"mixer_options": {"output": "glu", "trainable_dt": False}},
    "dss": {"mixer_options": {"d_state": 64, "output": "glu"}},
    "s5": {"mixer_options": {"d_state": 64, "output": "glu"}},
}

MIXERS: dict[str, Overrides] = {**STATE_SPACES, "transformer": _attention(1, n_layers=2)}

# Filters that oscillate from the start, as its authors have them on small tasks.
IMPLICIT: Overrides = {"mixer_options": {"emb_dim": 5, "w": 10.0}}
RECALLING: Overrides = {"mixer_options": {"emb_dim": 5, "w": 10.0, "shift": 0.1}}

DIGITS = Preset(
    base=Recipe(
        data={"batch_size": 50},
        model=ModelSettings(d_model=64, n_layers=2, norm="batch", prenorm=True),
        optimizer=OptimizerSettings(lr=0.01, weight_decay=0.05, filter_lr=0.001),
        trainer=TrainerSettings(max_epochs=10),
    ),
    mixers={**STATE_SPACES, "hyena": IMPLICIT, "orchid": IMPLICIT, "transformer": _attention(3)},
)

# Thirteen times the digits: epochs of 200 batches, each of other pictures.
CLOTHES = Preset(
    base=DIGITS.base.override({"trainer": {"max_epochs": 4, "limit_train_batches": 200, "limit_val_batches": 20}}),
    mixers={**DIGITS.mixers, "transformer": _attention(1)},
)

PICTURES = Preset(
    base=Recipe(
        data={"batch_size": 50},
        model=ModelSettings(d_model=64, n_layers=3, norm="batch", prenorm=True, dropout=0.1),
        mixer_options={"bidirectional": True},
        optimizer=OptimizerSettings(lr=0.01, weight_decay=0.05, filter_lr=0.001),
        trainer=TrainerSettings(max_epochs=4),
    ),
    mixers=MIXERS,
)

# Expressions of 100 to 400 symbols: 6400 of the official 500 to 2000 teach a small model little more than chance.
LISTOPS = Preset(
    base=Recipe(
        data={
            "batch_size": 50,
            "n_train": 6400,
            "n_val": 800,
            "n_test": 800,
            "min_length": 100,
            "max_length": 400,
            "l_max": 512,
        },
        model=ModelSettings(d_model=64, n_layers=3, norm="batch", prenorm=True),
        mixer_options={"bidirectional": True},
        optimizer=OptimizerSettings(lr=0.01, weight_decay=0.05, filter_lr=0.001),
        trainer=TrainerSettings(max_epochs=10),
    ),
    mixers={**STATE_SPACES, "transformer": _attention(5, n_layers=2)},
)

# A quarter of each document.
TEXT = Preset(
    base=Recipe(
        data={"batch_size": 50, "l_max": 1024},
        model=ModelSettings(d_model=64, n_layers=3, norm="batch", prenorm=True, dropout=0.1),
        mixer_options={"bidirectional": True},
        optimizer=OptimizerSettings(lr=0.01, weight_decay=0.05, filter_lr=0.001),
        trainer=TrainerSettings(max_epochs=4),
    ),
    mixers=MIXERS,
)
# The first 1024 bytes; three mails of five are longer.
MAILS = Preset(base=TEXT.base.override({"trainer": {"max_epochs": 2}}), mixers=TEXT.mixers)
RETRIEVAL = Preset(base=TEXT.base.override({"trainer": {"max_epochs": 1}}), mixers=TEXT.mixers)

# A small model that reads whole clips; on two cores an epoch of raw samples takes hours, of coefficients minutes.
SPEECH = Preset(
    base=Recipe(
        data={"batch_size": 16},
        model=ModelSettings(d_model=64, n_layers=4, norm="batch", prenorm=True),
        mixer_options={"bidirectional": True},
        optimizer=OptimizerSettings(lr=0.01, weight_decay=0.05, filter_lr=0.001),
        trainer=TrainerSettings(max_epochs=2),
    ),
    mixers=MIXERS,
)
COEFFICIENTS = Preset(
    base=SPEECH.base.override({"trainer": {"max_epochs": 10}}),
    mixers={**STATE_SPACES, "transformer": _attention(10)},
)

# Every eighth sample, 2000 a clip, of a fifteenth of the clips.
WORDS = Preset(
    base=SPEECH.base.override(
        {
            "data": {"batch_size": 25, "n_train": 2100, "n_val": 350, "n_test": 350, "every": 8},
            "model": {"n_layers": 3},
            "trainer": {"max_epochs": 5},
        }
    ),
    mixers=MIXERS,
)

# 10,000 pictures show that everything runs; to leave chance, Pathfinder wants the paper preset and a GPU.
PATHFINDER = Preset(
    base=Recipe(
        data={"batch_size": 50, "n_samples": 10000},
        model=ModelSettings(d_model=64, n_layers=3, norm="batch", prenorm=True),
        mixer_options={"bidirectional": True},
        optimizer=OptimizerSettings(lr=0.004, weight_decay=0.05, filter_lr=0.001),
        trainer=TrainerSettings(max_epochs=4),
    ),
    mixers=MIXERS,
)


def _larger(n_samples: int, batch_size: int) -> Preset:
    """The preset of Pathfinder with fewer and smaller batches, for larger pictures."""
    data = {"batch_size": batch_size, "n_samples": n_samples}
    return Preset(base=PATHFINDER.base.override({"data": data}), mixers=MIXERS)


# Two layers are the fewest that recall: one brings a key beside its value, the other finds the key again. Four learn it
# in fewer epochs.
RECALL = Preset(
    base=Recipe(
        data={"batch_size": 32},
        model=ModelSettings(d_model=64, n_layers=4, norm="layer", prenorm=True, feed_forward="mlp", pooling=None),
        optimizer=OptimizerSettings(lr=0.002, weight_decay=0.1, filter_lr=0.002),
        trainer=TrainerSettings(max_epochs=8),
    ),
    mixers={**STATE_SPACES, "hyena": RECALLING, "orchid": RECALLING, "transformer": _attention(8)},
)

# Mixers that see the future learn from hidden values, as encoders of text do: a quarter of the answers that next tokens
# give, the same in every epoch. Ten epochs of 8,000 sequences get some of them by heart; so more, and fewer epochs.
RECALL_ENCODER = Preset(
    base=RECALL.base.override(
        {
            "data": {"targets": "hidden", "n_train": 64000},
            "mixer_options": {"bidirectional": True},
            "trainer": {"max_epochs": 3},
        }
    ),
    mixers={**RECALL.mixers, "transformer": _attention(3)},
)

ENCODER: dict[str, Preset] = {"associative_recall": RECALL_ENCODER}

QUICK: dict[str, Preset] = {
    "smnist": DIGITS,
    "pmnist": DIGITS,
    "fashion": CLOTHES,
    "image": PICTURES,
    "scifar": PICTURES,
    "listops": LISTOPS,
    "text": TEXT,
    "retrieval": RETRIEVAL,
    "spam": MAILS,
    "pathfinder32": PATHFINDER,
    "pathfinder64": _larger(5000, 16),
    "pathx": _larger(2000, 4),
    "path256": _larger(500, 1),
    "path512": _larger(100, 1),
    "sc10": SPEECH,
    "sc10-half": SPEECH,
    "sc10-mfcc": COEFFICIENTS,
    "sc35": SPEECH,
    "sc35-8k": SPEECH,
    "espeak35": WORDS,
    "associative_recall": RECALL,
    "moving_mnist": QUICK_MOVING_MNIST,
    "dmlab": QUICK_VIDEO,
    "minecraft": QUICK_VIDEO,
    "habitat": QUICK_VIDEO,
}
