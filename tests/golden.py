"""Golden vectors: numbers recorded from the original authors' code, outside this repository."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(os.environ.get("LONGCONV_GOLDEN") or Path(__file__).parents[2] / "shared" / "golden")


@functools.cache
def _load(name: str) -> dict[str, Any]:
    path = ROOT / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"golden vectors not found: {path} (set LONGCONV_GOLDEN to their folder)")
    with np.load(path) as file:
        return {key: file[key] for key in file.files}


class Case:
    """One recorded case: arrays by key as tensors, hyperparameters in ``meta``."""

    def __init__(self, file: str, name: str) -> None:
        self.name, self._arrays = name, _load(file)
        self.meta: dict[str, Any] = json.loads(str(self._arrays["meta_json"]))["cases"][name]

    def __contains__(self, key: str) -> bool:
        return f"{self.name}/{key}" in self._arrays

    def __getitem__(self, key: str) -> torch.Tensor:
        return torch.from_numpy(np.array(self._arrays[f"{self.name}/{key}"]))

    def group(self, prefix: str) -> dict[str, torch.Tensor]:
        """All arrays below ``prefix/`` by the rest of their key."""
        start = f"{self.name}/{prefix}/"
        return {
            key[len(start) :]: torch.from_numpy(np.array(v)) for key, v in self._arrays.items() if key.startswith(start)
        }


LEAKS = ("short_input_", "kernel_noncausal_", "standalone_")
"""What the names of the recorded LongConv cases begin with whose outputs depend on later inputs."""


def skip_leaks(case: Case) -> None:
    """Skip a recorded LongConv case that shows a leak of the original, which ours does not have."""
    leak = case.meta.get("future_gradient_maxabs", 0.0)
    if case.name.startswith(LEAKS) or leak > 1e-4:
        pytest.skip(f"the recorded output depends on later inputs, by up to {leak:.1e}: an error of the original")


ABSENT = ["absent"]
"""The cases of a file that isn't there: one name, whose test skips with the reason as soon as it reads the file."""


def cases(file: str, start: str = "", *, but: str | tuple[str, ...] = ()) -> list[str]:
    """The names of the recorded cases of a file that begin with ``start`` and not with ``but``; :data:`ABSENT`."""
    path = ROOT / f"{file}.npz"
    if not path.exists():
        return ABSENT
    with np.load(path) as loaded:
        names = json.loads(str(loaded["meta_json"]))["cases"]
    return [name for name in names if name.startswith(start) and not name.startswith(but)]


def group(file: str, name: str) -> dict[str, torch.Tensor]:
    """All arrays of a case but for text, by the rest of their key, of a file without a list of cases."""
    return {
        key.removeprefix(f"{name}/"): torch.from_numpy(np.array(value))
        for key, value in _load(file).items()
        if key.startswith(f"{name}/") and value.dtype.kind != "U"
    }


def settings(file: str, name: str) -> dict[str, Any]:
    """The hyperparameters of a case of such a file."""
    found: dict[str, Any] = json.loads(str(_load(file)[f"{name}/cfg"]))
    return found


def groups(file: str, start: str = "") -> list[str]:
    """The names of the cases of such a file that begin with ``start``; :data:`ABSENT` where the file is."""
    path = ROOT / f"{file}.npz"
    if not path.exists():
        return ABSENT
    with np.load(path) as loaded:
        return sorted({key.split("/")[0] for key in loaded.files if key.startswith(start) and "/" in key})


def files(start: str) -> list[str]:
    """The names of the recorded files that begin with ``start``; :data:`ABSENT` where there are none."""
    return sorted(path.stem for path in ROOT.glob(f"{start}*.npz")) or ABSENT


def whole(file: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """All arrays of a file of one case but for text, by key, and its hyperparameters."""
    loaded = _load(file)
    arrays = {key: torch.from_numpy(np.array(value)) for key, value in loaded.items() if value.dtype.kind != "U"}
    return arrays, json.loads(str(loaded["cfg"]))
