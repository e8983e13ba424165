"""How a call of an op reaches its kernel: through torch's dispatcher wherever something watches, straight otherwise."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from longconv.ops import _library, _registry, _short_way, _ways, fft_conv, linear_scan, short_conv, transpose

CONVOLUTION = torch.ops.longconv.fft_conv.default


class Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


class FunctionRecorder(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


class Wrapped(Tensor):
    """A tensor that notes what torch does with it, and answers with zeros."""

    seen: list[Any] = []  # noqa: RUF012

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        cls.seen.append(func)
        return torch.zeros(2, 3, 16)


def inputs(requires_grad: bool = False) -> tuple[Tensor, Tensor]:
    return torch.randn(2, 3, 16, requires_grad=requires_grad), torch.randn(3, 16, requires_grad=requires_grad)


def test_a_plain_call_leaves_the_dispatcher_out(monkeypatch: pytest.MonkeyPatch) -> None:
    u, k = inputs(requires_grad=True)
    want = fft_conv(u, k)
    monkeypatch.setattr(_library, "_watched", lambda: False)
    with Recorder() as recorder:  # it would see a call of the operator
        assert torch.equal(fft_conv(u, k), want)
    assert CONVOLUTION not in recorder.seen


@pytest.mark.parametrize("requires_grad", [False, True])
def test_a_dispatch_mode_sees_the_operator(requires_grad: bool) -> None:
    with Recorder() as recorder:
        y = fft_conv(*inputs(requires_grad))
        if requires_grad:
            y.sum().backward()
    assert CONVOLUTION in recorder.seen
    assert (torch.ops.longconv.fft_conv_backward.default in recorder.seen) == requires_grad


def test_a_function_mode_sees_the_operator() -> None:
    with FunctionRecorder() as recorder:
        fft_conv(*inputs())
    assert torch.ops.longconv.fft_conv in recorder.seen


def test_a_profiler_sees_the_operator() -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        fft_conv(*inputs())
    assert "longconv::fft_conv" in {event.key for event in profiler.key_averages()}


def test_a_subclass_sees_the_operator() -> None:
    u, k = inputs()
    Wrapped.seen.clear()
    fft_conv(u.as_subclass(Wrapped), k)
    assert CONVOLUTION in Wrapped.seen


def test_fake_and_meta_tensors_have_shapes_alone() -> None:
    u, k = inputs()
    assert fft_conv(u.to("meta"), k.to("meta")).shape == u.shape
    with FakeTensorMode() as mode:
        y = fft_conv(mode.from_tensor(u), mode.from_tensor(k))
    assert y.shape == u.shape
    assert type(y) is not Tensor


@pytest.mark.filterwarnings("ignore")
def test_an_older_tracer_records_the_operator() -> None:
    traced = torch.jit.trace(lambda u, k: fft_conv(u, k), inputs())
    assert "longconv::fft_conv" in str(traced.graph)


@pytest.mark.parametrize("create_graph", [False, True])
def test_both_ways_give_the_same_bits(create_graph: bool) -> None:
    """The gradients too, and the gradients of a parameter."""
    u, k = inputs(requires_grad=True)
    k = torch.nn.Parameter(k)
    results = []
    for y in (fft_conv(u, k), CONVOLUTION(u, k, None, None, None, None, None, "causal", "auto")):
        first = torch.autograd.grad((y**2).sum(), (u, k), create_graph=create_graph)
        second = torch.autograd.grad(torch.stack([g.pow(2).sum() for g in first]).sum(), (u, k)) if create_graph else ()
        results.append((y, *first, *second))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_gradients_of_some_arguments_alone() -> None:
    u, k = inputs()
    k.requires_grad_()
    (dk,) = torch.autograd.grad(fft_conv(u, k).sum(), (k,))
    assert torch.allclose(dk, u.cumsum(-1).flip(-1).sum(0), atol=1e-4)
    with torch.no_grad():
        assert not fft_conv(u, k).requires_grad
    with torch.inference_mode():
        assert fft_conv(u, k).is_inference()


def test_saved_tensors_are_checked_for_changes_in_place() -> None:
    u, k = inputs(requires_grad=True)
    v = u * 1
    y = fft_conv(v, k)
    v += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_saved_result_keeps_no_cycle() -> None:
    """The scan saves its own result, which must not keep itself alive."""
    gc.collect()
    gc.disable()
    try:
        a, b = torch.rand(2, 8, 3, requires_grad=True), torch.randn(2, 8, 3)
        h = linear_scan(a, b)
        alive = weakref.ref(h)
        del h
        assert alive() is None
    finally:
        gc.enable()


def test_autocast_is_off_inside_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def refusal(*_: object) -> None:
        seen.append(_products())

    monkeypatch.setattr(_registry.Backend, "refusal", refusal)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        short_conv(*(t.float() for t in inputs()))
        assert _products() == torch.bfloat16
    assert set(seen) == {torch.float32}


def _products() -> torch.dtype:
    return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype


def test_a_layout_is_met_again_with_other_numbers_and_flags() -> None:
    """Whatever was kept of an earlier call is of its layout alone: values, options and dtypes are the call's own."""
    for dtype in (torch.float32, torch.float64, torch.complex64):
        for reverse in (False, True):
            for strides in ("contiguous", "transposed", "constant"):
                for _ in range(2):
                    a, b = torch.rand(2, 6, 3).to(dtype), torch.randn(2, 6, 3, dtype=dtype)
                    if strides == "transposed":
                        a = a.mT.contiguous().mT
                    if strides == "constant":
                        a = a[:, :1]
                    want = linear_scan(a, b, reverse=reverse, backend="reference")
                    assert torch.allclose(linear_scan(a, b, reverse=reverse), want, atol=1e-5)


