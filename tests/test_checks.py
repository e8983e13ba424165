"""The wording and the strictness of argument checks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from longconv import _checks


@pytest.mark.parametrize(("value", "error"), [(True, TypeError), (1.0, TypeError), ("1", TypeError), (0, ValueError)])
def test_check_int(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="d_model is .*expected an integer >= 1"):
        _checks.check_int("d_model", value)
    assert _checks.check_int("d_model", 3) == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.1])
def test_check_real(value: float) -> None:
    with pytest.raises(ValueError, match=r"dropout is .*in \[0, 1\]"):
        _checks.check_real("dropout", value, least=0, most=1)
    with pytest.raises(TypeError, match="dropout"):
        _checks.check_real("dropout", "0.5", least=0, most=1)
    with pytest.raises(ValueError, match=r"dt_min is 0.*\(0"):
        _checks.check_real("dt_min", 0, least=0, open_least=True)


def test_check_real_says_which_bounds_it_takes() -> None:
    for bounds, words in [
        ({"least": 0.001}, r"in \[0.001, inf\)"),
        ({"least": 0, "most": 1, "open_least": True}, r"in \(0, 1\]"),
        ({}, r"in \(-inf, inf\)"),
    ]:
        with pytest.raises(ValueError, match=words):
            _checks.check_real("x", float("inf"), **bounds)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [1, 0.5, "yes", None])
def test_check_bool(value: Any) -> None:
    assert _checks.check_bool("flag", True) is True
    with pytest.raises(TypeError, match="flag is .*expected True or False"):
        _checks.check_bool("flag", value)


def test_a_symbolic_size_keeps_its_condition() -> None:
    size = ShapeEnv().create_unbacked_symint()
    assert _checks.check_int("length", size, least=3) is size
    assert bool(size >= 3)


def test_check_options_names_the_unknown_and_the_nearest() -> None:
    with pytest.raises(
        TypeError, match=r"s4d has no option 'd_stat'; did you mean 'd_state'\? \(its options: d_state, init\)"
    ):
        _checks.check_options("s4d", ["init", "d_stat"], ["d_state", "init"])


def test_check_choice_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="norm is 'bacth' .*did you mean 'batch'"):
        _checks.check_choice("norm", "bacth", ("layer", "batch"))


def test_describe_is_short() -> None:
    assert _checks.describe(torch.zeros(2, 3)) == "a (2, 3) float32 tensor"
    assert len(_checks.describe("x" * 1000)) < 80
    assert "\n" not in _checks.describe([torch.zeros(2, 3)])


def test_check_values_names_the_first_bad_one() -> None:
    x = torch.ones(2, 3)
    _checks.check_values("x", x, positive=True)
    x[1, 2] = torch.nan
    with pytest.raises(ValueError, match=r"x\[1, 2\] is nan, expected finite values: A is wrong"):
        _checks.check_values("x", x, because="A is wrong")
    x[1, 0] = 0
    with pytest.raises(ValueError, match=r"x\[1, 0\] is 0, expected finite, positive values"):
        _checks.check_values("x", x, positive=True)
    with pytest.raises(ValueError, match=r"z is inf\+0j, expected finite"):
        _checks.check_values("z", torch.tensor(complex("inf")))
