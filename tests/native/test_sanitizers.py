"""The tests of the kernels with address and undefined-behaviour sanitizers.

What a sanitizer finds ends the process: a read or a write outside of a tensor or of scratch memory,
an arithmetic overflow, a misaligned pointer.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import kernel_runs
import pytest
from locks import locked

from circulant_attention.ops import library as _library

BUILD = kernel_runs.ROOT / "build" / "sanitized"
# AddressSanitizer sees the accesses that the checks left out would announce.
SANITIZE = (
    "-fsanitize=address,undefined -fno-sanitize-recover=all "
    "-fno-sanitize=null,object-size,pointer-overflow"
)

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(_library.LIBRARY_VARIABLE in os.environ, reason="another library is tested"),
]


@pytest.fixture(scope="module")
def library() -> Path:
    """The CPU library, compiled with sanitizers; only what changed since the last time."""
    with locked(BUILD):
        ran = kernel_runs.run(
            "setup.py",
            "-q",
            "build_ext",
            f"--build-lib={BUILD}",
            f"--build-temp={BUILD}",
            CIRCULANT_ATTENTION_CUDA="0",
            # The tests take no longer without optimisation, the compiler a third of the time.
            CXXFLAGS=f"-O0 -UNDEBUG {SANITIZE}",
            LDFLAGS=SANITIZE,
        )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return BUILD / "circulant_attention" / _library.CPU_LIBRARY


def runtime() -> str:
    """The library of the address sanitizer, which must come before all others."""
    command = [os.environ.get("CXX", "c++"), "-print-file-name=libasan.so"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("name", ["avx512", "avx2", "plain"])
def test_nothing_is_found(name, library):
    names = kernel_runs.instruction_sets()
    if name not in names:
        pytest.skip(f"this processor has no {name}")
    kernel_runs.check_tests(
        # Under a sanitizer that is loaded first, no exception can be thrown.
        "(test_values or strided or threads or test_native_gradient) and not refuses",
        # The instruction sets share the source: each test runs with one of them.
        part=f"{names.index(name)}/{len(names)}",
        CIRCULANT_ATTENTION_CPU=name,
        CIRCULANT_ATTENTION_LIBRARY=str(library),
        LD_PRELOAD=runtime(),
        # Python and torch keep what they allocated until the process ends. Memory that is not
        # initialized holds NaN in every dtype.
        ASAN_OPTIONS="detect_leaks=0:max_malloc_fill_size=1000000000:malloc_fill_byte=255",
    )
