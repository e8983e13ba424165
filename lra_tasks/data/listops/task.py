"""The ListOps task.

========= =============================================================================================================
source    generated here with the Long Range Arena's semantics (``trees``), or its official files (``official_dir``)
length    501 to 1999 tokens (mean about 1035) and ``<eos>``, padded to the longest of a batch, cut at ``l_max`` 2048
input     tokens, vocabulary of 18: padding, unknown, ``<eos>``, ten digits, four operators, the closing ``X``
classes   10 values; about 17 % of the labels are 0 and as many are 9, so always answering 0 scores 17 %: chance level
sizes     96,000 / 2,000 / 2,000 distinct expressions: the first, next and last ones of one random stream
metric    accuracy
protocol  S4's: no parentheses, ``]`` as ``X``, ``<eos>`` appended, at most 2048 tokens
========= =============================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import Dataset

from longconv._checks import check_int
from lra_tasks.data.base import Sample, Task, TaskInfo, check_counts, marks, official_folder
from lra_tasks.data.cache import MappedArray
from lra_tasks.data.errors import DataError
from lra_tasks.data.journal import Journal
from lra_tasks.data.lines import BLOCK
from lra_tasks.data.listops.official import SPLITS, cut_tsv, find_release, read_rows, write_tsv
from lra_tasks.data.listops.trees import EOS, VOCABULARY, random_expressions
from lra_tasks.data.official import compare_size
from lra_tasks.data.parallel import check_processes, in_order, progress_bar
from lra_tasks.data.ragged import KINDS, arrays, pack

_CHUNK = 8192
"""Random expressions a chunk; about one in twelve has the right length."""
_FRUITLESS = 50
"""Chunks without a new expression after which generation gives up."""


class Expressions(Dataset[Sample]):
    """Rows of a split: tokens lie one after the other in ``tokens.npy``, row i from offsets[i] to offsets[i + 1]."""

    def __init__(self, folder: Path, split: str, l_max: int, append_eos: bool) -> None:
        self.tokens = MappedArray(folder / f"{split}_tokens.npy")
        self.offsets = np.load(folder / f"{split}_offsets.npy")
        self.labels = np.load(folder / f"{split}_labels.npy")
        self.l_max, self.append_eos = l_max, append_eos

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        start, stop = self.offsets[index : index + 2]
        tokens = torch.from_numpy(self.tokens[start : min(stop, start + self.l_max - self.append_eos)].astype(np.int64))
        if self.append_eos:
            tokens = torch.cat([tokens, tokens.new_tensor([EOS])])
        return {"inputs": tokens, "label": int(self.labels[index])}


class ListOps(Task):
    """Long ListOps: the value 0..9 of a nested expression of MIN, MAX, MED and SM (sum modulo 10) on digits.

    Args:
        data_dir: where prepared data is kept; None for $LONGCONV_DATA or ~/.cache/longconv.
        batch_size: samples a batch.
        num_workers: processes that load batches; 0 loads them in the training process.
        seed: of the training order; not of the data.
        official_dir: folder of the official basic_*.tsv, to read instead of generating; of the other options only
            processes, l_max and append_eos then count.
        n_train: expressions to train on.
        n_val: expressions to validate on.
        n_test: expressions to test on.
        min_length: every expression has more tokens than this.
        max_length: every expression has fewer tokens than this.
        max_depth: greatest depth of a tree (the root has depth 1).
        max_args: most arguments of an operator (the least is 2).
        data_seed: seed of the generated expressions.
        processes: number of processes that generate or read; None for all cores. The data does not depend on it.
        l_max: length to which longer inputs are cut, the end token included.
        append_eos: whether every input ends with an end token.
        write_official: whether the generated rows are written as the release's files too, into the folder listops-1000
            of the prepared data.
    """

    cache_name = "listops"
    variable_length = True
    info: ClassVar[TaskInfo] = TaskInfo(
        name="listops",
        title="ListOps, nested operations on digits",
        source="generated with the semantics of the Long Range Arena, or its official tsv files",
        length=2048,
        n_classes=10,
        d_input=None,
        n_tokens=len(VOCABULARY),
        sizes=(96000, 2000, 2000),
        split="the first 96,000, next 2,000 and last 2,000 distinct expressions of one random stream",
        chance=0.17,
        protocol="S4 (arXiv:2111.00396): no parentheses, <eos> appended, at most 2048 tokens, padded per batch",
    )

    def __init__(
        self,
        data_dir: str | Path | None = None,
        batch_size: int = 50,
        num_workers: int = 0,
        seed: int = 0,
        *,
        official_dir: str | Path | None = None,
        n_train: int = 96000,
        n_val: int = 2000,
        n_test: int = 2000,
        min_length: int = 500,
        max_length: int = 2000,
        max_depth: int = 10,
        max_args: int = 10,
        data_seed: int = 0,
        processes: int | None = None,
        l_max: int = 2048,
        append_eos: bool = True,
        write_official: bool = False,
    ) -> None:
        super().__init__(data_dir, batch_size, num_workers, seed)
        self.official_dir = official_folder(official_dir)
        self.counts = check_counts(n_train=n_train, n_val=n_val, n_test=n_test)
        self.data_seed = check_int("data_seed", data_seed, least=0)
        self.processes = check_processes(processes)
        self.l_max = check_int("l_max", l_max, least=2)
        self.append_eos, self.write_official = bool(append_eos), bool(write_official)
        self.shape = {
            "min_length": check_int("min_length", min_length, least=0),
            "max_length": check_int("max_length", max_length),
            "max_depth": check_int("max_depth", max_depth),
            "max_args": check_int("max_args", max_args, least=2),
        }
        if max_length < min_length + 2:
            raise ValueError(f"max_length is {max_length}, expected at least min_length + 2 = {min_length + 2}")

    @property
    def length(self) -> int:
        """Where inputs are cut."""
        return self.l_max

    def parameters(self) -> dict[str, Any]:
        """The generator's options and seed, or the folder of the official files."""
        if self.official_dir is not None:
            return {"version": 2, "official": str(self.official_dir)}
        generated = {"counts": self.counts, **self.shape, "seed": self.data_seed, "tsv": self.write_official}
        return {"version": 1, "generated": generated}

    def source(self) -> Any:
        """Names, sizes and times of the official files."""
        if self.official_dir is None:
            return None
        with suppress(DataError):
            return marks(find_release(self.official_dir).values())

    def build(self, folder: Path) -> None:
        """Generate or read, and write tokens, offsets and labels of every split."""
        if self.official_dir is None:
            self._generate(folder)
        else:
            self._read(folder, find_release(self.official_dir))

    def load(self, folder: Path) -> dict[str, Dataset[Sample]]:
        """The three splits, with memory-mapped tokens."""
        return {split: Expressions(folder, split, self.l_max, self.append_eos) for split in SPLITS}

    def _read(self, folder: Path, files: Mapping[str, Path]) -> None:
        with Journal(folder, arrays(files), BLOCK) as journal:
            for (split, path), published in zip(files.items(), self.info.sizes, strict=True):
                blocks, title = cut_tsv(path, BLOCK), f"listops: reading {split}"
                with closing(journal.resume(read_rows, blocks, self.processes, title)) as read:
                    for _, rows in read:
                        tokens, values = zip(*rows, strict=True)
                        journal.append(pack(split, tokens, values, journal.rows[f"{split}_tokens"]))
                n = journal.rows[f"{split}_labels"]
                if not n:
                    raise DataError(f"{path} has a header and no rows")
                compare_size(path, n, published)

    def _generate(self, folder: Path) -> None:
        """Distinct expressions in the order of their chunks, whatever the number of processes."""
        total = sum(self.counts.values())
        make = partial(generate_chunk, self.data_seed, **self.shape)
        with (
            Journal(folder, arrays(SPLITS), _CHUNK) as journal,
            closing(in_order(make, count(journal.chunks), self.processes)) as chunks,
            progress_bar("listops: generating", total) as advance,
        ):
            seen = {tokens.tobytes() for split in SPLITS for tokens, _ in unpack(folder, split)}
            advance(len(seen))
            fruitless = 0
            while len(seen) < total:
                new = {tokens: value for tokens, value in next(chunks) if tokens not in seen}
                journal.append(self._divide(new, journal.rows))
                advance(min(len(new), total - len(seen)))
                seen |= new.keys()
                fruitless = 0 if new else fruitless + 1
                if fruitless == _FRUITLESS:
                    raise DataError(
                        f"only {len(seen)} distinct expressions of {total} were found with {self.shape}: ask for fewer "
                        "or widen the lengths"
                    )
        if self.write_official:
            (folder / "listops-1000").mkdir(exist_ok=True)
            for split in SPLITS:
                write_tsv(folder / "listops-1000" / f"basic_{split}.tsv", unpack(folder, split))

    def _divide(self, new: Mapping[bytes, int], written: Mapping[str, int]) -> dict[str, np.ndarray]:
        """New expressions to the splits that want some, one split after the other, as they are written."""
        rows = [(np.frombuffer(tokens, np.uint8), value) for tokens, value in new.items()]
        result: dict[str, np.ndarray] = {}
        for split, n in self.counts.items():
            wanted = n - written[f"{split}_labels"]
            if part := rows[:wanted]:
                sequences, values = zip(*part, strict=True)
                result |= pack(split, sequences, values, written[f"{split}_tokens"])
            rows = rows[wanted:]
        return result


def unpack(folder: Path, split: str) -> Iterator[tuple[np.ndarray, int]]:
    """Tokens and value of every row of a split that is written."""
    tokens, offsets, labels = (np.load(folder / f"{split}_{kind}.npy") for kind in KINDS)
    for (start, stop), value in zip(pairwise(offsets), labels, strict=True):
        yield tokens[start:stop], int(value)


def generate_chunk(
    seed: int, chunk: int, *, max_depth: int, max_args: int, min_length: int, max_length: int
) -> list[tuple[bytes, int]]:
    """Tokens and values of the expressions of the right length in one chunk of the random stream of ``seed``."""
    random = np.random.default_rng([seed, chunk])
    rows = random_expressions(
        random, _CHUNK, max_depth=max_depth, max_args=max_args, min_length=min_length, max_length=max_length
    )
    return [(tokens.tobytes(), value) for tokens, value in rows]
