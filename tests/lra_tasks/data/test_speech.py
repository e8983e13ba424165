"""Speech Commands from its published layout: splits, standardisation, half the rate, cepstral coefficients."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.fft import dct

from lra_tasks.data import DataError, Task, create_task
from lra_tasks.data.official import stratified
from lra_tasks.data.speech.cepstrum import cepstrum, mel_bands
from lra_tasks.data.speech.task import TEN, THIRTY_FIVE
from tests.lra_tasks.data.layouts import all_words, clip, speech, write_wav


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return all_words(tmp_path_factory.mktemp("speech"))


def prepared(name: str, data: Path, official: Path, **options: Any) -> Task:
    task = create_task(name, data_dir=data, official_dir=official, **options)
    task.prepare_data()
    return task


def padded(word: str, number: int) -> np.ndarray:
    samples = clip(word, number)
    return np.concatenate([samples, np.zeros(16000 - len(samples), np.int16)]) / 32768


def test_all_words_by_the_official_lists(tmp_path: Path, source: Path) -> None:
    task = prepared("sc35", tmp_path, source)
    half, level = (
        prepared(name, tmp_path, source, **o) for name, o in (("sc35-8k", {}), ("sc35", {"standardise": "global"}))
    )
    assert task.folder == half.folder == level.folder and task.sizes == (70, 35, 35)
    train = np.stack([padded(word, number) for word in THIRTY_FIVE for number in (0, 3)])
    assert (train[:, -1] == 0).any() and train[:, -1].any()
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    for split, numbers in (("train", (0, 3)), ("val", (1,)), ("test", (2,))):
        clips = [(word, number) for word in THIRTY_FIVE for number in numbers]
        for index in (0, 1, len(clips) // 2, len(clips) - 1):
            word, number = clips[index]
            by_step = (padded(word, number) - mean) / (deviation + 1e-5)
            sample = task.dataset(split)[index]
            assert sample["label"] == THIRTY_FIVE.index(word) and sample["inputs"].shape == (16000, 1)
            np.testing.assert_allclose(sample["inputs"][:, 0], by_step, atol=1e-5)
            np.testing.assert_array_equal(half.dataset(split)[index]["inputs"], sample["inputs"][::2])
            whole = (padded(word, number) - train.mean()) / (train.std() + 1e-5)
            np.testing.assert_allclose(level.dataset(split)[index]["inputs"][:, 0], whole, atol=1e-5)


def test_ten_words_drop_short_clips_and_are_stratified(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    speech(tmp_path / "SpeechCommands" / "speech_commands_v0.02", n=27)
    task = prepared("sc10", tmp_path, tmp_path)
    n = 10 * sum(number % 5 != 3 for number in range(27))
    assert (
        task.sizes == (n * 7 // 10, (n - n * 7 // 10) // 2, n - n * 7 // 10 - (n - n * 7 // 10) // 2) == (154, 33, 33)
    )
    for split, size, published in zip(("train", "val", "test"), task.sizes, task.info.sizes, strict=True):
        told = rf"{split} of sc10 in \S+ has {size} samples, the official release {published}"
        assert re.search(told, caplog.text), "clips that were not unpacked would be missing unseen"
    seen: list[bytes] = []
    folder = task.folder
    for split, share in zip(("train", "val", "test"), task.sizes, strict=True):
        clips, labels = np.load(folder / f"{split}_clips.npy"), np.load(folder / f"{split}_labels.npy")
        assert all(abs(count - share / 10) < 1.5 for count in np.bincount(labels, minlength=10))
        seen += [bytes(clip) + bytes([label]) for clip, label in zip(clips, labels, strict=True)]
    whole = [(word, number) for word in TEN for number in range(27) if number % 5 != 3]
    assert Counter(seen) == Counter(clip(*it).tobytes() + bytes([TEN.index(it[0])]) for it in whole)


def test_the_stratified_split_has_the_official_sizes() -> None:
    labels = np.random.default_rng(0).choice(10, 34975)
    parts = stratified(labels)
    assert tuple(map(len, parts.values())) == (24482, 5246, 5247)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(34975))
    for chosen, share in zip(parts.values(), (0.7, 0.15, 0.15), strict=True):
        assert np.abs(np.bincount(labels[chosen]) - share * np.bincount(labels)).max() < 2


def by_definition(audio: np.ndarray) -> np.ndarray:
    """Coefficients by frames, real FFTs and scipy's orthogonal cosine transform."""
    reflected = np.pad(audio, 100, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(200) / 200)
    frames = np.stack([reflected[start : start + 200] * window for start in range(0, len(reflected) - 199, 100)])
    power = np.abs(np.fft.rfft(frames)) ** 2
    mels = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 66)
    corners = 700 * (10 ** (mels / 2595) - 1)
    frequencies = np.arange(101) * 80.0
    bands = [np.interp(frequencies, corners[m : m + 3], [0, 1, 0]) for m in range(64)]
    return dct(np.log(power @ np.stack(bands).T + 1e-6), norm="ortho")[:, :20]


