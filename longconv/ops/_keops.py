"""Sums that KeOps compiles for a formula at its first use; pykeops is imported then, and not before."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import io
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger("longconv")


def available() -> str | None:
    """None if KeOps can compile here, else the reason why not."""
    if importlib.util.find_spec("pykeops") is None:
        return "pykeops is not installed: pip install 'longconv[keops]'"
    if not any(shutil.which(compiler) for compiler in (os.environ.get("CXX", ""), "g++")):
        return "KeOps compiles its formulas with a C++ compiler, and there is neither g++ nor the one that CXX names"
    return None


def supports(*call: Any) -> str | None:
    """None if KeOps runs on the device of the tensors of a call, else the reason why not."""
    device = next(value.device.type for value in call if isinstance(value, Tensor))
    if device == "cuda" and not _pykeops().config.gpu_available:
        return "KeOps found no CUDA toolkit"
    return None if device in ("cpu", "cuda") else f"KeOps has no code for {device}"


def pairs(x: Tensor, precision: torch.dtype) -> Tensor:
    """A tensor (..., S) as real and imaginary parts (..., S, 2) of a real dtype, contiguous."""
    return torch.view_as_real(x.to(precision.to_complex()).resolve_conj()).contiguous()


def complex_sum(op: str, formula: str, inner: Mapping[str, Tensor], outer: Mapping[str, Tensor]) -> Tensor:
    """The sum over the inner index of a formula with complex values, for every outer index.

    The first time that a machine meets a formula, KeOps compiles it, which is told through logging.

    Args:
        op: the op's name, for messages.
        formula: in KeOps's language, of the variables that the keys name; of k complex numbers.
        inner: variables (..., J, d) that depend on the inner index.
        outer: variables (..., I, d) that depend on the outer one. All are contiguous, of one real dtype and one rank of
            at least 3, and their leading axes broadcast.

    Returns:
        (..., I, k) complex.
    """
    kinds = [*("Vj" for _ in inner), *("Vi" for _ in outer)]
    names, tensors = [*inner, *outer], [t.detach() for t in (*inner.values(), *outer.values())]
    places = enumerate(zip(names, kinds, tensors, strict=True))
    aliases = tuple(f"{name}={kind}({place},{t.shape[-1]})" for place, (name, kind, t) in places)
    like = tensors[0]
    reduction, backend = _reduction(formula, aliases), "GPU" if like.is_cuda else "CPU"
    mark = _mark(formula, aliases, like.dtype, backend)
    with torch.no_grad():
        if not mark.exists():
            _compile(op, reduction, tensors, backend, mark)
        result = reduction(*tensors, backend=backend)
    return torch.view_as_complex(result.unflatten(-1, (-1, 2)))


def _compile(op: str, reduction: Callable[..., Tensor], tensors: list[Tensor], backend: str, mark: Path) -> None:
    """The first use of a formula on this machine, by one process at a time: KeOps loads what another still writes."""
    with importlib.import_module("filelock").FileLock(mark.with_suffix(".lock")):
        if mark.exists():
            return
        precision = str(tensors[0].dtype).removeprefix("torch.")
        logger.warning("%s: KeOps compiles a sum in %s for the %s, once; this takes some 15 s", op, precision, backend)
        start, said = time.perf_counter(), io.StringIO()
        with contextlib.redirect_stdout(said):
            try:
                _without_remains(reduction, tensors, backend)
            except (ImportError, OSError, ValueError) as error:
                raise RuntimeError(f"{op}: KeOps could not compile its sum: {error}\n{said.getvalue()}") from error
        mark.touch()
        logger.info("%s: KeOps compiled it in %.1f s", op, time.perf_counter() - start)


def _without_remains(reduction: Callable[..., Tensor], tensors: list[Tensor], backend: str) -> None:
    """The sum, compiled anew where a process that was killed has left a library that can't be loaded."""
    try:
        reduction(*tensors, backend=backend)
    except ImportError as error:
        if error.path is None or not Path(error.path).is_relative_to(_pykeops().get_build_folder()):
            raise
        Path(error.path).unlink(missing_ok=True)
        reduction(*tensors, backend=backend)


def _mark(formula: str, aliases: tuple[str, ...], dtype: torch.dtype, backend: str) -> Path:
    """The file, in KeOps's own folder of compiled sums, that says that one is there."""
    digest = hashlib.sha256(repr((formula, aliases, dtype, backend)).encode()).hexdigest()[:16]
    return Path(_pykeops().get_build_folder()) / f"longconv_{digest}.compiled"


@functools.cache
def _reduction(formula: str, aliases: tuple[str, ...]) -> Callable[..., Tensor]:
    _pykeops()
    reduction: Callable[..., Tensor] = importlib.import_module("pykeops.torch").Genred(
        formula, list(aliases), reduction_op="Sum", axis=1, use_double_acc=True
    )
    return reduction


@functools.cache
def _pykeops() -> Any:
    """The package, imported without what it prints to the standard output."""
    with contextlib.redirect_stdout(io.StringIO()):
        return importlib.import_module("pykeops")
