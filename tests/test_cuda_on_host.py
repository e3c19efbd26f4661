"""The CUDA kernels executed on the host, with sanitizers: see ``tests/cuda_on_host``."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cuda_on_host import build, mutants

PARTS = ["borders", "random", "attention", "groups", "offsets"]


@pytest.fixture(scope="module")
def check() -> Path:
    return build.build_check()


@pytest.fixture(scope="module")
def defective() -> dict[str, Path]:
    """The check with each defect."""
    return mutants.build(mutants.MUTANTS)


@pytest.mark.parametrize("part", PARTS)
def test_kernels_follow_the_definition(check: Path, part: str):
    """Every dtype, kind and direction; results are exact, so there is no tolerance."""
    command = [check, f"part={part}", "cases=20"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("passed")


def test_the_check_passes_without_a_defect(defective: dict[str, Path]):
    assert mutants.run(defective["none"], "") == ""


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.name)
def test_a_defect_is_found(defective: dict[str, Path], mutant: mutants.Mutant):
    assert mutants.run(defective[mutant.name], mutant.part) != ""
