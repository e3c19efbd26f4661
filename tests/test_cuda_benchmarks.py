"""The benchmarks for GPUs, as far as a machine without one can run them."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from benchmarks.cases import Case
from benchmarks.cuda import report, worker
from benchmarks.cuda.cases import GPU_CASES
from benchmarks.report import ROOT
from benchmarks.worker import difference

CASE = Case("small", 2, 12, (6, 8), 5, heads=3)


def test_work_is_counted_from_shapes() -> None:
    features, values = 2 * 12 * 48, 2 * 3 * 48 * 25
    product = 2 * 2 * 12 * 48 * 25
    assert worker.work(CASE, "similarity", False, 4) == {
        "flops": product,
        "bytes": 4 * (2 * features + values),
    }
    assert worker.work(CASE, "transpose", False, 4) == {"flops": 0, "bytes": 8 * values}
    assert worker.work(CASE, "FlexAttention", False, 2) == {
        "flops": 2 * product,
        "bytes": 8 * features,
    }
    assert worker.work(CASE, "circulant_attention", True, 4) == {
        "flops": 6 * product,
        "bytes": 32 * features,
    }


def test_the_transposition_moves_every_entry() -> None:
    q, k, v = torch.randn(3, *CASE.shape)
    values = worker.transpose(CASE)(q, k, v)
    assert values.shape == (6, 48, 25)


def test_gradients_are_bound_to_q_k_and_v() -> None:
    inputs = [torch.randn(CASE.shape) for _ in range(4)]
    [y] = worker.bind(worker.circulant(CASE), inputs, backward=False)()
    gradients = worker.bind(worker.circulant(CASE), inputs, backward=True)()
    assert y.shape == CASE.shape
    assert [x.shape for x in gradients] == [CASE.shape] * 3
    assert difference(gradients, gradients) == 0
    assert difference((2 * y,), (y,)) == pytest.approx(1)


def result(entry: str, seconds: float) -> dict[str, object]:
    work = worker.work(GPU_CASES["readme"], entry, False, 4)
    return {
        **{"case": "readme", "dtype": "float32", "entry": entry, "backward": False},
        **{"status": "ok", "median": seconds, "iqr": seconds / 100, "batches": 5, "calls": 9},
        **{"peak_bytes": 2**20, "prepared_bytes": 0, "first_seconds": 1.5},
        **work,
    }


def test_the_report_relates_times_to_ceilings_and_to_ours() -> None:
    run = {
        "command": "python -m benchmarks.cuda",
        "device": {"name": "none"},
        "versions": {"torch": "none"},
        "copy_bytes_per_second": 4e12,
        "product_flops_per_second": {"float32": 50e12, "bfloat16": 500e12},
        "commit": "none",
        "date": "none",
        "results": [
            result("circulant_attention", 1e-3),
            result("FlexAttention", 3e-3),
            result("similarity", 5e-4),
            {
                **{"case": "readme", "dtype": "float32", "entry": "dense SDPA"},
                **{"backward": False, "status": "too big", "reason": "CUDA out of memory"},
            },
        ],
    }
    text = report.markdown(run)
    # 2 * 2 * 64 * 12288 * 225 operations in half a millisecond are 1.42 TFLOP/s; attention
    # takes twice as many.
    assert "| similarity | 0.500 | 0.005 | 1.42 | 0.03 | 0.02 |  | 1 | 0 | 1.5 |" in text
    assert "| FlexAttention | 3.000 | 0.030 | 0.47 | 0.01 | 0.00 | 3.00 | 1 | 0 | 1.5 |" in text
    assert "- dense SDPA was too big: `CUDA out of memory`" in text
    assert "FlexAttention" in report.summary(run, "readme", "float32")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cuda"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "benchmarks.cuda: there is no CUDA device\n"
