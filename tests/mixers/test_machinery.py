"""Every mixer (tests/cases.py) under torch's own machinery: compile, export, vmap, dtypes, autocast, devices."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from longconv import create_mixer, list_mixers
from longconv.filters import Filter
from longconv.filters.base import WideModule
from longconv.mixers import Mixer, mixer_defaults
from tests.cases import (
    CHAIN,
    D_MODEL,
    L_MAX,
    LENGTH,
    MIXER_CASES,
    Case,
    default_mixers,
    every_mixer,
    sequence,
    streaming_mixers,
)
from tests.tolerances import assert_close, relative_l2


def check_compiled(case: Case, backend: str, *, dynamic: bool | None = None) -> None:
    torch._dynamo.reset()
    mixer, u, lengths = case.build(), sequence(), torch.tensor([LENGTH, 8, 1])
    compiled = torch.compile(mixer, fullgraph=True, backend=backend, dynamic=dynamic)
    y, expected = compiled(u, lengths), mixer(u, lengths)
    assert_close(y, expected, CHAIN)
    parameters = list(mixer.parameters())
    got = torch.autograd.grad(y.square().sum(), parameters)
    for gradient, want in zip(got, torch.autograd.grad(expected.square().sum(), parameters), strict=True):
        assert_close(gradient, want, 1e-10)


@every_mixer
def test_compile_takes_the_whole_graph(case: Case) -> None:
    check_compiled(case, "aot_eager")


@streaming_mixers
def test_compile_of_streaming_takes_the_whole_graph(case: Case) -> None:
    torch._dynamo.reset()
    mixer, u = case.build(), sequence()
    step, prefill = (torch.compile(f, fullgraph=True, backend="aot_eager") for f in (mixer.step, mixer.prefill))
    with torch.no_grad():
        state = mixer.init_state(u.shape[0])
        head, state = prefill(u[:, :-2], state)
        y, state = step(u[:, -2], state)
        last, _ = step(u[:, -1], state)
        assert_close(torch.cat([head, y[:, None], last[:, None]], 1), mixer(u), CHAIN)


@default_mixers
def test_compile_with_symbolic_sizes(case: Case) -> None:
    check_compiled(case, "aot_eager", dynamic=True)


def test_one_graph_serves_mixers_of_different_options() -> None:
    """Numbers that differ from mixer to mixer become symbols of the graph."""
    torch._dynamo.reset()
    u = sequence(dtype=torch.float32)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def apply(mixer: Mixer, u: Tensor) -> Tensor:
        return mixer(u)

    for threshold in (0.001, 0.002, 0.004):
        mixer = create_mixer("long_conv", D_MODEL, threshold=threshold, l_max=L_MAX)
        assert_close(apply(mixer, u), mixer(u))


@default_mixers
def test_export(case: Case) -> None:
    mixer, u = case.build(), sequence()
    program = torch.export.export(mixer, (u,))
    assert_close(program.module()(u), mixer(u), CHAIN)


@every_mixer
def test_vmap(case: Case) -> None:
    mixer, u = case.build(), torch.stack([sequence(), -2 * sequence()])
    assert_close(torch.vmap(mixer)(u), torch.stack([mixer(part) for part in u]), CHAIN)


@pytest.mark.filterwarnings("error:There is a performance drop")
@pytest.mark.parametrize("case", [case for case in MIXER_CASES if case.mixer != "lssl"], ids=str)
def test_vmap_over_parameters(case: Case) -> None:
    """Outputs and gradients of an ensemble, with no op that falls back to a loop."""
    mixer, u = case.build(), sequence()
    parameters = {name: torch.stack([p, 1.01 * p]).detach() for name, p in mixer.named_parameters()}
    weight = torch.randn(u.shape, dtype=u.dtype)

    def loss(given: dict[str, Tensor]) -> Tensor:
        return (torch.func.functional_call(mixer, given, (u,)) * weight).sum()

    found = torch.vmap(torch.func.grad(loss))(parameters)
    for i in range(2):
        expected = torch.func.grad(loss)({name: p[i] for name, p in parameters.items()})
        for name, want in expected.items():
            assert_close(found[name][i], want, 1e-10)


@pytest.mark.slow
@default_mixers
def test_compile_with_inductor(case: Case) -> None:
    check_compiled(case, "inductor")


@every_mixer
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(case: Case, dtype: torch.dtype) -> None:
    """Of the module, with filters that stay in float32, and by autocast."""
    u = sequence(dtype=torch.float32)
    expected = case.build(torch.float32)(u)
    mixer = case.build(dtype)
    y = mixer(u.to(dtype))
    assert y.dtype == dtype
    bound = 2e-2 if dtype == torch.bfloat16 else 3e-3
    assert relative_l2(y, expected) < bound
    if case.time_invariant:
        assert mixer.filter(LENGTH).dtype == torch.float32
        assert_close(mixer.filter(LENGTH), case.build(torch.float32).filter(LENGTH))
    assert relative_l2(case.build(torch.float64).to(dtype)(u.to(dtype)), expected) < bound
    with torch.autocast("cpu", dtype):
        assert relative_l2(case.build(torch.float32)(u), expected) < bound


@every_mixer
@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16])
def test_autocast_mixes_precisions(case: Case, autocast: torch.dtype) -> None:
    """Any of the lower precisions for the mixer, its input and autocast; float64 is refused by the input's name."""
    u = sequence(dtype=torch.float32)
    expected = case.build(torch.float32)(u)
    with torch.autocast("cpu", autocast):
        for own in (torch.float32, autocast):
            for given in (torch.float32, autocast):
                assert relative_l2(case.build(own)(u.to(given)), expected) < 3e-2
        for own, given in ((torch.float32, torch.float64), (torch.float64, torch.float32)):
            with pytest.raises(TypeError, match=f"u is .*{str(given).split('.')[1]}.*mixer's parameters"):
                case.build(own)(u.to(given))


