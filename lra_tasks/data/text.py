"""Text: is a film review good or bad, read character by character.

========= =============================================================================================================
source    IMDB reviews (Large Movie Review Dataset 1.0), in ``official_dir`` or data_dir: the folder ``aclImdb`` with
          {train,test}/{neg,pos}/<id>_<rating>.txt, or the archive ``aclImdb_v1.tar.gz``, from
          https://ai.stanford.edu/~amaas/data/sentiment/
length    4096 at most, ``<eos>`` among them, padded to the longest of a batch
input     tokens: characters (``level="char"``: those with at least 15 occurrences in training, about 135, the others
          unknown) or the bytes of the text as UTF-8 (``level="byte"``); vocabulary of 259 for both, specials included
classes   2: bad (rating 1 to 4) or good (7 to 10); chance 50 %; metric: accuracy
sizes     25,000 / 25,000 / 25,000: validation is the test set
protocol  S4's (arXiv:2111.00396): characters, at most 4096, ``<eos>``; the Long Range Arena's own code reads bytes. In
          both the best epoch is chosen on the test set, so that published accuracies are slightly optimistic;
          ``val_share=0.1`` holds out 2,500 of the training reviews (seed 42) for it instead
========= =============================================================================================================

References:
    Maas et al., Learning Word Vectors for Sentiment Analysis, ACL 2011.
    Tay et al., Long Range Arena: A Benchmark for Efficient Transformers, arXiv:2011.04006.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch.utils.data import Dataset

from longconv._checks import check_real
from lra_tasks.data.base import Sample, TaskInfo
from lra_tasks.data.characters import CharacterTask, split_train
from lra_tasks.data.errors import DataError
from lra_tasks.data.official import first_folder, read_archive
from lra_tasks.data.parallel import cut
from lra_tasks.data.vocabulary import N_TOKENS, Row

ARCHIVE = "aclImdb_v1.tar.gz"
_RATINGS = {"neg": range(1, 5), "pos": range(7, 11)}
"""The ratings of each class, in the order of the labels."""
_NAME = re.compile(r"\d+_(\d+)\.txt")
_GET = f"download {ARCHIVE} from https://ai.stanford.edu/~amaas/data/sentiment/"


class Text(CharacterTask):
    """IMDB reviews by character: L <= 4096, 2 classes, 25,000 to train and 25,000 to test.

    Args:
        data_dir: where prepared data is kept; None for $LONGCONV_DATA or ~/.cache/longconv.
        batch_size: samples a batch.
        num_workers: processes that load batches; 0 loads them in the training process.
        seed: of the training order; not of the data.
        official_dir: folder that holds aclImdb or its archive; None looks in data_dir.
        l_max: length to which longer reviews are cut, the end token included.
        level: what a token is, "char" or "byte".
        min_freq: how often the training reviews must have a character for it to be known.
        append_eos: whether every review ends with an end token.
        val_share: share of the training reviews held out for validation; 0 validates on the test set, as published.
        processes: number of processes that read; None for all cores. The data does not depend on it.
    """

    cache_name = "text"
    parts = ("train", "test")
    chunk_size = 256
    info: ClassVar[TaskInfo] = TaskInfo(
        name="text",
        title="IMDB reviews by character, good or bad",
        source="Large Movie Review Dataset 1.0, folder aclImdb (ai.stanford.edu/~amaas/data/sentiment)",
        length=4096,
        n_classes=2,
        d_input=None,
        n_tokens=N_TOKENS,
        sizes=(25000, 25000, 25000),
        split="the official train and test; validation is the test set, or a share of train (val_share)",
        chance=0.5,
        protocol="S4 (arXiv:2111.00396): characters of 15 occurrences or more, <eos> appended, at most 4096",
    )

    def __init__(
        self,
        data_dir: str | Path | None = None,
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
        *,
        official_dir: str | Path | None = None,
        l_max: int = 4096,
        level: str = "char",
        min_freq: int = 15,
        append_eos: bool = True,
        val_share: float = 0.0,
        processes: int | None = None,
    ) -> None:
        options: dict[str, Any] = {"l_max": l_max, "level": level, "min_freq": min_freq, "append_eos": append_eos}
        reading: dict[str, Any] = {"official_dir": official_dir, "processes": processes}
        super().__init__(data_dir, batch_size, num_workers, seed, **reading, **options)
        self.val_share = check_real("val_share", val_share, least=0.0, most=0.5)

    def files(self) -> list[Path]:
        """The four folders of reviews, or the archive."""
        folder = first_folder(self.read_from, ("", "aclImdb"), "train/pos")
        if folder is not None:
            folders = [folder / part / kind for part in self.parts for kind in _RATINGS]
            missing = [path for path in folders if not path.is_dir()]
            if missing:
                raise DataError(f"{missing[0]} is missing beside the other folders: unpack {ARCHIVE} again")
            return folders
        if (self.read_from / ARCHIVE).is_file():
            return [self.read_from / ARCHIVE]
        raise DataError(
            f"no folder aclImdb with train and test, each of neg and pos, and no {ARCHIVE} in {self.read_from}: {_GET} "
            "there, or name its folder with --data.official_dir"
        )

    def chunks(self, part: str) -> list[Sequence[Review]]:
        """The reviews, sorted by class and file name."""
        files = self.files()
        reviews = list(read_packed(files[0], part) if files[0].is_file() else list_folders(files, part))
        found = {kind for _, kind, _, _ in reviews}
        for kind in _RATINGS:
            if kind not in found:
                raise DataError(f"{self.read_from} has no review in {part}/{kind}: unpack {ARCHIVE} again")
        return cut(reviews, self.chunk_size)

    @staticmethod
    def read(chunk: Sequence[Review]) -> Iterator[Row]:
        """Text and label of every review.

        Raises:
            DataError: it is no text in UTF-8, empty, or its name is another one than its class has.
        """
        for where, kind, name, source in chunk:
            content = source if isinstance(source, bytes) else source.read_bytes()
            yield (_decode(where, content),), _label(where, kind, name)

    def load(self, folder: Path) -> Mapping[str, Dataset[Sample]]:
        """The three splits of the memory-mapped tokens."""
        train: np.ndarray | None = None
        val, part = None, "test"
        if self.val_share:
            (train, val), part = split_train(folder, self.val_share), "train"
        return {
            "train": self.open_part(folder, "train", train),
            "val": self.open_part(folder, part, val),
            "test": self.open_part(folder, "test"),
        }


Review = tuple[str, str, str, bytes | Path]
"""What an error calls it, its class, its file's name, and its content or the file."""


