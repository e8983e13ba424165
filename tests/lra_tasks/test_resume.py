"""A run that was killed, or that met a full disk, goes on to the metrics of one that was not."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from lra_tasks import files
from lra_tasks.data.errors import DataError
from lra_tasks.data.mnist import SequentialMNIST
from lra_tasks.errors import RunError
from lra_tasks.module import SequenceModule
from tests.lra_tasks.running import main, read_metrics, read_weights, run, start, tiny

SLOWER = ("--trainer.limit_train_batches", "40", "--trainer.max_epochs", "6")


def _same(left: Path, right: Path) -> None:
    assert read_metrics(left) == read_metrics(right)
    ours, theirs = read_weights(left), read_weights(right)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    columns = [
        [line.rsplit(",", 3)[0] for line in (folder / "history.csv").read_text().splitlines()]
        for folder in (left, right)
    ]
    assert columns[0] == columns[1]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    process = start(tiny(folder, data_dir, *SLOWER))
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    return folder


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_resumes_to_the_same_end(
    kill: signal.Signals, tmp_path: Path, data_dir: Path, uninterrupted: Path
) -> None:
    folder = tmp_path / "run"
    process = start(tiny(folder, data_dir, *SLOWER))
    deadline = time.monotonic() + 240
    while not (folder / "history.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, kill)
    printed, _ = process.communicate(timeout=120)
    assert not (folder / "metrics.json").exists(), printed
    assert process.returncode == (-kill if kill == signal.SIGKILL else 130), printed
    assert "Traceback" not in printed
    assert kill == signal.SIGKILL or "stopped; go on with --resume" in printed

    process = start(["train", "--run-dir", str(folder), "--resume"])
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    assert "resuming" in printed
    _same(folder, uninterrupted)


def test_a_run_without_a_finished_epoch_begins_again(tmp_path: Path, data_dir: Path, finished: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text((finished / "config.yaml").read_text())
    run(tiny(folder, data_dir, "--resume"))
    _same(folder, finished)


@pytest.mark.parametrize("started", [False, True])
def test_resume_begins_a_run_where_there_is_none(
    started: bool, tmp_path: Path, data_dir: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    if started:
        folder.mkdir()
        (folder / ".config.yaml.7.tmp").write_text("half")
    assert main(["train", "--resume", "--run-dir", str(folder)]) == 2
    assert f"no run to resume in {folder}" in capsys.readouterr().err
    run(tiny(folder, data_dir, "--resume"))
    assert not list(folder.rglob("*.tmp"))
    _same(folder, finished)


def test_files_of_others_are_left_alone(tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("")
    for extra in ([], ["--resume"]):
        assert main(tiny(tmp_path, data_dir, *extra)) == 2
    assert "no run to resume" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_killed_processes_left_is_swept(tmp_path: Path, data_dir: Path, finished: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".config.yaml.7.tmp").write_text("half")
    run(tiny(folder, data_dir))
    (folder / "checkpoints" / ".last.ckpt.7.tmp").write_text("half")
    run(tiny(folder, data_dir, "--resume"))
    assert not list(folder.rglob("*.tmp"))
    _same(folder, finished)


@pytest.mark.parametrize(
    ("error", "code", "printed"),
    [
        (KeyboardInterrupt(), 130, "stopped; the same command goes on"),
        (DataError("no pictures"), 1, "error: no pictures"),
    ],
)
def test_the_command_works_again_where_its_data_could_not_be_prepared(
    error: BaseException,
    code: int,
    printed: str,
    tmp_path: Path,
    data_dir: Path,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(self: SequentialMNIST) -> None:
        raise error

    folder = tmp_path / "run"
    monkeypatch.setattr(SequentialMNIST, "prepare_data", fails)
    assert main(tiny(folder, data_dir)) == code
    assert capsys.readouterr().err == f"lra-tasks: {printed}\n"
    assert not folder.exists()
    monkeypatch.undo()
    run(tiny(folder, data_dir))
    _same(folder, finished)


def test_a_run_that_comes_while_data_is_prepared_keeps_its_folder(
    tmp_path: Path, data_dir: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def slow(self: SequentialMNIST) -> None:
        shutil.copytree(finished, tmp_path / "run")

    monkeypatch.setattr(SequentialMNIST, "prepare_data", slow)
    assert main(tiny(tmp_path / "run", data_dir)) == 2
    assert f"{tmp_path / 'run'} is not empty" in capsys.readouterr().err
    _same(tmp_path / "run", finished)


def test_a_damaged_checkpoint_leaves_a_finished_run_as_it_is(
    tmp_path: Path, data_dir: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    last = folder / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    before = {name: (folder / name).read_bytes() for name in ("metrics.json", "config.yaml")}
    assert main(["train", "--run-dir", str(folder), "--resume", "--trainer.max_epochs", "5"]) == 1
    assert str(last) in capsys.readouterr().err
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_an_extended_run_keeps_its_metrics_until_it_has_new_ones(
    tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: SequenceModule, *_: object) -> None:
        raise RunError("stopped here")

    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    monkeypatch.setattr(SequenceModule, "training_step", interrupted)
    extend = ["train", "--run-dir", str(folder), "--resume", "--trainer.max_epochs", "4"]
    assert main(extend) == 1
    assert read_metrics(folder) == read_metrics(finished)
    assert main(["report", str(folder)]) == 1
    assert "has not finished: 3 of 4 epochs" in capsys.readouterr().err
    monkeypatch.undo()
    run(extend)
    assert read_metrics(folder)["epochs"] == 4
    assert main([*extend, "--trainer.max_epochs", "2"]) == 2
    assert "trainer.max_epochs is 2, but 4 epochs" in capsys.readouterr().err


def test_the_accelerator_may_change(tmp_path: Path, finished: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("accelerator: cpu", "accelerator: tpu"))
    run(["train", "--run-dir", str(folder), "--resume", "--trainer.accelerator", "cpu"])
    _same(folder, finished)


@pytest.mark.parametrize("failing", [3, 4, 5, 7, 9])
def test_a_full_disk_names_the_path_and_loses_nothing(
    failing: int,
    tmp_path: Path,
    data_dir: Path,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The flush number ``failing`` of the run (configuration, best, last, history, ..., two each) finds no space."""
    folder = tmp_path / "run"
    calls = iter(range(1, 1000))

    def sync(descriptor: int) -> None:
        if next(calls) >= failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", sync)
    assert main(tiny(folder, data_dir)) == 1
    error = capsys.readouterr().err
    assert f"cannot write {folder}" in error and "No space left on device" in error and "Traceback" not in error
    assert not list(folder.rglob("*.tmp"))
    monkeypatch.undo()
    for checkpoint in folder.rglob("*.ckpt"):
        assert torch.load(checkpoint, weights_only=True)["state_dict"]
    run(tiny(folder, data_dir, "--resume"))
    _same(folder, finished)


