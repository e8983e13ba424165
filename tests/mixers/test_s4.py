"""S4: sampling rates, long float32 streams, states and bad input."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from longconv import create_mixer
from longconv.mixers import S4, s4
from longconv.ops.state_space_taps import torch_blocks
from tests.tolerances import assert_close


def bare(**options: Any) -> S4:
    """The state space alone with its skip, 3 features."""
    return S4(3, **{"d_state": 8, "activation": None, "output": None, **options})


def stream(mixer: S4, u: Tensor, **options: Any) -> Tensor:
    state, outputs = mixer.init_state(u.shape[0], **options), []
    with torch.no_grad():
        for u_t in u.unbind(1):
            y_t, state = mixer.step(u_t, state)
            outputs.append(y_t)
    return torch.stack(outputs, 1)


@pytest.mark.parametrize(("init", "rank"), [("legs", 1), ("legt", 2), ("fourier", 1), ("foud", 1), ("glagt", 1)])
def test_float32_steps_stay_near_forward(init: str, rank: int) -> None:
    """16384 steps with 64 states: within 1e-4, at the end too."""
    torch.manual_seed(0)
    mixer = bare(d_state=64, init=init, rank=rank)
    u = torch.randn(1, 16384, 3)
    y, want = stream(mixer, u), mixer(u)
    assert_close(y, want, 1e-4)
    assert_close(y[:, -1000:], want[:, -1000:], 1e-4)


@pytest.mark.parametrize(("init", "rank"), [("legs", 1), ("legt", 2), ("fourier", 1)])
def test_float32_chunks_stay_near_forward(init: str, rank: int) -> None:
    """Outputs and states after long chunks, to those of float64."""
    mixer = bare(d_state=64, init=init, rank=rank)
    wide = copy.deepcopy(mixer).double()
    u, outputs = torch.randn(2, 16384, 3), []
    state: Any = None
    with torch.no_grad():
        for chunk in u.split([5000, 1, 7000, 4383], 1):
            y, state = mixer.prefill(chunk, state)
            outputs.append(y)
        want, end = wide.prefill(u.double())
        assert_close(torch.cat(outputs, 1), want, 2e-6)
        assert_close(state.x, end.x, 5e-6)
        assert_close(want, wide(u.double()))


class Recorded(TorchDispatchMode):
    """Every operator that runs, with the shapes of its tensors: the work, whatever the machine does besides."""

    def __init__(self) -> None:
        super().__init__()
        self.work: list[tuple[str, list[torch.Size]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [x.shape for x in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        self.work.append((str(func), tensors))
        return func(*args, **(kwargs or {}))

    def numbers(self) -> int:
        """All numbers that the operators read."""
        return sum(shape.numel() for _, shapes in self.work for shape in shapes)


def test_step_cost_and_state_are_those_of_any_position() -> None:
    mixer, u = S4(64, d_state=64), torch.randn(2, 3000, 64)
    work = []
    with torch.no_grad():
        for length in (3, 3000):
            _, state = mixer.prefill(u[:, :length])
            with Recorded() as recorded:
                mixer.step(u[:, 0], state)
            work.append(recorded.work)
    assert any("state_space_step" in name for name, _ in work[0])
    assert work[0] == work[1]


@pytest.mark.parametrize("length", [1, 2, 3, 31, 32, 64, 65, 200])
@pytest.mark.parametrize("rank", [1, 3])
def test_sample_by_sample_is_block_by_block(length: int, rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways through a chunk, with more features than are taken at once, and their gradients."""
    monkeypatch.setattr(torch_blocks, "BLOCK_NUMBERS", 2 * 8**2)
    mixer = S4(3, d_state=8, rank=rank, channels=2, output="linear").double()
    u = torch.randn(2, length, 3, dtype=torch.float64)
    _, state = mixer.prefill(torch.randn(2, 50, 3, dtype=torch.float64))
    found = []
    for short in (True, False):
        monkeypatch.setattr(s4, "by_samples", lambda *_, short=short: short)
        y, after = mixer.prefill(u, state)
        loss = y.square().sum() + after.x.abs().square().sum()
        found.append([y, after.x, *torch.autograd.grad(loss, list(mixer.taps.parameters()), retain_graph=True)])
    for got, want in zip(*found, strict=True):
        assert_close(got, want, 1e-10)


