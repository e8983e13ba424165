"""Speech Commands: ten words (``sc10``, ``sc10-half``, ``sc10-mfcc``) and all thirty-five (``sc35``, ``sc35-8k``).

========= =============================================================================================================
source    Speech Commands 0.02 (CC BY 4.0), unpacked, in ``official_dir`` or data_dir (layout: ``official``), from
          http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz
length    16000 samples; sc10-half and sc35-8k every second one, 8000, with no low-pass; sc10-mfcc 161 frames
input     1 channel in [-1, 1], or sc10-mfcc 20 cepstral coefficients (``cepstrum``), standardised with the means and
          deviations of the training clips: those of every time step, as S4's code does, or of all samples
          (``standardise="global"``); the coefficients each by its own
classes   10 (chance about 10.5 %, the share of the commonest word) or 35 (3.8 %); metric: accuracy
sizes     ten words 24,482 / 5,246 / 5,247; thirty-five 84,843 / 9,981 / 11,005
split     ten words: of the clips of exactly 16000 samples 70 / 15 / 15 %, stratified, in a seeded order (the official
          lists are not used, so that speakers are shared); thirty-five: the official lists, shorter clips zero-padded
protocol  S4's (arXiv:2111.00396). Which clips are in which part of its ten words depends on the order in which its
          machine listed them, so that test sets differ. Published figures at half the rate are those of a model
          trained on every sample and tested on every second one with its step sizes doubled (a mixer's ``rate=2``)
========= =============================================================================================================

References:
    Warden, Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition, arXiv:1804.03209.
    Romero et al., CKConv: Continuous Kernel Convolution For Sequential Data, arXiv:2102.02611 (ten words).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import Dataset

from longconv._checks import check_choice
from lra_tasks.data.base import Sample, TaskInfo, marks
from lra_tasks.data.cache import save_array
from lra_tasks.data.errors import DataError
from lra_tasks.data.journal import Journal
from lra_tasks.data.official import OfficialTask, compare_size, stratified
from lra_tasks.data.parallel import check_processes, cut, in_order
from lra_tasks.data.speech.cepstrum import cepstrum
from lra_tasks.data.speech.clips import FULL_SCALE, cut_splits, measure, open_clips
from lra_tasks.data.speech.official import (
    LISTS,
    RATE,
    count_samples,
    find_clips,
    list_clips,
    read_clip,
    read_lists,
)

TEN = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
THIRTY_FIVE = (
    "bed", "cat", "down", "five", "forward", "go", "house", "left", "marvin", "no", "on", "right", "sheila", "tree",
    "up", "visual", "yes", "backward", "bird", "dog", "eight", "follow", "four", "happy", "learn", "nine", "off", "one",
    "seven", "six", "stop", "three", "two", "wow", "zero",
)  # fmt: skip
"""The words in the order of their labels, which is S4's."""
_AT_ONCE = 256
"""Clips that are read, transformed and written together."""


