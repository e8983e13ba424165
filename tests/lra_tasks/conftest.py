"""Data that the tests of the command share: prepared once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lra_tasks.running import run, tiny


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """The folder of a finished tiny run; tests read it and leave it as it is."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    run(tiny(folder, data_dir))
    return folder
