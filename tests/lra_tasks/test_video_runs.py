"""Training, scoring and drawing of video predictors by the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from longconv.models import VideoPredictor
from lra_tasks.cli import main
from lra_tasks.evaluation import restore
from lra_tasks.results import RunFolder, read_config, read_run
from lra_tasks.rollouts import GAP, save_contact_sheet, save_gif
from lra_tasks.video_module import VideoModule, score_table
from tests.lra_tasks.running import read_metrics, read_weights, run, start


def tiny(run_dir: Path, data_dir: Path, *extra: str, mixer: str = "conv_s5") -> list[str]:
    settings = {
        "--mixer": mixer,
        "--run-dir": run_dir,
        "--data-dir": data_dir,
        "--data.batch_size": 2,
        "--data.n_train": 4,
        "--data.n_val": 2,
        "--data.n_test": 3,
        "--data.frames": 4,
        "--data.context": 3,
        "--data.horizons": "[1,3]",
        "--model.d_model": 8,
        "--model.n_layers": 1,
        "--trainer.max_epochs": 2,
        "--trainer.accelerator": "cpu",
    }
    return ["train", "moving_mnist", *(str(word) for pair in settings.items() for word in pair), *extra]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    run(tiny(folder, data_dir))
    return folder


def test_a_run_is_scored_at_its_horizons(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    folder = RunFolder(finished)
    task, module = restore(read_config(folder), folder.best)
    assert isinstance(module, VideoModule)
    videos = torch.stack([task.dataset("test")[i]["inputs"] for i in range(3)])
    predicted = module.model.eval().rollout(videos[:, :3], 3)
    for horizon in (1, 3):
        want = videos[:, 2 + horizon]
        for name, guess in (("", predicted[:, horizon - 1]), ("copy_", videos[:, 2])):
            error = (guess - want).square().mean().item()
            assert metrics[f"test/{name}mse@{horizon}"] == pytest.approx(error, rel=1e-4)
            assert metrics[f"test/{name}psnr@{horizon}"] == pytest.approx(-10 * np.log10(error), rel=1e-3)
            assert -1 <= metrics[f"test/{name}ssim@{horizon}"] <= 1
    assert metrics["val/loss"] > 0 and "val/accuracy" not in metrics
    assert score_table(metrics).count("\n") == 2


def test_its_pictures_show_truth_and_prediction(finished: Path) -> None:
    folder = RunFolder(finished)
    with Image.open(folder.rollouts) as film:
        assert film.n_frames == 6  # type: ignore[attr-defined]
        assert film.size == (GAP + 3 * (64 + GAP), GAP + 2 * (64 + GAP))
    with Image.open(folder.contact_sheet) as sheet:
        assert sheet.size == (GAP + 4 * (64 + GAP), GAP + 6 * (64 + GAP))
    assert folder.learning_curve.is_file() and not folder.filters.exists()


def test_pictures_hold_the_frames(tmp_path: Path) -> None:
    true, predicted = torch.rand(5, 1, 8, 8), torch.rand(3, 1, 8, 8)
    save_contact_sheet([(true, predicted)], 2, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        sheet = np.asarray(picture)[..., 0] / 255
    top, bottom = slice(GAP, GAP + 8), slice(2 * GAP + 8, 2 * GAP + 16)
    for column, t in enumerate(range(1, 5)):
        across = slice(GAP + column * (8 + GAP), GAP + column * (8 + GAP) + 8)
        assert np.allclose(sheet[top, across], true[t, 0], atol=0.003)
        shown = true[1, 0] if t == 1 else predicted[t - 2, 0]
        assert np.allclose(sheet[bottom, across], shown, atol=0.003)
    save_gif([(true.expand(-1, 3, -1, -1), predicted.expand(-1, 3, -1, -1))], 2, tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 5  # type: ignore[attr-defined]


def test_evaluate_repeats_the_scores(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    run(["evaluate", str(finished)])
    assert score_table(metrics) in capsys.readouterr().out
    run(["evaluate", str(finished), "--split", "val"])
    assert "validation rollouts" in capsys.readouterr().out


def test_report_gives_the_errors_of_video(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = read_run(finished).metrics
    run(["report", str(finished), "--format", "csv"])
    header, row = capsys.readouterr().out.splitlines()
    cells = dict(zip(header.split(","), row.split(","), strict=True))
    assert cells["mixer"] == "conv_s5" and cells["MSE@3"] == f"{metrics['test/mse@3']:.4f}"
    assert cells["copy MSE@3"] == f"{metrics['test/copy_mse@3']:.4f}"


def test_a_resumed_run_ends_like_an_uninterrupted_one(tmp_path: Path, data_dir: Path, finished: Path) -> None:
    run(tiny(tmp_path / "run", data_dir, "--trainer.max_epochs", "1"))
    run(tiny(tmp_path / "run", data_dir, "--resume"))
    first, again = read_weights(finished), read_weights(tmp_path / "run")
    assert set(first) == set(again)
    assert read_metrics(tmp_path / "run").keys() == read_metrics(finished).keys()


def test_rollouts_grow_after_the_teacher_forced_share_of_the_training(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight steps, two of them teacher forced; the loss of scoring takes no more frames, whatever the horizon."""
    clips: list[tuple[int, int | None]] = []
    loss = VideoPredictor.loss

    def recorded(self: VideoPredictor, frames: torch.Tensor, kind: str, *, context: int | None) -> torch.Tensor:
        clips.append((frames.shape[1] * (1 if self.training else -1), context))
        return loss(self, frames, kind, context=context)

    monkeypatch.setattr(VideoPredictor, "loss", recorded)
    words = ["--data.frames", "9", "--data.horizons", "[1,20]", "--trainer.max_epochs", "4"]
    run(tiny(tmp_path / "run", data_dir, *words, "--model.rollout_from", "0.25", "--model.forced_frames", "5"))
    trained = [clip for clip in clips if clip[0] > 0]
    assert trained == [(5, None), (5, None), (4, 3), (5, 3), (6, 3), (9, 3), (9, 3), (9, 3)]
    assert {clip for clip in clips if clip[0] < 0} == {(-9, 3)}