class SpeechCommands35(OfficialTask):
    """Thirty-five spoken words, raw: L = 16000, one channel, 35 classes, 84,843 / 9,981 / 11,005 by the official lists.

    Args:
        data_dir: where prepared data is kept; None for $LONGCONV_DATA or ~/.cache/longconv.
        batch_size: samples a batch.
        num_workers: processes that load batches; 0 loads them in the training process.
        seed: of the training order; not of the data.
        official_dir: folder of the unpacked archive; None looks in data_dir.
        standardise: whether samples are standardised by the mean and deviation of their time step ("step") or of all
            samples ("global") of the training clips.
        processes: number of processes that read; None for all cores. The data does not depend on it.
    """

    cache_name = "speech_commands"
    words: ClassVar[tuple[str, ...]] = THIRTY_FIVE
    every: ClassVar[int] = 1
    coefficients: ClassVar[bool] = False
    info: ClassVar[TaskInfo] = TaskInfo(
        name="sc35",
        title="Speech Commands, 35 words, raw samples",
        source="Speech Commands 0.02 (CC BY 4.0), download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
        length=16000,
        n_classes=35,
        d_input=1,
        n_tokens=None,
        sizes=(84843, 9981, 11005),
        split="the official validation_list.txt and testing_list.txt, no speaker in two parts",
        chance=0.038,
        protocol="S4 (arXiv:2111.00396): 16000 samples, shorter clips zero-padded, every time step standardised",
    )

    def __init__(
        self,
        data_dir: str | Path | None = None,
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
        *,
        official_dir: str | Path | None = None,
        standardise: str = "step",
        processes: int | None = None,
    ) -> None:
        super().__init__(data_dir, batch_size, num_workers, seed, official_dir=official_dir)
        self.standardise = check_choice("standardise", standardise, ("step", "global"))
        self.processes = check_processes(processes)

    def files(self) -> list[Path]:
        """The lists and the folders of the words."""
        folder = find_clips(self.read_from, self.words)
        return [folder / name for name in (*LISTS.values(), *self.words)]

    def source(self) -> Any:
        """Names, sizes and times of the lists and the folders."""
        with suppress(DataError):
            return marks(self.files())

    def shaping(self) -> dict[str, Any]:
        """How many words, and whether as coefficients."""
        return {"words": len(self.words), "coefficients": self.coefficients}

    def split(self, folder: Path, clips: Sequence[str]) -> dict[str, list[str]]:
        """The clips of every split, in order: those of the lists, all others to train on."""
        lists = read_lists(folder, self.words)
        chosen = {split: [clip for clip in clips if clip in lists[split]] for split in LISTS}
        return {"train": [clip for clip in clips if not any(clip in listed for listed in lists.values())], **chosen}

    def build(self, folder: Path) -> None:
        """Write samples or coefficients and labels of every split, and mean and deviation of the training clips."""
        source = find_clips(self.read_from, self.words)
        splits = self.split(source, list_clips(source, self.words))
        for (split, clips), published in zip(splits.items(), self.info.sizes, strict=True):
            if not clips:
                raise DataError(f"no clip of {source} is left for {split}: unpack the archive again")
            compare_size(f"{split} of {self.info.name} in {source}", len(clips), published)
        row = (1 + RATE // 100, 20) if self.coefficients else (RATE,)
        kind = np.float32 if self.coefficients else np.int16
        arrays: dict[str, Any] = {f"{split}_clips": (row, kind) for split in splits}
        chunks, title = cut_splits(splits, _AT_ONCE), f"{self.info.name}: reading"
        with (
            Journal(folder, arrays, _AT_ONCE) as journal,
            closing(journal.resume(partial(read_clips, source), chunks, self.processes, title)) as read,
        ):
            for chunk, samples in read:
                journal.append({f"{chunk[0][0]}_clips": self._transform(samples)})
        for split, clips in splits.items():
            labels = [self.words.index(clip.split("/")[0]) for clip in clips]
            save_array(folder / f"{split}_labels.npy", np.array(labels, np.uint8))
        save_array(folder / "moments.npy", measure(folder / "train_clips.npy", over_time=self.coefficients))

    def load(self, folder: Path) -> Mapping[str, Dataset[Sample]]:
        """The three splits of the memory-mapped clips."""
        mean, deviation = torch.from_numpy(np.load(folder / "moments.npy"))
        if not self.coefficients and self.standardise == "global":
            square = (deviation.square() + mean.square()).mean()
            mean, deviation = mean.mean()[None, None], (square - mean.mean().square()).sqrt()[None, None]
        elif not self.coefficients:
            mean, deviation = mean[:: self.every], deviation[:: self.every]
        return open_clips(folder, mean, deviation, self.every)

    def _transform(self, samples: np.ndarray) -> np.ndarray:
        """What is kept of samples; not for the processes that read, which must not use torch's threads."""
        return cepstrum(torch.from_numpy(samples / np.float32(FULL_SCALE))).numpy() if self.coefficients else samples


def count_clips(source: Path, clips: Sequence[str]) -> list[int]:
    """How many samples each clip has, by its header."""
    return [count_samples(source / clip) for clip in clips]


def read_clips(source: Path, clips: Sequence[tuple[str, str]]) -> np.ndarray:
    """The samples int16 (n, 16000) of clips, each after the name of its split."""
    return np.stack([read_clip(source / clip) for _, clip in clips])


class SpeechCommands35Half(SpeechCommands35):
    """Thirty-five spoken words, every second sample: L = 8000."""

    every = 2
    info: ClassVar[TaskInfo] = replace(
        SpeechCommands35.info,
        name="sc35-8k",
        title="Speech Commands, 35 words, every second sample",
        length=8000,
        protocol="S4 (arXiv:2111.00396): x[::2] with no low-pass; published for models trained at 16 kHz",
    )


class SpeechCommands10(SpeechCommands35):
    """Ten spoken words, raw: L = 16000, one channel, 10 classes, 24,482 / 5,246 / 5,247."""

    words = TEN
    info: ClassVar[TaskInfo] = replace(
        SpeechCommands35.info,
        name="sc10",
        title="Speech Commands, 10 words, raw samples",
        n_classes=10,
        sizes=(24482, 5246, 5247),
        split="70 / 15 / 15 % of the clips of 16000 samples, stratified, seeded; speakers are shared",
        chance=0.105,
        protocol="S4 (arXiv:2111.00396), after CKConv (arXiv:2102.02611); every time step standardised",
    )

    def split(self, folder: Path, clips: Sequence[str]) -> dict[str, list[str]]:
        """The clips of every split: whole clips alone, stratified by word."""
        with closing(in_order(partial(count_clips, folder), cut(clips, _AT_ONCE), self.processes)) as counts:
            whole = [clip for clip, n in zip(clips, chain.from_iterable(counts), strict=True) if n == RATE]
        labels = np.array([self.words.index(clip.split("/")[0]) for clip in whole])
        return {split: [whole[number] for number in chosen] for split, chosen in stratified(labels).items()}


class SpeechCommands10Half(SpeechCommands10):
    """Ten spoken words, every second sample: L = 8000."""

    every = 2
    info: ClassVar[TaskInfo] = replace(
        SpeechCommands10.info,
        name="sc10-half",
        title="Speech Commands, 10 words, every second sample",
        length=8000,
        protocol="S4 (arXiv:2111.00396): x[::2] with no low-pass; published for models trained on all samples",
    )


class SpeechCommands10MFCC(SpeechCommands10):
    """Ten spoken words as cepstral coefficients: L = 161, 20 channels."""

    coefficients = True
    info: ClassVar[TaskInfo] = replace(
        SpeechCommands10.info,
        name="sc10-mfcc",
        title="Speech Commands, 10 words, cepstral coefficients",
        length=161,
        d_input=20,
        protocol="S4 (arXiv:2111.00396), after CKConv (arXiv:2102.02611); every coefficient standardised",
    )

    def __init__(
        self,
        data_dir: str | Path | None = None,
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
        *,
        official_dir: str | Path | None = None,
        processes: int | None = None,
    ) -> None:
        super().__init__(data_dir, batch_size, num_workers, seed, official_dir=official_dir, processes=processes)
