"""What this machine offers longconv: versions, native libraries, threads, GPUs, and the backends of every op."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from dataclasses import dataclass

import torch

from longconv import _native
from longconv.ops import _registry

PACKAGES = ("torch", "numpy", "einops", "opt_einsum", "triton", "pykeops", "lightning")
"""Packages whose versions are reported, as None where they are not installed."""


@dataclass(frozen=True)
class LibraryReport:
    """A native library: the file it was loaded from, or the reason why there is none."""

    path: str | None
    reason: str | None


@dataclass(frozen=True)
class OpReport:
    """The backends of one op: what ``"auto"`` takes at best, and why each other one would not serve.

    Attributes:
        serves: the backend that ``"auto"`` takes, unless it refuses a call's arguments.
        backends: for every backend None if it can run here, else the reason why not; best first.
        on_request: the backends that only ``backend=`` takes.
    """

    serves: str | None
    backends: dict[str, str | None]
    on_request: tuple[str, ...]


@dataclass(frozen=True)
class Info:
    """The report of :func:`info`; ``str()`` is its readable form, ``as_dict()`` a form for JSON."""

    version: str
    python: str
    platform: str
    packages: dict[str, str | None]
    libraries: dict[str, LibraryReport]
    isa: str | None
    isas: dict[str, bool]
    threads: int
    thread_pool: str
    gpus: tuple[str, ...]
    ops: dict[str, OpReport]

    def as_dict(self) -> dict[str, object]:
        """The report in dicts, lists, strings and numbers."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        lines = [f"longconv {self.version}, Python {self.python}, {self.platform}", "", "packages"]
        lines += _table({name: version or "not installed" for name, version in self.packages.items()})
        lines += ["", "libraries"]
        lines += _table({name: it.path or f"none: {it.reason}" for name, it in self.libraries.items()})
        isas = ", ".join(name if supported else f"{name} (not here)" for name, supported in self.isas.items())
        machine = {
            "instruction set": f"{self.isa or 'none'} (of {isas or 'none'}; set by {_native.ISA_VARIABLE})",
            "threads": f"{self.threads}, {self.thread_pool}",
            "GPUs": "; ".join(self.gpus) or "none",
        }
        lines += ["", "machine", *_table(machine), "", "backends"]
        for name, op in self.ops.items():
            lines += [f"  {name}: {op.serves or 'none'}"]
            lines += [f"    {row.strip()}" for row in _table({b: _role(op, b) for b in op.backends})]
        return "\n".join(lines)


def info() -> Info:
    """What is installed and what would run: print it to see which backend serves every op, and why not a better one.

    Returns:
        An :class:`Info`. A library or GPU that is absent is a reason in it, never an error.

    Raises:
        ValueError: ``LONGCONV_CPU_ISA`` names an unknown instruction set, or one that this processor lacks.

    >>> report = info()
    >>> report.ops["fft_conv"].backends["torch"] is None
    True
    >>> print(report)  # doctest: +ELLIPSIS
    longconv ..., Python ...
    """
    from longconv import __version__

    cpu = _native.cpu()
    return Info(
        version=__version__,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        packages={name: _version(name) for name in PACKAGES},
        libraries={
            it.name: LibraryReport(str(it.path) if it.path else None, it.reason) for it in (cpu, _native.cuda())
        },
        isa=_native.chosen_isa(cpu),
        isas=_native.isas(cpu),
        threads=torch.get_num_threads(),
        thread_pool="run by torch" if _native.torch_parallel_for() else "but torch's pool was not found: one is used",
        gpus=tuple(_gpu(index) for index in range(torch.cuda.device_count())),
        ops={name: _op(backends) for name, backends in sorted(_registry.ALL.items())},
    )


def _table(rows: dict[str, str]) -> list[str]:
    width = max(map(len, rows), default=0)
    return [f"  {name:<{width}}  {text}" for name, text in rows.items()]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpu(index: int) -> str:
    properties = torch.cuda.get_device_properties(index)
    return (
        f"cuda:{index} {properties.name}, sm_{properties.major}{properties.minor}, {properties.total_memory >> 30} GiB"
    )


def _op(backends: _registry.Backends) -> OpReport:
    status = backends.status()
    automatic = [backend.name for backend in backends.backends if backend.auto]
    serves = next((name for name in automatic if status[name] is None), None)
    return OpReport(serves, status, tuple(name for name in status if name not in automatic))


def _role(op: OpReport, name: str) -> str:
    if reason := op.backends[name]:
        return f"no: {reason}"
    if name in op.on_request:
        return f"only when asked for: backend={name!r}"
    return "serves" if name == op.serves else "serves what those above refuse or are slower at"
