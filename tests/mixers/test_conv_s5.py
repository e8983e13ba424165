"""ConvS5: the public function against its definition, its gradients and errors, and what only this mixer has."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from longconv import create_mixer
from longconv.mixers import ConvS5
from longconv.mixers.conv_s5 import conv_ssm
from longconv.mixers.s5 import CHUNK, ssm
from tests.tolerances import assert_close

B, U, P, H, W = 2, 3, 4, 5, 6


def system(k: int = 3, c: int = 3, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, dtype: torch.dtype = torch.complex128) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    modulus = torch.tensor([0.0, 0.5, 0.99, 1.0], dtype=torch.float64)
    return {
        "A_bar": torch.polar(modulus, normal(P, dtype=torch.float64)),
        "B_bar": normal(P, U, k, k),
        "C": normal(U, P, c, c),
        "initial": normal(B, P, H, W),
    }


def inputs(length: int, size: tuple[int, int] = (H, W)) -> Tensor:
    return torch.randn(B, length, U, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def correlate(frame: Tensor, kernel: Tensor) -> Tensor:
    """The definition, tap by tap: sum over q, m, n of kernel[p, q, m, n] frame[q, i + m - k//2, j + n - k//2]."""
    half, k = kernel.shape[-1] // 2, kernel.shape[-1]
    padded = torch.nn.functional.pad(frame, (half, half, half, half)).to(kernel.dtype)
    total = torch.zeros(frame.shape[0], kernel.shape[0], *frame.shape[2:], dtype=kernel.dtype)
    for m in range(k):
        for n in range(k):
            shifted = padded[:, :, m : m + frame.shape[2], n : n + frame.shape[3]]
            total = total + torch.einsum("pq,bqij->bpij", kernel[:, :, m, n], shifted)
    return total


def by_steps(u: Tensor, A_bar: Tensor, B_bar: Tensor, C: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
    outputs, x = [], initial
    for u_t in u.unbind(1):
        x = A_bar[:, None, None] * x + correlate(u_t, B_bar)
        outputs.append(2 * correlate(x, C).real)
    return torch.stack(outputs, 1), x


@pytest.mark.parametrize("length", [1, 2, CHUNK, CHUNK + 1, 3 * CHUNK])
@pytest.mark.parametrize(("k", "c"), [(3, 3), (1, 5), (5, 1)])
def test_definition(length: int, k: int, c: int) -> None:
    parts, u = system(k, c), inputs(length)
    want, want_final = by_steps(u, **parts)
    y, final = conv_ssm(u, **parts)
    assert_close(y, want)
    assert_close(final, want_final)


def test_kernels_of_one_pixel_make_an_s5_of_every_pixel() -> None:
    parts, u = system(1, 1), inputs(20)
    y, final = conv_ssm(u, **parts)
    pixels = u.permute(0, 3, 4, 1, 2).flatten(0, 2)
    start = parts["initial"].permute(0, 2, 3, 1).flatten(0, 2)
    want, want_final = ssm(pixels, parts["A_bar"], parts["B_bar"][..., 0, 0], parts["C"][..., 0, 0], initial=start)
    assert_close(y, want.unflatten(0, (B, H, W)).permute(0, 3, 4, 1, 2))
    assert_close(final, want_final.unflatten(0, (B, H, W)).permute(0, 3, 1, 2))


def test_what_is_left_out_counts_as_zero() -> None:
    parts, u = system(), inputs(9)
    zeros = parts | {"initial": torch.zeros(B, P, H, W, dtype=torch.complex128)}
    for got, want in zip(conv_ssm(u, *list(parts.values())[:3]), conv_ssm(u, **zeros), strict=True):
        assert_close(got, want)


@pytest.mark.parametrize("length", [2, CHUNK + 2])
def test_gradients(length: int) -> None:
    parts = {name: part.requires_grad_() for name, part in system().items()}
    parts["initial"] = parts["initial"].detach()[..., :3, :4].clone().requires_grad_()
    u = inputs(length, (3, 4)).requires_grad_()
    assert torch.autograd.gradcheck(conv_ssm, (u, *parts.values()), fast_mode=True)
    assert torch.autograd.gradcheck(lambda *values: conv_ssm(*values)[0], (u, *parts.values()), fast_mode=length > 2)


def test_a_shifted_video_has_a_shifted_output() -> None:
    """Away from the border, as frames have zeros around them."""
    parts, u = system(), inputs(20, (16, 16))
    parts["initial"] = None
    y, _ = conv_ssm(u, **parts)
    moved, _ = conv_ssm(u.roll((2, -3), (3, 4)), **parts)
    assert_close(moved[..., 6:-6, 6:-6], y.roll((2, -3), (3, 4))[..., 6:-6, 6:-6])


def test_it_is_linear_in_frames_and_state() -> None:
    parts, u = system(), inputs(20)
    first, _ = conv_ssm(u, **parts)
    second, _ = conv_ssm(-2 * u.flip(1), **parts | {"initial": 3 * parts["initial"]})
    both, _ = conv_ssm(u - 2 * u.flip(1), **parts | {"initial": 4 * parts["initial"]})
    assert_close(both, first + second, 1e-11)


def test_layouts_are_served_alike() -> None:
    """Frames with the features innermost, and a state cut from a larger one."""
    parts, u = system(), inputs(9)
    want, _ = conv_ssm(u, **parts)
    wide = torch.stack([parts["initial"]] * 2, -1)[..., 0]
    y, _ = conv_ssm(u.movedim(2, -1).contiguous().movedim(-1, 2), **parts | {"initial": wide})
    assert_close(y, want)


def test_float32_with_an_exact_system() -> None:
    """Over modes that ring for 10^4 frames: powers of a rounded A_bar would be off by 1e-4."""
    parts, u = system(), inputs(4096, (3, 3))
    parts["A_bar"] = torch.polar(torch.full((P,), 1 - 1e-4).double(), torch.linspace(0.01, 1, P).double())
    parts["initial"] = parts["initial"][..., :3, :3].to(torch.complex64)
    y, final = conv_ssm(u.float(), **parts)
    want, want_final = conv_ssm(u, **parts)
    assert y.dtype == torch.float32 and final.dtype == torch.complex64
    assert_close(y, want, 2e-6)
    assert_close(final, want_final, 4e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits(dtype: torch.dtype) -> None:
    parts, u = system(), inputs(20)
    parts["initial"] = parts["initial"].to(torch.complex64)
    y, final = conv_ssm(u.to(dtype), **parts)
    assert y.dtype == dtype and final.dtype == torch.complex64
    assert_close(y, conv_ssm(u.to(dtype).double(), **parts)[0])


def test_empty_videos() -> None:
    parts = system()
    y, final = conv_ssm(inputs(0), **parts)
    assert y.shape == (B, 0, U, H, W) and torch.equal(final, parts["initial"])
    y, final = conv_ssm(torch.zeros(0, 9, U, H, W), *list(parts.values())[:3])
    assert y.shape == (0, 9, U, H, W) and final.shape == (0, P, H, W)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_frames_that_are_not_finite_stay_in_their_sample(value: float) -> None:
    parts, u = system(), inputs(20)
    clean, _ = conv_ssm(u, **parts)
    u[1, 3, 0, 2, 2] = value
    y, _ = conv_ssm(u, **parts)
    assert torch.equal(y[0], clean[0]) and torch.equal(y[1, :3], clean[1, :3]) and not y[1, 3].isfinite().all()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"u": torch.zeros(B, 9, U)}, ValueError, "u is a (2, 9, 3) float32 tensor, expected shape (B, T, U, H, W)"),
        ({"u": torch.zeros(B, 9, U, H, W) + 0j}, TypeError, "u is a (2, 9, 3, 5, 6) complex64"),
        ({"A_bar": torch.zeros(P)}, TypeError, "A_bar is a (4,) float32"),
        ({"A_bar": torch.zeros(P, P) + 0j}, ValueError, "A_bar is a (4, 4) complex64"),
        (
            {"B_bar": torch.zeros(P, U, 2, 2) + 0j},
            ValueError,
            "B_bar is a (4, 3, 2, 2) complex64 tensor, expected an odd",
        ),
        (
            {"B_bar": torch.zeros(P, U, 7, 7) + 0j},
            ValueError,
            "B_bar is a (4, 3, 7, 7) complex64 tensor, a kernel larger",
        ),
        ({"B_bar": torch.zeros(P, U, 3, 5) + 0j}, ValueError, "expected shape (P, U, k, k) = (4, 3, 5, any)"),
        ({"B_bar": torch.zeros(P, U, 3) + 0j}, ValueError, "B_bar is a (4, 3, 3)"),
        (
            {"C": torch.zeros(P, U, 3, 3) + 0j},
            ValueError,
            "C is a (4, 3, 3, 3) complex64 tensor, expected shape (U, P, k",
        ),
        ({"C": torch.zeros(U, P, 4, 4) + 0j}, ValueError, "C is a (3, 4, 4, 4) complex64 tensor, expected an odd k"),
        ({"initial": torch.zeros(B, P, H, H) + 0j}, ValueError, "initial is a (2, 4, 5, 5) complex64"),
        ({"initial": torch.zeros(B, P, H, W)}, TypeError, "initial is a (2, 4, 5, 6) float32"),
        ({"C": torch.full((U, P, 1, 1), complex("nan"))}, ValueError, "C[0, 0, 0, 0] is nan"),
        ({"A_bar": torch.tensor([0, 0, 1.9, 0]) + 0j}, ValueError, "|A_bar|^2000[2] is inf"),
    ],
    ids=str,
)
def test_bad_input(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    length = 2000 if "A_bar" in changes else 9
    with pytest.raises(error, match=re.escape(message)):
        conv_ssm(**{"u": inputs(length), **system(), **changes})


# --- the mixer --------------------------------------------------------------------------------------------------------


def test_step_is_forward_over_64_frames() -> None:
    torch.manual_seed(0)
    mixer, u = ConvS5(16, d_state=32), torch.randn(2, 64, 16, 8, 8)
    state, outputs = mixer.init_state(2), []
    with torch.inference_mode():
        for u_t in u.unbind(1):
            y_t, state = mixer.step(u_t, state)
            outputs.append(y_t)
        assert_close(torch.stack(outputs, 1), mixer(u), 1e-5)


def test_the_system_starts_from_numbers_of_the_published_size() -> None:
    torch.manual_seed(0)
    system = ConvS5(48, d_state=64, b_kernel=3, c_kernel=5).system
    for part, fan_in in ((system.B, 48 * 9), (system.C, 64 * 25)):
        variance = torch.view_as_complex(part.detach()).abs().square().mean().item()
        assert variance * fan_in == pytest.approx(2, rel=0.05)


def test_clip_bounds_the_real_part() -> None:
    mixer, free = (ConvS5(U, d_state=8, clip=clip, groups=1) for clip in (True, False))
    with torch.no_grad():
        for it in (mixer, free):
            it.system.Lambda[:2, 0] = 3.0
    assert (mixer.system.discretised()[0].abs() < 1).all() and (free.system.discretised()[0].abs()[:2] > 1).all()
    assert mixer(torch.ones(1, 4000, U, 3, 3)).isfinite().all()
    with pytest.raises(ValueError, match="unstable.*clip"):
        free(torch.ones(1, 40000, U, 3, 3))
    with pytest.raises(ValueError, match=r"^Lambda\[0\] is 3.*unstable.*clip=True"):
        free.init_state(1)


def test_a_rate_of_two_serves_every_other_frame() -> None:
    """A video that holds every frame for two: the same states at the half of the frames, to the steps' own error."""
    torch.manual_seed(0)
    mixer = ConvS5(U, d_state=8, output=None, dt_max=2e-3).double()
    u = inputs(20)
    slow, fast = mixer(u, rate=2.0), mixer(u.repeat_interleave(2, 1))[:, 1::2]
    assert_close(slow, fast)
    _, state = mixer.prefill(u[:, :-1], mixer.init_state(B, rate=2.0))
    assert_close(mixer.step(u[:, -1], state)[0], slow[:, -1])


def test_frames_smaller_than_a_kernel_are_refused() -> None:
    mixer = ConvS5(U, d_state=8, b_kernel=5)
    with pytest.raises(ValueError, match="larger than the frames"):
        mixer(torch.zeros(1, 2, U, 4, 9))
    with pytest.raises(ValueError, match="larger than the frames"):
        mixer.step(torch.zeros(1, U, 4, 9), mixer.init_state(1))
    for output in ("standard", "resnet"):
        mixer = ConvS5(U, d_state=8, d_kernel=5, output=output)
        for call in (mixer, mixer.prefill, lambda u, m=mixer: m.step(u[:, 0], m.init_state(1))):
            with pytest.raises(ValueError, match=r"d_kernel is 5, a kernel larger than the frames of u, a \(1, "):
                call(torch.zeros(1, 2, U, 9, 4))
    assert ConvS5(U, d_state=8, d_kernel=5, output="half_glu")(torch.zeros(1, 2, U, 4, 4)).shape == (1, 2, U, 4, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 7}, "d_state is 7, expected a multiple of 2"),
        ({"d_state": 8, "blocks": 3}, "d_state is 8, expected a multiple of 2 blocks = 6"),
        ({"b_kernel": 4}, "b_kernel is 4, expected an odd number"),
        ({"d_kernel": 2}, "d_kernel is 2, expected an odd number"),
        ({"output": "restnet"}, "did you mean 'resnet'"),
        ({"output": "half_glu", "squeeze_excite": True}, "squeeze_excite is True with output = 'half_glu'"),
        ({"groups": 2}, "groups is 2, expected a divisor of d_model = 3"),
        ({"discretization": "zho"}, "did you mean 'zoh'"),
        ({"activation": "gelo"}, "did you mean 'gelu"),
        ({"dt_min": 0.0}, "dt_min is 0"),
    ],
    ids=str,
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_mixer("conv_s5", U, **options)


def test_dropout_drops_whole_features_of_a_frame() -> None:
    torch.manual_seed(0)
    mixer, u = ConvS5(16, d_state=8, dropout=0.5), torch.randn(2, 5, 16, 4, 4)
    dropped = (mixer(u) == 0).flatten(3)
    assert torch.equal(dropped.any(-1), dropped.all(-1)) and 0.3 < dropped.float().mean() < 0.7
    assert (mixer.eval()(u) != 0).all()


def test_nan_parameters_are_named() -> None:
    mixer = ConvS5(U, d_state=8)
    with torch.no_grad():
        mixer.system.log_dt[1] = torch.nan
    for call in (lambda: mixer(torch.zeros(1, 9, U, H, W)), lambda: mixer.init_state(1)):
        with pytest.raises(ValueError, match=r"log_dt\[1\] is nan"):
            call()
