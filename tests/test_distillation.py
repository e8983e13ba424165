"""Distillation: exact recovery, errors that fall, mixers that stream by what came out, plots, bad input."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from longconv import create_mixer, distill
from longconv.filters import DistilledFilter, FreeFilter, ImplicitFilter
from longconv.mixers import ConvolutionMixer, Hyena, Mixer
from longconv.models import LanguageModel, generate
from longconv.streaming import ModalConv
from tests.tolerances import assert_close, relative_l2


def modal(poles: list[complex], length: int, rows: int = 5) -> Tensor:
    """Filters (H, L) with the same poles and random residues; a complex pole stands for a pair."""
    generator = torch.Generator().manual_seed(0)
    residues = torch.randn(rows, len(poles), dtype=torch.complex128, generator=generator)
    powers = torch.tensor(poles, dtype=torch.complex128)[:, None] ** torch.arange(length)
    return (residues @ powers).real


POLES = [0.9 + 0.3j, 0.5 - 0.6j, 0.97, -0.8, 0.02]
ORDER = 7


@pytest.mark.parametrize("steps", [0, 20])
@pytest.mark.parametrize("length", [16, 101, 1500])
def test_a_filter_of_that_order_or_less_is_recovered(length: int, steps: int) -> None:
    """With real poles, negative ones and pairs, from as few taps as determine them; 1500 take the random vectors."""
    k = modal(POLES, length)
    for order in (ORDER, *([ORDER + 4] if length > 16 else [])):
        mixer, error, errors, target, fitted = distill(k, order, steps=steps)
        assert error < 1e-9 and errors.shape == (5,) and errors.max() < 1e-8
        assert torch.equal(target, k)
        assert_close(fitted, k, 1e-9)
        assert_close(mixer.filter(3 * length)[0], modal(POLES, 3 * length), 1e-8)


def test_single_precision_keeps_long_phases() -> None:
    """A frequency rounded to 24 bits would be off by 2e-4 of a period at the end."""
    k = modal([0.9998 * complex(-0.6, 0.8)], 4000).float()
    mixer, error, *_ = distill(k, 2)
    assert {p.dtype for p in mixer.parameters()} == {torch.float32}
    assert error < 1e-6


def test_unequal_filters_in_one_call() -> None:
    """Filters of other numbers of real poles, of order 0, and of zeros: none takes from another."""
    k = torch.stack([modal([0.9 + 0.3j, 0.4j], 80, 1)[0], modal([0.9, -0.5, 0.3, 0.7], 80, 1)[0], torch.zeros(80)])
    k = torch.cat([k, torch.eye(1, 80)]).double()
    _, error, errors, _, fitted = distill(k, 4)
    assert error < 1e-9 and errors.max() < 1e-9 and errors[2] == 0
    assert fitted[2].abs().max() == 0


@pytest.mark.parametrize("seed", range(4))
def test_streams_lose_nothing_in_cancellation(seed: int) -> None:
    """Step = prefill = forward in float32, over 1000 samples, for filters that so few modes don't fit."""
    torch.manual_seed(seed)
    found, u = distill(create_mixer("s4", 8, d_state=64), 16, length=1024), torch.randn(1, 1000, 8)
    assert isinstance(found.mixer, ConvolutionMixer)
    taps = found.mixer.taps
    assert isinstance(taps, DistilledFilter)
    A_bar, B_bar, C, _ = taps.system()
    sizes = (2 * (C * B_bar).abs() * ((1 - A_bar.abs() ** 2048) / (1 - A_bar.abs() ** 2)).sqrt()).sum(-1)
    assert (sizes <= 101 * found.k.double().norm(dim=-1)).all()
    with torch.no_grad():
        want, state, outputs = found.mixer(u), found.mixer.init_state(1), []
        for u_t in u.unbind(1):
            y_t, state = found.mixer.step(u_t, state)
            outputs.append(y_t)
        assert_close(torch.stack(outputs, 1), want, 1e-5)
        assert_close(found.mixer.prefill(u)[0], want, 1e-5)


@pytest.mark.parametrize(("dtype", "double_pole", "tap"), [(torch.float64, 1e-6, 1e-5), (torch.float32, 3e-3, 2e-2)])
def test_multiple_poles_are_approximated_at_any_order(dtype: torch.dtype, double_pole: float, tap: float) -> None:
    l = torch.arange(256, dtype=torch.float64)
    for k, orders, bound in ((l * 0.9**l, range(2, 13), double_pole), ((l == 5).double(), range(6, 13), tap)):
        errors = [distill(k.to(dtype)[None], order).error for order in orders]
        assert max(errors) < bound, errors


def test_errors_fall_with_the_order_and_by_refinement() -> None:
    torch.manual_seed(0)
    taps = ImplicitFilter(8, 9, w=4.0, l_max=128)
    errors = {steps: [distill(taps, order, steps=steps).error for order in (1, 2, 4, 8, 16, 32)] for steps in (0, 20)}
    for plain, refined in zip(errors[0], errors[20], strict=True):
        assert refined <= plain + 1e-6
    assert errors[20] == sorted(errors[20], reverse=True)
    assert errors[20][0] > 0.5 and errors[20][-1] < 0.1 * errors[20][0]
    assert errors[20][2] < 0.99 * errors[0][2]


