"""The benchmark of windows: its masks are right, its tables say what does not run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict
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
# 2 pixels before and none after, without gaps, truncated.
PAST = [2, 0, 1, 1]


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
    monkeypatch.setattr(window_kernels, "ROUNDS", 1)
    monkeypatch.setattr(windows, "PEERS", {"NATTEN": windows.PEERS["NATTEN"]})
    monkeypatch.setattr(windows.importlib.util, "find_spec", lambda name: None)
    before = [{"kernel": "small, forward", "before": 2.0, "now": 1.0, "ratio": 0.5}]
    monkeypatch.setattr(windows, "beside", lambda library, own, case, seconds: before)
    return windows.measure([SMALL], "library", 0.0)


def test_the_tables(run):
    text = windows.markdown(run)
    assert "## small" in text
    assert re.search(r"\| circular (\| \d+\.\d\d ms ){7}\|", text)
    for name in list(windows.windows(3))[1:]:
        assert re.search(rf"\| {name} (\| \d+\.\d\d ){{7}}\|", text)
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


def test_processes_are_combined(monkeypatch):
    found = iter([(3.0, 1.5), (2.0, 1.1), (4.0, 1.2)])

    def in_process(library, case, windows, seconds):
        milliseconds, ratio = next(found)
        return {"forward": {name: dict(milliseconds=milliseconds, ratio=ratio) for name in windows}}

    monkeypatch.setattr(window_kernels, "_in_process", in_process)
    monkeypatch.setattr(window_kernels, "ROUNDS", 3)
    times = window_kernels.times("library", SMALL, {"circular": [3, 3]}, 1.0)
    assert times == {"forward": {"circular": {"milliseconds": 2.0, "ratio": 1.2}}}


def test_processes_with_two_libraries_take_turns(monkeypatch):
    seen = []

    def in_process(library, case, windows, seconds):
        seen.append(library)
        (name,) = windows
        milliseconds = 3.0 if library == "before" else 1.5
        return {"forward": {name: {"milliseconds": milliseconds, "ratio": 1.0}}}

    monkeypatch.setattr(window_kernels, "_in_process", in_process)
    monkeypatch.setattr(window_kernels, "ROUNDS", 3)
    found = window_kernels.beside("before", "now", SMALL, 1.0)
    assert found == [{"kernel": "small, forward", "before": 3.0, "now": 1.5, "ratio": 0.5}]
    assert seen == ["before", "now", "now", "before", "before", "now"]


def test_a_library_is_timed_without_the_package():
    library = library_paths(Path(circulant_attention.__file__).parent)[0]
    case, asked = json.dumps(asdict(SMALL)), json.dumps({"circular": [3, 3], "past": 2 * PAST})
    program = """
import sys
from benchmarks import window_kernels
window_kernels.main()
assert "circulant_attention" not in sys.modules
"""
    command = [sys.executable, "-c", program, str(library), case, asked]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout)
    assert len(found) == 7
    for times in found.values():
        assert list(times) == ["circular", "past"]
        assert all(one["ratio"] > 0 and one["milliseconds"] > 0 for one in times.values())