def test_a_finished_run_resumes_to_itself_and_can_be_extended(tmp_path: Path, data_dir: Path, finished: Path) -> None:
    folder = tmp_path / "run"
    run(tiny(folder, data_dir))
    run(tiny(folder, data_dir, "--resume"))
    _same(folder, finished)
    run(["train", "--run-dir", str(folder), "--resume", "--trainer.max_epochs", "5"])
    assert read_metrics(folder)["epochs"] == 5


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (["--optimizer.lr", "0.5"], ["optimizer.lr", "0.01", "0.5"]),
        (["--model.d_model", "4", "--seed", "3"], ["model.d_model", "seed is 0 in the run, 3 now"]),
        (["--mixer", "sgconv"], ["s4d", "sgconv"]),
        (["--mixer_options.d_state", "8"], ["mixer_options.d_state"]),
    ],
)
def test_resuming_with_other_settings_names_them(
    extra: list[str], named: list[str], finished: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "metrics.json").read_bytes()
    assert main(tiny(finished, data_dir, "--resume", *extra)) == 2
    error = capsys.readouterr().err
    assert all(part in error for part in named), error
    assert (finished / "metrics.json").read_bytes() == before


def test_a_run_that_never_began_takes_other_settings(
    tmp_path: Path, data_dir: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert main(tiny(folder, data_dir, "--trainer.limit_train_batches", "0.0001")) == 2
    error = capsys.readouterr().err
    assert "the trainer refuses its settings" in error and "0.0001" in error and "Traceback" not in error
    run(tiny(folder, data_dir, "--resume"))
    _same(folder, finished)


def test_resume_names_a_damaged_configuration(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text("model: [\n")
    assert main(["train", "--resume", "--run-dir", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"lra-tasks: error: cannot read {tmp_path / 'run' / 'config.yaml'}")
    assert error.count("\n") == 1


def test_resume_refuses_another_task(finished: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(tiny(finished, data_dir, "--resume", task="pmnist")) == 2
    assert "holds a run with task 'smnist'" in capsys.readouterr().err
