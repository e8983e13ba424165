"""Words spoken by espeak-ng: speakers apart, the same clips every time, and what is said where it is missing."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from lra_tasks.cli import main
from lra_tasks.data import DataError, Task, create_task
from lra_tasks.data.speech.espeak import speak_clips
from lra_tasks.data.speech.synthesis import VARIANTS, missing, resample, speakers, version
from lra_tasks.data.speech.task import THIRTY_FIVE

speaking = pytest.mark.skipif(missing() is not None, reason=f"{missing()}")
SIZES = {"n_train": 70, "n_val": 35, "n_test": 36}


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Task:
    task = create_task("espeak35", data_dir=tmp_path_factory.mktemp("spoken"), **SIZES)
    task.prepare_data()
    return task


@speaking
def test_clips_are_a_second_of_one_word_at_some_level_and_place(spoken: Task) -> None:
    assert spoken.sizes == (70, 35, 36)
    clips = np.load(spoken.folder / "train_clips.npy")
    assert clips.shape == (70, 16000) and len(np.unique(clips, axis=0)) == 70
    loudest = np.abs(clips.astype(int)).max(axis=1)
    assert loudest.min() >= 32767 * 0.24 and loudest.max() <= 32767 and loudest.std() > 3000
    first = (clips != 0).argmax(axis=1)
    lengths = 16000 - (clips[:, ::-1] != 0).argmax(axis=1) - first
    assert lengths.min() > 1500 and 4000 < np.median(lengths) < 9000 and first.std() > 2000
    for split, n in (("train", 70), ("test", 36)):
        labels = [spoken.dataset(split)[number]["label"] for number in range(n)]
        assert labels == [number % 35 for number in range(n)]


@speaking
def test_all_training_samples_together_have_mean_0_and_deviation_1(spoken: Task) -> None:
    values = np.stack([spoken.dataset("train")[number]["inputs"] for number in range(70)])
    assert values.shape == (70, 16000, 1)
    assert abs(values.mean()) < 1e-3 and abs(values.std() - 1) < 1e-3
    eighth = create_task("espeak35", data_dir=spoken.data_dir, every=8, **SIZES)
    assert eighth.length == 2000 and eighth.folder == spoken.folder
    assert np.array_equal(eighth.dataset("val")[3]["inputs"], spoken.dataset("val")[3]["inputs"][::8])


@speaking
def test_a_clip_depends_on_seed_split_and_number_alone(spoken: Task) -> None:
    clips = np.load(spoken.folder / "val_clips.npy")
    assert np.array_equal(speak_clips(0, [("val", number) for number in (30, 31, 32)]), clips[30:33])
    for seed, split in ((1, "val"), (0, "test")):
        assert not np.array_equal(speak_clips(seed, [(split, 30)]), clips[30:31])


@speaking
def test_a_word_sounds_alike_from_one_speaker_and_other_words_do_not(spoken: Task) -> None:
    """Spectra of loudness over frequency: those of one word are nearer than those of two, on the whole."""
    clips = np.load(spoken.folder / "train_clips.npy").astype(float)
    frames = np.abs(np.fft.rfft(clips.reshape(70, 50, 320))).mean(axis=1)[:, 1:80]
    logs = np.log(frames / frames.sum(axis=1, keepdims=True))
    distance = np.linalg.norm(logs[:35, None] - logs[None, 35:], axis=-1)
    same, other = np.diag(distance).mean(), distance[~np.eye(35, dtype=bool)].mean()
    assert same < other


def test_no_voice_is_in_two_parts() -> None:
    parts = speakers()
    flat = [variant for speakers_ in parts.values() for speaker in speakers_ for variant in speaker]
    assert sorted(flat) == sorted(VARIANTS) and len(set(flat)) == len(VARIANTS) == 99
    families = {split: {v.rstrip("0123456789") for speaker in s for v in speaker} for split, s in parts.items()}
    assert not families["train"] & families["val"] and not (families["train"] | families["val"]) & families["test"]


def test_resample_keeps_what_the_lower_rate_has() -> None:
    t = np.arange(11025) / 22050
    both = np.sin(2 * np.pi * 440 * t) + np.sin(2 * np.pi * 9000 * t)
    got = resample(both, 22050)
    assert got.shape == (8000,)
    np.testing.assert_allclose(got, np.sin(2 * np.pi * 440 * np.arange(8000) / 16000), atol=1e-9)
    up = resample(np.sin(2 * np.pi * 100 * np.arange(8000) / 8000), 8000)
    np.testing.assert_allclose(up, np.sin(2 * np.pi * 100 * np.arange(16000) / 16000), atol=1e-9)
    assert len(resample(np.zeros(100), 22050)) == 320 and len(resample(np.zeros(0), 22050)) == 0


def test_a_missing_synthesiser_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["prepare", "espeak35", "--data-dir", str(tmp_path / "data")]) == 1
    assert "espeak-ng, which speaks the words, is not installed: `apt-get install espeak-ng`" in capsys.readouterr().err
    for words in (["list"], ["list", "espeak35"]):
        assert main(words) == 0
        assert "is not installed: `apt-get install espeak-ng`" in " ".join(capsys.readouterr().out.split())
    assert not list((tmp_path / "data").glob("espeak/*/*"))


@pytest.mark.parametrize(
    ("script", "named"),
    [
        ("exit 0", "lacks the voices adam Alex"),
        ("echo broken >&2; exit 3", r"espeak-ng --voices=variant failed \(broken\)"),
    ],
)
def test_a_broken_synthesiser_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, named: str
) -> None:
    fake(tmp_path, script)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(DataError, match=named):
        version()


def test_an_answer_without_sound_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, "echo no sound")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(DataError, match="answered 'bed' in the voice en-.* with no sound of 16 bits"):
        speak_clips(0, [("train", 0)])


def fake(folder: Path, script: str) -> None:
    path = folder / "espeak-ng"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_a_prepared_task_needs_no_synthesiser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lra_tasks.data.speech.espeak.version", lambda: "of the test")
    monkeypatch.setattr("lra_tasks.data.speech.espeak.speak", lambda word, split, random: random.integers(-9, 9, 16000))
    sizes = {"n_train": 4, "n_val": 1, "n_test": 1}
    task = create_task("espeak35", data_dir=tmp_path, processes=1, **sizes)
    task.prepare_data()
    monkeypatch.undo()
    monkeypatch.setenv("PATH", "")
    task = create_task("espeak35", data_dir=tmp_path, **sizes)
    task.prepare_data()
    assert task.sizes == (4, 1, 1) and task.dataset("train")[1]["label"] == THIRTY_FIVE.index("cat")


@pytest.mark.parametrize("options", [{"n_train": 0}, {"every": 0}, {"processes": 0}, {"data_seed": -1}])
def test_bad_options(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        create_task("espeak35", **options)
