"""Runs the tests of the kernels again, in a process of its own with other settings."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
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
    """A call of a kernel with the instruction set ``name``."""
    return run(
        "-c",
        "import torch, circulant_attention;"
        "x = torch.ones(1, 1, 3);"
        "torch.ops.circulant_attention.similarity(x, x, [3], 0)",
        **{VARIABLE: name},
    )


instruction_sets = functools.cache(kernels.instruction_sets)


def check_tests(file: str, keyword: str, **variables: str) -> None:
    """Fails unless the tests of a file that ``keyword`` selects pass with the variables set."""
    path = str(Path(__file__).parent / file)
    # Not captured twice: what a process says when it is ended would be lost.
    options = ["-q", "-s", "-p", "no:cacheprovider", "-k", keyword]
    ran = run("-m", "pytest", *options, path, **variables)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " passed" in ran.stdout
