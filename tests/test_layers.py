"""No layer imports a higher one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MAY_IMPORT = {
    "longconv._checks": (),
    "longconv._autocast": (),
    "longconv._sequence": (),
    "longconv._native": ("longconv._checks",),
    "longconv.ops": ("longconv._checks", "longconv._autocast", "longconv._sequence", "longconv._native"),
    "longconv.filters": ("longconv._checks", "longconv._autocast", "longconv._sequence", "longconv.ops"),
    "longconv.streaming": ("longconv._checks", "longconv._autocast", "longconv._sequence", "longconv.ops"),
    "longconv.mixers": (
        "longconv._checks",
        "longconv._autocast",
        "longconv._sequence",
        "longconv.ops",
        "longconv.filters",
        "longconv.streaming",
    ),
    "longconv.distributed": ("longconv._checks", "longconv._autocast", "longconv._sequence", "longconv.ops"),
    "longconv._modal_fit": (),
    "longconv.distillation": ("longconv._checks", "longconv._modal_fit", "longconv.filters", "longconv.mixers"),
    "longconv.models": (
        "longconv._checks",
        "longconv._autocast",
        "longconv._sequence",
        "longconv.ops",
        "longconv.filters",
        "longconv.mixers",
    ),
    "longconv._info": ("longconv._native", "longconv.ops"),
    "lra_tasks": ("longconv",),
    "bench": ("longconv", "lra_tasks"),
}
"""For every layer, lowest first, the layers that it may import besides itself."""

# What every module may ask of the top beside its layers.
ALWAYS = ("longconv.__version__",)

# Modules above all layers: the public names, and the command line that prints them.
TOP = ("longconv", "longconv.__main__")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module or name that the imports of a file reach, deepest form (``a.b`` for ``from a import b``)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute in this repository"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inside(name: str, layer: str) -> bool:
    return name == layer or name.startswith(f"{layer}.")


def layer_of(module: str) -> str:
    found = [layer for layer in MAY_IMPORT if inside(module, layer)]
    assert found, f"{module} stands in no layer: give it a row in MAY_IMPORT"
    return found[0]


FILES = sorted(path for package in ("longconv", "lra_tasks", "bench") for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_down(path: Path) -> None:
    module = module_name(path)
    if module in TOP:
        return
    layer = layer_of(module)
    below = (layer, *MAY_IMPORT[layer])
    for name in imported(ast.parse(path.read_text())):
        if name.split(".")[0] in ("longconv", "lra_tasks", "bench", "tests") and name not in ALWAYS:
            assert any(inside(name, allowed) for allowed in below), f"{module} ({layer}) imports {name}"


def test_every_module_is_looked_at() -> None:
    assert {layer_of(module_name(path)) for path in FILES if module_name(path) not in TOP} == set(MAY_IMPORT)


def test_bench_uses_the_public_names_alone() -> None:
    for path in sorted((ROOT / "bench").rglob("*.py")):
        for name in imported(ast.parse(path.read_text())):
            assert not re.match(r"longconv\..*\b_", name), f"{path.name} imports {name}"
