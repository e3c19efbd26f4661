"""The CUDA kernels executed on the host: see ``tests/native/cuda_on_host/README.md``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_on_host import build, mutants
from cuda_on_host.defects import MUTANTS

pytestmark = pytest.mark.thorough

TESTS = Path(__file__).parents[1]
PARTS = [
    *("borders", "random", "limits", "groups", "offsets"),
    *("adjacency", "adjacency-random", "adjacency-groups", "adjacency-offsets"),
    *("windows", "adjacency-windows", "attention-windows", "positions"),
    *("attention", "attention-random", "plan", "attention-groups", "attention-offsets"),
    *("biased", "biased-random", "biased-windows", "biased-groups", "biased-offsets"),
    *("fragments", "mma", "mma-terms", "mma-infinite", "mma-plan", "mma-random"),
    *("mma-groups", "mma-offsets"),
    *("maps-mma", "maps-mma-plan", "maps-mma-random", "maps-mma-groups", "maps-mma-offsets"),
]

# The tests of the ops, which find defects of csrc/cuda/*ops.cu. All other Python tests pass on
# these kernels as well, but call the ops in the same ways.
SUITE = [
    "unit/test_ops.py",
    "native/test_kernels.py",
    "native/test_adjacency_kernels.py",
    "native/test_attention_kernels.py",
    "native/test_biased_attention_kernels.py",
    "unit/test_biased_attention_op.py",
    "native/test_window_kernels.py",
]

# Tensors with stride 0, so that they take no memory.
LIMITS = """
import torch, circulant_attention
ops = torch.ops.circulant_attention
values, small = torch.empty(1, 3, 3), torch.empty(1, 1, 3)
wide, many = small.expand(1, 2**31, 3), small.expand(2**31, 1, 3)
large = torch.empty(1, 1, 1, 1).expand(1, 1, 2**16, 2**15)
for call in (
    lambda: ops.similarity(wide, wide, [3], 0),
    lambda: ops.adjacency(wide, wide, [3], 0, 1.0),
    lambda: ops.apply(values, wide, [3]),
    lambda: ops.apply_transposed(values, wide, [3]),
    lambda: ops.attention(wide, wide, small, [3], 0, 1.0),
    lambda: ops.attention(small, small, wide, [3], 0, 1.0),
    lambda: ops.attention(many, many, many, [3], 0, 1.0),
    lambda: ops.biased_attention(many, many, many, small[0], None, [3], 0, 1.0),
    lambda: ops.similarity(large, large, [3, 3], 0),
):
    try:
        call()
    except RuntimeError as error:
        print(str(error).splitlines()[0])
"""


@pytest.fixture(scope="module")
def check() -> Path:
    return build.build_check()


@pytest.fixture(scope="module")
def defective() -> dict[str, Path]:
    """The check with each defect."""
    return mutants.build([mutants.NONE, *MUTANTS])


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """In which the package loads the CUDA kernels in place of the CPU library."""
    library = str(build.build_library())
    return {**os.environ, "CIRCULANT_ATTENTION_LIBRARY": library, "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("part", PARTS)
def test_kernels_follow_the_definition(check: Path, part: str):
    """Every dtype, kind and direction, with address and undefined-behaviour sanitizers."""
    command = [check, f"part={part}", "cases=20"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("passed")


def test_the_check_passes_without_a_defect(defective: dict[str, Path]):
    assert mutants.run(defective["none"], "") == ""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_defect_is_found(defective: dict[str, Path], mutant: mutants.Mutant):
    assert mutants.run(defective[mutant.name], mutant.part) != ""


def test_the_package_loads_the_kernels(environment: dict[str, str]):
    program = "import torch, circulant_attention; print(*torch.ops.loaded_libraries)"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [environment["CIRCULANT_ATTENTION_LIBRARY"]]


def test_sizes_beyond_32_bits_are_refused(environment: dict[str, str]):
    done = subprocess.run(
        [sys.executable, "-c", LIMITS], env=environment, capture_output=True, text=True, check=True
    )
    channels = "on CUDA a group can have 1073741824 channels, got 2147483648"
    expected = [
        f"similarity: {channels}",
        f"adjacency: {channels}",
        f"apply: {channels}",
        f"apply_transposed: {channels}",
        f"attention: {channels}",
        f"attention: {channels}",
        "attention: on CUDA there can be 1073741824 groups, got 2147483648",
        "biased_attention: on CUDA there can be 1073741824 groups, got 2147483648",
        "similarity: on CUDA a grid can have 1073741824 pixels, got 2147483648",
    ]
    # After the name of the checking function and its line.
    assert [line.split(", ", 2)[2] for line in done.stdout.splitlines()] == expected


def test_the_python_suite_passes(environment: dict[str, str]):
    # The check draws random problems itself, and runs on one thread whatever is asked.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    left_out = "threads or random_shapes or random_windows or (on_cuts and float64)"
    command += ["-k", f"not ({left_out})"]
    command += [str(TESTS / file) for file in SUITE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
