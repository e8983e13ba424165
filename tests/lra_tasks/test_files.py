"""Files are written whole or not at all, and an error is called what it is."""

from __future__ import annotations

import multiprocessing
import os
import resource
import stat
from pathlib import Path

import pytest
import torch

from lra_tasks.errors import RunError
from lra_tasks.files import move_flushed, save_checkpoint, write_atomic, write_text


@pytest.mark.parametrize("folder", [False, True])
def test_content_and_name_are_forced_to_the_disk(folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode)))
    if folder:
        (tmp_path / "made").mkdir()
        move_flushed(tmp_path / "made", tmp_path / "named")
    else:
        write_text(tmp_path / "named", "text")
    assert synced == [folder, True]
    assert [path.name for path in tmp_path.iterdir()] == ["named"]


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), ValueError("no number")])
def test_what_is_no_failed_write_is_passed_on(error: Exception, tmp_path: Path) -> None:
    def failing(file: object) -> None:
        raise error

    write_text(tmp_path / "file", "old")
    with pytest.raises(type(error), match=str(error)):
        write_atomic(tmp_path / "file", failing)
    assert (tmp_path / "file").read_text() == "old"


def _save_large(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
    try:
        save_checkpoint({"state_dict": {"weight": torch.zeros(10**5)}}, folder / "last.ckpt")
    except RunError as error:
        (folder / "error").write_text(str(error))


def test_a_real_write_failure_is_reported_with_its_cause(tmp_path: Path) -> None:
    """torch.save turns it into a RuntimeError; a file that outgrows the process's limit fails as on a full disk."""
    process = multiprocessing.get_context("fork").Process(target=_save_large, args=(tmp_path,))
    process.start()
    process.join(timeout=60)
    assert process.exitcode == 0
    error = (tmp_path / "error").read_text()
    assert error.startswith(f"cannot write {tmp_path / 'last.ckpt'}") and "File too large" in error
    assert [path.name for path in tmp_path.iterdir()] == ["error"]
