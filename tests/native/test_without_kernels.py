"""The tests of the ops on a CPU with native kernels switched off.

The library that is loaded has the schemas alone, so torch uses ``ops/fallback.py``.
"""

from __future__ import annotations

import os
from pathlib import Path

import kernel_runs
import pytest
from cuda_on_host import build

from circulant_attention.ops import library as _library

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(_library.LIBRARY_VARIABLE in os.environ, reason="another library is tested"),
]
TESTS = {
    "tests/unit/test_ops.py": "",
    "tests/unit/test_differentiation.py": "of_heads or each_subset",
    "tests/unit/test_transforms.py": "not inductor",
}


@pytest.fixture(scope="module")
def library() -> Path:
    """A library with the schemas alone."""
    ninja = build.Ninja(["-O1"])
    schemas = ninja.object(build.ROOT / "csrc" / "ops.cpp", "schemas.o")
    target = "libcirculant_attention_schemas.so"
    ninja.link([schemas], target, f"-shared -L{build.torch_directory() / 'lib'} -ltorch_cpu")
    return ninja.run(build.ROOT / "build" / "schemas") / target


@pytest.mark.parametrize("file", TESTS)
def test_ops(file: str, library: Path):
    kernel_runs.check_tests(TESTS[file], [file], CIRCULANT_ATTENTION_LIBRARY=str(library))


def test_the_kernels_are_off(library: Path):
    program = (
        "import torch, circulant_attention;"
        "has = torch._C._dispatch_has_kernel_for_dispatch_key;"
        "keys = 'CPU', 'CompositeExplicitAutograd';"
        "print([has('circulant_attention::similarity', key) for key in keys])"
    )
    ran = kernel_runs.run("-c", program, CIRCULANT_ATTENTION_LIBRARY=str(library))
    assert ran.stdout == "[False, True]\n", ran.stderr
