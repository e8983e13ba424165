"""What only LSSL has: a long stream in float32, a system of one's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from longconv import create_mixer
from longconv.filters import hippo
from longconv.mixers import LSSL, S4D
from tests.tolerances import assert_close


@pytest.mark.parametrize("init", ["legs", "legt", "foud"])
def test_float32_over_16384_steps(init: str) -> None:
    torch.manual_seed(0)
    mixer = LSSL(2, d_state=64, init=init)
    u = torch.randn(1, 16384, 2)
    state, outputs = mixer.init_state(1), []
    with torch.inference_mode():
        for u_t in u.unbind(1):
            y_t, state = mixer.step(u_t, state)
            outputs.append(y_t)
        want = mixer.double()(u.double())
    assert_close(torch.stack(outputs, 1), want, 5e-6)


def test_any_matrix_serves() -> None:
    """A rotation that never decays, loaded in place of the measure's matrix: one impulse rings for ever."""
    mixer = LSSL(1, d_state=2, activation=None, output=None, trainable_A=True).double()
    angle = 0.3
    A = torch.tensor([[0.0, -angle], [angle, 0.0]], dtype=torch.float64)
    with torch.no_grad():
        mixer.taps.A.copy_(A)
        mixer.taps.log_dt.zero_()
    k = mixer.filter(5000)[0, 0].detach()
    assert k[-100:].norm() == pytest.approx(k[:100].norm().item(), rel=0.2)
    A_bar, _, _ = mixer.taps.discretised()
    assert_close(A_bar[0] @ A_bar[0].T, torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize("trainable", [False, True])
def test_an_unstable_system_does_not_stream(trainable: bool) -> None:
    """What A has become counts, not what it was at first; one impulse of it has finite taps for a while."""
    mixer = LSSL(2, d_state=3, trainable_A=trainable)
    with torch.no_grad():
        mixer.taps.A.copy_(2 * torch.eye(3))
    assert mixer.filter(9).isfinite().all()
    for call in (lambda: mixer.init_state(1), lambda: mixer.prefill(torch.zeros(1, 9, 2))):
        with pytest.raises(
            ValueError, match="unstable with alpha = 0.5 and dt = .*; A has an eigenvalue of real part 2"
        ):
            call()
    with torch.no_grad():
        mixer.taps.log_dt.zero_()
    for call in (lambda: mixer.init_state(1), lambda: mixer(torch.zeros(1, 9, 2))):
        with pytest.raises(ValueError, match="I - alpha dt A is singular with alpha = 0.5"):
            call()


def test_state_is_that_of_the_differential_equation() -> None:
    """Of legs after a constant input of ones: the projection of a constant on the Legendre polynomials."""
    mixer = LSSL(1, d_state=4, activation=None, output=None, dt_min=0.1, dt_max=0.1).double()
    u = torch.ones(1, 2000, 1, dtype=torch.float64)
    _, state = mixer.prefill(u)
    A, B = hippo.transition("legs", 4)
    assert_close(state.x[0, 0], -torch.linalg.solve(A, B))


@pytest.mark.parametrize("change", [{"batch": 3}, {"dtype": torch.float64}, {"mixer": True}], ids=str)
def test_states_that_do_not_fit(change: dict[str, Any]) -> None:
    mixer = LSSL(2, d_state=4)
    state = S4D(2, d_state=4).init_state(2) if "mixer" in change else mixer.init_state(change.get("batch", 2))
    u = torch.zeros(2, 5, 2)
    if "dtype" in change:
        mixer, u = mixer.double(), u.double()
    error, message = {
        "batch": (ValueError, r"batch size 3.*init_state\(2\)"),
        "dtype": (TypeError, "float32.*float64.*dtype=torch.float64"),
        "mixer": (TypeError, "expected the DenseState"),
    }[next(iter(change))]
    for call in (lambda: mixer.prefill(u, state), lambda: mixer.step(u[:, 0], state)):
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize("name", ["lssl", "dss", "s5"])
def test_compiled_with_a_symbolic_length(name: str) -> None:
    """The number of doublings and chunks follows the length."""
    torch._dynamo.reset()
    mixer = create_mixer(name, 2, d_state=4).double()
    compiled = torch.compile(mixer, fullgraph=True, backend="aot_eager", dynamic=True)
    for length in (20, 33, 100):
        u = torch.randn(2, length, 2, dtype=torch.float64)
        assert_close(compiled(u), mixer(u))
