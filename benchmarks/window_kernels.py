"""The kernels that take a window, called without the package.

``python -m benchmarks.window_kernels LIBRARY`` times them with circular windows and a CPU library,
of this or another commit, and prints the milliseconds as JSON. :func:`beside` compares two.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import CASES, Case
from benchmarks.timing import in_turns

NAMES = ("readme", "many_small")
# In many short processes, since the speed of a process depends on the pages that it happens to get.
ROUNDS = 12

ops = torch.ops.circulant_attention


def inputs(case: Case) -> list[Tensor]:
    """q, k and v."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(case.shape, generator=generator) for _ in range(3)]


def kernel_calls(
    case: Case, W: list[int], q: Tensor, k: Tensor, v: Tensor
) -> dict[str, Callable[[], object]]:
    """Every kernel of the matrix and of the fused attention, for a window as the ops take it."""
    A = ops.adjacency(q, k, W, 0, case.scale)
    y, lse = ops.attention(q, k, v, W, 0, case.scale)
    return {
        "forward": lambda: ops.attention(q, k, v, W, 0, case.scale),
        "backward": lambda: ops.attention_backward(y, q, k, v, y, lse, W, 0, case.scale),
        "similarity": lambda: ops.similarity(q, k, W, 0),
        "adjacency": lambda: ops.adjacency(q, k, W, 0, case.scale),
        "apply": lambda: ops.apply(A, v, W),
        "transposed apply": lambda: ops.apply_transposed(A, v, W),
        "transpose": lambda: ops.transpose(A, list(case.spatial), W),
    }


def circular_milliseconds(seconds: float) -> dict[str, float]:
    """The shortest times of the kernels with circular windows, by case and kernel."""
    found = {}
    for name in NAMES:
        calls = kernel_calls(CASES[name], CASES[name].windows, *inputs(CASES[name]))
        turns = in_turns(list(calls.values()), len(calls) * seconds, time.thread_time)
        for kernel, times in zip(calls, zip(*turns, strict=True), strict=True):
            found[f"{name}, {kernel}"] = min(times) * 1e3
    return found


def beside(before: Path, now: Path, seconds: float) -> list[dict[str, Any]]:
    """Circular windows with two libraries, in processes that take turns.

    Args:
        before: One library.
        now: The other.
        seconds: Of turns, for each library and kernel.

    Returns:
        For each kernel its name, its shortest times in milliseconds and the median over the rounds
        of the ratios of times.
    """
    rounds: list[list[dict[str, float]]] = []
    for at in range(ROUNDS):
        order = [before, now][:: (-1) ** at]
        times = [_in_process(library, seconds / ROUNDS) for library in order]
        rounds.append(times[:: (-1) ** at])
    return [
        {
            "kernel": kernel,
            "before": min(before[kernel] for before, _ in rounds),
            "now": min(now[kernel] for _, now in rounds),
            "ratio": statistics.median(now[kernel] / before[kernel] for before, now in rounds),
        }
        for kernel in rounds[0][0]
    ]


def _in_process(library: Path, seconds: float) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.window_kernels", str(library.resolve())]
    command += ["--seconds", str(seconds)]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.window_kernels")
    parser.add_argument("library", type=Path, help="a CPU library")
    parser.add_argument("--seconds", type=float, default=0.2, help="of turns, for each kernel")
    options = parser.parse_args()
    torch.ops.load_library(str(options.library.resolve()))  # type: ignore[no-untyped-call]
    torch.set_num_threads(1)
    print(json.dumps(circular_milliseconds(options.seconds)))


if __name__ == "__main__":
    main()
