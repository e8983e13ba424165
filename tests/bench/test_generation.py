"""The tables of generation are results as all others: rows of our ways beside the rest, checked as they are timed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench import generation
from bench.report import load, save
from bench.tables import table


@pytest.mark.slow
def test_ways_of_hyena(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with torch.inference_mode():
        rows = generation.hyena(12, 2, ["again", "cached", "online", "distilled"])
    assert [row.case for row in rows] == [
        f"generation/hyena/12/{way}/{what}" for way in ("online", "distilled") for what in ("all", "token", "slowest")
    ]
    for row in rows:
        assert set(row.times) == set(row.errors) == {"longconv", "again", "cached"}
        assert row.errors["cached"] < 1e-5 and (row.errors["longconv"] < 1e-5 or "distilled" in row.case)
    whole, token, slowest = (row.times["longconv"].median for row in rows[:3])
    assert token <= slowest <= whole
    assert capsys.readouterr().out.count("\n") == 7
    save(tmp_path / "r.json", {"cpu": "x"}, rows)
    assert load(tmp_path / "r.json")[1] == rows
    assert table(*load(tmp_path / "r.json")).count("generation/hyena") == 6


@pytest.mark.slow
def test_models_beside_a_transformer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "BATCHES", (1, 2))
    with torch.inference_mode():
        rows = generation.models(["s4d"], position=8, steps=4)
    assert [row.case for row in rows] == [f"generation/s4d/position8/B{size}" for size in (1, 2)]
    for row in rows:
        assert row.best_peer() == "Transformer" and 0 < row.errors["longconv"] < 1e-5
