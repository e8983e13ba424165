"""The files of the official ListOps release: ``basic_{train,val,test}.tsv``.

Each has the header ``Source<TAB>Target`` and one expression a row, such as ``( ( ( [MAX 2 ) 9 ) ] )<TAB>9``. The
parentheses only bracket the tree and are left out; ``]`` is the token ``X``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lra_tasks.data.errors import DataError
from lra_tasks.data.lines import Block, cut_lines
from lra_tasks.data.listops.trees import CLOSE, DIGIT, OPERATOR, VOCABULARY

SPLITS = ("train", "val", "test")
_LAYOUTS = ("", "listops-1000", "lra_release/listops-1000", "lra_release/lra_release/listops-1000")
_NUMBERS = {token: number for number, token in enumerate(VOCABULARY) if number >= DIGIT} | {"]": CLOSE}


def find_release(folder: Path) -> dict[str, Path]:
    """The three files by split, in ``folder`` or in the release's folders below it.

    Raises:
        DataError: they are not there; the message says what is expected and where to get it.
    """
    for layout in _LAYOUTS:
        files = {split: folder / layout / f"basic_{split}.tsv" for split in SPLITS}
        missing = [path for path in files.values() if not path.is_file()]
        if not missing:
            return files
        if len(missing) < len(SPLITS):
            raise DataError(f"{missing[0]} is missing beside the other splits of the release")
    raise DataError(
        f"no basic_train.tsv, basic_val.tsv and basic_test.tsv in {folder}, its listops-1000 or its lra_release: "
        "unpack lra_release.gz of github.com/google-research/long-range-arena there, or leave official_dir out to "
        "generate the data"
    )


def cut_tsv(path: Path, size: int) -> list[Block]:
    """The rows behind the header, in blocks of about ``size`` bytes.

    Raises:
        DataError: the header is another one.
    """
    with path.open("rb") as file:
        first = b"".join(file.readline().splitlines(keepends=True)[:1])
    header = first.decode(errors="replace").rstrip("\r\n")
    if header != "Source\tTarget":
        raise DataError(f"{path}, line 1: the header is {header[:60]!r}, expected 'Source<TAB>Target'")
    return cut_lines(path, size, len(first), universal=True)


def read_rows(block: Block) -> list[tuple[np.ndarray, int]]:
    """Tokens uint8 (length,) and value of every row.

    Raises:
        DataError: a row is not as described above; names the file, the line and the fault.
    """
    return block.read(_parse)


def write_tsv(path: Path, rows: Iterator[tuple[np.ndarray, int]]) -> None:
    """Write rows of (tokens, value) as the release does, with carriage returns."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write("Source\tTarget\r\n")
        for tokens, value in rows:
            file.write(f"{to_source(tokens)}\t{value}\r\n")


def to_source(tokens: np.ndarray) -> str:
    """Tokens with ``]`` and the release's parentheses: every argument and the end are bracketed with what came before.

    >>> to_source(np.array([14, 5, 12, 17]))
    '( ( ( [MAX 2 ) 9 ) ] )'
    """
    words: list[str] = []
    opened: list[int] = []
    for token in tokens.tolist():
        if OPERATOR <= token < CLOSE:
            opened.append(len(words))
            words.append(VOCABULARY[token])
            continue
        words.append("]" if token == CLOSE else VOCABULARY[token])
        if token == CLOSE:
            start = opened.pop()
            words[start] = "( " + words[start]
            words[-1] += " )"
        if opened:
            words[opened[-1]] = "( " + words[opened[-1]]
            words[-1] += " )"
    return " ".join(words)


def _parse(row: str) -> tuple[np.ndarray, int]:
    fields = row.split("\t")
    if len(fields) != 2:
        raise DataError(f"{len(fields)} columns, expected 2 (Source and Target); is the file cut off?")
    source, target = fields
    if not (len(target) == 1 and target in "0123456789"):
        raise DataError(f"the label is {target[:20]!r}, expected a digit 0..9")
    words = source.replace("(", " ").replace(")", " ").split()
    try:
        tokens = np.array([_NUMBERS[word] for word in words], np.uint8)
    except KeyError as error:
        raise DataError(f"unknown token {error.args[0]!r}, expected {' '.join(_NUMBERS)}") from None
    opened = np.cumsum((tokens >= OPERATOR) & (tokens < CLOSE)) - np.cumsum(tokens == CLOSE)
    if not len(tokens) or opened[-1] != 0 or opened.min() < 0:
        raise DataError("the expression's brackets do not match; is the file cut off?")
    return tokens, int(target)
