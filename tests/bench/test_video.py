"""The tables of ``python -m bench.video``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from bench import video
from bench.case import OURS
from bench.report import load
from longconv.models import VIDEO_MIXERS


def test_tables_have_a_line_a_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "video.json"
    words = ["--lengths", "2", "3", "--rounds", "2", "--size", "4", "--features", "8", "--output", str(path)]
    monkeypatch.setattr(video, "restart_warm", lambda: None)
    monkeypatch.setattr(sys, "argv", ["bench.video", *words])
    video.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line[:6].strip().isdigit()] == ["2", "3", "2", "3"]
    for line in lines:
        if line[:6].strip().isdigit():
            assert all(float(cell) > 0 for cell in line.split())
    _, rows = load(path)
    assert [row.case for row in rows] == [f"video/{table}/T{n}" for table in ("training", "generation") for n in (2, 3)]
    assert all(row.times[OURS].median > 0 and 0 < row.errors[OURS] < 1e-5 for row in rows)
    assert set(rows[2].times) == {OURS, *VIDEO_MIXERS} - {"conv_s5"}


@pytest.mark.parametrize("name", sorted(VIDEO_MIXERS))
def test_a_frame_comes_after_all_that_were_asked_for(name: str) -> None:
    """Of attention the cache has as many frames; of the others the state has a size of its own."""
    torch.manual_seed(0)
    y = video.next_frame(name, 8, 4, 5)()
    assert isinstance(y, torch.Tensor) and y.shape == (1, 8, 4, 4) and y.isfinite().all()
