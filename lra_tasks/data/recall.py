"""Associative recall: what value did this key have?

========= =============================================================================================================
source    generated here; no download
length    a sequence holds ``seq_len`` tokens of pairs (128; the papers also use 512), then "=>" and a key: 130
input     tokens, vocabulary of 20: 9 keys, 9 values, "=>" and a full stop, which may hide values in training
output    logits of the next token at every position, of which the last counts: the value of the key asked for
classes   20 tokens; a value drawn at random is right in one of 9 cases, 11.1 %: chance level
sizes     8,000 / 500 / 2,000 distinct sequences, no two of them alike in any of the splits
metric    accuracy of the last token
protocol  each sequence maps every key to a random value, then lists random keys, each followed by its value, and asks
          for one of those that it has listed. Training counts every next token (``targets="all"``, for causal mixers),
          as the published code does. An encoder sees those in its input: it learns as encoders of text do, from values
          that are hidden (``targets="hidden"``, ``--preset encoder``: a share of each sequence, up to half). Any
          mixer learns from the last value alone too (``targets="last"``), but 8,000 sequences teach 8,000 answers
          then, soon known by heart: give ``n_train=64000``
========= =============================================================================================================

References:
    Hungry Hungry Hippos: Towards Language Modeling with State Space Models (Fu, Dao, Saab, Thomas, Rudra, Ré),
    arXiv:2212.14052; Hyena Hierarchy (Poli et al.), arXiv:2302.10866.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import Dataset

from longconv._checks import check_choice, check_int
from lra_tasks.data.base import IGNORED, Sample, Task, TaskInfo, check_counts
from lra_tasks.data.cache import save_array
from lra_tasks.data.errors import DataError

KEYS = 9
"""Tokens 0..8 are keys and 9..17 their values."""
ARROW, STOP, VOCABULARY = 18, 19, 20
TARGETS = ("all", "hidden", "last")
SPLITS = ("train", "val", "test")
_FRUITLESS = 20
"""Rounds without a new sequence after which generation gives up."""


class Recalls(Dataset[Sample]):
    """Sequences of tokens (n, L + 1): the model reads all but the last, and predicts all but the first.

    Args:
        tokens: the sequences.
        targets: which predictions count, one of :data:`TARGETS`.
        seed: of the values that are hidden.
    """

    def __init__(self, tokens: np.ndarray, targets: str, seed: int = 0) -> None:
        whole = torch.from_numpy(tokens.astype(np.int64))
        self.inputs, self.labels = whole[:, :-1].clone(), whole[:, 1:].clone()
        if targets == "all":
            return
        counts = torch.zeros_like(whole, dtype=torch.bool)
        counts[:, -1] = True
        if targets == "hidden":
            random = np.random.default_rng([seed, 1])  # the sequences are drawn from the seed itself
            counts[:, 1:-3:2] = torch.from_numpy(draw_hidden(random, *counts[:, 1:-3:2].shape))
            self.inputs[counts[:, :-1]] = STOP
        self.labels[~counts[:, 1:]] = IGNORED

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> Sample:
        return {"inputs": self.inputs[index], "label": self.labels[index]}


class AssociativeRecall(Task):
    """Associative recall: a list of keys and values, then a key, whose value comes next.

    Args:
        data_dir: where prepared data is kept; None for $LONGCONV_DATA or ~/.cache/longconv.
        batch_size: samples a batch.
        num_workers: processes that load batches; 0 loads them in the training process.
        seed: of the training order; not of the data.
        seq_len: tokens of pairs in a sequence, even.
        n_train: sequences to train on.
        n_val: sequences to validate on.
        n_test: sequences to test on.
        targets: what training counts: "all", every next token; "hidden", the value asked for and others that the full
            stop stands for in the input; or "last", the value asked for. A mixer that sees the future cannot learn from
            "all": the next tokens stand in its input.
        data_seed: seed of the generated sequences, and of what is hidden in them.
    """

    cache_name = "associative_recall"
    info: ClassVar[TaskInfo] = TaskInfo(
        name="associative_recall",
        title="associative recall, the value of a key seen before",
        source="generated, after the synthetic task of H3 and Hyena",
        length=130,
        n_classes=VOCABULARY,
        d_input=None,
        n_tokens=VOCABULARY,
        sizes=(8000, 500, 2000),
        split="one random stream of distinct sequences: the first train, the next validate, the last test",
        chance=1 / KEYS,
        protocol="H3 (arXiv:2212.14052): next-token prediction, accuracy of the last token",
        per_position=True,
    )

    def __init__(
        self,
        data_dir: str | Path | None = None,
        batch_size: int = 50,
        num_workers: int = 0,
        seed: int = 0,
        *,
        seq_len: int = 128,
        n_train: int = 8000,
        n_val: int = 500,
        n_test: int = 2000,
        targets: str = "all",
        data_seed: int = 0,
    ) -> None:
        super().__init__(data_dir, batch_size, num_workers, seed)
        if check_int("seq_len", seq_len, least=2) % 2:
            raise ValueError(f"seq_len is {seq_len}, expected an even number: a sequence is made of pairs")
        self.pairs = seq_len // 2
        self.counts = check_counts(n_train=n_train, n_val=n_val, n_test=n_test)
        self.targets = check_choice("targets", targets, TARGETS)
        self.data_seed = check_int("data_seed", data_seed, least=0)

    @property
    def length(self) -> int:
        """The pairs, "=>" and the key asked for."""
        return 2 * self.pairs + 2

    @property
    def needs_causal(self) -> bool:
        """Whether the targets stand in the input."""
        return self.targets == "all"

    def parameters(self) -> dict[str, Any]:
        """Sizes and seed of the generator."""
        return {"version": 1, "counts": self.counts, "pairs": self.pairs, "seed": self.data_seed}

    def build(self, folder: Path) -> None:
        """Generate the sequences of every split."""
        rows = distinct_sequences(sum(self.counts.values()), self.pairs, self.data_seed)
        stops = np.cumsum(list(self.counts.values()))[:-1]
        for split, part in zip(SPLITS, np.split(rows, stops), strict=True):
            save_array(folder / f"{split}.npy", part)

    def load(self, folder: Path) -> dict[str, Dataset[Sample]]:
        """The three splits, in memory."""
        targets = {"train": self.targets, "val": "last", "test": "last"}
        return {split: Recalls(np.load(folder / f"{split}.npy"), targets[split], self.data_seed) for split in SPLITS}


def distinct_sequences(n: int, pairs: int, seed: int) -> np.ndarray:
    """The first n distinct sequences of a random stream, uint8 (n, 2 pairs + 3), in its order.

    Raises:
        DataError: there are hardly as many sequences of so few pairs.
    """
    random, rows, fruitless = np.random.default_rng(seed), np.empty((0, 2 * pairs + 3), np.uint8), 0
    while len(rows) < n:
        drawn = np.concatenate([rows, draw_sequences(random, max(n, 100), pairs)])
        first = np.sort(np.unique(drawn, axis=0, return_index=True)[1])
        fruitless = fruitless + 1 if len(first) == len(rows) else 0
        rows = drawn[first]
        if fruitless == _FRUITLESS:
            raise DataError(f"only {len(rows)} distinct sequences of {pairs} pairs were found, of {n}: ask for fewer")
    return rows[:n]


def draw_sequences(random: np.random.Generator, n: int, pairs: int) -> np.ndarray:
    """Sequences: key, value, key, value, ..., "=>", a key among those listed, its value; uint8 (n, 2 pairs + 3)."""
    values = KEYS + random.integers(KEYS, size=(n, KEYS))
    keys = random.integers(KEYS, size=(n, pairs))
    listed = np.zeros((n, KEYS), bool)
    np.put_along_axis(listed, keys, True, axis=1)
    asked = np.where(listed, random.random((n, KEYS)), -1.0).argmax(axis=1)[:, None]
    rows = np.empty((n, 2 * pairs + 3), np.uint8)
    rows[:, 0:-3:2], rows[:, 1:-3:2] = keys, np.take_along_axis(values, keys, axis=1)
    rows[:, -3], rows[:, -2:-1], rows[:, -1:] = ARROW, asked, np.take_along_axis(values, asked, axis=1)
    return rows


def draw_hidden(random: np.random.Generator, n: int, pairs: int) -> np.ndarray:
    """Which values of n sequences are hidden, bool (n, pairs): of each sequence another share, uniform in [0, 1/2]."""
    return random.random((n, pairs)) < random.uniform(0.0, 0.5, size=(n, 1))
