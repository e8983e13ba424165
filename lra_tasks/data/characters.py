"""Documents as sequences of characters or bytes (``vocabulary``): their preparation, and what loads them.

Two passes, counting and encoding, are each done chunk by chunk in several processes, and go on where they were
interrupted. A document is cut to ``l_max`` tokens, ``<eos>`` among them, before anything is counted.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Sequence, Sized
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import Dataset

from longconv._checks import check_bool, check_choice, check_int
from lra_tasks.data.base import Sample
from lra_tasks.data.cache import MappedArray
from lra_tasks.data.errors import DataError
from lra_tasks.data.journal import Journal
from lra_tasks.data.official import OfficialTask, compare_size, held_out
from lra_tasks.data.parallel import check_processes
from lra_tasks.data.ragged import arrays, pack
from lra_tasks.data.vocabulary import CODE_POINTS, EOS, FIRST, Row, choose_characters, count_chunk, encode_chunk
from lra_tasks.files import write_flushed

_COUNTED: dict[str, Any] = {"points": ((), np.uint32), "counts": ((), np.int64)}
"""What is kept of every chunk until all are counted: its code points and how often it has each."""


class Documents(Dataset[Sample]):
    """Rows of a split: document i lies in the memory-mapped ``tokens.npy`` from offsets[i] to offsets[i + 1].

    Args:
        folder: of the prepared files.
        split: which of them.
        chosen: numbers of the rows, in order; None for all.
        pair: whether a row has two documents, 2 i and 2 i + 1.
        level: "char" or "byte", of which the files hold the bare bytes.
        append_eos: whether every document ends with ``<eos>``.
    """

    def __init__(
        self, folder: Path, split: str, chosen: np.ndarray | None, *, pair: bool, level: str, append_eos: bool
    ) -> None:
        self.tokens = MappedArray(folder / f"{split}_tokens.npy")
        self.offsets = np.load(folder / f"{split}_offsets.npy")
        labels = np.load(folder / f"{split}_labels.npy")
        self.chosen = np.arange(len(labels)) if chosen is None else chosen
        self.labels = labels[self.chosen]
        self.per_row, self.append_eos = 1 + pair, append_eos
        self.first = FIRST if level == "byte" else 0

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> Sample:
        first = self.per_row * int(self.chosen[index])
        sample: Sample = {"inputs": self._document(first), "label": int(self.labels[index])}
        if self.per_row == 2:
            sample["second"] = self._document(first + 1)
        return sample

    def _document(self, number: int) -> torch.Tensor:
        start, stop = self.offsets[number : number + 2]
        tokens = torch.from_numpy(self.tokens[start:stop].astype(np.int64)) + self.first
        return torch.cat([tokens, tokens.new_tensor([EOS])]) if self.append_eos else tokens


class CharacterTask(OfficialTask):
    """A task on documents; a subclass says which there are (``parts``), how they are cut up and how they are read.

    Args:
        data_dir: where prepared data is kept; None for $LONGCONV_DATA or ~/.cache/longconv.
        batch_size: samples a batch.
        num_workers: processes that load batches; 0 loads them in the training process.
        seed: of the training order; not of the data.
        official_dir: folder of the published files; None looks in data_dir.
        l_max: length to which longer documents are cut, the end token included.
        level: what a token is, "char" or "byte".
        min_freq: how often the training documents must have a character for it to be known.
        append_eos: whether every document ends with an end token.
        processes: number of processes that read; None for all cores. The data does not depend on it.
    """

    variable_length = True
    parts: ClassVar[tuple[str, ...]]
    chunk_size: ClassVar[int]
    """Size of a chunk, in what ``chunks`` counts."""

    def __init__(
        self,
        data_dir: str | Path | None = None,
        batch_size: int = 50,
        num_workers: int = 0,
        seed: int = 0,
        *,
        official_dir: str | Path | None = None,
        l_max: int,
        level: str = "char",
        min_freq: int,
        append_eos: bool = True,
        processes: int | None = None,
    ) -> None:
        super().__init__(data_dir, batch_size, num_workers, seed, official_dir=official_dir)
        self.l_max = check_int("l_max", l_max, least=2)
        self.level = check_choice("level", level, ("char", "byte"))
        self.min_freq = check_int("min_freq", min_freq)
        self.append_eos = check_bool("append_eos", append_eos)
        self.processes = check_processes(processes)

    @property
    def length(self) -> int:
        """Where documents are cut."""
        return self.l_max

    @abstractmethod
    def chunks(self, part: str) -> Sequence[Sized]:
        """A part of the published files cut into chunks of ``chunk_size``, each picklable, in a fixed order.

        Raises:
            DataError: a file is missing or corrupt; names it.
        """

    @staticmethod
    @abstractmethod
    def read(chunk: Any) -> Iterable[Row]:
        """The samples of one chunk, in order; it is called in other processes.

        Raises:
            DataError: a file is corrupt or holds something else; names the file and the place.
        """

    def shaping(self) -> dict[str, Any]:
        """Where documents are cut, and the vocabulary."""
        frequency = {"min_freq": self.min_freq} if self.level == "char" else {}
        return {"level": self.level, "kept": self.l_max - self.append_eos, **frequency}

    def build(self, folder: Path) -> None:
        """Count the characters of the training documents, then write tokens, offsets and labels of every part."""
        kept = self.l_max - self.append_eos
        self.files()
        known = self._known(folder, kept) if self.level == "char" else None
        encode = partial(encode_chunk, self.read, kept, known)
        with Journal(folder, arrays(self.parts), self.chunk_size) as journal:
            for part in self.parts:
                chunks, title = self.chunks(part), f"{self.info.name}: encoding {part}"
                with closing(journal.resume(encode, chunks, self.processes, title)) as encoded:
                    for _, (documents, labels) in encoded:
                        journal.append(pack(part, documents, labels, journal.rows[f"{part}_tokens"]))
                n, where = journal.rows[f"{part}_labels"], f"{part} of {self.info.name} in {self.read_from}"
                if not n:
                    raise DataError(f"{where} has no sample")
                compare_size(where, n, self.info.sizes[("train", "val", "test").index(part)])

    def _known(self, folder: Path, kept: int) -> list[int]:
        """The code points of the vocabulary, in order; once all are counted they are written beside the data.

        Counting has a journal of its own. Its note stays until the first one of encoding, which is of other files.
        """
        path = folder / "characters.json"
        if not path.is_file():
            known = choose_characters(self._count(folder, kept), self.min_freq)
            write_flushed(path, json.dumps([chr(point) for point in known], indent=0) + "\n")
        for name in _COUNTED:
            (folder / f"{name}.npy").unlink(missing_ok=True)
        return [ord(character) for character in json.loads(path.read_text())]

    def _count(self, folder: Path, kept: int) -> np.ndarray:
        """How often the training documents have each code point, int64 (0x110000,)."""
        count, chunks = partial(count_chunk, self.read, kept), self.chunks(self.parts[0])
        with (
            Journal(folder, _COUNTED, self.chunk_size) as journal,
            closing(journal.resume(count, chunks, self.processes, f"{self.info.name}: counting")) as counted,
        ):
            for _, (points, counts) in counted:
                journal.append({"points": points, "counts": counts})
        total = np.zeros(CODE_POINTS, np.int64)
        np.add.at(total, *(np.load(folder / f"{name}.npy") for name in _COUNTED))
        return total

    def open_part(self, folder: Path, part: str, chosen: np.ndarray | None = None) -> Documents:
        """Some rows of a prepared part, or all."""
        kind: dict[str, Any] = {"pair": self.info.pair, "level": self.level, "append_eos": self.append_eos}
        return Documents(folder, part, chosen, **kind)


def split_train(folder: Path, share: float) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the part "train" to train and to validate on, a share of them held out."""
    n = len(np.load(folder / "train_labels.npy", mmap_mode="r"))
    return held_out(n, int(n * share + 1e-9))
