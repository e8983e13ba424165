"""S5: the public function against its definition, its gradients and errors, and what only this mixer has."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from longconv import create_mixer
from longconv.filters import S5Filter
from longconv.mixers import S5
from longconv.mixers.s5 import CHUNK, ssm
from tests.tolerances import assert_close

B, H, P = 2, 3, 4
LENGTHS = (1, 2, CHUNK, CHUNK + 1, 5 * CHUNK, 5 * CHUNK + 3)


def system(columns: int = 1, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, dtype: torch.dtype = torch.complex128) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    modulus = torch.tensor([0.0, 0.5, 0.99, 1.0], dtype=torch.float64)
    return {
        "Lambda_bar": torch.polar(modulus, normal(P, dtype=torch.float64)),
        "B_bar": normal(P, H),
        "C": normal(H, columns * P),
        "D": normal(H, dtype=torch.float64),
        "initial": normal(B, columns * P),
    }


def inputs(length: int) -> Tensor:
    return torch.randn(B, length, H, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def by_steps(u: Tensor, Lambda_bar: Tensor, B_bar: Tensor, initial: Tensor) -> Tensor:
    states, x = [], initial
    for u_t in u.unbind(1):
        x = Lambda_bar * x + u_t.to(x.dtype) @ B_bar.T
        states.append(x)
    return torch.stack(states, 1)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("conj_sym", [True, False])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_definition(length: int, conj_sym: bool, bidirectional: bool) -> None:
    parts, u = system(1 + bidirectional), inputs(length)
    first, *second = parts["initial"].chunk(1 + bidirectional, -1)
    x = by_steps(u, parts["Lambda_bar"], parts["B_bar"], first)
    for start in second:
        x = torch.cat([x, by_steps(u.flip(1), parts["Lambda_bar"], parts["B_bar"], start).flip(1)], -1)
    want = (2 if conj_sym else 1) * (x @ parts["C"].T).real + parts["D"] * u
    y, final = ssm(u, **parts, conj_sym=conj_sym, bidirectional=bidirectional)
    assert_close(y, want)
    assert_close(final, x[:, -1])


def test_what_is_left_out_counts_as_zero() -> None:
    parts, u = system(), inputs(40)
    zeros = {"D": torch.zeros(H, dtype=torch.float64), "initial": torch.zeros(B, P, dtype=torch.complex128)}
    y, final = ssm(u, parts["Lambda_bar"], parts["B_bar"], parts["C"])
    want, want_final = ssm(u, **parts | zeros)
    assert_close(y, want)
    assert_close(final, want_final)


@pytest.mark.parametrize("length", [3, CHUNK + 3])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_gradients(length: int, bidirectional: bool) -> None:
    parts = {name: part.requires_grad_() for name, part in system(1 + bidirectional).items()}
    u = inputs(length).requires_grad_()

    def function(u: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        named: dict[str, Any] = dict(zip(parts, values, strict=True))
        return ssm(u, **named, bidirectional=bidirectional)

    assert torch.autograd.gradcheck(function, (u, *parts.values()))


def test_float32_with_an_exact_system() -> None:
    """Over modes that ring for 10^4 samples: powers of a rounded Lambda_bar would be off by 1e-4."""
    parts, u = system(), inputs(16384)
    parts["Lambda_bar"] = torch.polar(torch.full((P,), 1 - 1e-4).double(), torch.linspace(0.01, 1, P).double())
    parts["initial"] = parts["initial"].to(torch.complex64)
    y, final = ssm(u.float(), **parts)
    want, want_final = ssm(u, **parts)
    assert y.dtype == torch.float32 and final.dtype == torch.complex64
    assert_close(y, want, 2e-6)
    assert_close(final, want_final, 4e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits(dtype: torch.dtype) -> None:
    parts, u = system(), inputs(50)
    parts["initial"] = parts["initial"].to(torch.complex64)
    y, final = ssm(u.to(dtype), **parts)
    assert y.dtype == dtype and final.dtype == torch.complex64
    assert_close(y, ssm(u.to(dtype).double(), **parts)[0])


def test_empty_sequences() -> None:
    parts = system(2)
    y, final = ssm(inputs(0), **parts, bidirectional=True)
    assert y.shape == (B, 0, H)
    assert torch.equal(final, parts["initial"])
    y, final = ssm(torch.zeros(0, 9, H), **{k: v for k, v in system().items() if k != "initial"})
    assert y.shape == (0, 9, H) and final.shape == (0, P)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"u": torch.zeros(B, H)}, ValueError, "u is a (2, 3)"),
        ({"u": torch.zeros(B, 9, H) + 0j}, TypeError, "u is a (2, 9, 3) complex64"),
        ({"Lambda_bar": torch.zeros(P)}, TypeError, "Lambda_bar is a (4,) float32"),
        ({"B_bar": torch.zeros(H, P) + 0j}, ValueError, "B_bar is a (3, 4) complex64 tensor, expected shape (P, H)"),
        ({"C": torch.zeros(H, 2 * P) + 0j}, ValueError, "C is a (3, 8) complex64 tensor, expected shape (H, P)"),
        ({"bidirectional": True}, ValueError, "C is a (3, 4) complex128 tensor, expected shape (H, 2P)"),
        ({"D": torch.zeros(1, H)}, ValueError, "D is a (1, 3)"),
        ({"initial": torch.zeros(B + 1, P) + 0j}, ValueError, "initial is a (3, 4) complex64"),
        ({"initial": torch.zeros(B, P)}, TypeError, "initial is a (2, 4) float32"),
        ({"C": torch.full((H, P), complex("nan"))}, ValueError, "C[0, 0] is nan"),
        ({"Lambda_bar": torch.tensor([0, 0, 1.9, 0]) + 0j}, ValueError, "|Lambda_bar|^2000[2] is inf"),
    ],
    ids=str,
)
def test_bad_input(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        ssm(**{"u": inputs(2000), **system(), **changes})


# --- the mixer --------------------------------------------------------------------------------------------------------


def test_float32_over_16384_steps() -> None:
    torch.manual_seed(0)
    mixer, u = S5(2), torch.randn(1, 16384, 2)
    state, outputs = mixer.init_state(1), []
    with torch.inference_mode():
        for u_t in u.unbind(1):
            y_t, state = mixer.step(u_t, state)
            outputs.append(y_t)
        y = mixer(u)
        want = mixer.double()(u.double())
    assert_close(torch.stack(outputs, 1), want, 5e-6)
    assert_close(y, want, 5e-6)


def test_clip_bounds_the_real_part() -> None:
    mixer, free = (S5(H, d_state=8, clip=clip) for clip in (True, False))
    with torch.no_grad():
        for taps in (mixer.taps, free.taps):
            taps.Lambda[:2, 0] = 3.0
    modulus, unbounded = mixer.taps.discretised()[0].abs(), free.taps.discretised()[0].abs()
    assert (modulus < 1).all() and (unbounded[:2] > 1).all()
    assert mixer(torch.ones(1, 40000, H)).isfinite().all()
    with pytest.raises(ValueError, match="unstable.*clip"):
        free(torch.ones(1, 400000, H))
    with pytest.raises(ValueError, match="unstable.*clip"):
        free.filter(400000)


@pytest.mark.parametrize("length", [1, 2, 3, 17, 64, 100])
def test_taps_are_the_powers(length: int) -> None:
    taps = S5Filter(H, 16).double()
    Lambda_bar, B_bar, C = taps.discretised()
    powers = Lambda_bar[:, None] ** torch.arange(length)
    assert_close(taps(length), 2 * torch.einsum("cn,nl,nh->chl", C, powers, B_bar).real)


MEMORY = """
import resource, torch
from longconv.filters import S5Filter
torch.set_num_threads(1)
taps = S5Filter(64, 256)
taps(64).sum().backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
taps(4096).sum().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_of_the_taps_is_bounded() -> None:
    """H = 64, N = 256, L = 4096: 67 MB of taps; the modes of every output would be 1.6 GB."""
    result = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 4e5, f"{int(result.stdout) / 1e3:.0f} MB above the start"


