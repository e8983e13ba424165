"""A run that was killed, or that met a full disk, goes on to the metrics of one that was not."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from lra_tasks import files
from tests.lra_tasks.running import main, read_metrics, read_weights, run, start, tiny

SLOWER = ("--trainer.limit_train_batches", "30", "--trainer.max_epochs", "4")


def _same(left: Path, right: Path) -> None:
    assert read_metrics(left) == read_metrics(right)
    ours, theirs = read_weights(left), read_weights(right)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    columns = [
        [line.rsplit(",", 1)[0] for line in (folder / "history.csv").read_text().splitlines()]
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
    deadline = time.monotonic() + 60
    while not (folder / "history.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, kill)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and not (folder / "metrics.json").exists(), printed
    assert "Traceback" not in printed

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


@pytest.mark.parametrize("failing", [2, 4, 5, 6])
def test_a_full_disk_names_the_path_and_loses_nothing(
    failing: int,
    tmp_path: Path,
    data_dir: Path,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The write number ``failing`` of the run (configuration, best, last, history, ...) finds no space."""
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


def test_resume_refuses_another_task(finished: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(tiny(finished, data_dir, "--resume", task="pmnist")) == 2
    assert "holds a run with task 'smnist'" in capsys.readouterr().err
