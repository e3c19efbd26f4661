"""Lists what a machine lacks for tests and benchmarks on its GPU; ends with status 1 if anything.

``python tests/native/cuda_machine.py [MODULE ...]``: Python modules that are needed beside
those that build the package.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator


def missing(modules: list[str]) -> Iterator[str]:
    """One line per missing prerequisite."""
    if shutil.which(os.environ.get("NVCC", "nvcc")) is None:
        yield "nvcc, the compiler of the CUDA toolkit: put it on PATH, or its path in NVCC"
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        yield "a C++ compiler: put c++ on PATH, or its path in CXX"
    for name in ("setuptools", "ninja", *modules):
        if importlib.util.find_spec(name) is None:
            yield f"the Python module {name}, in {sys.executable}"
    if importlib.util.find_spec("torch") is None:
        yield f"the Python module torch, built for CUDA, in {sys.executable}"
        return
    import torch

    if torch.version.cuda is None:
        yield f"a torch with CUDA: {torch.__version__} is built for CPUs only"
    elif not torch.cuda.is_available():
        yield "a GPU that torch can use: torch.cuda.is_available() is False"


def main(modules: list[str]) -> int:
    found = list(missing(modules))
    for line in found:
        print(f"missing: {line}", file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