def test_an_unstable_system_does_not_stream() -> None:
    """It overflows sooner or later, so it is refused by its Lambda before the first step; modes that ring are not."""
    mixer = S5(H, d_state=8)
    with torch.no_grad():
        mixer.taps.Lambda[:, 0] = 0.0
    y, _ = mixer.prefill(torch.ones(1, 100, H))
    assert_close(y, mixer(torch.ones(1, 100, H)))
    with torch.no_grad():
        mixer.taps.Lambda[2, 0] = 5.0
    for call in (lambda: mixer.init_state(1), lambda: mixer.prefill(torch.ones(1, 9, H))):
        with pytest.raises(
            ValueError, match=r"^Lambda\[2\] is 5.*system is unstable, \|Lambda_bar\[2\]\| = .*clip=True"
        ):
            call()
    bounded = S5(H, d_state=8, clip=True)
    bounded.load_state_dict(mixer.state_dict())
    assert bounded.prefill(torch.ones(1, 100, H))[0].isfinite().all()


def test_blocks_start_from_one_matrix_each() -> None:
    for d_state, blocks, want in ((32, None, 8), (24, None, 1), (24, 3, 3)):
        Lambda = torch.view_as_complex(S5Filter(H, d_state, blocks=blocks).Lambda).detach()
        assert_close(Lambda.view(want, -1), Lambda[: d_state // 2 // want].expand(want, -1))


def test_all_modes_begin_as_conjugate_pairs() -> None:
    Lambda = torch.view_as_complex(S5Filter(H, 8, conj_sym=False).Lambda).detach()
    assert_close(Lambda[4:], Lambda[:4].conj())


@pytest.mark.parametrize("conj_sym", [True, False])
@pytest.mark.parametrize(("width", "d_state"), [(8, 64), (64, 256)])
def test_scale_at_the_start(width: int, d_state: int, conj_sym: bool) -> None:
    """White noise comes out with variance f^2 / (2 P) sum_n |s_n|^2 / (1 - |Lambda_bar_n|^2), for a B_bar of s_n B.

    So it is where the rows of B have norm 1 and the numbers of C variance 1 / P, whatever the sizes.
    """
    torch.manual_seed(0)
    mixer = S5(width, d_state=d_state, conj_sym=conj_sym, activation=None, output=None)
    with torch.no_grad():
        mixer.D.zero_()
        Lambda_bar, _, _ = mixer.taps.discretised()
        Lambda = torch.view_as_complex(mixer.taps.Lambda.double())
        variance = ((Lambda_bar - 1) / Lambda).abs().square() / (1 - Lambda_bar.abs().square())
        scale = mixer(torch.randn(8, 4000, width))[:, 1000:].std().item()
    assert scale == pytest.approx(mixer.taps.factor * (variance.mean().item() / 2) ** 0.5, rel=0.15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 7}, "d_state is 7, expected a multiple of 2"),
        ({"d_state": 24, "blocks": 8}, "d_state is 24, expected a multiple of 2 blocks = 16"),
        ({"blocks": 0}, "blocks is 0"),
        ({"discretization": "zho"}, "did you mean 'zoh'"),
        ({"init": "lmu"}, "normal plus low rank"),
        ({"init": "lgs"}, "did you mean 'legs'"),
        ({"output": "half_glu"}, "did you mean 'half_glu"),
        ({"activation": "gelo"}, "did you mean 'gelu"),
        ({"dt_min": 0.0}, "dt_min is 0"),
        ({"dt_max": 1e-4}, "dt_max is 0.0001"),
    ],
    ids=str,
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_mixer("s5", H, **options)


