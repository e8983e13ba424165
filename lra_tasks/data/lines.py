"""Text files of a sample a line, cut into blocks that several processes read.

A block is named by its place in the file, so that no text goes from process to process, and the places are found
without reading what lies between them. The number of a line is therefore counted only where an error tells it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from lra_tasks.data.errors import DataError

T = TypeVar("T")

BLOCK = 1 << 22
"""Bytes a block."""


@dataclass(frozen=True)
class Block:
    r"""The bytes ``start`` to ``stop`` of a file, whole lines in UTF-8; ``len`` counts bytes.

    Args:
        path: the file.
        start: where the first line begins.
        stop: where the last line has ended.
        universal: whether ``\r`` and ``\r\n`` end a line as ``\n`` does; else ``\n`` alone.
    """

    path: Path
    start: int
    stop: int
    universal: bool = False

    def __len__(self) -> int:
        return self.stop - self.start

    def read(self, parse: Callable[[str], T]) -> list[T]:
        """``parse`` of every line, without its end.

        Raises:
            DataError: the first line that is no text in UTF-8 or that ``parse`` refuses with a DataError; names the
                file, the line and the fault.
        """
        with self.path.open("rb") as file:
            file.seek(self.start)
            lines = self._split(file.read(len(self)))
        parsed: list[T] = []
        try:
            for line in lines:
                parsed.append(parse(line.decode()))
        except (DataError, UnicodeDecodeError) as error:
            fault = error if isinstance(error, DataError) else f"it is no text in UTF-8 ({error})"
            raise DataError(f"{self.path}, line {self._before() + len(parsed) + 1}: {fault}") from error
        return parsed

    def _split(self, content: bytes) -> list[bytes]:
        if self.universal:
            return content.splitlines()
        lines = content.split(b"\n")
        return lines if lines[-1] else lines[:-1]

    def _before(self) -> int:
        """How many lines of the file stand before the block."""
        lines = 0
        with self.path.open("rb") as file:
            while (left := self.start - file.tell()) > 0:
                lines += len(self._split(file.readline(left)))
        return lines


def cut_lines(path: Path, size: int, start: int = 0, *, universal: bool = False) -> list[Block]:
    """Blocks of the file's lines from ``start`` on, each the fewest lines that have ``size`` bytes; the last the rest.

    Blocks end behind a line feed, with ``universal`` too, so that none parts the two bytes of a line's end.
    """
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        places = [start]
        while places[-1] < end:
            file.seek(places[-1] + size - 1)
            file.readline()
            places.append(min(file.tell(), end))
    return [Block(path, *place, universal) for place in pairwise(places)]
