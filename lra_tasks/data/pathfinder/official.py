"""The folders of the official Pathfinder release.

``<release>/pathfinder32/curv_contour_length_14/``, and likewise the easier ``curv_contour_length_9`` and
``curv_baseline`` (6 paddles), holds ``imgs/<k>/sample_<i>.png`` and ``metadata/<k>.npy``. Despite their name the
metadata files are text: a picture a line, fields separated by blanks, of which the first two are the folder and the
file and field 3 (from 0) is the label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from lra_tasks.data.errors import DataError
from lra_tasks.data.pathfinder.settings import CONTOUR_LENGTH

LEVELS = {6: "curv_baseline", 9: "curv_contour_length_9", 14: "curv_contour_length_14"}
"""The folders of a release by the number of paddles of a target snake."""
SIZES = (32, 64, 128, 256)
"""The sizes of which there is a release."""
_PARENTS = ("", "lra_release", "lra_release/lra_release")


@dataclass(frozen=True)
class Entry:
    """One line of the metadata: the picture's file and its label."""

    path: Path
    label: int


def check_length(contour_length: int, folder: Path) -> None:
    """Raise a ValueError unless the release in a folder may have contours of that length."""
    if contour_length not in LEVELS:
        lengths = ", ".join(map(str, LEVELS))
        raise ValueError(f"contour_length is {contour_length}, but the official release has {lengths}")
    named = {name: length for length, name in LEVELS.items()}.get(folder.resolve().name, contour_length)
    if named != contour_length:
        raise ValueError(f"contour_length is {contour_length}, but {folder} has contours of {named}")


def find_release(folder: Path, size: int, contour_length: int = CONTOUR_LENGTH) -> Path:
    """The folder of one size and contour length: ``folder`` itself, or within the release's folders below it.

    Raises:
        DataError: it is not there; the message says what is expected and where to get it.
    """
    level = LEVELS[contour_length]
    for layout in ("", level, *(f"{parent}/pathfinder{size}/{level}" for parent in _PARENTS)):
        found = folder / layout.lstrip("/")
        if (found / "metadata").is_dir() and (found / "imgs").is_dir():
            return found
    get = "unpack lra_release.gz of github.com/google-research/long-range-arena there, or "
    if size not in SIZES:
        get = f"none of {size} x {size} is published, so "
    raise DataError(
        f"no pathfinder{size}/{level} with the folders imgs and metadata in {folder} (or its lra_release): {get}leave "
        "official_dir out to generate the data"
    )


def read_entries(folder: Path) -> list[Entry]:
    """All pictures of one contour length: metadata files by number, lines in order.

    Raises:
        DataError: a metadata file is named otherwise, holds something else, or there is none.
    """
    files = list((folder / "metadata").glob("*.npy"))
    wrong = [path for path in files if not path.stem.isdigit()]
    if wrong or not files:
        raise DataError(f"{folder / 'metadata'} has {wrong[0].name if wrong else 'no file'}, expected <number>.npy")
    entries: list[Entry] = []
    for path in sorted(files, key=lambda path: int(path.stem)):
        try:
            lines = path.read_text(encoding="ascii").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not text, as the release's metadata is ({error})") from error
        entries += [_parse(folder, f"{path}, line {number}", line) for number, line in enumerate(lines, start=1)]
    return entries


def _parse(folder: Path, where: str, line: str) -> Entry:
    fields = line.split()
    if len(fields) < 4:
        raise DataError(f"{where}: {len(fields)} fields, expected at least 4 (folder, file, number, label)")
    if fields[3] not in ("0", "1"):
        raise DataError(f"{where}: the label is {fields[3]!r}, expected 0 or 1")
    return Entry(folder / fields[0] / fields[1], int(fields[3]))


def read_pictures(size: int, entries: Sequence[Entry]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Pictures uint8 (n, size, size) and labels uint8 (n,) of usable entries, and which the others are and why."""
    images = np.empty((len(entries), size, size), np.uint8)
    labels: list[int] = []
    skipped: list[str] = []
    for entry in entries:
        picture = read_picture(entry.path, size)
        if isinstance(picture, str):
            skipped.append(f"{entry.path}: {picture}")
        else:
            images[len(labels)] = picture
            labels.append(entry.label)
    return images[: len(labels)], np.array(labels, np.uint8), skipped


def read_picture(path: Path, size: int) -> np.ndarray | str:
    """The picture uint8 (size, size), or in words why it cannot be used."""
    try:
        if path.stat().st_size == 0:
            return "empty file"
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L"))
    except FileNotFoundError:
        return "missing file"
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        return f"corrupt ({error})"
    return pixels if pixels.shape == (size, size) else f"{pixels.shape[1]} x {pixels.shape[0]} pixels"
