"""Arrays on disk that grow chunk by chunk, and a note of how far they have come.

What is noted was flushed to disk before, so that an interrupted preparation goes on behind it, however it ended: rows
that were written later are cut off again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from lra_tasks.data.cache import JOURNAL, ArrayWriter
from lra_tasks.files import move_flushed

_EVERY = 5.0
"""Seconds between notes: what a kill loses at most, but for the chunk that was being made."""


class Journal:
    """``.npy`` files in the folder of a build; a context that ends well leaves them whole, with no journal.

    Args:
        folder: of the build.
        arrays: shape of a row and dtype of every file, by its name without ``.npy``.
        size: of a chunk; an earlier beginning with chunks of another size is made anew.

    Attributes:
        chunks: how many chunks are written; the next one has this number.
        rows: how many rows of each file these are; an interrupt between two files may leave more.
    """

    def __init__(self, folder: Path, arrays: Mapping[str, tuple[tuple[int, ...], DTypeLike]], size: int) -> None:
        self.path, self.size = folder / JOURNAL, size
        noted: dict[str, Any] = json.loads(self.path.read_text()) if self.path.is_file() else {}
        if noted.get("size") != size:
            noted = {"chunks": 0, "rows": {}}
        self.chunks: int = noted["chunks"]
        self._files = {
            name: ArrayWriter(folder / f"{name}.npy", row, dtype, noted["rows"].get(name, 0))
            for name, (row, dtype) in arrays.items()
        }
        self.rows = {name: file.rows for name, file in self._files.items()}
        self._noted = time.monotonic()

    def append(self, rows: Mapping[str, np.ndarray]) -> None:
        """Add one chunk: rows of some or all of the files."""
        for name, added in rows.items():
            self._files[name].append(added)
        self.chunks, self.rows = self.chunks + 1, {name: file.rows for name, file in self._files.items()}
        if time.monotonic() - self._noted > _EVERY:
            self._note()

    def _note(self) -> None:
        for file in self._files.values():
            file.flush()
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps({"size": self.size, "chunks": self.chunks, "rows": self.rows}))
        move_flushed(new, self.path)
        self._noted = time.monotonic()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with ExitStack() as stack:
            for file in self._files.values():
                stack.push(file.__exit__)
            if kind is None:
                self.path.unlink(missing_ok=True)
            elif not issubclass(kind, Exception):
                self._note()  # an interrupt: the next preparation goes on from here
