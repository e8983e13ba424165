"""Two processes that train together, and the options of the trainer from the command line."""

from __future__ import annotations

import csv
import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lra_tasks.data.base import EpochSampler
from lra_tasks.errors import RunError
from lra_tasks.evaluation import build, evaluate
from lra_tasks.module import SequenceModule
from lra_tasks.results import RunFolder, read_config, read_run
from tests.lra_tasks.running import main, read_metrics, read_weights, run, start, tiny

# A step that has no random part and no statistics of a batch: it does not depend on how the batch is divided.
PLAIN = ("--model.dropout", "0", "--model.norm", "layer", "--trainer.max_epochs", "1")


def _weights(folder: Path) -> Tensor:
    return torch.cat([value.flatten().double() for value in read_weights(folder).values() if value.is_floating_point()])


def _assert_same_training(left: Path, right: Path, tolerance: float) -> None:
    """The weights moved, and by the same way, up to rounding (which Adam's division enlarges)."""
    first = build(read_config(RunFolder(left)))[1].state_dict().values()
    begin = torch.cat([value.flatten().double() for value in first if value.is_floating_point()])
    ours, theirs = _weights(left), _weights(right)
    moved = (theirs - begin).norm()
    assert moved > 0.01
    assert (ours - theirs).norm() / moved < tolerance


def _launchers_variables() -> dict[str, str]:
    """What a launcher of several processes tells each of them."""
    return {name: value for name, value in os.environ.items() if re.search("RANK|WORLD_SIZE|MASTER", name)}


def test_processes_take_turns_in_the_order_of_one() -> None:
    for n, together in ((12, 2), (13, 3), (2, 3)):
        samplers = [EpochSampler(n, 7, n_processes=together, process=i) for i in range(together)]
        alone = EpochSampler(n, 7)
        for sampler in (*samplers, alone):
            sampler.set_epoch(4)
        turns = [list(sampler) for sampler in samplers]
        order = [index for turn in zip(*turns, strict=True) for index in turn]
        assert order[:n] == list(alone) and order[n:] == order[: len(order) - n]
        assert {len(sampler) for sampler in samplers} == {len(turns[0])}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """A run of one process."""
    folder = tmp_path_factory.mktemp("runs") / "alone"
    run(tiny(folder, data_dir, *PLAIN))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_train_together_and_resume(strategy: str, tmp_path: Path, data_dir: Path) -> None:
    """Batches of 5 on each of two teach what batches of 10 do on one: the samples are dealt out in turn."""
    folder, dealt = tmp_path / "run", tmp_path / "dealt"
    together = ("--trainer.devices", "2", "--trainer.strategy", strategy, "--data.batch_size", "5")
    for arguments in (
        tiny(folder, data_dir, *PLAIN, *together),
        ["train", "--run-dir", str(folder), "--resume", "--trainer.max_epochs", "2"],
    ):
        process = start(arguments)
        printed, _ = process.communicate(timeout=400)
        assert process.returncode == 0, printed
        assert printed.count("test accuracy") == 1 and "Traceback" not in printed, printed
        if not dealt.exists():
            run(tiny(dealt, data_dir, *PLAIN))
            _assert_same_training(folder, dealt, 1e-3)
    metrics = read_metrics(folder)
    assert metrics["epochs"] == 2
    _, scores = evaluate(folder)
    assert scores == {"test/accuracy": metrics["test/accuracy"], "test/loss": metrics["test/loss"]}
    environment = _launchers_variables()
    run(["train", "--run-dir", str(folder), "--resume", "--trainer.max_epochs", "3", "--trainer.devices", "1"])
    assert _launchers_variables() == environment  # a rank left there would have a later training wait for others
    assert read_metrics(folder)["epochs"] == 3
    assert len((folder / "history.csv").read_text().splitlines()) == 4


