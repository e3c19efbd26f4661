"""Finds and loads the native libraries, once per process.

The CPU library holds every schema and the CPU kernels; the CUDA library adds its kernels to the
same schemas. Neither depends on a Python version or on a torch release (from 2.11 on). A missing
CPU library is an error; devices without kernels are served by :mod:`.fallback`.

The environment variable ``CIRCULANT_ATTENTION_LIBRARY`` names another file to load in place of the
CPU library, such as a build with sanitizers.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

NAMESPACE = "circulant_attention"
LIBRARY_VARIABLE = "CIRCULANT_ATTENTION_LIBRARY"
_SUFFIX = "dylib" if sys.platform == "darwin" else "so"
CPU_LIBRARY = f"libcirculant_attention_cpu.{_SUFFIX}"
CUDA_LIBRARY = f"libcirculant_attention_cuda.{_SUFFIX}"


def library_paths(directory: Path) -> list[Path]:
    """The libraries that this torch can use, in ``directory`` unless the variable says otherwise.

    A CUDA library needs a torch with CUDA: a CPU build lacks the symbols that it refers to.
    """
    other = os.environ.get(LIBRARY_VARIABLE)
    paths = [Path(other) if other else directory / CPU_LIBRARY]
    cuda = directory / CUDA_LIBRARY
    if torch.version.cuda is not None and cuda.is_file():
        paths.append(cuda)
    return paths


def load(paths: list[Path]) -> None:
    """Loads ``paths`` in order.

    Raises:
        ImportError: If one cannot be loaded. The message lists every path and its result.
    """
    if hasattr(getattr(torch.ops, NAMESPACE), "similarity"):
        # Registering the same schemas twice ends the process without a message.
        raise ImportError(
            f"the operators of {NAMESPACE} are registered already, by a library among "
            f"{sorted(torch.ops.loaded_libraries)}; a process can load only one"
        )
    tried = []
    for path in paths:
        try:
            torch.ops.load_library(str(path))  # type: ignore[no-untyped-call]
        except OSError as error:
            tried.append(f"{path}: {error.__cause__ or error}")
            raise ImportError(
                "the native library of circulant_attention cannot be loaded; tried\n  "
                + "\n  ".join(tried)
                + "\nBuild it with 'pip install .' in a checkout (see the README), "
                f"with torch >= 2.11 (this is {torch.__version__})"
            ) from error
        tried.append(f"{path}: loaded")


load(library_paths(Path(__file__).parent.parent))