def test_the_first_tap_is_exact() -> None:
    k = torch.randn(3, 64, dtype=torch.float64)
    assert_close(distill(k, 4).k_hat[:, 0], k[:, 0])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("long_conv", {"channels": 2}),
        ("long_conv", {"output": None, "activation": None}),
        ("sgconv", {"norm": "layer", "kernel_dim": 8}),
        ("hyena", {"order": 3}),
        ("hyena", {"heads": 2}),
        ("hyena", {"heads": 2, "outer_product": True}),
        ("s4d", {"d_state": 16, "channels": 2}),
        ("s4", {"d_state": 16}),
    ],
)
def test_a_mixer_streams_by_modes(name: str, options: dict[str, object]) -> None:
    """Step = prefill = forward; the output is the mixer's own with the filter that came out, and nothing else."""
    torch.manual_seed(0)
    sizes = {} if name in ("s4", "s4d") else {"l_max": 64}
    mixer, u = create_mixer(name, 6, **sizes, **options).double(), torch.randn(2, 90, 6, dtype=torch.float64)
    before = mixer(u)
    found = distill(mixer, 12, length=96, steps=5)
    other = found.mixer
    assert torch.equal(mixer(u), before), "the mixer that was given is left alone"
    want = other(u)
    assert relative_l2(want, before) <= 4 * found.error + 1e-9
    with torch.no_grad():
        y0, state = other.prefill(u[:, :33])
        y1, state = other.step(u[:, 33], state)
        y2, state = other.prefill(u[:, 34:34], state)
        y3, _ = other.prefill(u[:, 34:], state)
    assert_close(torch.cat([y0, y1[:, None], y2, y3], 1), want, 1e-11)
    assert found.k_hat.shape == found.k.shape and found.errors.shape == found.k.shape[:-1]
    (gradient,) = torch.autograd.grad(want.square().sum(), [next(iter(other.taps.parameters()))])  # type: ignore[union-attr]
    assert gradient.isfinite().all()


def test_the_length_that_is_fitted() -> None:
    """Twice the filter, where nothing is said: what comes after its end counts."""
    taps = FreeFilter(3, l_max=40)
    found = distill(taps, 6)
    assert found.k.shape == (1, 3, 80) and isinstance(found.mixer, ConvolutionMixer)
    assert (found.k[..., 40:] == 0).all()
    assert distill(taps, 6, length=50).k.shape == (1, 3, 50)


def test_generation_by_distilled_filters() -> None:
    """A model whose filters are of low order says the same as before."""
    torch.manual_seed(0)
    model = LanguageModel(11, d_model=8, n_layers=2, mixer="hyena", mixer_options={"l_max": 64, "w": 0.5}).eval()
    prompt = torch.tensor([[1, 2, 3]])
    want = generate(model, prompt, 40, temperature=0.0)
    for block in model.trunk.backbone.blocks():
        found = distill(block.mixer, 8)
        assert found.error < 1e-5
        block.mixer = found.mixer
    assert torch.equal(generate(model, prompt, 40, temperature=0.0), want)


def test_states_of_modes_are_of_real_floats() -> None:
    found = distill(create_mixer("hyena", 4, l_max=32), 4)
    with pytest.raises(TypeError, match=r"dtype is torch\.int64"):
        found.mixer.init_state(1, dtype=torch.int64)
    system = modal_system()
    with pytest.raises(TypeError, match=r"dtype is torch\.int64"):
        ModalConv(lambda: system).init_state(1, dtype=torch.int64)


def modal_system() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    one = torch.ones(1, 1, dtype=torch.complex128)
    return one / 2, one, one[None] / 2, torch.zeros(1, 1)


def test_plot(tmp_path: Path) -> None:
    found = distill(torch.randn(3, 64), 4)
    figure = found.plot(tmp_path / "filters.png", count=2)
    assert len(figure.axes) == 3
    assert (tmp_path / "filters.png").stat().st_size > 1000
    assert len(found.plot(count=9).axes) == 4


@pytest.mark.gpu
def test_plot_of_filters_on_a_gpu(tmp_path: Path) -> None:
    found = distill(torch.randn(3, 64, device="cuda"), 4)
    assert len(found.plot(tmp_path / "filters.png", count=2).axes) == 3


def test_plot_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"longconv\[plot\]"):
        distill(torch.randn(3, 64), 4).plot()


class NoFilter(Mixer):
    def forward(self, u: Tensor, lengths: Tensor | None = None) -> Tensor:
        return u


@pytest.mark.parametrize(
    ("filter", "options", "error", "message"),
    [
        (torch.randn(3, 64), {"order": 0}, ValueError, "order is 0, expected an integer >= 1"),
        (torch.randn(3, 64), {"order": 2.0}, TypeError, "order is 2.0"),
        (torch.randn(3, 64), {"order": 32}, ValueError, "order is 32, expected at most L / 2 - 1 = 31 for 64 taps"),
        (torch.randn(3, 64), {"steps": -1}, ValueError, "steps is -1"),
        (torch.randn(3, 64), {"length": 9}, ValueError, "length is 9, expected None"),
        (torch.randn(3, 64).long(), {}, TypeError, "filter is .*int64"),
        (torch.randn(64), {}, ValueError, r"filter is a \(64,\).*expected shape \(H, L\)"),
        (torch.randn(0, 64), {}, ValueError, "at least one filter"),
        (torch.full((3, 64), torch.nan), {}, ValueError, r"the filter\[0, 0\] is nan"),
        (FreeFilter(3, 2, l_max=64), {}, ValueError, "one channel"),
        ("s4d", {}, TypeError, "filter is 's4d'"),
        (create_mixer("s5", 4, d_state=8), {}, TypeError, "filter is S5"),
        (create_mixer("long_conv", 4, bidirectional=True), {}, ValueError, "bidirectional LongConv"),
        (Hyena(4, bidirectional=True), {}, ValueError, "bidirectional Hyena"),
        (NoFilter(4), {}, NotImplementedError, "its taps depend on the input"),
    ],
)
def test_bad_input(filter: object, options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        distill(filter, **{"order": 2, **options})  # type: ignore[arg-type]
