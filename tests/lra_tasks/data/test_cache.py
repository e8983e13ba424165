"""The cache: whole or absent, whatever goes wrong."""

from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import resource
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest

from lra_tasks.data import DataError
from lra_tasks.data.cache import MANIFEST, ArrayWriter, default_data_dir, ensure, find_fault, save_array

PARAMETERS = {"seed": 1}


def build(folder: Path) -> None:
    save_array(folder / "numbers.npy", np.arange(100))


def leftovers(folder: Path) -> list[str]:
    """What lies beside the cache but the lock."""
    return [path.name for path in folder.parent.iterdir() if not path.name.endswith(".lock")]


def test_builds_once_and_reads_again(tmp_path: Path) -> None:
    calls: list[Path] = []

    def counted(folder: Path) -> None:
        calls.append(folder)
        build(folder)

    folder = tmp_path / "task" / "key"
    for _ in range(2):
        assert ensure(folder, PARAMETERS, counted) == folder
    assert len(calls) == 1 and calls[0] != folder
    assert (np.load(folder / "numbers.npy") == np.arange(100)).all()
    assert find_fault(folder, PARAMETERS, checksums=True) is None
    assert leftovers(folder) == ["key"]


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda folder: (folder / MANIFEST).unlink(), MANIFEST),
        (lambda folder: (folder / MANIFEST).write_text("{"), "cannot be read"),
        (lambda folder: (folder / MANIFEST).write_text("[]"), "cannot be read"),
        (lambda folder: (folder / "numbers.npy").unlink(), "numbers.npy is missing"),
        (lambda folder: (folder / "numbers.npy").write_bytes(b"short"), "5 bytes"),
        (lambda folder: flip_last_byte(folder / "numbers.npy"), "checksum"),
    ],
)
def test_damage_is_named_and_built_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: object, named: str
) -> None:
    folder = tmp_path / "key"
    ensure(folder, PARAMETERS, build)
    assert callable(damage)
    damage(folder)
    with caplog.at_level(logging.WARNING):
        ensure(folder, PARAMETERS, build)
    assert named in caplog.text and str(folder) in caplog.text
    assert find_fault(folder, PARAMETERS, checksums=True) is None


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_other_parameters_are_a_fault(tmp_path: Path) -> None:
    ensure(tmp_path / "key", PARAMETERS, build)
    assert find_fault(tmp_path / "key", {"seed": 2}) == "it was made with other parameters"


def test_changed_sources_are_read_again_and_missing_ones_are_not_needed(tmp_path: Path) -> None:
    built: list[int] = []

    def counted(folder: Path) -> None:
        built.append(1)
        build(folder)

    for source, expected in (([1, 2], 1), ([1, 2], 1), (None, 1), ([1, 3], 2), (None, 2)):
        ensure(tmp_path / "key", PARAMETERS, counted, source)
        assert len(built) == expected
    assert find_fault(tmp_path / "key", PARAMETERS, [1, 2]) == "the files that it was made from have changed"


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()])
def test_a_failed_build_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def failing(folder: Path) -> None:
        build(folder)
        raise error

    with pytest.raises(type(error)):
        ensure(tmp_path / "key", PARAMETERS, failing)
    assert leftovers(tmp_path / "key") == []
    ensure(tmp_path / "key", PARAMETERS, build)
    assert find_fault(tmp_path / "key", PARAMETERS, checksums=True) is None


def test_no_space_names_the_place_and_leaves_nothing(tmp_path: Path) -> None:
    def full(folder: Path) -> None:
        build(folder)
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / "more.npy"))

    with pytest.raises(DataError, match=rf"no space left while preparing {tmp_path / 'key'}.*--data-dir"):
        ensure(tmp_path / "key", PARAMETERS, full)
    assert leftovers(tmp_path / "key") == []


def limited(root: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
    try:
        ensure(root / "key", {}, lambda folder: save_array(folder / "big.npy", np.zeros(10**5)))
    except DataError as error:
        (root / "error").write_text(str(error))


def test_a_real_write_failure_is_reported(tmp_path: Path) -> None:
    """A file that outgrows the process's limit fails in the write call, as one on a full disk does."""
    process = start(limited, tmp_path)
    process.join(timeout=60)
    assert process.exitcode == 0
    assert (tmp_path / "error").read_text().startswith(f"no space left while preparing {tmp_path / 'key'}")
    assert leftovers(tmp_path / "key") == ["error"]


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write to .*file.*--data-dir"):
        ensure(tmp_path / "file" / "task" / "key", PARAMETERS, build)


def test_a_source_that_cannot_be_read_is_not_taken_for_the_cache(tmp_path: Path) -> None:
    def failing(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/source.tsv")

    with pytest.raises(DataError, match=r"cannot prepare .*/elsewhere/source.tsv"):
        ensure(tmp_path / "key", PARAMETERS, failing)


def start(target: Callable[..., None], *arguments: object) -> BaseProcess:
    """Run in another process; a fork spares it the import of torch."""
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    return process


def prepare_slowly(root: Path, seconds: float) -> None:
    def slow(folder: Path) -> None:
        with (root / "builds").open("a") as log:
            log.write("x")
        (folder / "half").write_text("half")
        time.sleep(seconds)
        (folder / "whole").write_text("whole")

    ensure(root / "task" / "key", {}, slow)


def test_two_processes_at_once_build_once(tmp_path: Path) -> None:
    processes = [start(prepare_slowly, tmp_path, 1.0) for _ in range(2)]
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "builds").read_text() == "x"
    assert find_fault(tmp_path / "task" / "key", {}, checksums=True) is None


def test_a_killed_preparation_is_done_again(tmp_path: Path) -> None:
    process = start(prepare_slowly, tmp_path, 600.0)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("task/.key.partial/half")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.join(timeout=60)
    assert process.exitcode == -signal.SIGKILL
    assert find_fault(tmp_path / "task" / "key", {}) is not None
    prepare_slowly(tmp_path, 0.0)
    assert find_fault(tmp_path / "task" / "key", {}, checksums=True) is None
    assert leftovers(tmp_path / "task" / "key") == ["key"]
    assert set(json.loads((tmp_path / "task" / "key" / MANIFEST).read_text())["files"]) == {"half", "whole"}


@pytest.mark.parametrize("pieces", [[0], [3], [1, 0, 4, 200000]])
def test_array_writer(tmp_path: Path, pieces: list[int]) -> None:
    random = np.random.default_rng(0)
    rows = [random.integers(256, size=(n, 2, 3), dtype=np.uint8) for n in pieces]
    with ArrayWriter(tmp_path / "a.npy", (2, 3), np.uint8) as writer:
        for part in rows:
            writer.append(part)
        with pytest.raises(ValueError, match=r"rows is \(1, 3, 2\)"):
            writer.append(np.zeros((1, 3, 2)))
    got = np.load(tmp_path / "a.npy", mmap_mode="r" if sum(pieces) else None)
    assert got.dtype == np.uint8 and np.array_equal(got, np.concatenate(rows))


def test_data_dir_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LONGCONV_DATA", str(tmp_path))
    assert default_data_dir() == tmp_path
    monkeypatch.delenv("LONGCONV_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_data_dir() == tmp_path / ".cache" / "longconv"