def test_what_is_compiled_is_what_training_calls(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the compiler, which takes a minute."""
    calls: list[int] = []

    def compiled(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def called(*args: Any, **options: Any) -> torch.Tensor:
            calls.append(len(args[0]))
            return function(*args, **options)

        return called

    monkeypatch.setattr(torch, "compile", compiled)
    run(tiny(tmp_path / "run", data_dir, "--trainer.compile", "true", "--trainer.max_epochs", "1"))
    assert calls == [2, 2, 2], "two batches of training and one of validation"


def test_a_divided_model_trains(tmp_path: Path, data_dir: Path) -> None:
    """By one process, which has all parts; their parameters have to be gathered all the same."""
    rollouts = ["--data.frames", "6", "--model.rollout_from", "0"]
    words = ["--trainer.strategy", "fsdp2", *rollouts, "--trainer.max_epochs", "1"]
    process = start(tiny(tmp_path / "run", data_dir, *words))
    printed, _ = process.communicate(timeout=200)
    assert process.returncode == 0 and "Traceback" not in printed, printed
    run(tiny(tmp_path / "plain", data_dir, *words[2:]))
    divided, plain = (read_metrics(tmp_path / name) for name in ("run", "plain"))
    assert divided["val/loss"] == pytest.approx(plain["val/loss"], rel=1e-4)


@pytest.mark.parametrize("mixer", ["conv_lstm", "frame_attention"])
def test_the_mixers_to_compare_with_train_too(mixer: str, tmp_path: Path, data_dir: Path) -> None:
    words = ["--trainer.max_epochs", "1", "--model.codebook", "7", "--model.loss", "mse_l1"]
    run(tiny(tmp_path / "run", data_dir, *words, mixer=mixer))
    assert read_metrics(tmp_path / "run")["mixer"] == mixer


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "moving_mnist", "--mixer", "s4d"], "'s4d' (str), expected one of 'conv_s5', 'conv_lstm'"),
        (["train", "smnist", "--mixer", "conv_s5"], "'conv_s5' (str), expected one of 's4'"),
        (["train", "moving_mnist", "--model.pooling", "mean"], "--model.pooling"),
        (["train", "moving_mnist", "--data.horizons", "[5,2]"], "horizons is [5, 2]"),
        (["train", "moving_mnist", "--preset", "paper", "--mixer", "frame_attention"], "'frame_attention'"),
        (["train", "moving_mnist", "--mixer_options.d_state", "7"], "d_state is 7"),
        (["train", "moving_mnist", "--model.rollout_from", "1.5"], "model.rollout_from is 1.5"),
        (["train", "moving_mnist", "--model.forced_frames", "1"], "model.forced_frames is 1"),
        (["train", "moving_mnist", "--data.frames", "10"], "frames is 10 with context = 10 and rollout_from = 0.3"),
    ],
)
def test_wrong_requests_are_refused(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert message in capsys.readouterr().err
