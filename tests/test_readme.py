"""The README's Python runs as it stands, one block after another, as a reader would type it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LAUNCHED = r"# (\w+\.py): (torchrun [^\n]*)\n"

README = Path(__file__).parents[1] / "README.md"


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = README.read_text(encoding="utf-8")
    blocks = list(re.finditer(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE))
    assert blocks, "the README has no Python block"
    names: dict[str, Any] = {"__name__": "readme"}
    for block in blocks:
        if not re.match(LAUNCHED, block[1]):
            line = text.count("\n", 0, block.start(1))
            exec(compile("\n" * line + block[1], str(README), "exec"), names)


def test_programs_run_as_they_are_launched(tmp_path: Path) -> None:
    """What begins with a file's name and the command that launches it; `import torch` stands in a block before."""
    blocks = re.findall(rf"^```python\n(?={LAUNCHED})(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.M)
    assert len(blocks) == 1
    for name, command, block in blocks:
        path = tmp_path / name
        path.write_text("import torch\n" + block + "assert y.shape == u.shape and y.isfinite().all()\n")
        words = [sys.executable, "-m", "torch.distributed.run", *command.split()[1:-1], str(path)]
        subprocess.run(words, check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_ci_commands_are_there() -> None:
    """The two set-up commands that ``.ci/run`` takes from the README."""
    names = re.findall(r"<!-- ci: (\S+) -->\n```bash\n", README.read_text(encoding="utf-8"))
    assert sorted(names) == ["main-job", "test"]
