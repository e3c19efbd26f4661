"""Scratch memory inside the kernels does not grow with the number of entries, N K."""

from __future__ import annotations

import json
import sys

import kernel_runs
import pytest

SCRIPT = """
import json
import sys
from pathlib import Path

import torch

import circulant_attention

ops = torch.ops.circulant_attention
window = [15, 15]


def status(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024


def calls(n):
    q, k, v, dy = torch.randn(4, 1, 8, n, n)
    values = torch.rand(1, n * n, 225)
    y, lse = ops.attention(q, k, v, window, 0, 0.3)
    return {
        "attention": lambda: ops.attention(q, k, v, window, 0, 0.3),
        "attention_backward": lambda: ops.attention_backward(
            dy, q, k, v, y, lse, window, 0, 0.3
        ),
        "similarity": lambda: ops.similarity(q, k, window, 0),
        "apply": lambda: ops.apply(values, v, window),
        "apply_transposed": lambda: ops.apply_transposed(values, v, window),
        "transpose": lambda: ops.transpose(values, [n, n], window),
    }


# What torch and its threads allocate once.
for call in calls(32).values():
    call()
found = {}
for name, call in calls(256).items():
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    result = call()
    tensors = result if isinstance(result, (tuple, list)) else [result]
    size = sum(x.numel() * x.element_size() for x in tensors)
    found[name] = status("VmHWM") - before - size
    del result, tensors
json.dump(found, sys.stdout)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_scratch_memory_does_not_grow_with_the_entries():
    ran = kernel_runs.run(
        "-c",
        SCRIPT,
        # Freed memory goes back to the system at once, so that what is resident is in use.
        MALLOC_MMAP_THRESHOLD_="65536",
        MALLOC_TRIM_THRESHOLD_="65536",
        OMP_NUM_THREADS="2",
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert len(found) == 6
    # One number per entry would be 59 MB. Large pages of the results round these up.
    entries = 256 * 256 * 225 * 4
    assert max(found.values()) < entries / 6, found