def test_cepstrum_is_as_defined() -> None:
    time = np.arange(16000) / 16000
    noise = np.random.default_rng(0).standard_normal(16000) * 0.1
    audio = np.stack([noise, np.sin(2 * np.pi * 440 * time), np.zeros(16000)])
    got = cepstrum(torch.from_numpy(audio))
    assert got.shape == (3, 161, 20)
    for row, waveform in zip(got, audio, strict=True):
        np.testing.assert_allclose(row, by_definition(waveform), rtol=1e-8, atol=1e-8)
    assert mel_bands(16000).max() <= 1
    np.testing.assert_allclose(cepstrum(torch.from_numpy(audio).float()), got, atol=2e-3)


def test_coefficients_are_standardised_by_the_training_clips(tmp_path: Path) -> None:
    official = speech(tmp_path / "source")
    task, raw = (prepared(name, tmp_path, official) for name in ("sc10-mfcc", "sc10"))
    assert task.sizes == raw.sizes and task.folder != raw.folder
    clips = np.load(raw.folder / "train_clips.npy") / 32768
    train = np.stack([by_definition(audio) for audio in clips])
    for index in (0, 5, 20):
        expected = (train[index] - train.mean(axis=(0, 1))) / (train.std(axis=(0, 1)) + 1e-5)
        sample = task.dataset("train")[index]
        np.testing.assert_allclose(sample["inputs"], expected, atol=2e-3)
        assert sample["label"] == raw.dataset("train")[index]["label"]


def test_missing_data(tmp_path: Path) -> None:
    def prepare(name: str = "sc10") -> None:
        create_task(name, data_dir=tmp_path).prepare_data()

    with pytest.raises(DataError, match=r"no Speech Commands 0.02 .*validation_list.txt.*speech_commands_v0.02.tar.gz"):
        prepare()
    folder = speech(tmp_path / "speech_commands_v0.02")
    prepare()
    with pytest.raises(DataError, match=r"speech_commands_v0.02/bed is missing"):
        prepare("sc35")
    for path in (folder / "up").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"/up has no .wav"):
        prepare()
    (folder / "validation_list.txt").unlink()
    with pytest.raises(DataError, match=r"validation_list.txt is missing"):
        prepare("sc10-mfcc")


@pytest.mark.parametrize(
    ("name", "lines", "named"),
    [
        ("testing_list.txt", "bed/00000002_nohash_0.wav\nbed/gone.wav\n", "testing_list.txt, line 2: .*'bed/gone.wav'"),
        ("testing_list.txt", "", "testing_list.txt names no clip of the words"),
        ("validation_list.txt", "bed/00000002_nohash_0.wav\n", "bed/00000002_nohash_0.wav is in both"),
    ],
)
def test_bad_lists_are_named(tmp_path: Path, name: str, lines: str, named: str) -> None:
    folder = all_words(tmp_path)
    (folder / name).write_text(lines)
    with pytest.raises(DataError, match=named):
        create_task("sc35", data_dir=tmp_path).prepare_data()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "is corrupt"),
        (b"not a wave file at all, just words", "is corrupt"),
        (-2000, "has 15000 samples, 16000 by its header: is it cut off"),
        ((8000, 1, "<i2"), r"1 channel\(s\) of 16-bit samples, 8000 a second, expected 1, 16-bit, 16000"),
        ((16000, 2, "<i2"), r"2 channel\(s\)"),
        ((16000, 1, "<i4"), "of 32-bit samples"),
    ],
)
def test_a_bad_clip_is_named(tmp_path: Path, content: Any, named: str) -> None:
    path = speech(tmp_path) / "go" / "00000000_nohash_0.wav"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, int):
        path.write_bytes(path.read_bytes()[:content])
    else:
        rate, channels, kind = content
        write_wav(path, np.zeros(16000 * channels, kind), rate, channels)
    task = create_task("sc10", data_dir=tmp_path)
    with pytest.raises(DataError, match=f"go/00000000_nohash_0.wav.*{named}"):
        task.prepare_data()
    assert not task.folder.exists()


@pytest.mark.parametrize("name", ["sc35", "sc10-mfcc"])
def test_bad_options(name: str) -> None:
    with pytest.raises(ValueError, match="processes"):
        create_task(name, processes=0)
