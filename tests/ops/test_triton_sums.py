"""Backends ``triton`` of ``vandermonde``, ``vandermonde_log`` and ``cauchy``, see triton_calls.py."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from longconv.ops import cauchy, vandermonde
from tests.ops.native_calls import Call
from tests.ops.triton_calls import DEVICE, MARKS, compare, sizes
from tests.tolerances import assert_close

pytestmark = MARKS

Shapes = tuple[tuple[int, ...], tuple[int, ...]]

LENGTHS = sizes([1, 16, 17, 300, 700], [16384, 100003])
SHAPES: list[Shapes] = [((2, 2, 5), (2, 5)), ((2, 1, 18), (2, 18)), ((7,), (7,)), ((2, 5), (1, 5)), ((5,), (3, 2, 5))]
"""Of coefficients and of nodes or poles, with leading axes that broadcast."""


def numbers(*shape: int, is_complex: bool = True) -> Tensor:
    return torch.randn(shape, dtype=torch.complex128 if is_complex else torch.float64)


def logarithms(*shape: int, is_complex: bool, length: int) -> Tensor:
    """Of nodes that decay over about the length, and turn at any rate."""
    real = -torch.rand(shape, dtype=torch.float64) * 8 / length
    return torch.complex(real, math.pi * torch.randn(shape, dtype=torch.float64)) if is_complex else real


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("real", [False, True])
def test_powers_of_logarithms(length: int, real: bool) -> None:
    """Nodes in double precision, as the phase after a thousand steps asks for."""
    call = {"v": numbers(2, 3, 18), "log_x": logarithms(3, 18, is_complex=True, length=length)}
    compare("vandermonde_log", call, {"length": length, "real": real}, torch.float32, wide=("log_x",))


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("kinds", [(True, True), (False, True), (True, False), (False, False)], ids=str)
def test_shapes_of_powers(shapes: Shapes, kinds: tuple[bool, bool]) -> None:
    for length in (1, 40):
        v, log_x = numbers(*shapes[0], is_complex=kinds[0]), logarithms(*shapes[1], is_complex=kinds[1], length=length)
        compare("vandermonde_log", {"v": v, "log_x": log_x}, {"length": length}, torch.float32, wide=("log_x",))
        x = log_x.exp() if kinds[1] else log_x.exp() * torch.randn(shapes[1]).sign()
        compare("vandermonde", {"v": v, "x": x}, {"length": length}, torch.float32, wide=("x",))


def test_nodes_of_zero() -> None:
    """0^0 = 1, and the slope at 0 is that of the second power alone."""
    x = torch.tensor([0.0, 0.5, 1e-30], dtype=torch.complex128)
    compare("vandermonde", {"v": numbers(3), "x": x}, {"length": 20}, torch.float32, wide=("x",))
    with pytest.raises(ValueError, match="v is float64, sums are taken in single precision"):
        vandermonde(x.real.to(DEVICE), x.real.to(DEVICE), 3, backend="triton")


def poles_and_points(v: tuple[int, ...], w: tuple[int, ...], length: int) -> Call:
    poles = torch.complex(-torch.rand(w, dtype=torch.float64), torch.randn(w, dtype=torch.float64))
    points = torch.complex(torch.ones(length, dtype=torch.float64), torch.randn(length, dtype=torch.float64))
    return {"v": numbers(*v), "z": points, "w": poles}


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_cauchy(shapes: Shapes, dtype: torch.dtype) -> None:
    for length in sizes([1, 200], [16384]):
        compare("cauchy", poles_and_points(*shapes, length), {}, dtype)


@pytest.mark.parametrize("real", [("v",), ("z",), ("w",), ("z", "w"), ("v", "z", "w")], ids=str)
def test_real_arguments_of_cauchy(real: tuple[str, ...]) -> None:
    call = poles_and_points((9, 5), (9, 5), 40)
    call["w"] -= 1
    compare("cauchy", {name: t.real.contiguous() if name in real else t for name, t in call.items()}, {}, torch.float32)


def test_points_near_a_pole() -> None:
    """Their difference is formed in the precision of the points and poles, that of the residues notwithstanding."""
    call = poles_and_points((2, 5), (2, 5), 30)
    call["z"] = call["w"].flatten()[0] + 1e-6 * call["z"]
    compare("cauchy", call, {}, torch.float32, wide=("z", "w"))


@pytest.mark.parametrize("op", ["cauchy", "vandermonde"])
def test_a_set_that_is_not_finite_spoils_no_other(op: str) -> None:
    v, w = numbers(3, 5).to(DEVICE, torch.complex64), (numbers(3, 5) / 9).to(DEVICE, torch.complex64)
    z = numbers(40).to(DEVICE, torch.complex64) + 4
    clean = cauchy(v, z, w, backend="triton") if op == "cauchy" else vandermonde(v, w, 40, backend="triton")
    w[1, 2] = torch.nan
    y = cauchy(v, z, w, backend="triton") if op == "cauchy" else vandermonde(v, w, 40, backend="triton")
    assert y[1].isnan().any()
    assert_close(y[::2], clean[::2], 0.0)
