"""Runs the tests of the kernels again, in a process of its own with other settings."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import kernels

ROOT = Path(__file__).parents[2]
VARIABLE = "CIRCULANT_ATTENTION_CPU"


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """``python *arguments`` with environment variables set."""
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTEST_ADDOPTS": "", **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def use_instruction_set(name: str) -> subprocess.CompletedProcess[str]:
    """Prints a number of long sums, in an order that depends on the instruction set ``name``."""
    return run(
        "-c",
        "import torch, circulant_attention;"
        "torch.manual_seed(0);"
        "y = torch.ops.circulant_attention.softmax_backward(*torch.rand(2, 9, 1000));"
        "print(y.view(torch.int32).sum().item())",
        **{VARIABLE: name},
    )


# The files with tests of the CPU kernels.
FILES = [
    "tests/native/test_kernels.py",
    "tests/native/test_adjacency_kernels.py",
    "tests/native/test_attention_kernels.py",
    "tests/native/test_window_kernels.py",
    "tests/native/test_biased_attention_kernels.py",
    "tests/native/test_shard_bits.py",
    "tests/unit/test_softmax.py",
]

instruction_sets = functools.cache(kernels.instruction_sets)


def check_tests(
    keyword: str, files: Sequence[str] = FILES, part: str = "0/1", **variables: str
) -> None:
    """Fails unless the tests of ``files`` that ``keyword`` selects pass with the variables set.

    Of these, ``part`` chooses every n-th: "1/3" runs every third, from the second on.
    """
    # Not captured twice: what a process says when it is ended would be lost.
    options = ["-q", "-s", "-p", "no:cacheprovider", "-p", "every_nth", f"--every-nth={part}"]
    options += ["-k", keyword]
    ran = run("-m", "pytest", *options, *files, **variables)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " passed" in ran.stdout
