"""Time and memory of cosine attention and of dense attention on growing square grids.

``python -m benchmarks.bench_cosine`` prints the tables; with ``--output`` it writes them too. Both
take the same q, k and v in float32 and see the whole grid, but they are different functions. The
time is the processor time of one thread, which depends little on other load.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from benchmarks import report
from benchmarks.worker import RETURN_MEMORY, reset_peak, status_bytes
from circulant_attention.nn import CosAttn2d

SIZES = (8, 16, 32, 64, 128, 256)
CHANNELS, HEADS = 32, 4
NAMES = ("cosine", "dense")


def attention(name: str, size: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The function of q, k and v ``(1, C, size, size)``."""
    if name == "cosine":
        return CosAttn2d(size, HEADS, size + 2)

    def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # The fused kernel needs the channels last in memory.
        q, k, v = (x.view(1, HEADS, CHANNELS // HEADS, -1).mT.contiguous() for x in (q, k, v))
        return scaled_dot_product_attention(q, k, v).mT.reshape(1, CHANNELS, size, size)

    return dense


def call(name: str, size: int, backward: bool) -> Callable[[], object]:
    """One evaluation, without or with the gradients of q, k and v."""
    torch.manual_seed(0)
    function = attention(name, size)
    inputs = [torch.randn(1, CHANNELS, size, size, requires_grad=backward) for _ in range(3)]

    def run() -> object:
        with torch.set_grad_enabled(backward):
            y = function(*inputs)
        return torch.autograd.grad(y.sum(), inputs) if backward else y

    return run


def timed(run: Callable[[], object]) -> float:
    """Seconds of processor time."""
    start = time.process_time()
    run()
    return time.process_time() - start


def seconds(name: str, size: int, backward: bool, budget: float) -> float:
    """The median of at least five calls after a warm-up; the warm-up itself if it is too slow."""
    run = call(name, size, backward)
    first = timed(run)
    if first > budget:
        return first
    found = [timed(run) for _ in range(5)]
    while sum(found) < budget and len(found) < 200:
        found.append(timed(run))
    return statistics.median(found)


def peak(name: str, size: int, backward: bool) -> int:
    """Peak bytes of one call without its inputs, in its own process."""
    command = [sys.executable, "-m", __spec__.name, "--peak", name, str(size), str(int(backward))]
    environment = {**os.environ, **RETURN_MEMORY}
    done = subprocess.run(
        command, cwd=report.ROOT, env=environment, check=True, capture_output=True, text=True
    )
    return int(done.stdout)


def print_peak(name: str, size: int, backward: bool) -> None:
    """Runs in the process of :func:`peak`; a small call first allocates torch's own buffers."""
    call(name, SIZES[0], backward)()
    run = call(name, size, backward)
    before = status_bytes("VmRSS")
    reset_peak()
    run()
    print(max(status_bytes("VmHWM") - before, 0))


def markdown(run: dict[str, Any]) -> str:
    """The tables."""
    made = (
        f": float32, batch 1, {CHANNELS} channels, {HEADS} heads. Growth is the time's factor from "
        "the grid above, of four times fewer pixels: 4 is linear, 16 quadratic."
    )
    lines = report.head("Cosine attention against dense attention", run, made, run["machine"])
    for title, backward in (("Forward", False), ("Forward + backward", True)):
        rows = [row for row in run["results"] if row["backward"] == backward]
        lines += [
            "",
            f"## {title}",
            "",
            "| grid | cosine ms | growth | dense ms | growth | dense / cosine | cosine MiB "
            "| dense MiB |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for i, row in enumerate(rows):
            cells = [f"{row['size']} x {row['size']}"]
            for name in NAMES:
                taken = row["seconds"][name]
                growth = f"{taken / rows[i - 1]['seconds'][name]:.1f}" if i else ""
                cells += [f"{taken * 1e3:.2f}", growth]
            cells.append(f"{row['seconds']['dense'] / row['seconds']['cosine']:.2f}")
            cells += [f"{row['peak_bytes'][name] / 2**20:.1f}" for name in NAMES]
            lines.append("| " + " | ".join(cells) + " |")
        faster = [
            f"{row['size']} x {row['size']}"
            for row in rows
            if row["seconds"]["cosine"] < row["seconds"]["dense"]
        ]
        lines += ["", f"Cosine attention is faster on {', '.join(faster) or 'none of these'}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_cosine", description=__doc__)
    parser.add_argument("--output", type=Path, help="write OUTPUT.json and OUTPUT.md")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="pixels a side")
    parser.add_argument("--budget-seconds", type=float, default=5.0, help="of repetitions")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        name, size, backward = options.peak
        print_peak(name, int(size), bool(int(backward)))
        return
    run = report.surroundings("benchmarks.bench_cosine")
    run["results"] = [
        {
            "size": size,
            "backward": backward,
            "seconds": {
                name: seconds(name, size, backward, options.budget_seconds) for name in NAMES
            },
            "peak_bytes": {name: peak(name, size, backward) for name in NAMES},
        }
        for backward in (False, True)
        for size in options.sizes
    ]
    report.publish(run, markdown(run), options.output)


if __name__ == "__main__":
    main()
