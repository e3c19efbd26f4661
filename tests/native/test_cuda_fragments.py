"""The instructions of tensor cores on a GPU, against the tables that the host's twins follow."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
SOURCE = HERE / "cuda_on_host" / "check_fragments.cpp"


def test_cuda_fragments_are_those_of_the_tables(request: pytest.FixtureRequest, tmp_path: Path):
    """One random 16 x 8 x 16 product, and a product of products by way of shared memory."""
    if not torch.cuda.is_available():
        if request.config.getoption("--require-cuda"):
            pytest.fail("there is no CUDA device")
        pytest.skip("there is no CUDA device")
    include = Path(torch.__file__).parent / "include"
    program = tmp_path / "fragments"
    nvcc = os.environ.get("NVCC", "nvcc")
    options = ["-x", "cu", "-std=c++17", "-arch=native", "--expt-relaxed-constexpr"]
    options += ["-DCIRCULANT_FRAGMENTS", "-isystem", str(include), "-o", str(program)]
    subprocess.run([nvcc, *options, str(SOURCE)], check=True)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
