"""Hyena against its definition, lag by lag, and against recorded operators."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from longconv import create_mixer
from longconv.filters import ImplicitFilter
from longconv.mixers import Hyena
from tests import implicit
from tests.golden import Case, cases
from tests.tolerances import assert_close

B, L, D = 2, 23, 6
OPTIONS: list[dict[str, Any]] = [
    {},
    {"order": 4, "activation": "gelu", "short_filter": 5},
    {"order": 3, "heads": 2, "bidirectional": True},
    {"heads": 2, "outer_product": True, "activation": "silu"},
    {"heads": 3, "outer_product": True, "bidirectional": True},
]


def build(**options: Any) -> Hyena:
    torch.manual_seed(0)
    mixer = create_mixer("hyena", D, **{"l_max": 16, "width": 8, "w": 5.0, **options}).double()
    assert isinstance(mixer, Hyena)
    return mixer


def direct(mixer: Hyena, u: Tensor) -> Tensor:
    """Projections and short convolutions by torch's own modules, long ones as matrices."""
    K = mixer.short_weight.shape[1]
    p = F.conv1d(
        F.pad(mixer.input(u).mT, (K - 1, 0)),
        mixer.short_weight[:, None],
        mixer.short_bias,
        groups=len(mixer.short_weight),
    )
    *x, v = p.chunk(mixer.order + 1, dim=1)
    k = mixer.filter(u.shape[1])
    lag = torch.arange(u.shape[1])[:, None] - torch.arange(u.shape[1])
    if mixer.outer_product:
        return of_heads(mixer, k, lag, *(t.unflatten(1, (mixer.heads, -1)) for t in (*x, v)))
    for i, gate in enumerate(reversed(x[1:])):
        matrix = torch.where(lag >= 0, k[i][:, lag.clamp(min=0)], 0)
        if mixer.bidirectional:
            matrix = matrix + torch.where(lag < 0, k[i + mixer.order - 1][:, (-lag - 1).clamp(min=0)], 0)
        v = gate * v
        v = torch.einsum("dts,bds->bdt", matrix, v) + mixer.D[i][:, None] * v
    y: Tensor = mixer.output(mixer.activation(x[0] * v).mT)
    return y


def of_heads(mixer: Hyena, k: Tensor, lag: Tensor, query: Tensor, key: Tensor, v: Tensor) -> Tensor:
    """Sums over all earlier times, or all, of values weighted by how like a query is their key: (B, M, N, L)."""
    matrix = torch.where(lag >= 0, k[0][:, lag.clamp(min=0)], 0) + mixer.D[0][:, None, None] * (lag == 0)
    if mixer.bidirectional:
        matrix = matrix + torch.where(lag < 0, k[1][:, (-lag - 1).clamp(min=0)], 0)
    likeness = torch.einsum("bmnt,bmns->bmts", query, key)
    y = torch.einsum("bmts,bmns->bmnt", matrix * likeness, v).flatten(1, 2)
    mixed: Tensor = mixer.output(mixer.activation(y).mT)
    return mixed


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_definition(options: dict[str, Any]) -> None:
    mixer, u = build(**options), torch.randn(B, L, D, dtype=torch.float64)
    assert_close(mixer(u), direct(mixer, u))


def test_heads_share_filters() -> None:
    k = build(heads=2, order=3).filter(30)
    assert k.shape == (2, D, 30)
    for first in (0, 3):
        assert torch.equal(k[:, first], k[:, first + 1]) and torch.equal(k[:, first], k[:, first + 2])
    assert not torch.equal(k[:, 0], k[:, 3]) and not torch.equal(k[0], k[1])
    own = sum(p.numel() for p in build().taps.parameters())
    assert own - sum(p.numel() for p in build(heads=2).taps.parameters()) == 4 * 8


def test_an_outer_product_of_single_features_is_hyena() -> None:
    plain, outer = build(), build(outer_product=True)
    outer.load_state_dict(plain.state_dict())
    u, lengths = torch.randn(3, L, D, dtype=torch.float64), torch.tensor([L, 7, 0])
    assert_close(outer(u, lengths), plain(u, lengths))


@pytest.mark.parametrize("options", [{}, {"heads": 2, "outer_product": True}], ids=str)
def test_dropout(options: dict[str, Any]) -> None:
    """Of whole products x_i v: what is kept is scaled, so that the mean over masks is the output without."""
    mixer, u = build(dropout=0.25, **options), torch.randn(1, 5, D, dtype=torch.float64)
    dropped = mixer(u.expand(4000, -1, -1))
    assert dropped.std(0).min() > 0
    assert_close(dropped.mean(0), mixer.eval()(u)[0], 0.05)


def test_the_state_of_another_mixer_is_refused() -> None:
    u = torch.randn(2, 7, D, dtype=torch.float64)
    mixer = build()
    for other, message in [
        (build(order=3), r"state.past is a \(2, 24, 2\).*expected shape.*\(2, 18, 2\)"),
        (build(short_filter=5), r"state.past is a \(2, 18, 4\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            mixer.prefill(u, other.init_state(2))
    state = mixer.init_state(2)
    with pytest.raises(ValueError, match=r"state.convolutions has 2 states, expected 1"):
        mixer.step(u[:, 0], state._replace(convolutions=state.convolutions * 2))
    with pytest.raises(TypeError, match=r"state is .*OnlineState"):
        mixer.step(u[:, 0], state.convolutions[0])


def test_bad_options() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"order": 0}, "order is 0, expected an integer >= 2"),
        ({"order": 1}, "order is 1, expected an integer >= 2"),
        ({"heads": 4}, "heads is 4, expected a divisor of d_model = 6"),
        ({"heads": 0}, "heads is 0"),
        ({"order": 3, "heads": 2, "outer_product": True}, "order is 3 with an outer product, expected 2"),
        ({"short_filter": 0}, "short_filter is 0"),
        ({"emb_dim": 2}, "emb_dim is 2"),
        ({"activation": "gleu"}, "did you mean 'gelu'"),
        ({"dropout": 2.0}, "dropout is 2"),
    ]
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            create_mixer("hyena", D, **options)


