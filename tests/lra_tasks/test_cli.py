"""The command line: what it prints, and that every wrong request is one clear line and exit code 2."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import longconv
from longconv.mixers import list_mixers
from lra_tasks.cli import main
from lra_tasks.config import RunConfig
from lra_tasks.data import TASKS, VIDEO_TASKS
from lra_tasks.parser import COMMANDS, create_parser
from lra_tasks.recipes import create_recipe
from tests.lra_tasks.running import run, tiny


def test_bare_command_shows_the_help_and_version_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    run([])
    printed = capsys.readouterr().out
    assert all(name in printed for name in COMMANDS)
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0 and longconv.__version__ in capsys.readouterr().out


@pytest.mark.parametrize("task", sorted(TASKS))
def test_list_shows_the_facts_of_a_task(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(["list", task])
    printed = capsys.readouterr().out
    info = TASKS[task].info
    assert all(text in printed for text in (info.title, info.source, info.split, info.protocol))


def test_list_names_every_task_and_mixer(capsys: pytest.CaptureFixture[str]) -> None:
    run(["list"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*TASKS, *list_mixers(), "quick", "paper"))


def test_prepare_builds_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["prepare", "smnist", "--data-dir", str(tmp_path)])
    assert str(tmp_path) in capsys.readouterr().out
    assert any(tmp_path.rglob("*.npy"))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("trian smnist", ["'trian'", "'train'"]),
        ("train", ["TASK", "smnist"]),
        ("train smnits", ["'smnits'", "'smnist'"]),
        ("train --mixer s4d smnits", ["'smnits'", "'smnist'"]),
        ("train --resume smnits", ["'smnits'", "'smnist'"]),
        ("list smnits", ["'smnits'", "'smnist'"]),
        ("prepare smnits", ["'smnits'", "'smnist'"]),
        ("train smnist --mixer s4dd", ["'s4dd'", "'s4d'"]),
        ("train smnist --preset quik", ["'quik'", "'quick'"]),
        ("train smnist --preset paper", ["'paper'", "'quick'"]),
        ("train smnist --runn-dir x", ["--runn-dir", "'--run-dir'"]),
        ("train smnist --model.d_modle 8", ["--model.d_modle", "'--model.d_model'"]),
        ("train smnist --mixer_options.d_stat 8", ["--mixer_options.d_stat", "'--mixer_options.d_state'"]),
        ("train smnist --mixer long_conv --mixer_options.d_state 8", ["--mixer_options.d_state"]),
        ("train smnist --data.batch_sise 8", ["--data.batch_sise", "'--data.batch_size'"]),
        ("train smnist --data.n_train 3", ["'data' has --data.batch_size, --data.num_workers"]),
        ("train smnist --model.d_model x", ["model.d_model is 'x', expected int"]),
        ("train smnist --model.norm_eps x", ["model.norm_eps is 'x', expected float or null"]),
        (
            "train smnist --model.pooling none",
            ["model.pooling is 'none', expected 'mean', 'max', 'sum', 'last', 'first' or null"],
        ),
        ("train smnist --optimizer.decayed B", ["optimizer.decayed is 'B', expected a list"]),
        ("train smnist --model.d_model -3", ["d_model is -3"]),
        ("train smnist --model.norm group", ["model.norm", "batch"]),
        ("train smnist --model.dropout 1.5", ["dropout is 1.5"]),
        ("train smnist --data.batch_size 0", ["batch_size is 0"]),
        ("train smnist --mixer_options.init lines", ["init is 'lines'", "'lin'"]),
        ("train smnist --optimizer.lr 0", ["optimizer.lr is 0"]),
        ("train smnist --optimizer.warmup 2", ["optimizer.warmup is 2"]),
        ("train smnist --trainer.max_epochs 0", ["trainer.max_epochs is 0"]),
        ("train smnist --trainer.accumulate_grad_batches 0", ["trainer.accumulate_grad_batches is 0"]),
        ("train smnist --trainer.limit_train_batches 0", ["trainer.limit_train_batches is 0"]),
        ("train smnist --trainer.limit_val_batches 0.0", ["trainer.limit_val_batches is 0"]),
        ("train smnist --trainer.limit_test_batches 1.5", ["trainer.limit_test_batches is 1.5"]),
        ("train smnist --trainer.gradient_clip_val -1", ["trainer.gradient_clip_val is -1"]),
        ("train smnist --trainer.precision 7", ["Precision '7'"]),
        ("train smnist --trainer.accelerator tpu", ["the trainer refuses its settings"]),
        ("train smnist --trainer.strategy fsdp2 --trainer.devices auto", ["trainer.devices is 'auto'", "integer >= 1"]),
        ("train smnist --seed x", ["seed", "'x'"]),
        ("train smnist --seed -1", ["seed is -1"]),
        ("train smnist --config missing.yaml", ["missing.yaml"]),
        ("train smnist other", ["other"]),
        ("train --resume --run-dir missing", ["no run to resume in missing", "TASK"]),
        ("train --resume", ["--run-dir"]),
        ("evaluate", ["run"]),
        ("report", ["runs"]),
        ("report x --format pdf", ["format", "markdown"]),
    ],
)
def test_wrong_requests_are_refused_by_name(
    arguments: str,
    parts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("lra-tasks: error: ") and error.count("\n") == 1
    assert all(part in error for part in parts), error
    assert "Traceback" not in error
    assert not any(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("task: smnist\nmixer: s4dd\n", ["'s4dd'", "'s4d'"]),
        ("model: {n_layerz: 3}\n", ["model.n_layerz", "'model.n_layers'"]),
        ("modle: {n_layers: 3}\n", ["modle.n_layers", "'model'"]),
        ("task: pmnist\n", ["'pmnist'", "'smnist'"]),
        ("mixer: sgconv\n", ["'sgconv'", "'s4d'"]),
        ("preset: paper\n", ["'paper'", "'quick'"]),
        ("[1, 2]\n", ["no mapping"]),
        ("model: [\n", ["cannot read"]),
        ("model: 3\n", ["model is 3", "mapping"]),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_a_file_of_settings_that_does_not_fit_is_refused(
    text: str, parts: list[str], order: int, tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "some.yaml").write_text(text)
    command = [["smnist", "--preset", "quick"], ["--config", str(tmp_path / "some.yaml")]][::order]
    if "s4dd" not in text:
        command[0] += ["--mixer", "s4d"]
    assert main(["train", *command[0], *command[1], "--run-dir", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert all(part in error for part in parts) and error.count("\n") == 1, error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("order", [1, -1])
def test_the_command_line_wins_over_the_file_of_settings(order: int, tmp_path: Path, finished: Path) -> None:
    given = ["--seed", "3", "--trainer.max_epochs", "1", "--run-dir", str(tmp_path / "run")]
    words = [given, ["--config", str(finished / "config.yaml")]][::order]
    run(["train", "smnist", *words[0], *words[1]])
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    saved = yaml.safe_load((finished / "config.yaml").read_text())
    assert config["seed"] == 3 and config["trainer"]["max_epochs"] == 1 and saved["seed"] == 0
    assert config["model"] == saved["model"] and config["data"] == saved["data"]


def test_overrides_reach_the_configuration(data_dir: Path, finished: Path) -> None:
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert config["model"]["d_model"] == 8
    assert config["trainer"]["limit_train_batches"] == 6
    assert config["data"]["batch_size"] == 10
    assert config["mixer"] == "s4d" and config["mixer_options"]["l_max"] == 784
    assert config["data_dir"] == str(data_dir)


def test_print_config_is_a_configuration_that_trains(
    tmp_path: Path, data_dir: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*tiny(tmp_path / "unused", data_dir), "--print_config"])
    assert stopped.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    saved = yaml.safe_load((finished / "config.yaml").read_text())
    assert {name: printed[name] for name in saved} == saved
    assert not (tmp_path / "unused").exists()


def test_the_configuration_of_a_run_repeats_it(tmp_path: Path, finished: Path) -> None:
    run(["train", "--config", str(finished / "config.yaml"), "--run-dir", str(tmp_path / "again")])
    assert (tmp_path / "again" / "config.yaml").read_text() == (finished / "config.yaml").read_text()
    assert (tmp_path / "again" / "history.csv").read_text().splitlines()[0].startswith("epoch,step")


@pytest.mark.parametrize(
    ("task", "mixer"),
    [(task, mixer) for task in sorted(set(TASKS) - set(VIDEO_TASKS)) for mixer in ("s4d", "sgconv", "long_conv")]
    + [(task, "conv_s5") for task in sorted(VIDEO_TASKS)],
)
def test_every_option_is_explained_in_plain_words(task: str, mixer: str) -> None:
    config = RunConfig(task, mixer, "quick", 0, None, create_recipe(task, mixer))
    parser = create_parser("train", config).active
    assert parser is not None
    options = [action for action in parser._actions if action.option_strings and action.dest != "help"]
    assert len(options) > 40
    for action in options:
        text = (action.help or "").split(" (")[0].strip()
        assert len(text) > 10, f"{action.dest}: {text!r}"
        assert not re.search(r"``|:\w+:|\bsee\b|\.\.\.", text), f"{action.dest}: {text!r}"


def test_help_shows_the_options_of_task_and_mixer(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "smnist", "--mixer", "sgconv", "--help"])
    printed = capsys.readouterr().out
    assert "--mixer_options.kernel_dim" in printed and "--data.num_workers" in printed and "d_state" not in printed