@every_mixer
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_default_dtype(case: Case, dtype: torch.dtype) -> None:
    """A new mixer is of torch's default dtype, its filter of float32 at least."""
    torch.set_default_dtype(dtype)
    try:
        torch.manual_seed(0)
        mixer = create_mixer(case.mixer, D_MODEL, **case.options)
    finally:
        torch.set_default_dtype(torch.float32)
    assert isinstance(mixer.taps, Filter)
    wide = torch.promote_types(dtype, torch.float32)
    assert {p.dtype for p in mixer.taps.parameters()} == {wide}
    assert mixer(sequence(dtype=dtype)).dtype == dtype
    assert mixer.taps(LENGTH).dtype == wide
    if wide == torch.float32:
        torch.manual_seed(0)
        expected = create_mixer(case.mixer, D_MODEL, **case.options)
        assert isinstance(expected.taps, Filter)
        assert torch.equal(mixer.taps(LENGTH), expected.taps(LENGTH)), "drawn in low precision"


@every_mixer
def test_meta_device(case: Case) -> None:
    """Shapes without numbers: built on the meta device, or moved there."""
    with torch.device("meta"):
        built = create_mixer(case.mixer, D_MODEL, **case.options)
    assert all(tensor.is_meta for tensor in built.state_dict().values())
    u, lengths = torch.empty(3, LENGTH, D_MODEL, device="meta"), torch.empty(3, dtype=torch.int64, device="meta")
    for mixer in (built, case.build(torch.float32).to("meta")):
        y = mixer(u, lengths)
        assert y.is_meta and y.shape == u.shape
    if case.streams:
        y, state = built.prefill(u)
        y_t, _ = built.step(u[:, 0], state)
        assert y.shape == u.shape and y_t.shape == (3, D_MODEL)


@streaming_mixers
def test_streaming_in_low_precision(case: Case) -> None:
    """Chunks and steps in bfloat16 and under autocast stay as near to the float32 output as forward does."""
    u = sequence(dtype=torch.float32)
    expected = case.build(torch.float32)(u)
    for dtype, autocast in ((torch.bfloat16, False), (torch.float32, True)):
        mixer = case.build(dtype)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            head, state = mixer.prefill(u[:, :20].to(dtype))
            tail = []
            for u_t in u[:, 20:].to(dtype).unbind(1):
                y_t, state = mixer.step(u_t, state)
                tail.append(y_t)
        assert relative_l2(torch.cat([head, torch.stack(tail, 1)], 1), expected) < 2e-2


