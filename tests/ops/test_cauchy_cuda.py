"""The backend ``cuda`` of ``cauchy`` by host execution of its kernels, see csrc/cuda/warp_host.h."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longconv.ops import cauchy
from longconv.ops.cauchy import cuda
from longconv.ops.cauchy.operator import BACKENDS
from tests.ops import test_cauchy
from tests.ops.comparison import compare, each_length
from tests.ops.cuda_host import cuda_on_host, host_library
from tests.ops.native_calls import Call
from tests.tolerances import assert_close

__all__ = ["cuda_on_host", "host_library"]

on_host = pytest.mark.usefixtures("cuda_on_host")
SHAPES = [*test_cauchy.SHAPES, ((6, 2, 5), (2, 5)), ((9, 40), (9, 40))]
"""Of residues and of poles, with leading axes that broadcast."""


def kind(is_complex: bool) -> torch.dtype:
    return torch.complex128 if is_complex else torch.float64


def arguments(
    v: tuple[int, ...], w: tuple[int, ...], length: int, kinds: tuple[bool, bool, bool] = (True, True, True)
) -> Call:
    """Residues, points at a distance of 1 or more from the poles, and poles, complex or real."""
    of_v, of_z, of_w = map(kind, kinds)
    z, poles = test_cauchy.points(length, of_z), test_cauchy.poles(*w, dtype=of_w)
    return {"v": torch.randn(v, dtype=of_v), "z": z, "w": poles}


def test_is_refused_where_there_is_no_gpu() -> None:
    if cuda.available() is None:
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="'cuda' can't serve this call"):
        cauchy(torch.ones(4), torch.ones(3), -torch.ones(4), backend="cuda")


@on_host
def test_auto_does_not_take_it() -> None:
    assert BACKENDS.choose("auto", torch.ones(4), torch.ones(3), -torch.ones(4)).name != "cuda"


@on_host
@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_option(data: st.DataObject) -> None:
    """Values and gradients over shapes, numbers of points around tiles, real and complex arguments, precisions."""
    kinds = data.draw(st.tuples(*[st.booleans()] * 3), label="complex")
    length = data.draw(st.sampled_from([*range(1, 8), 31, 32, 33, 63, 64, 65, 127, 301]), label="L")
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]), label="dtype")
    wide = data.draw(st.sampled_from([(), ("z", "w"), ("z",), ("w",)]), label="wide")
    shapes = data.draw(st.sampled_from(SHAPES), label="shapes")
    compare("cauchy", arguments(*shapes, length, kinds), {}, dtype, wide=wide)


@on_host
def test_a_sample_of_lengths() -> None:
    def check(draw: random.Random, length: int) -> None:
        compare("cauchy", arguments((2, 3), (2, 3), length), {}, torch.float32)

    each_length(check, (1000, 9000), (9000, 70000))


@on_host
def test_points_with_axes_of_their_own() -> None:
    """As ``vmap`` asks for them: points that go with the samples, or that are one set for all."""
    v, w = torch.randn(3, 2, 5, dtype=torch.complex64), test_cauchy.poles(3, 2, 5, dtype=torch.complex64)
    z = test_cauchy.points(40, torch.complex64) + torch.rand(3, 1, 1)
    y = torch.vmap(lambda v, z, w: cauchy(v, z, w, backend="cuda"))(v, z[:, 0], w)
    wide = [t.to(torch.complex128) for t in (v, z[:, 0], w)]
    assert_close(y, torch.vmap(lambda v, z, w: cauchy(v, z, w, backend="reference"))(*wide))


@on_host
def test_no_poles() -> None:
    y = torch.full((2, 3, 70), torch.nan)
    cuda._Call(y[..., :0], y[:, :1], y[:, :1, :0]).run(y)
    assert not y.any()


@on_host
def test_points_near_a_pole() -> None:
    """Their difference is formed in the precision of the points and poles, that of the residues notwithstanding."""
    call = arguments((2, 5), (2, 5), 30)
    call["z"] = call["w"].flatten()[0] + 1e-6 * call["z"]
    compare("cauchy", call, {}, torch.float32, wide=("z", "w"))


@on_host
def test_a_set_that_is_not_finite_spoils_no_other() -> None:
    v, z, w = (t.to(torch.complex64) for t in arguments((3, 2, 5), (3, 1, 5), 40).values())
    clean = cauchy(v, z, w, backend="cuda")
    v[1, 0, 2], w[2, 0, 3] = torch.nan, torch.nan
    y = cauchy(v, z, w, backend="cuda")
    assert y[1, 0].isnan().all() and y[2].isnan().all()
    assert torch.equal(y[0], clean[0]) and torch.equal(y[1, 1], clean[1, 1])


@on_host
def test_strides_and_conjugates() -> None:
    call = arguments((6, 5), (5, 3), 66)
    v, z, w = call["v"].to(torch.complex64).T.conj()[:, ::2], call["z"][::2].conj(), call["w"].to(torch.complex64)
    want = cauchy(v.to(torch.complex128).mT, z, w.to(torch.complex128).mT, backend="reference")
    assert_close(cauchy(v.mT, z, w.mT, backend="cuda"), want)


@on_host
def test_opcheck() -> None:
    call = {name: t.to(torch.complex64).requires_grad_() for name, t in arguments((2, 3), (2, 3), 9).items()}
    torch.library.opcheck(torch.ops.longconv.cauchy.default, (*call.values(), "cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_on_a_gpu(shapes: tuple[tuple[int, ...], tuple[int, ...]], dtype: torch.dtype) -> None:
    for length in (1, 37, 4099, 16384):
        for kinds in ((True, True, True), (False, False, False)):
            call = arguments(*shapes, length, kinds)
            compare("cauchy", call, {}, dtype, device="cuda", exact="torch")
            compare("cauchy", call, {}, dtype, wide=("z", "w"), device="cuda", exact="torch")


@pytest.mark.gpu
def test_memory_is_bounded_on_a_gpu() -> None:
    """H = 256, N = 64, L = 65536: the whole tensor would be 8.6 GB; forward and backward stay below 1 GB."""
    call = {name: t.to("cuda", torch.complex64) for name, t in arguments((256, 64), (256, 64), 65536).items()}
    v, z, w = (t.requires_grad_() for t in call.values())
    torch.cuda.reset_peak_memory_stats()
    cauchy(v, z, w, backend="cuda").real.sum().backward()
    assert torch.cuda.max_memory_allocated() < 1e9
