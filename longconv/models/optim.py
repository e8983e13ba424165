"""Parameter groups for an optimiser: filters learn at their own rate and without weight decay."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from longconv._checks import check_choice, check_real, describe

RATES = {"log_dt": "dt_lr", "B": "b_lr", "C": "c_lr"}
"""The arguments that are learning rates of some filter parameters, by the name of these in all state spaces."""


def optimizer_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.0,
    filter_lr: float | None = None,
    dt_lr: float | None = None,
    b_lr: float | None = None,
    c_lr: float | None = None,
    decayed: Collection[str] = (),
) -> list[dict[str, Any]]:
    """The parameters of ``model`` in groups by learning rate and weight decay, for ``torch.optim``.

    A module may declare ``filter_parameters``, the names of its parameters (or parameter lists) that make up a filter
    or a state space, and ``filter_lr``, their learning rate. These parameters get no weight decay and the first given
    of: the argument ``filter_lr``, the module's ``filter_lr``, ``lr``. All other parameters get ``lr`` and
    ``weight_decay``. Every parameter is in exactly one group, a shared one too; it is a filter's where any module
    declares it. Those named ``log_dt`` are the step sizes of a state space, for which ``dt_lr`` goes first, and those
    named ``B`` and ``C`` lead into it and out of it.

    Args:
        model: any module; filters are looked for in all its submodules.
        lr: the learning rate.
        weight_decay: the weight decay.
        filter_lr: the learning rate of every filter parameter, in place of the modules' own; None: theirs.
        dt_lr: the learning rate of the step sizes ``log_dt``; None: that of the other filter parameters.
        b_lr, c_lr: the same of ``B`` and of ``C``.
        decayed: those of ``log_dt``, ``B`` and ``C`` that get ``weight_decay`` all the same.

    Returns:
        Groups with the keys ``params``, ``lr`` and ``weight_decay``, the plain one first; no two of them have equal
        settings.

    Raises:
        TypeError: ``decayed`` is one name, not a collection of names.
        ValueError: a rate is negative or not finite, a declared name doesn't exist, ``decayed`` has another name,
            or two modules declare one parameter with different settings.

    References:
        Efficiently Modeling Long Sequences with Structured State Spaces, A. Gu, K. Goel and C. Ré, arXiv:2111.00396.

    >>> from longconv.models import Backbone
    >>> groups = optimizer_groups(Backbone(8, 2), lr=0.01, weight_decay=0.05, filter_lr=0.001)
    >>> [(group["lr"], group["weight_decay"]) for group in groups]
    [(0.01, 0.05), (0.001, 0.0)]
    """
    rates = {"lr": lr, "filter_lr": filter_lr, "dt_lr": dt_lr, "b_lr": b_lr, "c_lr": c_lr}
    for name, value in {**rates, "weight_decay": weight_decay}.items():
        if value is not None:
            check_real(name, value, least=0.0)
    if isinstance(decayed, str):
        raise TypeError(f"decayed is {describe(decayed)}, expected a collection of names")
    for name in decayed:
        check_choice("decayed", name, tuple(RATES))
    filters = _filter_settings(model, rates, weight_decay, decayed)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for parameter in sorted(model.parameters(), key=lambda p: id(p) in filters):
        settings = filters.get(id(parameter), (lr, weight_decay))
        new = {"params": [], "lr": settings[0], "weight_decay": settings[1]}
        groups.setdefault(settings, new)["params"].append(parameter)
    return list(groups.values())


def _filter_settings(
    model: nn.Module, rates: Mapping[str, float | None], weight_decay: float, decayed: Collection[str]
) -> dict[int, tuple[float, float]]:
    """Learning rate and weight decay of every declared filter parameter, by the parameter's id."""
    settings: dict[int, tuple[float, float]] = {}
    for path, module in model.named_modules():
        own_lr = getattr(module, "filter_lr", None)
        if own_lr is not None:
            check_real(f"{path}.filter_lr", own_lr, least=0.0)
        for name in getattr(module, "filter_parameters", ()):
            given = (rates.get(RATES.get(name, "")), rates["filter_lr"], own_lr, rates["lr"])
            rate = next(float(value) for value in given if value is not None)
            here = (rate, weight_decay if name in decayed else 0.0)
            for parameter in _parameters_of(module, name, path):
                there = settings.setdefault(id(parameter), here)
                if there != here:
                    raise ValueError(
                        f"{path}.{name} is shared, with learning rate {here[0]:g} and weight decay {here[1]:g} here, "
                        f"{there[0]:g} and {there[1]:g} elsewhere: expected the same"
                    )
    return settings


def _parameters_of(module: nn.Module, name: str, path: str) -> list[nn.Parameter]:
    """The parameters behind an attribute: itself, those of a ParameterList, or none where it is fixed or None."""
    if not hasattr(module, name):
        raise ValueError(f"{path or type(module).__name__} declares the filter parameter {name!r}, but has none of it")
    value = getattr(module, name)
    if isinstance(value, nn.Module):
        return list(value.parameters())
    return [value] if isinstance(value, nn.Parameter) else []