@every_mixer
def test_filter_parameters_are_declared(case: Case) -> None:
    """Every parameter of the filter is named for the optimiser, with its learning rate."""
    options = {**case.options, "filter_lr": 1e-4}
    mixer = create_mixer(case.mixer, D_MODEL, **options)
    taps = mixer.taps
    assert isinstance(taps, Filter)
    assert taps.filter_lr == 1e-4
    declared = {name.split(".")[0] for name, _ in taps.named_parameters()}
    assert declared <= set(taps.filter_parameters)
    assert all(hasattr(taps, name) for name in taps.filter_parameters)


@pytest.mark.parametrize("name", list_mixers())
def test_every_option_has_its_default(name: str) -> None:
    defaults = mixer_defaults(name)
    torch.manual_seed(0)
    given = create_mixer(name, 4, **defaults)
    torch.manual_seed(0)
    for key, value in create_mixer(name, 4).state_dict().items():
        assert torch.equal(value, given.state_dict()[key])


@pytest.mark.parametrize("name", ["s4", "lssl"])
def test_options_of_the_measure(name: str) -> None:
    """They reach the filter: another beta is another filter, from the same draws."""
    filters = []
    for options in ({"beta": 0.25}, {"beta": 1.0}, None):
        torch.manual_seed(0)
        mixer = create_mixer(name, 4, d_state=8, init="tlagt", init_options=options)
        filters.append(mixer.filter(50))
    assert relative_l2(filters[0], filters[1]) > 0.1
    assert torch.equal(filters[1], filters[2])
    with pytest.raises(TypeError, match="measure 'tlagt' has no option 'bata'; did you mean 'beta'"):
        create_mixer(name, 4, d_state=8, init="tlagt", init_options={"bata": 1.0})
    with pytest.raises(TypeError, match=r"init_options is 0.5 \(float\), expected the measure's parameters by name"):
        create_mixer(name, 4, d_state=8, init="tlagt", init_options=0.5)


MEMORY = """
import resource, sys, torch
from longconv import create_mixer, list_mixers

def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

torch.set_num_threads(1)
mixer = create_mixer(sys.argv[1], 32, d_state=64, output=None)
with torch.no_grad():
    mixer.prefill(torch.randn(1, 64, 32))
    mixer.filter(64)
    before = peak()
    mixer.filter(int(sys.argv[2]))
    after = peak()
    mixer.prefill(torch.randn(1, 65536, 32))
    print(after - before, peak() - after)
"""


@pytest.mark.parametrize(
    ("name", "taps"), [("s4", 65536), ("s4d", 65536), ("dss", 65536), ("s5", 4096), ("lssl", 4096)]
)
def test_memory_of_long_filters_and_chunks_is_bounded(name: str, taps: int) -> None:
    """17 MB of taps and 8 MB of samples; the modes at every tap or sample would be 1 GB."""
    result = subprocess.run([sys.executable, "-c", MEMORY, name, str(taps)], capture_output=True, text=True, check=True)
    sizes = [int(size) / 1e3 for size in result.stdout.split()]
    assert len(sizes) == 2 and max(sizes) < 250, f"{sizes} MB above the start"


@default_mixers
def test_filters_that_are_not_finite_are_refused(case: Case) -> None:
    """Whichever parameter of a filter it is, where the taps are computed and at the start of a stream."""
    for name in [name for name, part in case.build().named_modules() if isinstance(part, WideModule)]:
        for parameter, _ in case.build().get_submodule(name).named_parameters():
            mixer = case.build()
            with torch.no_grad():
                mixer.get_parameter(f"{name}.{parameter}").view(-1)[0] = torch.nan
            with pytest.raises(ValueError, match="nan.*, expected finite"):
                mixer(sequence())
            with pytest.raises(ValueError, match=rf"{parameter}.* is .*nan.*, expected finite"):
                mixer.init_state(2)
