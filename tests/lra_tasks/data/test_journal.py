"""Preparations that were interrupted go on, to the bytes that an uninterrupted one writes."""

from __future__ import annotations

import json
import resource
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lra_tasks.data import DataError, create_task
from lra_tasks.data.cache import JOURNAL, ArrayWriter, ensure, find_fault
from lra_tasks.data.journal import Journal
from tests.lra_tasks.data.layouts import speech
from tests.lra_tasks.data.test_cache import leftovers, start
from tests.lra_tasks.data.test_pathfinder import release

ARRAYS: dict[str, Any] = {"pictures": ((2, 3), np.uint8), "labels": ((), np.int64)}
CHUNKS = 6


def chunk(number: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(number)
    return {"pictures": random.integers(256, size=(number, 2, 3), dtype=np.uint8), "labels": random.integers(9, size=2)}


def build(
    folder: Path,
    *,
    stop: int | None = None,
    error: BaseException | None = None,
    log: Path | None = None,
    size: int = 1,
) -> None:
    """Write the chunks, or go on; before chunk ``stop`` raise, or where there is no error wait to be killed."""
    with Journal(folder, ARRAYS, size) as journal:
        while journal.chunks < CHUNKS:
            if journal.chunks == stop:
                if error is not None:
                    raise error
                time.sleep(600)
            if log is not None:
                with log.open("a") as file:
                    file.write(f"{journal.chunks} ")
            journal.append(chunk(journal.chunks))


def check(folder: Path) -> None:
    for name in ARRAYS:
        expected = np.concatenate([chunk(number)[name] for number in range(CHUNKS)])
        got = np.load(folder / f"{name}.npy")
        assert got.dtype == ARRAYS[name][1] and np.array_equal(got, expected)
    assert find_fault(folder, {"seed": 0}, checksums=True) is None
    assert not (folder / JOURNAL).exists() and leftovers(folder) == [folder.name]


@pytest.mark.parametrize("stop", [0, 1, 4])
def test_an_interrupted_build_goes_on(tmp_path: Path, stop: int) -> None:
    folder, log = tmp_path / "task" / "key", tmp_path / "log"
    with pytest.raises(KeyboardInterrupt):
        ensure(folder, {"seed": 0}, partial(build, stop=stop, error=KeyboardInterrupt(), log=log))
    assert not folder.exists()
    ensure(folder, {"seed": 0}, partial(build, log=log))
    assert log.read_text().split() == [str(number) for number in range(CHUNKS)]
    check(folder)


def test_a_beginning_with_chunks_of_another_size_is_made_anew(tmp_path: Path) -> None:
    folder, log = tmp_path / "task" / "key", tmp_path / "log"
    with pytest.raises(KeyboardInterrupt):
        ensure(folder, {"seed": 0}, partial(build, stop=4, error=KeyboardInterrupt()))
    ensure(folder, {"seed": 0}, partial(build, log=log, size=2))
    assert log.read_text().split() == [str(number) for number in range(CHUNKS)]
    check(folder)


def test_an_interrupt_between_two_files_is_no_half_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def interrupted(self: ArrayWriter, rows: np.ndarray) -> None:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        append(self, rows)

    append, folder = ArrayWriter.append, tmp_path / "task" / "key"
    monkeypatch.setattr(ArrayWriter, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ensure(folder, {"seed": 0}, build)
    ensure(folder, {"seed": 0}, build)
    assert len(calls) == 6 + 2 * (CHUNKS - 2)
    check(folder)


def test_a_build_that_fails_or_is_another_begins_anew(tmp_path: Path) -> None:
    folder, log = tmp_path / "task" / "key", tmp_path / "log"
    with pytest.raises(ArithmeticError):
        ensure(folder, {"seed": 0}, partial(build, stop=3, error=ArithmeticError()))
    assert leftovers(folder) == []
    with pytest.raises(KeyboardInterrupt):
        ensure(folder, {"seed": 0}, partial(build, stop=3, error=KeyboardInterrupt()), source=[1])
    ensure(folder, {"seed": 0}, partial(build, log=log), source=[2])
    assert log.read_text().split() == [str(number) for number in range(CHUNKS)]
    check(folder)


def kill_in_the_middle(folder: Path) -> None:
    """Every chunk is noted; rows behind the last note and a header of other numbers are on disk too."""

    def noting(folder: Path) -> None:
        Journal._note.__globals__["_EVERY"] = -1.0
        build(folder, stop=4)

    ensure(folder, {"seed": 0}, noting)


def test_a_killed_build_goes_on_from_the_last_note(tmp_path: Path) -> None:
    folder, log = tmp_path / "task" / "key", tmp_path / "log"
    noted = folder.with_name(".key.partial") / JOURNAL
    process = start(kill_in_the_middle, folder)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (noted.is_file() and json.loads(noted.read_text())["chunks"] == 4):
        time.sleep(0.02)
    process.kill()
    process.join(timeout=60)
    assert process.exitcode == -signal.SIGKILL
    with (noted.parent / "pictures.npy").open("ab") as file:
        file.write(b"half a row")
    ensure(folder, {"seed": 0}, partial(build, log=log))
    assert log.read_text().split() == ["4", "5"]
    check(folder)


def pictures(folder: Path) -> dict[str, Any]:
    """A release of which four pictures cannot be read: two before the interrupt and two behind it."""
    level = release(folder, n=40)
    for path in ("2/sample_0", "2/sample_14", "10/sample_21", "10/sample_39"):
        (level / "imgs" / f"{path}.png").write_bytes(b"")
    return {"official_dir": folder}


def words(folder: Path) -> dict[str, Any]:
    return {"official_dir": speech(folder)}


LISTOPS = {"n_train": 60, "n_val": 30, "n_test": 20, "min_length": 3, "max_length": 5, "max_args": 2}
"""Of 400 expressions, so that chunks share some."""
RESUMED: dict[str, tuple[str, str, Any, Callable[[Path], dict[str, Any]]]] = {
    "listops": ("listops", "listops", 100, lambda folder: {**LISTOPS, "write_official": True}),
    "pathfinder": ("pathfinder32", "pathfinder", {32: 5}, lambda folder: {"n_samples": 38}),
    "official pathfinder": ("pathfinder32", "pathfinder", {32: 5}, pictures),
    "speech": ("sc10", "speech", 8, words),
    "coefficients": ("sc10-mfcc", "speech", 8, words),
}
"""Task, its package, a size of chunks, and its options, which may need files."""


@pytest.mark.parametrize("case", RESUMED)
@pytest.mark.parametrize("processes", [1, 2])
def test_an_interrupted_task_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, case: str, processes: int
) -> None:
    """After three chunks, and again when all are written: every chunk is made once, and the files are one process's."""
    name, package, size, write = RESUMED[case]
    size_name = "_AT_ONCE" if package == "speech" else "_CHUNK"
    monkeypatch.setattr(f"lra_tasks.data.{package}.task.{size_name}", size)
    options = write(tmp_path / "source")
    whole = create_task(name, data_dir=tmp_path / "whole", processes=1, **options)
    whole.prepare_data()
    caplog.clear()
    task = create_task(name, data_dir=tmp_path / "parts", processes=processes, **options)
    appended: list[int] = []

    def append_three(self: Journal, rows: dict[str, np.ndarray], remarks: Sequence[str] = ()) -> None:
        append(self, rows, remarks)
        appended.append(self.chunks)
        if appended == [1, 2, 3]:
            raise KeyboardInterrupt

    def interrupt(path: Path) -> str:
        raise KeyboardInterrupt

    append = Journal.append
    monkeypatch.setattr(Journal, "append", append_three)
    with pytest.raises(KeyboardInterrupt):
        task.prepare_data()
    with monkeypatch.context() as patch:
        patch.setattr("lra_tasks.data.cache._sha256", interrupt)
        with pytest.raises(KeyboardInterrupt):
            task.prepare_data()
    assert not task.folder.exists() and len(appended) > 5
    task.prepare_data()
    assert appended == list(range(1, len(appended) + 1))
    files = {path.relative_to(whole.folder) for path in whole.folder.rglob("*") if path.is_file()}
    assert files == {path.relative_to(task.folder) for path in task.folder.rglob("*") if path.is_file()}
    for file in files:
        assert (task.folder / file).read_bytes() == (whole.folder / file).read_bytes(), file
    assert ("4 of 40 pictures were skipped" in caplog.text) == (case == "official pathfinder")


def fill_the_disk(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    try:
        ensure(folder, {"seed": 0}, fill)
    except DataError as error:
        folder.with_name("error").write_text(str(error))


def fill(folder: Path) -> None:
    with Journal(folder, ARRAYS, 1) as journal:
        for number in range(1000):
            journal.append(chunk(number))


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """A file that outgrows the process's limit fails in the write call, as one on a full disk does."""
    process = start(fill_the_disk, tmp_path / "key")
    process.join(timeout=60)
    assert process.exitcode == 0
    assert (tmp_path / "error").read_text().startswith(f"no space left while preparing {tmp_path / 'key'}")
    assert leftovers(tmp_path / "key") == ["error"]
