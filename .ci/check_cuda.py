"""Check the machine code of liblongconv_cuda: matrix instructions where they are meant to be, few spilled registers.

Usage: check_cuda.py LIBRARY. Needs cuobjdump, from a CUDA toolkit or from Triton.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

KERNELS = r"(Filter|Spectrum|Correlation|Blocks|Taps)I"
"""Those that multiply on tensor cores, in mangled names."""
MATRIX = {"sm_80": "HMMA", "sm_90a": "HMMA", "sm_100f": "HMMA"}
MOST_STACK = 1024
"""Bytes of local memory a thread."""


def tool() -> str | None:
    """The path of cuobjdump."""
    triton = importlib.util.find_spec("triton")
    own = Path(triton.origin).parent / "backends/nvidia/bin" if triton and triton.origin else None
    return shutil.which("cuobjdump") or (shutil.which("cuobjdump", path=str(own)) if own else None)


def dump(*arguments: str) -> str:
    """What cuobjdump prints."""
    return subprocess.run([str(tool()), *arguments], check=True, capture_output=True, text=True).stdout


def main(library: str) -> None:
    """Print a line for every target; the first violation ends the program."""
    for target, instruction in MATRIX.items():
        code = dump("-sass", "-arch", target, library)
        functions = dict(re.findall(r"Function : (\S+)(.*?)(?=Function : |\Z)", code, flags=re.DOTALL))
        kernels = {name: body for name, body in functions.items() if re.search(KERNELS, name)}
        if not kernels:
            raise SystemExit(f"{library} has no kernels of fft_conv for {target}")
        for name, body in kernels.items():
            if instruction not in body:
                raise SystemExit(f"{name} for {target} has no {instruction}")
        usage = dump("-res-usage", "-arch", target, library)
        stacks = {name: int(size) for name, size in re.findall(r"Function (\S+):\s+REG:\d+ STACK:(\d+)", usage)}
        worst = max(stacks, key=stacks.__getitem__)
        if stacks[worst] > MOST_STACK:
            raise SystemExit(
                f"{worst} for {target} takes {stacks[worst]} bytes of stack, at most {MOST_STACK} are meant"
            )
        print(f"{target}: {len(kernels)} kernels with {instruction}, at most {stacks[worst]} bytes of stack")


if __name__ == "__main__":
    if tool() is None:
        print("no cuobjdump here: the machine code was not looked at")
    else:
        main(sys.argv[1])
