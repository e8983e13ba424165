"""Without the golden vectors the suite is collected, and what needs them skips with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import golden


def test_absent_vectors_skip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(golden, "ROOT", tmp_path)
    for names in (
        golden.cases("none"),
        golden.cases("none", but="a"),
        golden.cases("none", "a"),
        golden.groups("none"),
    ):
        assert names and all(isinstance(name, str) for name in names)
    for read in (
        lambda: golden.Case("none", "a"),
        lambda: golden.group("none", "a"),
        lambda: golden.settings("none", "a"),
    ):
        with pytest.raises(pytest.skip.Exception, match="golden vectors not found.*LONGCONV_GOLDEN"):
            read()
