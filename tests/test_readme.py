"""The README's Python runs as it stands, one block after another, as a reader would type it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[1] / "README.md"


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = README.read_text(encoding="utf-8")
    blocks = list(re.finditer(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE))
    assert blocks, "the README has no Python block"
    names: dict[str, Any] = {"__name__": "readme"}
    for block in blocks:
        line = text.count("\n", 0, block.start(1))
        exec(compile("\n" * line + block[1], str(README), "exec"), names)


def test_ci_commands_are_there() -> None:
    """The two set-up commands that ``.ci/run`` takes from the README."""
    names = re.findall(r"<!-- ci: (\S+) -->\n```bash\n", README.read_text(encoding="utf-8"))
    assert sorted(names) == ["main-job", "test"]
