"""Files of runs and of prepared data: written whole or not at all, with errors that name the path."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

from lra_tasks.errors import RunError

LEFTOVERS = ".*.tmp"
"""The names of temporary files, which only a killed process leaves behind."""


def flush(path: Path) -> None:
    """Force a file or a folder's entries to the disk; folders cannot be opened on Windows, which needs no such step."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_flushed(source: Path, target: Path) -> None:
    """Rename a file or a folder within one folder so that, whenever the power fails, the target is old or new."""
    flush(source)
    source.replace(target)
    flush(target.parent)


def write_flushed(path: Path, text: str) -> None:
    """Write a text file so that, whenever the power fails, it is old or new; one process alone writes it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    move_flushed(new, path)


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
        move_flushed(temporary, path)
    except Exception as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        cause = _os_error(error)  # torch.save turns a failed write into a RuntimeError
        if cause is None:
            raise
        raise cannot_write(path, cause) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_atomic(path, lambda file: file.write(text.encode()))


def save_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint whole or not at all."""
    write_atomic(path, lambda file: torch.save(checkpoint, file))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of a run onto the CPU; only tensors and plain values are accepted.

    Raises:
        RunError: the file is missing, not readable or no checkpoint of a run.
    """
    if not path.is_file():
        raise RunError(f"there is no checkpoint {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever its bytes happen to mean to unpickling
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RunError(f"{path} is no readable checkpoint: {reason}") from error
    parts = [checkpoint.get(name) for name in ("state_dict", "run")] if isinstance(checkpoint, dict) else [None]
    if not all(isinstance(part, dict) for part in parts):
        raise RunError(f"{path} is no checkpoint of a run of lra-tasks")
    return checkpoint


def cannot_write(path: Path, error: OSError) -> RunError:
    """The error of a failed write, with the path and what stays usable."""
    return RunError(
        f"cannot write {path}: {error}; what was saved before is whole: free or change the folder, "
        "then go on with --resume"
    )


def _os_error(error: BaseException) -> OSError | None:
    """The OSError that an error is or came from, if any."""
    chain: BaseException | None = error
    while chain is not None and not isinstance(chain, OSError):
        chain = chain.__cause__ or chain.__context__
    return chain