def test_a_chunk_is_no_more_work_than_its_steps() -> None:
    """Short chunks and large matrices: forming A_bar^S would be a hundred times as much."""
    mixer = S4(64, d_state=256)
    for length in (1, 16, 256):
        u, state = torch.randn(1, length, 64), mixer.init_state(1)
        with torch.no_grad(), Recorded() as steps:
            stream(mixer, u)
        with torch.no_grad(), Recorded() as chunk:
            mixer.prefill(u, state)
        assert chunk.numbers() < 2 * steps.numbers(), length


def test_matrices_of_a_long_chunk_are_few_at_a_time() -> None:
    """(H, N, N) would be 2^22 numbers here; those in work at once stay in a cache."""
    largest = 0

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and result.ndim > 2 and result.shape[-2:] == (128, 128):
                largest = max(largest, result.numel())
            return result

    mixer, u = S4(256, d_state=128), torch.randn(1, 2500, 256)
    state = mixer.init_state(1)
    with torch.inference_mode(), Largest():
        mixer.prefill(u, state)
    assert 0 < largest <= torch_blocks.BLOCK_NUMBERS


def test_state_is_that_of_the_modes() -> None:
    """x of a step and of a chunk: the recurrence of the modes, from a state that is not zero."""
    mixer = bare(rank=2).double()
    system, C = (part if isinstance(part, tuple) else part.detach() for part in mixer.taps.discretised())
    A, B, left, right = (part.detach() for part in system)
    x = torch.randn(2, 3, 4, dtype=torch.complex128)
    u = torch.randn(2, 9, 3, dtype=torch.float64)
    state = mixer.init_state(2)._replace(x=x)
    outputs = []
    for u_t in u.unbind(1):
        s = torch.einsum("rhn,bhn->rbh", right, x).real
        x = A * x + torch.einsum("rhn,rbh->bhn", left, s.to(x.dtype)) + B * u_t[..., None]
        outputs.append(2 * (C[0] * x).sum(-1).real + mixer.D[0] * u_t)
    with torch.no_grad():
        y, after = mixer.prefill(u, state)
        assert_close(y, torch.stack(outputs, 1))
        assert_close(after.x, x)
        for u_t in u.unbind(1):
            _, state = mixer.step(u_t, state)
        assert_close(state.x, x)


def test_states_of_another_size_or_precision_are_refused() -> None:
    mixer = bare()
    u = torch.randn(2, 4, 3)
    for call in (lambda state: mixer.step(u[:, 0], state), lambda state: mixer.prefill(u, state)):
        with pytest.raises(ValueError, match=r"a state of batch size 3.*init_state\(2\) makes one that fits"):
            call(mixer.init_state(3))
        with pytest.raises(ValueError, match=r"state.x is a \(2, 3, 8\).*\(B, H, N/2\) = \(2, 3, 4\)"):
            call(bare(d_state=16).init_state(2))
        with pytest.raises(TypeError, match="expected the S4State that init_state returns"):
            call(create_mixer("s4d", 3, d_state=8).init_state(2))
    wide = copy.deepcopy(mixer).double()
    with pytest.raises(TypeError, match=r"init_state with dtype=torch.float64"):
        wide.step(u[:, 0].double(), mixer.init_state(2))
    y, _ = mixer.step(u[:, 0], mixer.init_state(2, dtype=torch.float64))
    assert_close(y, mixer.step(u[:, 0], mixer.init_state(2))[0])


def test_step_on_a_bidirectional_mixer() -> None:
    with pytest.raises(NotImplementedError, match="S4 can't stream: it is bidirectional"):
        bare(bidirectional=True).init_state(2)


def test_bad_parameters_are_named() -> None:
    mixer, u = bare(), torch.randn(1, 5, 3)
    with torch.no_grad():
        mixer.taps.B[1, 2, 0] = torch.inf
    for call in (lambda: mixer(u), lambda: mixer.init_state(1), lambda: mixer.filter(4)):
        with pytest.raises(ValueError, match=r"B\[1, 2, 0\] is inf, expected finite values"):
            call()
    with pytest.raises(ValueError, match="init is 'legz'.*did you mean"):
        bare(init="legz")
    with pytest.raises(ValueError, match="d_state is 9, expected an even number"):
        bare(d_state=9)
