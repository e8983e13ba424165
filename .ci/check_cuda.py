"""Check the machine code of liblongconv_cuda: what its kernels compute with, and how few registers they spill.

Usage: check_cuda.py LIBRARY. Needs cuobjdump, from a CUDA toolkit or from Triton.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TARGETS = "sm_80", "sm_90a", "sm_100f"
MATRIX = (
    *("Filter", "Spectrum", "Correlation", "Blocks", "Taps", "Columns", "InnerRows", "ColumnsBack"),
    *("SparseFilter", "SparseSpectrum", "SparseCorrelation", "SparseTaps"),
)
"""The kernels that multiply on tensor cores: all must be there for every arithmetic, and each must have HMMA."""
DOUBLE = r"Tables|Cauchy|LinearScan|Vandermonde|ShortConvSums|ComplexOfId|I\w*dE"
"""Those that may compute in double precision: tables of roots, sums of many terms, and calls in float64."""
FUSED = r"Products|Cauchy|LinearScan|Vandermonde|ShortConvSums"
"""Those made of multiply-adds: of their arithmetic in float at least this part is fused."""
LEAST_FUSED = 0.4
MOST_STACK = {"": 96, r"Filter\w+HalfELi8E": 768}
"""Bytes of local memory a thread, by patterns of names, the last that fits; sines take 40 of them."""
MOST_SPILLS = 0.03
"""Instructions that load or store local memory, as a part of all."""

_LINE = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9_]*)", flags=re.MULTILINE)


def tool() -> str | None:
    """The path of cuobjdump."""
    triton = importlib.util.find_spec("triton")
    own = Path(triton.origin).parent / "backends/nvidia/bin" if triton and triton.origin else None
    return shutil.which("cuobjdump") or (shutil.which("cuobjdump", path=str(own)) if own else None)


def dump(*arguments: str) -> Iterator[str]:
    """What cuobjdump prints, kernel by kernel from the first on."""
    with subprocess.Popen([str(tool()), *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            if "Function" in line:
                yield "".join(lines)
                lines = []
            lines.append(line)
        yield "".join(lines)
    if process.returncode:
        raise SystemExit(f"cuobjdump {' '.join(arguments)} ended with {process.returncode}")


def instructions(target: str, library: str) -> dict[str, Counter[str]]:
    """How often each kernel has each instruction."""
    named = ((re.search(r"Function : (\S+)", text), text) for text in dump("-sass", "-arch", target, library))
    return {name[1]: Counter(_LINE.findall(text)) for name, text in named if name}


def stacks(target: str, library: str) -> dict[str, int]:
    """The bytes of local memory of each kernel."""
    found = (
        re.search(r"Function (\S+):\s+REG:\d+ STACK:(\d+)", text)
        for text in dump("-res-usage", "-arch", target, library)
    )
    return {match[1]: int(match[2]) for match in found if match}


def kind(name: str) -> str | None:
    """Which of the kernels of matrix products a mangled name is of."""
    found = re.search(rf"\d({'|'.join(MATRIX)})I", name)
    return found[1] if found else None


def faults(name: str, count: Counter[str], stack: int) -> Iterator[str]:
    """What is wrong with a kernel."""
    total = sum(count.values())
    if kind(name) and not count["HMMA"]:
        yield "has no HMMA"
    if not re.search(DOUBLE, name) and (wide := sum(n for op, n in count.items() if op in ("DADD", "DMUL", "DFMA"))):
        yield f"computes in double precision {wide} times"
    fused, apart = count["FFMA"] + 2 * count["FFMA2"], count["FADD"] + count["FMUL"]
    if re.search(FUSED, name) and fused < LEAST_FUSED * (fused + apart):
        yield f"has {fused} fused operations in float and {apart} others"
    most = [bytes_ for part, bytes_ in MOST_STACK.items() if re.search(part, name)][-1]
    if stack > most:
        yield f"takes {stack} bytes of local memory, at most {most} are meant"
    if (spills := count["LDL"] + count["STL"]) > MOST_SPILLS * total:
        yield f"has {spills} loads and stores of local memory in {total} instructions"


def check(target: str, library: str) -> str:
    """A line on the kernels for a target; the first violation raises."""
    code, local = instructions(target, library), stacks(target, library)
    if not code or code.keys() != local.keys():
        raise SystemExit(f"{target}: {len(code)} kernels with code, {len(local)} with resources")
    for arithmetic in ("4Half", "4Tf32", "6Tf32x3"):
        if missing := set(MATRIX) - {kind(name) for name in code if arithmetic in name}:
            raise SystemExit(f"{target} has no {', '.join(sorted(missing))} for {arithmetic[1:]}")
    found = [f"{name} {fault}" for name in code for fault in faults(name, code[name], local[name])]
    if found:
        raise SystemExit("\n".join(f"{target}: {line}" for line in found))
    matrix = sum("HMMA" in count for count in code.values())
    return f"{target}: {matrix} of {len(code)} kernels with HMMA, at most {max(local.values())} bytes of local memory"


if __name__ == "__main__":
    if tool() is None:
        print("no cuobjdump here: the machine code was not looked at")
    else:
        with ThreadPoolExecutor() as threads:
            for line in threads.map(check, TARGETS, [sys.argv[1]] * len(TARGETS)):
                print(line)
