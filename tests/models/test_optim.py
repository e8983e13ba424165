"""Optimiser groups: filters get their own learning rate and no weight decay, and every parameter is in one group."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from longconv.models import LanguageModel, SequenceClassifier, optimizer_groups


class Filter(nn.Module):
    filter_parameters: tuple[str, ...] = ("taps", "scales", "decay")

    def __init__(self, filter_lr: float | None = None) -> None:
        super().__init__()
        self.filter_lr = filter_lr
        self.taps = nn.Parameter(torch.ones(3))
        self.scales = nn.ParameterList([nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(4))])
        self.register_buffer("decay", torch.ones(1))  # declared, but not learnt here
        self.bias = nn.Parameter(torch.ones(5))


def sizes(model: nn.Module, **options: Any) -> dict[tuple[float, float], list[int]]:
    groups = optimizer_groups(model, **{"lr": 0.1, "weight_decay": 0.05, **options})
    parameters = [parameter for group in groups for parameter in group["params"]]
    assert len({id(parameter) for parameter in parameters}) == len(parameters)
    assert {id(parameter) for parameter in parameters} == {id(parameter) for parameter in model.parameters()}
    keys = [(group["lr"], group["weight_decay"]) for group in groups]
    assert len(set(keys)) == len(keys)
    return {key: [p.numel() for p in group["params"]] for key, group in zip(keys, groups, strict=True)}


def test_filters_have_no_weight_decay_and_their_own_rate() -> None:
    model = nn.Sequential(nn.Linear(1, 7, bias=False), Filter(0.01), Filter(0.02))
    assert sizes(model) == {(0.1, 0.05): [7, 5, 5], (0.01, 0.0): [3, 2, 4], (0.02, 0.0): [3, 2, 4]}


def test_a_filter_without_a_rate_takes_the_optimisers() -> None:
    assert sizes(Filter()) == {(0.1, 0.05): [5], (0.1, 0.0): [3, 2, 4]}


def test_the_argument_overrides_the_modules() -> None:
    model = nn.Sequential(Filter(0.01), Filter())
    assert sizes(model, filter_lr=0.003) == {(0.1, 0.05): [5, 5], (0.003, 0.0): [3, 2, 4, 3, 2, 4]}
    assert sizes(model, filter_lr=0.0)[0.0, 0.0] == [3, 2, 4, 3, 2, 4]


def test_step_sizes_may_have_a_rate_of_their_own() -> None:
    class StateSpace(Filter):
        filter_parameters = ("taps", "log_dt")

        def __init__(self, filter_lr: float | None = None) -> None:
            super().__init__(filter_lr)
            self.log_dt = nn.Parameter(torch.ones(6))

    model = StateSpace(0.01)
    assert sizes(model, dt_lr=0.1) == {(0.1, 0.05): [5, 2, 4], (0.01, 0.0): [3], (0.1, 0.0): [6]}
    assert sizes(model, dt_lr=0.2, filter_lr=0.003) == {(0.1, 0.05): [5, 2, 4], (0.003, 0.0): [3], (0.2, 0.0): [6]}
    assert sizes(model) == {(0.1, 0.05): [5, 2, 4], (0.01, 0.0): [3, 6]}


def test_inputs_and_outputs_of_a_state_space_may_learn_and_decay_as_all_others_do() -> None:
    class StateSpace(nn.Module):
        filter_parameters = ("A", "B", "C", "log_dt")

        def __init__(self) -> None:
            super().__init__()
            self.A, self.B, self.C = (nn.Parameter(torch.ones(size)) for size in (2, 3, 4))
            self.log_dt = nn.Parameter(torch.ones(6))

    model, slow = StateSpace(), {"filter_lr": 0.01}
    assert sizes(model, **slow, c_lr=0.1, decayed=("C",)) == {(0.01, 0.0): [2, 3, 6], (0.1, 0.05): [4]}
    assert sizes(model, **slow, b_lr=0.2, c_lr=0.3) == {(0.01, 0.0): [2, 6], (0.2, 0.0): [3], (0.3, 0.0): [4]}
    assert sizes(model, **slow, decayed=["B", "log_dt"]) == {(0.01, 0.0): [2, 4], (0.01, 0.05): [3, 6]}
    with pytest.raises(ValueError, match=r"decayed is 'A' .*, expected one of 'log_dt', 'B', 'C'"):
        sizes(model, decayed=("A",))
    with pytest.raises(TypeError, match=r"decayed is 'log_dt' \(str\), expected a collection of names"):
        sizes(model, decayed="log_dt")


@pytest.mark.parametrize("mixer", ["s4d", "s4", "lssl", "dss"])
def test_every_state_space_names_its_step_sizes(mixer: str) -> None:
    rates = set(sizes(SequenceClassifier(3, d_input=1, d_model=8, n_layers=1, mixer=mixer), filter_lr=0.01, dt_lr=0.2))
    assert rates == {(0.1, 0.05), (0.01, 0.0), (0.2, 0.0)}


def test_equal_groups_are_one() -> None:
    assert sizes(Filter(), weight_decay=0.0) == {(0.1, 0.0): [5, 3, 2, 4]}


def test_shared_parameters_are_in_one_group() -> None:
    first, second = Filter(0.01), Filter(0.01)
    second.taps = first.taps
    first.bias = first.taps  # a plain use of a filter's parameter doesn't make it plain
    assert sizes(nn.Sequential(first, second)) == {(0.1, 0.05): [5], (0.01, 0.0): [3, 2, 4, 2, 4]}
    second.filter_lr = 0.02
    with pytest.raises(ValueError, match=r"1\.taps is shared, with learning rate 0\.02 and .* here, 0\.01 and"):
        sizes(nn.Sequential(first, second))
    assert len(sizes(LanguageModel(5, d_model=4, n_layers=1, tie_embeddings=True))) == 2


def test_a_whole_model_and_its_deepcopy() -> None:
    model = SequenceClassifier(3, d_input=1, d_model=8, n_layers=2, mixer_options={"filter_lr": 0.001})
    want = sizes(model)
    assert set(want) == {(0.1, 0.05), (0.001, 0.0)}
    twin = copy.deepcopy(model)
    assert sizes(twin) == want
    own = {id(parameter) for parameter in model.parameters()}
    assert not any(id(p) in own for group in optimizer_groups(twin, lr=0.1) for p in group["params"])


def test_an_optimiser_obeys_the_groups() -> None:
    """With zero gradients AdamW moves a parameter by its weight decay alone: p <- p (1 - lr wd)."""
    model = Filter(0.01)
    optimizer = torch.optim.AdamW(optimizer_groups(model, lr=0.1, weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    filters: list[Tensor] = [model.taps, *model.scales]
    assert all(torch.equal(taps, torch.ones_like(taps)) for taps in filters)
    assert torch.allclose(model.bias, torch.full((5,), 0.95))


@pytest.mark.parametrize("name", ["lr", "weight_decay", "filter_lr", "dt_lr", "b_lr", "c_lr"])
def test_negative_rates(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is -1"):
        sizes(Filter(), **{name: -1.0})


def test_wrong_declarations() -> None:
    model = Filter()
    model.filter_parameters = ("tap",)
    with pytest.raises(ValueError, match="Filter declares the filter parameter 'tap', but has none of it"):
        sizes(model)
    with pytest.raises(ValueError, match=r"0\.filter_lr is -1"):
        sizes(nn.Sequential(Filter(-1.0)))
