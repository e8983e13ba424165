"""Files of a run: written whole or not at all, with errors that name the path."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

from lra_tasks.errors import RunError


def write_atomic(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file beside its final place, then rename it, so that a kill or a full disk never leaves half of it.

    Raises:
        RunError: the disk is full or the folder not writable; an earlier file of that name is still whole.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save turns a failed write into a RuntimeError
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_atomic(path, lambda file: file.write(text.encode()))


def save_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint whole or not at all."""
    write_atomic(path, lambda file: torch.save(checkpoint, file))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; only tensors and plain values are accepted.

    Raises:
        RunError: the file is missing, not readable or no checkpoint.
    """
    if not path.is_file():
        raise RunError(f"there is no checkpoint {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever its bytes happen to mean to unpickling
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RunError(f"{path} is no readable checkpoint: {reason}") from error
    if not isinstance(checkpoint, dict):
        raise RunError(f"{path} is no checkpoint of a run")
    return checkpoint


def cannot_write(path: Path, error: BaseException) -> RunError:
    """The error of a failed write, with the path and what stays usable."""
    root: BaseException = error
    while not isinstance(root, OSError) and (root.__cause__ or root.__context__) is not None:
        root = root.__cause__ or root.__context__  # type: ignore[assignment]
    reason = (root.strerror or str(root)) if isinstance(root, OSError) else str(error).strip().splitlines()[0]
    return RunError(
        f"cannot write {path}: {reason}; what was saved before is whole: free or change the folder, then go on with "
        "--resume"
    )


def check_writable(folder: Path) -> None:
    """Make a folder and try a file in it, before hours are spent on what could not be saved.

    Raises:
        RunError: the folder cannot be made or written.
    """
    probe = folder / f".probe.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"longconv")
        probe.unlink()
    except OSError as error:
        raise RunError(f"cannot write in the run folder {folder}: {error.strerror or error}") from error
