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

KERNELS = r"(Filter|Spectrum|Correlation|Blocks|Taps|Columns|InnerRows|ColumnsBack)I"
"""Those that multiply on tensor cores, in mangled names."""
MATRIX = {"sm_80": "HMMA", "sm_90a": "HMMA", "sm_100f": "HMMA"}
MOST_STACK = {"": 1024, "LinearScan": 96, "ShortConv": 96, "Vandermonde": 96, "Cauchy": 96}
"""Bytes of local memory a thread, by what the names of kernels contain; the sines of Vandermonde's take 40 of them."""


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
        for part, most in MOST_STACK.items():
            found = {name: size for name, size in stacks.items() if part in name}
            if not found:
                raise SystemExit(f"{library} has no kernel {part} for {target}")
            worst = max(found, key=found.__getitem__)
            if found[worst] > most:
                raise SystemExit(f"{worst} for {target} takes {found[worst]} bytes of stack, at most {most} are meant")
        print(f"{target}: {len(kernels)} kernels with {instruction}, at most {max(stacks.values())} bytes of stack")


if __name__ == "__main__":
    if tool() is None:
        print("no cuobjdump here: the machine code was not looked at")
    else:
        main(sys.argv[1])