# --- recorded operators -----------------------------------------------------------------------------------------------

NAMES = {
    "D": "filter_fn.bias",
    "input.weight": "in_proj.weight",
    "input.bias": "in_proj.bias",
    "short_weight": "short_filter.weight",
    "short_bias": "short_filter.bias",
    "output.weight": "out_proj.weight",
    "output.bias": "out_proj.bias",
}
UNLIKE = ("num_heads", "num_blocks", "inner_factor", "outer_mixing", "post_order_ffn")
"""What the original can't do, does to the future, or has for itself."""


def by_feature(case: Case, recorded: dict[str, Tensor]) -> dict[str, Tensor]:
    """With the filters of an order above 2 in our order, feature by feature; one of the originals has them by order."""
    D, orders = case.meta["d_model"], len(recorded["filter_fn.bias"]) // case.meta["d_model"]
    if "standalone" not in case.meta["cls"]:
        return recorded
    weights = [key for key in recorded if "implicit_filter" in key and key.endswith("weight")]
    last = max(weights, key=lambda key: int(key.split(".")[-2]))
    place = torch.arange(orders * D).unflatten(0, (orders, D)).T.flatten()
    mixed = {key: recorded[key][place] for key in (last, "filter_fn.bias") if key in recorded}
    decays = "filter_fn.modulation.deltas"
    return {**recorded, **mixed, **({decays: recorded[decays][..., place]} if decays in recorded else {})}


@pytest.mark.parametrize("exact", [False, True], ids=["own-features", "recorded-features"])
@pytest.mark.parametrize("name", cases("hyena_operator"))
def test_recorded_operators(name: str, exact: bool) -> None:
    case = Case("hyena_operator", name)
    if any(option in case.meta for option in UNLIKE):
        pytest.skip("the original is meaningless, or of another kind, in this setting")
    recorded, dtype, prefix = by_feature(case, case.group("state_dict")), case["u"].dtype, "filter_fn."
    of_filter = {key.removeprefix(prefix): value for key, value in recorded.items() if key.startswith(prefix)}
    D, l_max, activation = case.meta["d_model"], case.meta["l_max"], case.meta.get("activation", "id")
    total, _, K = recorded["short_filter.weight"].shape
    mixer = Hyena(D, order=total // D - 1, short_filter=K, activation=None if activation == "id" else activation)
    mixer.taps = implicit.build(of_filter, l_max, case.meta)
    mixer.to(dtype).load_state_dict(
        {
            ours: recorded[theirs].reshape(mixer.get_parameter(ours).shape)
            for ours, theirs in NAMES.items()
            if ours != "D"
        }
        | {"D": of_filter["bias"].unflatten(0, (D, -1)).T}
        | {f"taps.{key}": value for key, value in mixer.taps.state_dict().items()}
    )
    tolerance = {torch.float64: 1e-12, torch.float32: 3e-6}[dtype]
    if not exact and mixer.order > 2 and "standalone" in case.meta["cls"]:
        pytest.skip("there the decays go from order to order")
    tolerance += 0 if exact else implicit.feature_error(mixer.taps, of_filter)
    if exact:
        implicit.use_recorded_features(mixer.taps, of_filter)
    u = case["u"].clone().requires_grad_()
    y = mixer(u[:, : len(of_filter["pos_emb.z"][0])])  # the original cuts what is longer
    assert_close(y, case["y"], tolerance)
    y.backward(case["grad_y"])
    assert u.grad is not None
    assert_close(u.grad, case["grad_u"], 10 * tolerance)
    recorded, compared = by_feature(case, case.group("grad")), 0
    table = {**NAMES, **{f"taps.{ours}": f"{prefix}{theirs}" for ours, theirs in implicit.names(mixer.taps).items()}}
    for ours, parameter in mixer.named_parameters():
        want = recorded[table[ours]]
        want = want.unflatten(0, (D, -1)).T if ours == "D" else want.reshape(parameter.shape)
        assert parameter.grad is not None
        assert_close(parameter.grad, want, max(10 * tolerance, 2e-6 if want.dtype == torch.float32 else 0))
        compared += 1
    assert compared == len(recorded) - (f"{prefix}pos_emb.z" in recorded)


def test_a_stream_evaluates_its_filters_once_for_all_orders_and_few_taps_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[tuple[int, int]] = []
    forward = ImplicitFilter.forward

    def counted(self: ImplicitFilter, length: int, start: int = 0) -> Tensor:
        taken.append((start, length))
        return forward(self, length, start)

    monkeypatch.setattr(ImplicitFilter, "forward", counted)
    mixer, u = Hyena(4, order=4, l_max=64).double(), torch.randn(1, 700, 4, dtype=torch.float64)
    with torch.no_grad():
        state, outputs = mixer.init_state(1, dtype=torch.float64), []
        for u_t in u.unbind(1):
            y_t, state = mixer.step(u_t, state)
            outputs.append(y_t)
        assert [start for start, _ in taken] == [0, *(stop for _, stop in taken[:-1])], "each tap once"
        assert max(stop - start for start, stop in taken) <= 4 * 64
        assert_close(torch.stack(outputs, 1), mixer(u), 1e-11)
        taken.clear()
        state = mixer.prefill(u[:, :100], mixer.init_state(1, dtype=torch.float64))[1]
        mixer.prefill(u[:, 100:], state)
        assert len(taken) == len(set(taken)), "chunks of several ranges too"
