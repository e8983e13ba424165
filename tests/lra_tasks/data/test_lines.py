"""Blocks of lines: together what a plain reading of the file gives, and the number of every line that is refused."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from lra_tasks.data import DataError
from lra_tasks.data.lines import Block, cut_lines

CONTENTS = [
    "",
    "one",
    "one\n",
    "\n",
    "\n\n\none\n\n",
    "one\r\ntwo\r\n",
    "one\rtwo\r\n\r\r\nthree\n\rfour\r",
    "a longer line than any block\nb\nc\nthe last one, cut o",
    "Café\n\u2028\x0b\x85 is no end\ntab\tand\0\n\U0001f600\r\n",
]


def plain(path: Path, universal: bool) -> list[str]:
    """The lines of a file without their ends, by Python's own reading."""
    with path.open(encoding="utf-8", newline="" if universal else "\n") as file:
        return [line.rstrip("\r\n") if universal else line.removesuffix("\n") for line in file]


def refuse(line: str) -> str:
    raise DataError("refused")


@pytest.mark.parametrize("universal", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("content", CONTENTS)
def test_blocks_are_the_file(tmp_path: Path, content: str, size: int, universal: bool) -> None:
    path = tmp_path / "lines"
    path.write_bytes(content.encode())
    blocks, lines = cut_lines(path, size, universal=universal), plain(path, universal)
    assert [line for block in blocks for line in block.read(str)] == lines
    assert [block.start for block in blocks] == [0, *(block.stop for block in blocks)][: len(blocks)]
    assert sum(map(len, blocks)) == path.stat().st_size
    assert all(len(block) >= size for block in blocks[:-1])
    assert all(b"\n" not in content.encode()[b.start + size - 1 : b.stop - 1] for b in blocks), "no line too many"
    for block, first in zip(blocks, [1 + len(plain_before(path, block, universal)) for block in blocks], strict=True):
        with pytest.raises(DataError, match=f"^{path}, line {first}: refused$"):
            block.read(refuse)


def plain_before(path: Path, block: Block, universal: bool) -> list[str]:
    """The lines before a block, which are those of the file cut off there."""
    start = path.with_name("start")
    start.write_bytes(path.read_bytes()[: block.start])
    return plain(start, universal)


def test_blocks_from_the_middle_number_the_lines_of_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"head\rone\r\ntwo\r\nthree\r\n")
    blocks = cut_lines(path, 4, 5, universal=True)
    assert [block.read(str) for block in blocks] == [["one"], ["two"], ["three"]]
    for block, number in zip(blocks, (2, 3, 4), strict=True):
        with pytest.raises(DataError, match=f"line {number}: refused"):
            block.read(refuse)
    assert [b.stop for a, b in pairwise(blocks)] == [15, 22]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"one\ntwo\nth\xffree\nfour\n", r"line 3: it is no text in UTF-8 \(.* byte 0xff in position 2"),
        (b"one\nbad\nth\xffree\n", "line 2: the line is bad"),
        (b"one\n\xe2\x82\nbad\n", "line 2: it is no text in UTF-8"),
        (b"one\ntwo\n\xed\xa0\x80\n", "line 3: it is no text in UTF-8"),
        (b"one\ntwo\nthree\n\xe2\x82", "line 4: it is no text in UTF-8"),
    ],
)
@pytest.mark.parametrize("size", [4, 1000])
def test_the_first_faulty_line_is_named(tmp_path: Path, content: bytes, named: str, size: int) -> None:
    def parse(line: str) -> str:
        if line == "bad":
            raise DataError("the line is bad")
        return line

    path = tmp_path / "lines"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{path}, {named}"):
        list(map(partial(Block.read, parse=parse), cut_lines(path, size)))
