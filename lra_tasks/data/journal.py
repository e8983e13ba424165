"""Arrays on disk that grow chunk by chunk, and a note of how far they have come.

What is noted was flushed to disk before, so that an interrupted preparation goes on behind it, however it ended: rows
that were written later are cut off again. The note stays until all of the preparation is done, so that what comes after
the last chunk may be interrupted too; it then finds the files whole.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping, Sequence, Sized
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from lra_tasks.data.cache import JOURNAL, ArrayWriter
from lra_tasks.data.errors import spoils
from lra_tasks.data.parallel import in_order, progress_bar
from lra_tasks.files import write_flushed

C = TypeVar("C", bound=Sized)
T = TypeVar("T")

_EVERY = 5.0
"""Seconds between notes: what a kill loses at most, but for the chunk that was being made."""


class Journal:
    """``.npy`` files in the folder of a build; they can be read once it is open, and after a context that ends well.

    Args:
        folder: of the build.
        arrays: shape of a row and dtype of every file, by its name without ``.npy``.
        size: of a chunk; an earlier beginning with chunks of another size, or of other files, is made anew.

    Attributes:
        chunks: how many chunks are written; the next one has this number.
        rows: how many rows of each file these are; an interrupt between two files may leave more.
        remarks: what was said of the chunks, in order.
    """

    def __init__(self, folder: Path, arrays: Mapping[str, tuple[tuple[int, ...], DTypeLike]], size: int) -> None:
        self.path, self.size = folder / JOURNAL, size
        noted: dict[str, Any] = json.loads(self.path.read_text()) if self.path.is_file() else {}
        if noted.get("size") != size or noted["rows"].keys() != arrays.keys():
            noted = {"chunks": 0, "rows": {}}
        self.chunks: int = noted["chunks"]
        self.remarks: list[str] = noted.get("remarks", [])
        self._files = {
            name: ArrayWriter(folder / f"{name}.npy", row, dtype, noted["rows"].get(name, 0))
            for name, (row, dtype) in arrays.items()
        }
        self.rows = {name: file.rows for name, file in self._files.items()}
        self._noted = time.monotonic()
        self._resumed = 0

    def resume(
        self, function: Callable[[C], T], chunks: Sequence[C], processes: int | None, title: str
    ) -> Generator[tuple[C, T], None, None]:
        """The chunks that are not yet written, and ``function`` of each, in order; append one before taking the next.

        Those of a later call follow these. A bar counts their items. Close the iterator (``contextlib.closing``) to
        stop the processes.
        """
        written = min(max(self.chunks - self._resumed, 0), len(chunks))
        self._resumed += len(chunks)
        left = chunks[written:]
        with (
            closing(in_order(function, left, processes)) as results,
            progress_bar(title, sum(map(len, chunks))) as advance,
        ):
            advance(sum(map(len, chunks[:written])))
            for chunk, result in zip(left, results, strict=True):
                yield chunk, result
                advance(len(chunk))

    def append(self, rows: Mapping[str, np.ndarray], remarks: Sequence[str] = ()) -> None:
        """Add one chunk: rows of some or all of the files, and what is to be said of it."""
        for name, added in rows.items():
            self._files[name].append(added)
        new = {name: file.rows for name, file in self._files.items()}
        self.chunks, self.rows, self.remarks = self.chunks + 1, new, [*self.remarks, *remarks]
        if time.monotonic() - self._noted > _EVERY:
            self._note()

    def _note(self) -> None:
        for file in self._files.values():
            file.flush()
        noted = {"size": self.size, "chunks": self.chunks, "rows": self.rows, "remarks": self.remarks}
        write_flushed(self.path, json.dumps(noted))
        self._noted = time.monotonic()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with ExitStack() as stack:
            for file in self._files.values():
                stack.push(file.__exit__)
            if kind is None or not spoils(kind):
                self._note()  # done or interrupted: another preparation goes on from here
