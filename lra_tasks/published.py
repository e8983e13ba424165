"""Published test accuracies (%), to stand beside ours in a report.

References:
    Long Range Arena (Tay et al.), arXiv:2011.04006: Transformer, Performer. S4 (Gu, Goel, Ré), arXiv:2111.00396, v1 and
    v2. DSS (Gupta, Gu, Berant), arXiv:2203.14343. S4D (Gu, Gupta, Goel, Ré), arXiv:2206.11893. SGConv (Li et al.),
    arXiv:2210.09298. Liquid-S4 (Hasani et al.), arXiv:2209.12951. S5 (Smith, Warrington, Linderman),
    arXiv:2208.04933. MEGA (Ma et al.), arXiv:2209.10655. LSSL (Gu et al.), arXiv:2110.13985. Path-256: long
    convolutions with FlashButterfly (Fu et al.), arXiv:2302.06646; Path-512: with FlashFFTConv (Fu et al.),
    arXiv:2311.05908.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lra_tasks.data.pathfinder.settings import CONTOUR_LENGTH

_LRA_TASKS = ("listops", "text", "retrieval", "image", "pathfinder32", "pathx")
# None: not published, or a model that stays at chance.
_LRA: dict[str, tuple[float | None, ...]] = {
    "Transformer": (36.37, 64.27, 57.46, 42.44, 71.40, None),
    "Performer": (18.01, 65.40, 53.82, 42.77, 77.05, None),
    "S4 v1": (58.35, 76.02, 87.09, 87.26, 86.05, 88.10),
    "S4": (59.60, 86.82, 90.90, 88.65, 94.20, 96.35),
    "DSS": (60.6, 84.8, 87.8, 85.7, 84.6, 87.8),
    "S4D-LegS": (60.47, 86.18, 89.46, 88.19, 93.06, 91.95),
    "S4D-Inv": (60.18, 87.34, 91.09, 87.83, 93.78, 92.80),
    "SGConv": (61.45, 89.20, 91.11, 87.97, 95.46, 97.83),
    "Liquid-S4": (62.75, 89.02, 91.20, 89.50, 94.8, 96.66),
    "S5": (62.15, 89.31, 91.40, 88.00, 95.33, 98.58),
    "MEGA": (63.14, 90.43, 91.25, 90.44, 96.01, 97.98),
}

_SEQUENTIAL_TASKS = ("smnist", "pmnist", "scifar")
_SEQUENTIAL: dict[str, tuple[float | None, ...]] = {
    "Transformer": (98.9, 97.9, 62.2),
    "LSSL": (99.53, 98.76, 84.65),
    "S4": (99.63, 98.70, 91.13),
}

_SPEECH_TASKS = ("sc10-mfcc", "sc10", "sc10-half")
_SPEECH: dict[str, tuple[float | None, ...]] = {
    "Transformer": (90.75, None, None),
    "Performer": (80.85, 30.77, 30.68),
    "LSSL": (93.58, None, None),
    "S4": (93.96, 98.32, 96.30),
}

_COMMANDS_TASKS = ("sc35", "sc35-8k")
_COMMANDS: dict[str, tuple[float | None, ...]] = {
    "S4": (96.08, 91.32),
    "S4D-LegS": (95.83, 91.08),
    "S4D-Inv": (96.18, 91.80),
    "S4D-Lin": (96.25, 91.58),
    "S5": (96.53, 94.53),
}

_LARGER_TASKS = ("path256", "path512")
_LARGER: dict[str, tuple[float | None, ...]] = {"LongConv": (92.2, 96.1)}


def _by_task(tasks: tuple[str, ...], table: dict[str, tuple[float | None, ...]]) -> dict[str, dict[str, float]]:
    columns = zip(tasks, zip(*table.values(), strict=True), strict=True)
    return {
        task: {model: accuracy for model, accuracy in zip(table, column, strict=True) if accuracy is not None}
        for task, column in columns
    }


PUBLISHED: dict[str, dict[str, float]] = {
    **_by_task(_LRA_TASKS, _LRA),
    **_by_task(_SEQUENTIAL_TASKS, _SEQUENTIAL),
    **_by_task(_SPEECH_TASKS, _SPEECH),
    **_by_task(_COMMANDS_TASKS, _COMMANDS),
    **_by_task(_LARGER_TASKS, _LARGER),
}
"""Accuracy by task, then by the name that its paper gives the model."""

_SOURCES = {
    "Transformer": "arXiv:2011.04006",
    "Performer": "arXiv:2011.04006",
    "S4 v1": "arXiv:2111.00396",
    "S4": "arXiv:2111.00396",
    "DSS": "arXiv:2203.14343",
    "S4D-LegS": "arXiv:2206.11893",
    "S4D-Inv": "arXiv:2206.11893",
    "S4D-Lin": "arXiv:2206.11893",
    "SGConv": "arXiv:2210.09298",
    "Liquid-S4": "arXiv:2209.12951",
    "S5": "arXiv:2208.04933",
    "MEGA": "arXiv:2209.10655",
    "LSSL": "arXiv:2110.13985",
}
_REPORTED_ELSEWHERE = {
    **{("LSSL", task): "arXiv:2111.00396" for task in _SPEECH_TASKS},
    **{(model, task): "arXiv:2111.00396" for model in ("Transformer", "Performer") for task in _SPEECH_TASKS},
    **{("Transformer", task): "arXiv:2110.13985" for task in _SEQUENTIAL_TASKS},
    **{("S4", task): "arXiv:2206.11893" for task in _COMMANDS_TASKS},
    ("LongConv", "path256"): "arXiv:2302.06646",
    ("LongConv", "path512"): "arXiv:2311.05908",
}
"""Where a model's accuracy on a task stands in another paper than its own."""