def list_folders(folders: list[Path], part: str) -> Iterator[Review]:
    """The reviews of the folders of a part, by class and name."""
    for folder in folders:
        if folder.parent.name == part:
            for path in sorted(folder.glob("*.txt")):
                yield str(path), folder.name, path.name, path


def read_packed(path: Path, part: str) -> Iterator[Review]:
    """The reviews of a part of the archive, by class and name.

    Raises:
        DataError: the archive is corrupt or cut off.
    """

    def wanted(folders: list[str]) -> bool:
        return folders[:2] == ["aclImdb", part] and len(folders) == 4 and folders[2] in _RATINGS

    for (*_, kind, name), content in read_archive(path, wanted):
        yield f"{path}: {part}/{kind}/{name}", kind, name, content


def _label(where: str, kind: str, name: str) -> int:
    match = _NAME.fullmatch(name)
    if match is None or int(match[1]) not in _RATINGS[kind]:
        ratings = _RATINGS[kind]
        raise DataError(f"{where}: expected a name <id>_<rating>.txt with a rating {ratings[0]}..{ratings[-1]}")
    return list(_RATINGS).index(kind)


def _decode(where: str, content: bytes) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is no text in UTF-8 ({error}): unpack {ARCHIVE} again") from error
    if not text:
        raise DataError(f"{where} is empty: unpack {ARCHIVE} again")
    return text
