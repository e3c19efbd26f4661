"""What the processor can do at most: fused multiply-adds, and a copy into new memory.

Both are loops of ``limits.cpp``, compiled with the compiler of the machine for its processor.
"""

import ctypes
import functools
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from torch import Tensor

SOURCE = Path(__file__).with_name("limits.cpp")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC", "-pthread")
# 12 multiply-adds each, two per cycle: two milliseconds. The sums count exactly below 2^24.
ITERATIONS = 2**20
# The fastest run counts: threads of torch still spin for some milliseconds after a call.
RUNS = 20


def compiler() -> str:
    """The path of the C++ compiler: $CXX, c++, g++ or clang++."""
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        path = shutil.which(name) if name else None
        if path:
            return path
    raise RuntimeError("expected a C++ compiler in PATH to measure the FMA peak; or set CXX")


def compiler_version() -> str:
    """The first line of the version of the compiler."""
    ran = subprocess.run([compiler(), "--version"], check=True, capture_output=True, text=True)
    return ran.stdout.partition("\n")[0]


def compiler_of(library: Path) -> str:
    """The compilers that a library names in its ``.comment`` section."""
    names = re.findall(rb"(?:GCC: \([^)\0]*\) [\d.]+|clang version [^\0(]*)", library.read_bytes())
    return ", ".join(sorted({name.decode().strip() for name in names})) or "unknown"


@functools.cache
def native() -> ctypes.CDLL:
    """The compiled loops."""
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "limits.so"
        subprocess.run([compiler(), *FLAGS, str(SOURCE), "-o", str(target)], check=True)
        library = ctypes.CDLL(str(target))
    library.multiply_adds.restype = ctypes.c_double
    library.multiply_adds.argtypes = [
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int64,
        ctypes.c_float,
        ctypes.c_float,
        ctypes.POINTER(ctypes.c_double),
    ]
    library.copy_into_new_memory.restype = ctypes.c_double
    library.copy_into_new_memory.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return library


def widest_vector() -> int:
    """Bits of the widest vector of floats."""
    return 8 * int(native().widest_vector())


def multiply_adds(threads: int, bits: int, iterations: int) -> tuple[float, float]:
    """The seconds of a loop of fused multiply-adds, and their number over all lanes."""
    count = ctypes.c_double()
    seconds = native().multiply_adds(bits // 8, threads, iterations, 1, 1, ctypes.byref(count))
    return seconds, count.value


def fma_peak(threads: int, bits: int | None = None) -> float:
    """Operations per second of fused multiply-adds on all threads, two per multiply-add."""
    runs = (multiply_adds(threads, bits or widest_vector(), ITERATIONS) for _ in range(RUNS))
    return max(2 * count / seconds for seconds, count in runs)


def copy_into_new_memory(source: Tensor, threads: int) -> float:
    """The seconds to copy a tensor into new huge pages, and to give them back."""
    seconds = native().copy_into_new_memory(source.data_ptr(), source.nbytes, threads)
    if seconds < 0:
        raise MemoryError(f"cannot copy {source.nbytes} bytes into new memory")
    return float(seconds)