_MODELS = {
    "s4": "S4",
    "lssl": "LSSL",
    "s5": "S5",
    "dss": "DSS",
    "sgconv": "SGConv",
    "long_conv": "LongConv",
    "transformer": "Transformer",
}
_S4D_INITS = {"legs": "S4D-LegS", "inv": "S4D-Inv", "lin": "S4D-Lin"}
_FALLBACK = "S4"


def easier(data: Mapping[str, Any]) -> str:
    """In words how the data of these options is easier than a task's own, which no published figure is of; or "".

    >>> easier({"contour_length": 6}), easier({"contour_length": 14}), easier({})
    ('contours of 6', '', '')
    """
    length = data.get("contour_length", CONTOUR_LENGTH)
    return "" if length == CONTOUR_LENGTH else f"contours of {length}"


@dataclass(frozen=True)
class Published:
    """A published test accuracy (%), the model it belongs to, and the paper that reports it."""

    model: str
    accuracy: float
    source: str


def find_published(
    task: str,
    mixer: str,
    mixer_options: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
) -> Published | None:
    """The published accuracy of a mixer's own model on a task, else S4's, else None for an unknown task or easier data.

    A variant of S4D that its paper does not list for the task, such as S4D-Lin on Long Range Arena, is compared with
    S4, never with another variant; the name of the model says so.

    Args:
        task: name of the task.
        mixer: name of the mixer.
        mixer_options: its options; ``init`` tells the variants of S4D apart.
        data: options of the task; nothing is published for shorter contours than Pathfinder's.

    >>> find_published("listops", "sgconv")
    Published(model='SGConv', accuracy=61.45, source='arXiv:2210.09298')
    >>> find_published("smnist", "sgconv")
    Published(model='S4', accuracy=99.63, source='arXiv:2111.00396')
    """
    accuracies = {} if easier(data or {}) else PUBLISHED.get(task, {})
    own = _S4D_INITS.get((mixer_options or {}).get("init", "lin")) if mixer == "s4d" else _MODELS.get(mixer)
    models = (own, _FALLBACK)
    found = next((model for model in models if model is not None and model in accuracies), None)
    if found is None:
        return None
    return Published(found, accuracies[found], _REPORTED_ELSEWHERE.get((found, task)) or _SOURCES[found])
