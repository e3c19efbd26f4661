"""The benchmarks for GPUs, as far as a machine without one can run them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from benchmarks import peers, tasks
from benchmarks.cases import Case
from benchmarks.cuda import __main__ as command
from benchmarks.cuda import report, worker
from benchmarks.cuda.cases import GPU_CASES
from benchmarks.cuda.measure import Times
from benchmarks.report import ROOT

CASE = Case("small", 2, 12, (6, 8), 5, heads=3)
# What the command finds out before it measures the cases.
RUN = {
    "command": "python -m benchmarks.cuda",
    "device": {"name": "none"},
    "versions": {"torch": "none"},
    "copy_bytes_per_second": 4e12,
    "product_flops_per_second": {"float32": 50e12, "bfloat16": 500e12},
    "commit": "none",
    "date": "none",
}


def test_work_is_counted_from_shapes():
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


def result(entry: str, seconds: float) -> dict[str, object]:
    work = worker.work(GPU_CASES["readme"], entry, False, 4)
    return {
        **{"case": "readme", "dtype": "float32", "entry": entry, "backward": False},
        **{"status": "ok", "median": seconds, "iqr": seconds / 100, "batches": 5, "calls": 9},
        **{"peak_bytes": 2**20, "prepared_bytes": 0, "first_seconds": 1.5},
        **work,
    }


def test_the_report_relates_times_to_ceilings_and_to_ours():
    run = {
        **RUN,
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


def out_of_memory(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 30 GiB.\nMore")


def refusing(case: Case) -> worker.Run:
    raise ValueError("\n`window` is too large | for it\nSet `more`.")


PEERS: dict[str, Callable[[Case], worker.Run]] = {
    "right": peers.unfold,
    "transposed": lambda case: lambda q, k, v: worker.circulant(case)(k, q, v),
    "large": lambda case: out_of_memory,
    "refusing": refusing,
}


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker computes on the CPU; memory and times are made up."""
    monkeypatch.setattr(worker, "DEVICE", "cpu")
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 2**20)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**20)
    monkeypatch.setattr(worker, "times", lambda call, budget: Times(1e-3, 1e-5, 3, 20))


@pytest.mark.usefixtures("without_gpu")
def test_a_case_is_measured_whatever_its_peers_do(monkeypatch):
    monkeypatch.setattr(worker, "PEERS", tuple(PEERS))
    for name, peer in PEERS.items():
        monkeypatch.setitem(worker.ATTENTIONS, name, peer)
    task = worker.Task.from_json(worker.Task(CASE, "float32", 0.1, 60.0).to_json())
    assert task.case == CASE
    kept: list[str] = []
    worker.measure(task, lambda results: kept.append(json.dumps(results)))
    measured = [{"case": "readme", "dtype": "float32", **result} for result in json.loads(kept[-1])]
    found = {(result["entry"], result["backward"]): result for result in measured}
    assert list(found) == worker.entries(torch.float32)
    assert len(kept) == len(found) == 14
    for name in worker.MAPS:
        assert found[name, False]["status"] == "ok"
    for backward in (False, True):
        for name in ("circulant_attention", "right"):
            assert found[name, backward]["status"] == "ok"
            assert found[name, backward]["peak_bytes"] == 2**21
        assert found["transposed", backward]["status"] == "wrong"
        assert found["large", backward]["status"] == "too big"
        assert found["refusing", backward]["status"] == "refused"
    text = report.markdown({**RUN, "results": measured})
    assert "\n- large was too big: `CUDA out of memory. Tried to allocate 30 GiB.`\n" in text
    # The note is code, which a backtick would end.
    assert "\n- refusing was refused: `ValueError: 'window' is too large | for it`\n" in text


@pytest.mark.usefixtures("without_gpu")
def test_nothing_is_begun_when_the_time_is_over():
    kept: list[list[dict[str, object]]] = []
    worker.measure(worker.Task(CASE, "bfloat16", 0.1, -1.0), kept.append)
    assert {result["status"] for result in kept[-1]} == {"not run"}
    assert len(kept[-1]) == 2 + 2 * len(worker.PEERS)


@pytest.mark.parametrize(
    ("program", "status", "written"),
    [
        ("write('one'); write('two')", 0, "two"),
        ("write('one'); sys.exit(3)", 3, "one"),
        ("write('one'); os.abort()", -signal.SIGABRT, "one"),
        ("write('one'); time.sleep(600)", None, "one"),
        ("write('one'); subprocess.Popen(['sleep', '600'])", 0, "one"),
        ("pass", 0, None),
    ],
    ids=["ends", "fails", "dies", "hangs", "leaves-a-child", "writes-nothing"],
)
def test_a_process_leaves_what_it_had_written(program, status, written, tmp_path, monkeypatch):
    imports = "import os, pathlib, subprocess, sys, time; from benchmarks import tasks"
    write = "write = lambda result: tasks.write_result(pathlib.Path(sys.argv[2]), result)"
    (tmp_path / "program.py").write_text(f"{imports}\n{write}\n{program}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    limit = 10.0 if status is None else 60.0
    assert tasks.run("program", tasks.Task(CASE), limit) == (status, written)


def test_the_command_writes_what_there_is_after_each_case(tmp_path, monkeypatch):
    """A case that ends well, one that dies after a result, one that hangs before any."""
    entry = result("circulant_attention", 1e-3)
    ours = {name: entry[name] for name in entry.keys() - {"case", "dtype"}}
    ends = [(0, [ours]), (-signal.SIGSEGV, [ours]), (None, None)]
    there: list[bool] = []

    def run(module: str, task: worker.Task, limit: float) -> tuple[int | None, object]:
        there.append((tmp_path / "cuda.json").exists())
        assert limit <= 1e4 / 3 + command.OVERTIME
        return ends[len(there) - 1]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(report, "surroundings", lambda arguments: {**RUN})
    monkeypatch.setattr(command, "copy_bandwidth", lambda: 4e12)
    monkeypatch.setattr(command, "product_rate", lambda dtype: 5e13)
    monkeypatch.setattr(tasks, "run", run)
    options = ["--seconds", "1e4", "--output", str(tmp_path / "cuda")]
    assert command.main([*options, "--cases", "readme", "large", "heads"]) == 0
    assert there == [False, True, True]
    text = (tmp_path / "cuda.md").read_text()
    results = json.loads((tmp_path / "cuda.json").read_text())["results"]
    assert [(r["case"], r["entry"], r["status"]) for r in results] == [
        ("readme", "circulant_attention", "ok"),
        ("large", "circulant_attention", "ok"),
        ("large", "the rest", "not run"),
        ("heads", "the rest", "not run"),
    ]
    assert "- the rest was not run: `the process ended with status -11`" in text
    assert "- the rest was not run: `no end after 33" in text
    # And without time for anything.
    assert command.main(["--seconds", "0", "--cases", "volume"]) == 0
    assert len(there) == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cuda"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "benchmarks.cuda: there is no CUDA device\n"
