"""Preparations that were interrupted go on, to the bytes that an uninterrupted one writes."""

from __future__ import annotations

import json
import os
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
from lra_tasks.data.errors import KilledProcessError
from lra_tasks.data.journal import Journal
from lra_tasks.data.lines import Block
from lra_tasks.data.retrieval import Retrieval
from lra_tasks.data.vocabulary import Row
from tests.lra_tasks.data.layouts import aan, imdb, mails, speech
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


def documents(write: Callable[..., Path], folder: Path, **options: Any) -> dict[str, Any]:
    write(folder, **options)
    return {"official_dir": folder, "l_max": 30}


def official_rows(folder: Path) -> dict[str, Any]:
    folder.mkdir()
    for split, n in (("train", 60), ("val", 20), ("test", 9)):
        rows = [f"( ( ( [MIN {i // 10} ) {i % 10} ) ] )\t{i % 7}\r\n" for i in range(n)]
        (folder / f"basic_{split}.tsv").write_text("".join(["Source\tTarget\r\n", *rows]), newline="")
    return {"official_dir": folder}


LISTOPS = {"n_train": 60, "n_val": 30, "n_test": 20, "min_length": 3, "max_length": 5, "max_args": 2}
"""Of 400 expressions, so that chunks share some."""
RESUMED: dict[str, tuple[str, str, Any, Callable[[Path], dict[str, Any]]]] = {
    "listops": ("listops", "listops.task._CHUNK", 100, lambda folder: {**LISTOPS, "write_official": True}),
    "official listops": ("listops", "listops.task.BLOCK", 100, official_rows),
    "pathfinder": ("pathfinder32", "pathfinder.task._CHUNK", {32: 5}, lambda folder: {"n_samples": 38}),
    "official pathfinder": ("pathfinder32", "pathfinder.task._CHUNK", {32: 5}, pictures),
    "speech": ("sc10", "speech.task._AT_ONCE", 8, words),
    "coefficients": ("sc10-mfcc", "speech.task._AT_ONCE", 8, words),
    "text": ("text", "text.Text.chunk_size", 7, partial(documents, imdb, n=30)),
    "archive of text": ("text", "text.Text.chunk_size", 7, partial(documents, imdb, n=30, archive=True)),
    "retrieval": ("retrieval", "retrieval.Retrieval.chunk_size", 500, partial(documents, aan)),
    "spam": ("spam", "spam.Spam.chunk_size", 7, partial(documents, mails)),
}
"""Task, where in the package the size of its chunks stands, another size, and its options, which may need files."""


def recorded(monkeypatch: pytest.MonkeyPatch, act: Callable[[list[int]], None]) -> list[int]:
    """The numbers of all chunks that journals append from now on; ``act`` sees them after each."""
    append, appended = Journal.append, []

    def record(self: Journal, rows: dict[str, np.ndarray], remarks: Sequence[str] = ()) -> None:
        append(self, rows, remarks)
        appended.append(self.chunks)
        act(appended)

    monkeypatch.setattr(Journal, "append", record)
    return appended


def same_files(folder: Path, expected: Path) -> None:
    files, others = (
        {path.relative_to(root) for path in root.rglob("*") if path.is_file()} for root in (folder, expected)
    )
    assert files == others
    for file in files:
        assert (folder / file).read_bytes() == (expected / file).read_bytes(), file