def test_accumulated_gradients_are_those_of_the_larger_batch(tmp_path: Path, data_dir: Path, alone: Path) -> None:
    halves = ("--data.batch_size", "5", "--trainer.accumulate_grad_batches", "2", "--trainer.limit_train_batches", "12")
    run(tiny(tmp_path / "run", data_dir, *PLAIN, *halves))
    with (tmp_path / "run" / "history.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["6"]
    _assert_same_training(tmp_path / "run", alone, 1e-3)


def test_a_compiled_model_trains_as_the_plain_one(
    tmp_path: Path, data_dir: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the tracing of torch.compile, without its code generation, which takes a minute."""
    plain, seen = nn.Module.compile, []

    def traced(self: nn.Module, *_: Any, **__: Any) -> None:
        seen.append(type(self).__name__)
        plain(self, backend="aot_eager")

    monkeypatch.setattr(nn.Module, "compile", traced)
    run(tiny(tmp_path / "run", data_dir, *PLAIN, "--trainer.compile", "true"))
    assert seen == ["SequenceClassifier"]
    _assert_same_training(tmp_path / "run", alone, 1e-3)
    metrics = read_metrics(tmp_path / "run")
    assert evaluate(tmp_path / "run")[1]["test/loss"] == metrics["test/loss"]


@pytest.fixture
def reproducible_only_here() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("reproducible_only_here")
def test_deterministic_reaches_torch(
    tmp_path: Path, data_dir: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    plain = SequenceModule.training_step

    def watched(self: SequenceModule, batch: Any, batch_idx: int) -> Any:
        asked.append(torch.are_deterministic_algorithms_enabled())
        return plain(self, batch, batch_idx)

    monkeypatch.setattr(SequenceModule, "training_step", watched)
    run(tiny(tmp_path / "run", data_dir, *PLAIN, "--trainer.deterministic", "true"))
    assert asked == [True] * 6
    _assert_same_training(tmp_path / "run", alone, 1e-9)


def test_bf16_is_evaluated_to_the_same_number(tmp_path: Path, data_dir: Path) -> None:
    run(tiny(tmp_path / "run", data_dir, "--trainer.precision", "bf16-mixed", "--trainer.max_epochs", "1"))
    metrics = read_metrics(tmp_path / "run")
    _, scores = evaluate(tmp_path / "run")
    assert scores == {"test/accuracy": metrics["test/accuracy"], "test/loss": metrics["test/loss"]}


def test_early_stopping_ends_a_run_that_gets_no_better(tmp_path: Path, data_dir: Path) -> None:
    """At a learning rate of nearly nothing no epoch is better than the first."""
    folder = tmp_path / "run"
    still = ("--optimizer.lr", "1e-30", "--optimizer.filter_lr", "0", "--optimizer.weight_decay", "0")
    run(tiny(folder, data_dir, *PLAIN[:4], *still, "--trainer.max_epochs", "9", "--trainer.early_stopping", "2"))
    metrics = read_run(folder).metrics
    assert (metrics["epochs"], metrics["best_epoch"], metrics["stopped_early"]) == (3, 1, True)
    again = ["train", "--run-dir", str(folder), "--resume"]
    run(again)
    assert read_metrics(folder)["epochs"] == 3
    for waiting in (None, 4):  # a longer run that was interrupted before its first epoch
        config = read_config(RunFolder(folder))
        extended = replace(config, recipe=config.recipe.override({"trainer": {"early_stopping": waiting}}))
        extended.save(folder / "config.yaml")
        with pytest.raises(RunError, match="has not finished: 3 of 9 epochs"):
            read_run(folder)
        config.save(folder / "config.yaml")
    read_run(folder)
    run([*again, "--trainer.early_stopping", "4"])
    assert read_metrics(folder)["epochs"] == 5
    run([*again, "--trainer.early_stopping", "null", "--trainer.max_epochs", "6"])
    metrics = read_metrics(folder)
    assert metrics["epochs"] == 6 and metrics["stopped_early"] is False
    assert main([*again, "--trainer.early_stopping", "0"]) == 2


def test_throughput_and_memory_are_measured(finished: Path) -> None:
    with (finished / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    metrics = read_run(finished).metrics
    speeds = sorted(float(row["samples_per_s"]) for row in rows)
    assert metrics["samples_per_s"] == pytest.approx(speeds[1])
    for row in rows:  # 60 samples an epoch, which validation ends
        assert float(row["samples_per_s"]) * float(row["seconds"]) > 60
    memory = [float(row["memory_mb"]) for row in rows]
    assert all(later >= earlier > 100 for earlier, later in itertools.pairwise(memory))
    assert metrics["peak_memory_mb"] == pytest.approx(memory[-1])
