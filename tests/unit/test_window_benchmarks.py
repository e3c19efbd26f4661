"""The benchmark of windows: its masks are right, its tables say what does not run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from windows import mask, sizes, window
from windows import windows as random_windows

import circulant_attention
from benchmarks import window_kernels, windows
from benchmarks.cases import Case
from benchmarks.tasks import ROOT
from circulant_attention import Window
from circulant_attention.geometry import make_geometry
from circulant_attention.ops.library import library_paths

SMALL = Case("small", 1, 2, (12, 12), 3)


@given(random_windows(most=80))
@settings(deadline=None, max_examples=40)
def test_the_mask_of_flex_attention(dims):
    inside = windows.mask_of(make_geometry(window(dims), sizes(dims)))
    pixels = torch.arange(torch.Size(sizes(dims)).numel())
    zero = torch.tensor(0)
    assert torch.equal(inside(zero, zero, pixels[:, None], pixels), mask(dims))


def test_the_windows_have_one_number_of_offsets():
    lengths = {make_geometry(W, (12, 12)).nnz_per_row for W in windows.windows(3).values()}
    assert lengths == {9}


@pytest.fixture
def run(monkeypatch):
    """All measurements, without the peers and with one turn of each kernel."""
    monkeypatch.setattr(windows, "in_turns", lambda calls, *_: [[call() and 1.0 for call in calls]])
    monkeypatch.setattr(windows, "PEERS", {"NATTEN": windows.PEERS["NATTEN"]})
    monkeypatch.setattr(windows.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(windows, "kernel_calls", kernel_calls)
    before = [{"kernel": "small, forward", "before": 2.0, "now": 1.0, "ratio": 0.5}]
    monkeypatch.setattr(windows, "beside", lambda library, own, seconds: before)
    return windows.measure([SMALL], "library", 0.0)


def kernel_calls(*problem, original=windows.kernel_calls):
    """The calls, which say that they ran."""
    return {name: lambda f=f: f() is not None for name, f in original(*problem).items()}


def test_the_tables(run):
    text = windows.markdown(run)
    assert "## small" in text
    assert "| circular | 1000.00 ms |" in text
    for name in windows.windows(3):
        assert f"| {name} |" in text
    assert "| small, forward | 2.00 | 1.00 | 0.500 |" in text
    assert "| NATTEN | causal | `not installed` | | |" in text


def test_a_peer_that_disagrees_is_not_timed(monkeypatch):
    wrong = (lambda case, W: lambda q, k, v: 2 * v, ("causal",))
    monkeypatch.setitem(windows.PEERS, "wrong", wrong)
    found = windows.peer(SMALL, "wrong", "causal", 0.0)
    assert found["reason"].startswith("differs by")


def test_the_peer_is_given_the_same_problem(monkeypatch):
    def dense(case, W):
        assert W == Window([(2, 0)] * 2, boundary="truncated")
        pixels = torch.arange(case.pixels)
        zero = torch.tensor(0)
        inside = windows.mask_of(make_geometry(W, case.spatial))
        seen = inside(zero, zero, pixels[:, None], pixels)

        def run(q, k, v):
            scores = case.scale * q.flatten(2).mT @ k.flatten(2)
            weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
            return (v.flatten(2) @ weights.mT).view(case.shape)

        return run

    monkeypatch.setitem(windows.PEERS, "dense", (dense, ("causal",)))
    found = windows.peer(SMALL, "dense", "causal", 0.0)
    assert found["ratio"] > 0


def test_two_libraries_in_processes_that_take_turns(monkeypatch):
    seen = []

    def in_process(library, seconds):
        seen.append(library)
        return {"small, forward": 3.0 if library == "before" else 1.5}

    monkeypatch.setattr(window_kernels, "_in_process", in_process)
    monkeypatch.setattr(window_kernels, "ROUNDS", 3)
    found = window_kernels.beside("before", "now", 1.0)
    assert found == [{"kernel": "small, forward", "before": 3.0, "now": 1.5, "ratio": 0.5}]
    assert seen == ["before", "now", "now", "before", "before", "now"]


def test_a_library_is_timed_without_the_package():
    library = library_paths(Path(circulant_attention.__file__).parent)[0]
    program = """
import sys, torch
from benchmarks import window_kernels
from benchmarks.cases import Case
torch.ops.load_library(sys.argv[1])
window_kernels.NAMES, window_kernels.CASES = ("small",), {"small": Case("small", 1, 2, (12, 12), 3)}
print(*window_kernels.circular_milliseconds(0.0), sep="\\n")
assert "circulant_attention" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", program, library],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    kernels = ["forward", "backward", "similarity", "adjacency", "apply", "transposed apply"]
    assert done.stdout.splitlines() == [f"small, {name}" for name in [*kernels, "transpose"]]
