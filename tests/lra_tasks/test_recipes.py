"""Every recipe builds: its options exist, and its model takes a batch of the task's shape."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

import pytest
import torch

from longconv.mixers import list_mixers
from longconv.models import BackboneOptions, SequenceClassifier
from longconv.models.drop import SCHEDULES
from longconv.models.norms import NORMS
from longconv.models.pooling import POOLINGS
from lra_tasks.config import RunConfig, differences, flatten
from lra_tasks.data import TASKS, VIDEO_TASKS, VideoTask
from lra_tasks.errors import UsageError
from lra_tasks.evaluation import build
from lra_tasks.mixers import list_mixers_of
from lra_tasks.recipes import DEFAULT_MIXERS, ModelSettings, Preset, create_recipe, list_presets, sources_of
from lra_tasks.recipes.paper import PAPER
from lra_tasks.recipes.quick import ENCODER, QUICK
from lra_tasks.selection import select
from lra_tasks.train import count_parameters
from tests.lra_tasks.running import run

ROWS = [
    (task, mixer, preset)
    for task in sorted(set(TASKS) - set(VIDEO_TASKS))
    for preset in list_presets(task)
    for mixer in (PAPER[task].mixers if preset == "paper" else (*list_mixers(video=False), "transformer"))
]
VIDEO_ROWS = [
    (task, mixer, preset)
    for task in sorted(VIDEO_TASKS)
    for preset in list_presets(task)
    for mixer in (PAPER[task].mixers if preset == "paper" else list_mixers_of(task))
]


@pytest.mark.parametrize(("task", "mixer", "preset"), ROWS)
def test_a_recipe_builds_a_model_of_the_task(task: str, mixer: str, preset: str) -> None:
    info = TASKS[task].info
    config = RunConfig(task, mixer, preset, 0, None, create_recipe(task, mixer, preset))
    _, module = build(config)
    length = 32
    if info.n_tokens is not None:
        inputs = torch.randint(info.n_tokens, (2, 2, length) if info.pair else (2, length))
    else:
        inputs = torch.randn(2, length, info.d_input or 0)
    positions = (length,) if info.per_position else ()
    assert module({"inputs": inputs}).shape == (2, *positions, info.n_classes)
    assert RunConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(("task", "mixer", "preset"), VIDEO_ROWS)
def test_a_recipe_builds_a_model_of_video(task: str, mixer: str, preset: str) -> None:
    config = RunConfig(task, mixer, preset, 0, None, create_recipe(task, mixer, preset))
    data, module = build(config)
    assert isinstance(data, VideoTask)
    video = torch.rand(1, 2, data.channels, 64, 64)
    assert module({"inputs": video}).shape == video.shape
    assert RunConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("task", sorted(VIDEO_TASKS))
def test_mixers_of_video_are_compared_at_equal_size(task: str) -> None:
    sizes = {
        mixer: count_parameters(build(RunConfig(task, mixer, "quick", 0, None, create_recipe(task, mixer)))[1])
        for mixer in list_mixers_of(task)
    }
    assert max(sizes.values()) < 1.02 * min(sizes.values()), sizes


@pytest.mark.parametrize(("mixer", "option", "value"), [("s4d", "bidirectional", True), ("orchid", "causal", False)])
def test_a_model_that_sees_the_future_may_not_learn_next_tokens(mixer: str, option: str, value: bool) -> None:
    recipe = create_recipe("associative_recall", mixer).override({"mixer_options": {option: value}})
    with pytest.raises(UsageError, match=f"{option} is {value}.*--data.targets hidden"):
        build(RunConfig("associative_recall", mixer, "quick", 0, None, recipe))
    build(RunConfig("associative_recall", mixer, "quick", 0, None, recipe.override({"data": {"targets": "last"}})))


@pytest.mark.parametrize(("task", "pooling"), [("associative_recall", "last"), ("smnist", None)])
def test_pooling_is_for_one_label_a_sequence(task: str, pooling: str | None) -> None:
    recipe = create_recipe(task, "s4d").override({"model": {"pooling": pooling}})
    with pytest.raises(UsageError, match=f"pooling is {pooling!r}.*, expected "):
        build(RunConfig(task, "s4d", "quick", 0, None, recipe))


def test_the_settings_are_all_options_of_the_classifier() -> None:
    given = set(inspect.signature(SequenceClassifier).parameters) - {"backbone"} | set(BackboneOptions.__annotations__)
    elsewhere = {"n_classes", "d_input", "n_tokens", "mixer", "mixer_options"}
    kinds = get_type_hints(ModelSettings)
    assert set(kinds) == given - elsewhere
    assert {name for kind in get_args(kinds["pooling"]) for name in get_args(kind)} == set(POOLINGS)
    assert set(get_args(kinds["norm"])) == set(NORMS)
    assert set(get_args(kinds["drop_path_schedule"])) == set(SCHEDULES)


SLOW, ALIKE = (False, False), (True, True)


@pytest.mark.parametrize(
    ("task", "mixer", "published"),
    [
        ("listops", "s4d", {"log_dt": (True, False), "B": SLOW, "C": ALIKE}),
        ("image", "s4", {"log_dt": SLOW, "B": SLOW, "C": (False, True)}),
        ("sc35", "s4", {"log_dt": SLOW, "B": SLOW, "C": ALIKE}),
        ("listops", "s5", {"log_dt": SLOW, "B": ALIKE, "C": ALIKE}),
        ("text", "s5", {"log_dt": ALIKE, "B": SLOW, "C": ALIKE}),
        ("pathfinder32", "s5", {"log_dt": SLOW, "B": SLOW, "C": ALIKE}),
        ("pathx", "s5", {"log_dt": SLOW, "B": (False, True), "C": ALIKE}),
        ("sc35", "s5", {"log_dt": SLOW, "B": SLOW, "C": SLOW}),
    ],
)
def test_parts_of_a_state_space_learn_and_decay_as_published(
    task: str, mixer: str, published: dict[str, tuple[bool, bool]]
) -> None:
    """Whether each learns at the rate of all other parameters, and whether it decays; the remaining ones do neither."""
    recipe = create_recipe(task, mixer, "paper").override({"model": {"n_layers": 1}})
    _, module = build(RunConfig(task, mixer, "paper", 0, None, recipe))
    module.trainer = SimpleNamespace(estimated_stepping_batches=10)  # type: ignore[assignment]
    groups = module.configure_optimizers()["optimizer"].param_groups
    used = {id(p): (group["initial_lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    lr, decay, slow = recipe.optimizer.lr, recipe.optimizer.weight_decay, recipe.optimizer.filter_lr
    for name, parameter in module.named_parameters():
        fast, decays = published.get(name.rpartition(".")[2], SLOW) if ".taps." in name else ALIKE
        assert used[id(parameter)] == (lr if fast else slow, decay if decays else 0.0), name


def test_every_task_has_a_quick_preset_and_a_default_mixer() -> None:
    assert all("quick" in list_presets(task) and DEFAULT_MIXERS[task] in list_mixers_of(task) for task in TASKS)


@pytest.mark.parametrize(("preset", "tasks"), [("quick", QUICK), ("encoder", ENCODER)])
def test_no_mixer_of_a_small_preset_trains_for_longer(preset: str, tasks: dict[str, Preset]) -> None:
    for task, entry in tasks.items():
        most = entry.base.trainer.max_epochs
        assert all(create_recipe(task, mixer, preset).trainer.max_epochs <= most for mixer in entry.mixers), task


def test_paper_recipes_hold_the_published_settings() -> None:
    recipe = create_recipe("pathfinder32", "s4d", "paper")
    assert (recipe.model.n_layers, recipe.model.d_model, recipe.mixer_options["d_state"]) == (6, 256, 64)
    assert (recipe.optimizer.lr, recipe.data["batch_size"], recipe.trainer.max_epochs) == (0.004, 64, 200)
    recipe = create_recipe("listops", "s4d", "paper")
    assert (recipe.optimizer.lr, recipe.optimizer.dt_lr, recipe.optimizer.filter_lr) == (0.01, 0.01, 0.001)
    recipe = create_recipe("listops", "long_conv", "paper")
    assert (recipe.model.n_layers, recipe.model.d_model, recipe.optimizer.filter_lr) == (8, 128, 5e-4)
    assert recipe.mixer_options["threshold"] == 0.002


@pytest.mark.parametrize(
    ("task", "mixer", "published"),
    [
        ("text", "s4", {"model.d_model": 256, "model.prenorm": True, "mixer_options.d_state": 4, "optimizer.lr": 0.01}),
        ("text", "s4d", {"optimizer.dt_lr": 0.01, "data.batch_size": 16, "trainer.max_epochs": 32}),
        ("text", "sgconv", {"mixer_options.kernel_dim": 2, "mixer_options.decay_max": 2.0, "optimizer.warmup": 0.02}),
        ("text", "s5", {"optimizer.warmup": 0.0, "optimizer.dt_lr": 0.004, "mixer_options.dropout": 0.1}),
        ("retrieval", "long_conv", {"optimizer.filter_lr": 1e-4, "trainer.accumulate_grad_batches": 2}),
        ("retrieval", "s5", {"optimizer.lr": 0.002, "mixer_options.blocks": 16, "model.d_model": 128}),
        ("image", "s4", {"model.d_model": 512, "model.dropout": 0.1, "model.prenorm": False, "optimizer.dt_lr": None}),
        ("image", "s5", {"optimizer.lr": 0.0045, "mixer_options.d_state": 384, "mixer_options.clip": True}),
        ("image", "sgconv", {"mixer_options.trainable_decay": False, "mixer_options.decay_min": 1.0}),
        ("image", "sgconv", {"mixer_options.mode": "learnable", "model.norm": "layer", "model.tie_dropout": True}),
        ("image", "long_conv", {"model.norm": "layer", "model.dropout": 0.1, "mixer_options.threshold": 0.003}),
        ("listops", "s5", {"optimizer.lr": 0.003, "mixer_options.output": "half_glu2", "model.n_layers": 8}),
        ("pathfinder32", "s5", {"optimizer.lr": 0.0045, "optimizer.filter_lr": 0.0009, "model.d_model": 192}),
        ("pathx", "s4d", {"mixer_options.dt_min": 1e-4, "optimizer.lr": 0.001, "trainer.max_epochs": 50}),
        ("pathx", "s5", {"mixer_options.C_init": "complex_normal", "mixer_options.dt_min": 1e-4}),
        ("pathx", "long_conv", {"optimizer.lr": 0.0005, "mixer_options.l_max": 16384, "mixer_options.channels": 2}),
        ("pathx", "sgconv", {"mixer_options.decay_min": 1.0, "mixer_options.mode": "cos", "optimizer.lr": 0.004}),
        ("sc35", "s4", {"model.d_model": 128, "optimizer.lr": 0.01, "trainer.max_epochs": 40}),
        ("sc35", "s5", {"model.d_model": 96, "mixer_options.d_state": 128, "optimizer.lr": 0.008}),
        ("sc35", "s5", {"mixer_options.C_init": "lecun_normal", "optimizer.weight_decay": 0.04}),
        ("scifar", "s4", {"model.d_model": 512, "model.norm": "layer", "trainer.max_epochs": 200}),
        ("scifar", "long_conv", {"mixer_options.threshold": 0.001, "trainer.max_epochs": 300}),
        ("sc10", "s4", {"data.batch_size": 20, "model.dropout": 0.1, "optimizer.weight_decay": 0.0}),
        ("sc10", "s4", {"mixer_options.output": "linear", "mixer_options.d_state": 64, "trainer.max_epochs": 200}),
    ],
)
def test_paper_rows(task: str, mixer: str, published: dict[str, Any]) -> None:
    values = flatten(RunConfig(task, mixer, "paper", 0, None, create_recipe(task, mixer, "paper")).to_dict())
    assert {name: values[name] for name in published} == pytest.approx(published)
    causal = task == "sc10" or (mixer == "long_conv" and task not in ("pathfinder32", "pathx"))
    assert values["mixer_options.bidirectional"] is not causal and values["model.norm"] in ("batch", "layer")


def test_every_published_setting_has_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    """By mixer, each of its own; `list TASK` prints them."""
    for task, preset in PAPER.items():
        assert preset.only_named and set(preset.sources) == set(preset.mixers), task
        for source in preset.sources.values():
            assert re.match(r"github\.com/\S+/\S+, \S+\.(yaml|sh) .*arXiv:", source), source
        assert len(set(preset.sources.values())) == len(preset.mixers), task
        run(["list", task])
        printed = capsys.readouterr().out
        assert all(f"{mixer}: " in printed and source in printed for mixer, source in preset.sources.items())
    assert sources_of("pathx")["s5"].startswith("github.com/lindermanlab/S5, bin/run_experiments/run_lra_pathx.sh")
    assert sources_of("smnist") == {}


def test_differences_name_both_values_and_leave_out_what_may_change() -> None:
    recipe = create_recipe("smnist", "s4d")
    saved = RunConfig("smnist", "s4d", "quick", 0, None, recipe)
    changes: dict[str, dict[str, Any]] = {"optimizer": {"lr": 0.5}, "trainer": {"max_epochs": 99}}
    now = RunConfig("smnist", "s4d", "quick", 0, "/elsewhere", recipe.override(changes))
    assert differences(saved, now) == [f"optimizer.lr is {recipe.optimizer.lr!r} in the run, 0.5 now"]
    assert flatten(now.to_dict())["trainer.max_epochs"] == 99


def test_a_bidirectional_preset_is_acausal_for_every_mixer() -> None:
    assert create_recipe("listops", "s4d").mixer_options["bidirectional"] is True
    options = create_recipe("listops", "orchid").mixer_options
    assert options["causal"] is False and "bidirectional" not in options


def test_l_max_is_the_length_of_the_data_as_it_was_chosen(tmp_path: Path) -> None:
    """By words, by a file of settings, in both forms of an option; what is said of the mixer itself wins."""
    (tmp_path / "data.yaml").write_text("data: {seq_len: 256}\n")
    base, file = ["associative_recall", "--mixer", "hyena"], ["--config", str(tmp_path / "data.yaml")]
    for words, length in [
        (base, 130),
        ([*base, "--data.seq_len", "512"], 514),
        ([*base, "--data.seq_len=64"], 66),
        ([*base, *file], 258),
        ([*base, *file, "--data.seq_len", "8"], 10),
        ([*base, "--data.seq_len", "odd"], 130),
    ]:
        config = select(words).config
        assert config is not None and config.recipe.mixer_options["l_max"] == length, words
    assert create_recipe("listops", "sgconv", data={"l_max": 512}).mixer_options["l_max"] == 512
