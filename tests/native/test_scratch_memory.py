"""Scratch memory of the kernels grows neither with long windows nor with N K."""

from __future__ import annotations

import json
import math
import sys

import kernel_runs
import pytest

SCRIPT = """
import json
import math
import sys
from pathlib import Path

import torch

import circulant_attention

ops = torch.ops.circulant_attention
torch.set_num_threads(2)


def status(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024


def calls(size, window, channels, dtype):
    q, k, v, dy = torch.randn(4, 1, channels, *size).to(dtype)
    pixels, offsets = math.prod(size), math.prod(window)
    values = torch.full((1, pixels, offsets), 0.5, dtype=dtype)
    y, lse = ops.attention(q, k, v, window, 0, 0.3)
    biases = torch.zeros(1, offsets), torch.zeros(1, pixels)
    return {
        "attention": lambda: ops.attention(q, k, v, window, 0, 0.3),
        "attention_backward": lambda: ops.attention_backward(
            dy, q, k, v, y, lse, window, 0, 0.3
        ),
        "biased_attention": lambda: ops.biased_attention(q, k, v, *biases, window, 0, 0.3),
        "biased_attention_backward": lambda: ops.biased_attention_backward(
            dy, q, k, v, *biases, y, lse, None, window, 0, 0.3
        ),
        "similarity": lambda: ops.similarity(q, k, window, 0),
        "adjacency": lambda: ops.adjacency(q, k, window, 0, 0.3),
        "apply": lambda: ops.apply(values, v, window),
        "apply_transposed": lambda: ops.apply_transposed(values, v, window),
        "transpose": lambda: ops.transpose(values, size, window),
    }


size, window, channels = json.loads(sys.argv[1])
# What torch and its threads allocate once.
for call in calls([32] * len(size), [3] * len(size), 2, torch.float32).values():
    call()
found = {}
for name, call in (
    (f"{name} of {dtype}", call)
    for dtype in (torch.float32, torch.float16)
    for name, call in calls(size, window, channels, dtype).items()
):
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    result = call()
    tensors = result if isinstance(result, (tuple, list)) else [result]
    outputs = sum(x.numel() * x.element_size() for x in tensors)
    found[name] = status("VmHWM") - before - outputs
    del result, tensors
json.dump(found, sys.stdout)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize(
    ("size", "window", "channels"),
    [
        # An image, and long windows: A takes 59, 149, 117 and 128 MB in float32.
        ((256, 256), (15, 15), 8),
        ((6101,), (6101,), 2),
        ((14641,), (2001,), 8),
        ((3, 1889), (3, 1889), 4),
    ],
    ids=str,
)
def test_scratch_memory_grows_neither_with_the_window_nor_with_the_entries(size, window, channels):
    ran = kernel_runs.run(
        "-c",
        SCRIPT,
        json.dumps([size, window, channels]),
        # Freed memory goes back to the system at once, so that what is resident is in use.
        MALLOC_MMAP_THRESHOLD_="65536",
        MALLOC_TRIM_THRESHOLD_="65536",
        OMP_NUM_THREADS="2",
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert len(found) == 2 * 9
    # Three gradients in float32, 3 MB for each of 2 threads, and outputs rounded up to large pages.
    bound = 3 * 4 * math.prod(size) * channels + 2 * 3e6 + 2 * 2**21
    assert max(found.values()) < bound, (found, bound)
