"""Prepared data on disk: built whole or not at all.

A cache folder holds the arrays of one task under one set of parameters and a ``manifest.json`` that records those
parameters and the size and SHA-256 of every file. It is built in a temporary folder beside its final place, flushed to
disk and renamed, all under a file lock. So a folder that exists is whole, whatever was interrupted, and of two
processes that prepare at once one builds and the other waits and reads. A build that keeps a journal goes on where it
was interrupted (:mod:`lra_tasks.data.journal`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from filelock import AcquireReturnProxy, FileLock, Timeout
from numpy.typing import DTypeLike

from lra_tasks.data.errors import DataError, spoils
from lra_tasks.files import flush, move_flushed

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
JOURNAL = ".journal.json"
"""How far an interrupted build has come; it is there only while that is worth something."""
_FACTS = ".facts.json"
"""What an interrupted build was made of."""
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


def default_data_dir() -> Path:
    """``$LONGCONV_DATA``, or ``~/.cache/longconv`` where it is unset or empty."""
    return Path(os.environ.get("LONGCONV_DATA") or Path.home() / ".cache" / "longconv")


def fingerprint(parameters: Mapping[str, Any]) -> str:
    """Ten hexadecimal digits that change whenever a parameter does.

    >>> fingerprint({"seed": 0}) == fingerprint({"seed": 0}), fingerprint({"seed": 0}) == fingerprint({"seed": 1})
    (True, False)
    """
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:10]


def ensure(folder: Path, parameters: Mapping[str, Any], build: Callable[[Path], None], source: Any = None) -> Path:
    """Return ``folder`` holding the prepared data, building it first where it is missing, damaged or outdated.

    Args:
        folder: the final place.
        parameters: what determines the content (JSON values); compared with the manifest's.
        build: writes the files into the empty folder that it is given.
        source: the state of the files that are read (a JSON value); None accepts what was made from any.

    Raises:
        DataError: the place cannot be written or the disk is full; nothing half-written is left in ``folder``.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder):
            fault = find_fault(folder, parameters, source, checksums=True)
            if fault is None:
                return folder
            if folder.exists():
                log.warning("%s is of no use (%s): building it again", folder, fault)
            _build(folder, {"parameters": parameters, "source": source}, build)
    except OSError as error:
        raise _explain(error, folder) from error
    return folder


def find_fault(
    folder: Path, parameters: Mapping[str, Any], source: Any = None, *, checksums: bool = False
) -> str | None:
    """What is wrong with a cache folder, or None: files and sizes, and with ``checksums`` their content too."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        files = manifest["files"]
        if manifest["parameters"] != json.loads(json.dumps(parameters)):
            return "it was made with other parameters"
        if source is not None and manifest["source"] != json.loads(json.dumps(source)):
            return "the files that it was made from have changed"
        for name, expected in files.items():
            size = (folder / name).stat().st_size
            if size != expected["bytes"]:
                return f"{name} has {size} bytes, expected {expected['bytes']}"
            if checksums and _sha256(folder / name) != expected["sha256"]:
                return f"{name} does not match its checksum"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read ({type(error).__name__}: {error})"
    return None


class ArrayWriter:
    """Writes a ``.npy`` file row by row through plain file writes; the number of rows is filled in at the end.

    A full disk is an OSError that says so; through a memory map it would end the process.

    Args:
        path: the file.
        row: shape of a row.
        dtype: of the array.
        rows: how many rows of an earlier file are kept; what follows them is cut off.
    """

    def __init__(self, path: Path, row: tuple[int, ...], dtype: DTypeLike, rows: int = 0) -> None:
        self.row, self.dtype, self.rows = row, np.dtype(dtype), rows
        self._file = path.open("r+b" if rows else "wb")
        self._write_header()
        self._file.truncate(self._file.tell() + rows * self.dtype.itemsize * math.prod(row))
        self._file.seek(0, os.SEEK_END)

    def append(self, rows: np.ndarray) -> None:
        """Add rows of shape ``(n, *row)``."""
        if rows.shape[1:] != self.row:
            raise ValueError(f"rows is {rows.shape}, expected (n, {', '.join(map(str, self.row))})")
        self._file.write(np.ascontiguousarray(rows, dtype=self.dtype).tobytes())
        self.rows += len(rows)

    def flush(self) -> None:
        """Force all rows so far to the disk; the header still tells another number of them."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def _write_header(self) -> None:
        """Numpy pads headers so that the first axis can grow in place."""
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.rows, *self.row)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with self._file:
            if kind is None:
                self._file.seek(0)
                self._write_header()


def save_array(path: Path, array: np.ndarray) -> None:
    """Write a whole ``.npy`` file; unlike ``numpy.save`` an OSError of it tells a full disk."""
    with ArrayWriter(path, array.shape[1:], array.dtype) as writer:
        writer.append(array)


class MappedArray:
    """The array of a ``.npy`` file, memory-mapped where it is first read.

    So a process that loads batches gets its path and not its content.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._array: np.ndarray | None = None

    def __getitem__(self, index: Any) -> Any:
        """A part of the array, as numpy indexes it."""
        if self._array is None:
            self._array = np.load(self.path, mmap_mode="r")
        return self._array[index]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_array": None}


def _lock(folder: Path) -> AcquireReturnProxy:
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        log.warning("another process is preparing %s: waiting for it", folder)
        return lock.acquire()


def _build(folder: Path, facts: Mapping[str, Any], build: Callable[[Path], None]) -> None:
    """Build in a temporary folder and rename; the lock is held, so any temporary folder found is left over."""
    work = folder.with_name(f".{folder.name}.partial")
    known = json.dumps(facts, sort_keys=True)
    if not _can_go_on(work, known):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        (work / _FACTS).write_text(known)
    try:
        build(work)
        ours = (JOURNAL, _FACTS, MANIFEST)
        paths = sorted(path for path in work.rglob("*") if path.is_file() and path.name not in ours)
        files = {str(p.relative_to(work)): {"bytes": p.stat().st_size, "sha256": _sha256(p)} for p in paths}
        manifest = json.dumps({**facts, "files": files}, indent=2)
        (work / MANIFEST).write_text(manifest + "\n")
        for path in (*paths, work / MANIFEST):
            flush(path)
        for name in (JOURNAL, _FACTS):
            (work / name).unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
        move_flushed(work, folder)
    except BaseException as error:
        if spoils(type(error)) or not _can_go_on(work, known):
            shutil.rmtree(work, ignore_errors=True)
        raise


def _can_go_on(work: Path, known: str) -> bool:
    """Whether a temporary folder holds the beginning of the same build, with a journal of it."""
    with suppress(OSError, ValueError):
        return (work / JOURNAL).is_file() and (work / _FACTS).read_text() == known
    return False


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _explain(error: OSError, folder: Path) -> DataError:
    if error.errno in _NO_SPACE:
        return DataError(
            f"no space left while preparing {folder} ({error}): nothing of it was kept; free some space or choose "
            "another place with --data-dir or $LONGCONV_DATA"
        )
    culprit = folder.parent if error.filename is None else Path(os.fsdecode(error.filename))
    ours = culprit in folder.parents or culprit.is_relative_to(folder.parent)
    if error.errno in _UNWRITABLE and ours:
        return DataError(
            f"cannot write to {folder.parent} ({error}): choose another place with --data-dir or $LONGCONV_DATA"
        )
    return DataError(f"cannot prepare {folder}: {error}")
