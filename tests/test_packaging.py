"""What the packages import is what pyproject.toml declares."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DISTRIBUTIONS = {"yaml": "PyYAML", "PIL": "pillow"}
"""Distributions by the modules that are named otherwise."""


def declared(*extras: str) -> set[str]:
    """Names of the distributions that an install with these extras brings."""
    optional = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in optional[extra])]
    return {re.split(r"[^\w-]", line)[0] for line in lines}


def imported(package: str) -> set[str]:
    """Top-level third-party modules that a package imports anywhere."""
    found: set[str] = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names - {"longconv", "lra_tasks"}


@pytest.mark.parametrize(
    ("package", "extras"),
    [("longconv", ("export", "keops", "plot", "triton")), ("lra_tasks", ("train", "plot", "export"))],
)
def test_every_import_is_declared(package: str, extras: tuple[str, ...]) -> None:
    names = {DISTRIBUTIONS.get(module, module) for module in imported(package)}
    assert names <= declared(*extras)


def test_the_python_versions_agree() -> None:
    version = PROJECT["requires-python"].removeprefix(">=")
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert tools["ruff"]["target-version"] == f"py{version.replace('.', '')}"
    assert f"Python {version} or later" in (ROOT / "README.md").read_text()