@pytest.mark.parametrize(("C_init", "variance"), [("trunc_standard_normal", 1 / 32), ("lecun_normal", 1 / 768)])
def test_c_starts_from_real_states_with_the_published_variance(C_init: str, variance: float) -> None:
    """From as many numbers as the real state has, through an eigenbasis of half as many orthonormal columns."""
    torch.manual_seed(0)
    C = torch.view_as_complex(S5Filter(24, 64, C_init=C_init, bidirectional=True).C.detach())
    assert C.shape == (24, 64)
    assert_close(C.abs().square().mean(), torch.tensor(variance), 0.1)


def test_c_may_start_from_numbers_of_its_own() -> None:
    torch.manual_seed(0)
    C = torch.view_as_complex(S5Filter(24, 64, C_init="complex_normal").C.detach())
    assert C.shape == (24, 32)
    assert_close(C.abs().square().mean(), torch.tensor(1.0), 0.15)
    with pytest.raises(ValueError, match="C_init is 'lecun'.*did you mean 'lecun_normal'"):
        S5Filter(24, 64, C_init="lecun")


def test_nan_parameters_are_named() -> None:
    mixer = S5(H, d_state=8)
    with torch.no_grad():
        mixer.taps.log_dt[1] = torch.nan
    for call in (lambda: mixer(torch.zeros(1, 9, H)), lambda: mixer.filter(9), lambda: mixer.init_state(1)):
        with pytest.raises(ValueError, match=r"log_dt\[1\] is nan"):
            call()