@pytest.mark.parametrize("case", RESUMED)
@pytest.mark.parametrize("processes", [1, 2])
def test_an_interrupted_task_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, case: str, processes: int
) -> None:
    """After three chunks, before the last two, and when all are written: each is made once, to one process's files."""
    name, constant, size, write = RESUMED[case]
    monkeypatch.setattr(f"lra_tasks.data.{constant}", size)
    options = write(tmp_path / "source")
    stops: list[int] = []

    def act(appended: list[int]) -> None:
        if len(appended) in stops:
            raise KeyboardInterrupt

    appended = recorded(monkeypatch, act)
    whole = create_task(name, data_dir=tmp_path / "whole", processes=1, **options)
    whole.prepare_data()
    expected = appended.copy()
    assert len(expected) > 5
    stops += [3, len(expected) - 2]
    appended.clear()
    caplog.clear()
    task = create_task(name, data_dir=tmp_path / "parts", processes=processes, **options)

    def interrupt(path: Path) -> str:
        raise KeyboardInterrupt

    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            task.prepare_data()
        assert len(appended) == stop
    with monkeypatch.context() as patch:
        patch.setattr("lra_tasks.data.cache._sha256", interrupt)
        with pytest.raises(KeyboardInterrupt):
            task.prepare_data()
    assert not task.folder.exists()
    task.prepare_data()
    assert appended == expected
    same_files(task.folder, whole.folder)
    assert ("4 of 40 pictures were skipped" in caplog.text) == (case == "official pathfinder")


def die(folder: Path, source: Path, every: float, stop: int) -> None:
    """Prepare in two processes of one's own, and end without a word after ``stop`` chunks."""

    def act(appended: list[int]) -> None:
        if len(appended) == stop:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lra_tasks.data.journal._EVERY", every)
        recorded(patch, act)
        create_task("retrieval", data_dir=folder, official_dir=source, l_max=30, processes=2).prepare_data()


@pytest.mark.parametrize(
    ("every", "past_counting", "kept"),
    [
        (600.0, -2, None),  # nothing was noted
        (600.0, 2, 0),  # the counts were, when all were there
        (-1.0, -2, -2),  # every chunk was
        (-1.0, 0, 0),
        (-1.0, 3, 3),
    ],
)
def test_a_killed_task_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: float, past_counting: int, kept: int | None
) -> None:
    """Killed while characters are counted or texts encoded, a preparation redoes only what it had not noted."""
    monkeypatch.setattr("lra_tasks.data.retrieval.Retrieval.chunk_size", 500)
    source = aan(tmp_path / "source")
    appended = recorded(monkeypatch, lambda appended: None)
    whole = create_task("retrieval", data_dir=tmp_path / "whole", official_dir=source, l_max=30, processes=1)
    whole.prepare_data()
    expected = appended.copy()
    counted = expected.index(1, 1)
    assert counted > 3
    appended.clear()
    process = start(die, tmp_path / "parts", source, every, counted + past_counting)
    process.join(timeout=60)
    assert process.exitcode == -signal.SIGKILL
    task = create_task("retrieval", data_dir=tmp_path / "parts", official_dir=source, l_max=30, processes=2)
    task.prepare_data()
    assert appended == (expected if kept is None else expected[counted + kept :])
    same_files(task.folder, whole.folder)


FATAL: list[Path] = []
"""Whoever finds this file removes it and is killed."""


def read_or_die(chunk: Block) -> list[Row]:
    if chunk.start > 2000 and FATAL[0].is_file():
        FATAL[0].unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return READ(chunk)


READ = Retrieval.read


@pytest.mark.parametrize("level", ["char", "byte"])
def test_a_task_goes_on_after_one_of_its_processes_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    monkeypatch.setattr(Retrieval, "chunk_size", 500)
    monkeypatch.setattr(Retrieval, "read", staticmethod(read_or_die))
    monkeypatch.setattr(f"{__name__}.FATAL", [tmp_path / "fatal"])
    options: dict[str, Any] = {"official_dir": aan(tmp_path / "source"), "l_max": 30, "level": level}
    appended = recorded(monkeypatch, lambda appended: None)
    whole = create_task("retrieval", data_dir=tmp_path / "whole", processes=1, **options)
    whole.prepare_data()
    expected = appended.copy()
    appended.clear()
    FATAL[0].touch()
    task = create_task("retrieval", data_dir=tmp_path / "parts", processes=2, **options)
    with pytest.raises(KilledProcessError):
        task.prepare_data()
    assert not FATAL[0].exists() and len(appended) < len(expected)
    task.prepare_data()
    assert appended == expected
    same_files(task.folder, whole.folder)


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
