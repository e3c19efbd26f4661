"""The counts and plans that the estimates of ``benchmarks/cuda`` start from are up to date."""

from __future__ import annotations

import os
import shutil

import pytest

from benchmarks.cuda import estimates

pytestmark = pytest.mark.thorough

COUNTS = estimates.load().contents
RENEW = "the kernels have changed: run " + estimates.RENEW


def test_the_machine_code_is_that_of_the_counts():
    if shutil.which(os.environ.get("NVCC", "nvcc")) is None:
        pytest.skip("nvcc was not found")
    if estimates.compiler() != COUNTS["nvcc"]:
        pytest.skip(f"counted with nvcc {COUNTS['nvcc']}, this is {estimates.compiler()}")
    counted = {name: loops for name, loops in COUNTS.items() if name.startswith("sm_")}
    assert estimates.count() == counted, RENEW


def test_the_plans_are_those_of_the_kernels():
    planned = {
        name: plans for name, plans in COUNTS.items() if name.startswith(tuple(estimates.CASES))
    }
    assert estimates.plan() == planned, RENEW
