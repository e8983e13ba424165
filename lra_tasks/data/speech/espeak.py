"""Thirty-five words spoken by a synthesiser: raw speech of length 16000 with nothing to download.

========= =============================================================================================================
source    spoken here by espeak-ng (GPL 3; `apt-get install espeak-ng`) in 99 variants of 8 accents of English, at 120
          to 220 words a minute and pitches 20 to 80 of 99
length    16000: a second at 16 kHz; the word lies anywhere in it, at 1/4 to all of full scale, among zeros
input     1 channel, standardised by the mean and the deviation of all training samples
classes   the 35 words of Speech Commands, equally many of each, chance 2.9 %; metric: accuracy
sizes     24,500 / 3,500 / 3,500 clips (1.0 GB)
split     by speakers, 47 / 10 / 10: no voice is in two parts (variants that differ by a number are one speaker)
protocol  of our own, after that of Speech Commands with 35 words; none is published
========= =============================================================================================================

References:
    Warden, Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition, arXiv:1804.03209 (the words).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import Dataset

from longconv._checks import check_int
from lra_tasks.data.base import Sample, Task, TaskInfo, check_counts
from lra_tasks.data.cache import save_array
from lra_tasks.data.errors import DataError
from lra_tasks.data.journal import Journal
from lra_tasks.data.parallel import check_processes
from lra_tasks.data.speech.clips import SPLITS, cut_splits, measure, open_clips
from lra_tasks.data.speech.synthesis import ACCENTS, PITCHES, RATE, SPEEDS, VARIANTS, missing, speak, version
from lra_tasks.data.speech.task import THIRTY_FIVE

_CHUNK = 50
"""Clips a chunk."""


class Espeak35(Task):
    """Thirty-five synthesised words, raw: L = 16000, one channel, 35 classes, 24,500 / 3,500 / 3,500, by speakers.

    Args:
        data_dir: where prepared data is kept; None for $LONGCONV_DATA or ~/.cache/longconv.
        batch_size: samples a batch.
        num_workers: processes that load batches; 0 loads them in the training process.
        seed: of the training order; not of the data.
        n_train: clips to train on; clip i says word i modulo 35.
        n_val: clips to validate on.
        n_test: clips to test on.
        every: one in so many samples is taken, with no low-pass.
        data_seed: seed of voices, speeds, pitches, levels and places.
        processes: number of processes that speak; None for all cores. The data does not depend on it.
    """

    cache_name = "espeak"
    info: ClassVar[TaskInfo] = TaskInfo(
        name="espeak35",
        title="35 synthesised words, raw samples",
        source="spoken here by espeak-ng (`apt-get install espeak-ng`) in 99 variants of 8 accents",
        length=RATE,
        n_classes=len(THIRTY_FIVE),
        d_input=1,
        n_tokens=None,
        sizes=(24500, 3500, 3500),
        split="by speakers, 47 / 10 / 10: no voice is in two parts",
        chance=1 / len(THIRTY_FIVE),
        protocol="none is published; 16000 samples as those of sc35, standardised by all training samples",
    )

    def __init__(
        self,
        data_dir: str | Path | None = None,
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
        *,
        n_train: int = 24500,
        n_val: int = 3500,
        n_test: int = 3500,
        every: int = 1,
        data_seed: int = 0,
        processes: int | None = None,
    ) -> None:
        super().__init__(data_dir, batch_size, num_workers, seed)
        self.counts = check_counts(n_train=n_train, n_val=n_val, n_test=n_test)
        self.every = check_int("every", every)
        self.data_seed = check_int("data_seed", data_seed, least=0)
        self.processes = check_processes(processes)

    @classmethod
    def lacks(cls) -> str | None:
        """Espeak-ng, where it is not installed."""
        return missing()

    @property
    def length(self) -> int:
        """Samples that are taken of a clip."""
        return -(-RATE // self.every)

    def parameters(self) -> dict[str, Any]:
        """How many clips of which voices, and the seed."""
        voices = {"accents": ACCENTS, "variants": VARIANTS, "speeds": SPEEDS, "pitches": PITCHES}
        return {"version": 1, "counts": self.counts, "seed": self.data_seed, **voices}

    def source(self) -> Any:
        """The synthesiser's version."""
        with suppress(DataError):
            return version()

    def build(self, folder: Path) -> None:
        """Speak the clips of every split, and write them with their labels, and mean and deviation."""
        version()
        chunks = cut_splits({split: range(n) for split, n in self.counts.items()}, _CHUNK)
        make = partial(speak_clips, self.data_seed)
        arrays: dict[str, Any] = {f"{split}_clips": ((RATE,), np.int16) for split in SPLITS}
        with (
            Journal(folder, arrays, _CHUNK) as journal,
            closing(journal.resume(make, chunks, self.processes, "espeak35: speaking")) as spoken,
        ):
            for chunk, clips in spoken:
                journal.append({f"{chunk[0][0]}_clips": clips})
        for split, n in self.counts.items():
            save_array(folder / f"{split}_labels.npy", (np.arange(n) % len(THIRTY_FIVE)).astype(np.uint8))
        save_array(folder / "moments.npy", measure(folder / "train_clips.npy", over_time=True))

    def load(self, folder: Path) -> Mapping[str, Dataset[Sample]]:
        """The three splits of the memory-mapped clips."""
        mean, deviation = torch.from_numpy(np.load(folder / "moments.npy"))
        return open_clips(folder, mean, deviation, self.every)


def speak_clips(seed: int, clips: Sequence[tuple[str, int]]) -> np.ndarray:
    """Clips int16 (n, 16000), each by its split and its number.

    Every clip depends on the seed, its split and its number alone.
    """

    def spoken(split: str, number: int) -> np.ndarray:
        random = np.random.default_rng([seed, SPLITS.index(split), number])
        return speak(THIRTY_FIVE[number % len(THIRTY_FIVE)], split, random)

    return np.stack([spoken(split, number) for split, number in clips])