def test_a_known_layout_loses_no_check() -> None:
    """Values that are equal may differ in type, and what can't be a key is refused in the words of the check."""
    a, b = torch.rand(2, 6), torch.randn(2, 6)
    for _ in range(2):
        assert linear_scan(a, b, dim=1).shape == b.shape
        with pytest.raises(TypeError, match="dim is True"):
            linear_scan(a, b, dim=True)
        with pytest.raises(TypeError, match="reverse is 0"):
            linear_scan(a, b, reverse=0)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"a is \[1.0\]"):
            linear_scan([1.0], b)  # type: ignore[arg-type]


@pytest.mark.parametrize("requires_grad", [False, True])
def test_what_the_checks_change_is_changed_for_a_known_layout(requires_grad: bool) -> None:
    """A state without the axis of time, a coefficient of lower rank, an axis counted from the left."""
    for _ in range(2):
        a, b, initial = (torch.rand(*s, requires_grad=requires_grad) for s in ((3,), (2, 6, 3), (2, 3)))
        h, want = (linear_scan(a, b, initial, dim=1, backend=backend) for backend in ("auto", "reference"))
        assert torch.allclose(h, want, atol=1e-5)
        if requires_grad:
            grads = (torch.autograd.grad(one.square().sum(), (a, b, initial)) for one in (h, want))
            for got, expected in zip(*grads, strict=True):
                assert torch.allclose(got, expected, atol=1e-4)


def test_layouts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = _ways.Ways(torch.neg, lambda *_: None, 1)
    monkeypatch.setattr(_ways, "MOST_LAYOUTS", 3)
    for length in range(1, 20):
        ways.find(lambda *given: given, (torch.ones(length),))
        assert len(ways.known) <= 3
    ways.known.clear()
    ways.find(lambda *given: given, (torch.ones(_ways.SMALL + 1),))
    ways.find(lambda *given: given, (torch.ones(0),))
    assert not ways.known


def test_zeros_without_memory_are_left_to_torch() -> None:
    for _ in range(2):
        assert torch.equal(transpose(torch.ones(2, 3)), torch.ones(3, 2))  # a layout that is known
        assert torch.equal(transpose(torch._efficientzerotensor(2, 3)), torch.zeros(3, 2))


@pytest.mark.parametrize("requires_grad", [False, True])
def test_a_tensor_that_outlives_its_transform_is_what_it_wraps(requires_grad: bool) -> None:
    left: list[Tensor] = []

    def leak(x: Tensor) -> Tensor:
        left.append(x.detach() if not requires_grad else x)
        return x.sum()

    torch.func.grad(leak)(torch.ones(2, 3, requires_grad=requires_grad))
    for _ in range(2):
        assert torch.equal(transpose(torch.ones(2, 3, requires_grad=requires_grad)), torch.ones(3, 2))
        assert torch.equal(transpose(left[0]), torch.ones(3, 2))


def test_a_tensor_that_outlives_its_vmap_is_refused() -> None:
    left: list[Tensor] = []

    def leak(x: Tensor) -> Tensor:
        left.append(x)
        return x.sum()

    torch.func.vmap(leak)(torch.ones(2, 3, 4))
    with pytest.raises(RuntimeError, match=r"transpose: a tensor has left a function under vmap"):
        transpose(left[0])


def test_calls_at_the_same_time_have_memory_of_their_own() -> None:
    """Small calls take pieces of memory from a common heap and give them back."""
    given = [(torch.randn(2, 3, 1024), torch.randn(3, 1024)) for _ in range(4)]
    want = [fft_conv(u, k) for u, k in given]
    assert want[0].numel() <= _ways.SMALL and _short_way._rooms

    def same(place: int) -> bool:
        return all(torch.equal(fft_conv(*given[place]), want[place]) for _ in range(200))

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(same, range(4)))
