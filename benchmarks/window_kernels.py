"""The kernels that take a window, timed without the package: a library may be older than it.

``python -m benchmarks.window_kernels LIBRARY CASE WINDOWS`` prints the times of one process, JSON.
:func:`times` and :func:`beside` combine those of many processes.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.timing import in_turns

# Processes that are timed. Their speeds differ by some per cent: each has other pages of memory.
ROUNDS = 12

# By kernel and window: the shortest time in milliseconds, and the ratio to the first window.
Times = dict[str, dict[str, dict[str, float]]]

ops = torch.ops.circulant_attention


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


def inputs(case: Case) -> list[Tensor]:
    """q, k and v."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(case.shape, generator=generator) for _ in range(3)]


def times_here(case: Case, windows: dict[str, list[int]], seconds: float) -> Times:
    """The times in this process: calls with each window alternate with those of the first one.

    Args:
        case: The problem.
        windows: By name, as the ops take them. The ratio of the first one shows the noise.
        seconds: Of turns, for each kernel and window.
    """
    images = inputs(case)
    calls = {name: kernel_calls(case, W, *images) for name, W in windows.items()}
    first = next(iter(calls.values()))
    found: Times = {}
    for kernel in first:
        found[kernel] = {}
        for name, others in calls.items():
            turns = in_turns([first[kernel], others[kernel]], seconds, time.thread_time)
            found[kernel][name] = {
                "milliseconds": min(other for _, other in turns) * 1e3,
                "ratio": statistics.median(other / one for one, other in turns),
            }
    return found


def times(library: Path, case: Case, windows: dict[str, list[int]], seconds: float) -> Times:
    """The shortest times of all processes, and the medians of their ratios.

    Args:
        library: A CPU library.
        case: The problem.
        windows: By name, as the ops take them.
        seconds: Of turns, for each kernel and window.
    """
    rounds = [_in_process(library, case, windows, seconds / ROUNDS) for _ in range(ROUNDS)]
    return {
        kernel: {
            name: {
                "milliseconds": min(one[kernel][name]["milliseconds"] for one in rounds),
                "ratio": statistics.median(one[kernel][name]["ratio"] for one in rounds),
            }
            for name in windows
        }
        for kernel in rounds[0]
    }


def beside(before: Path, now: Path, case: Case, seconds: float) -> list[dict[str, Any]]:
    """Circular windows with two libraries, in processes that take turns.

    Args:
        before: One library.
        now: The other.
        case: The problem.
        seconds: Of turns, for each library and kernel.

    Returns:
        For each kernel its name, its shortest times in milliseconds and the median over the rounds
        of the ratios of times.
    """
    rounds: list[list[dict[str, float]]] = []
    for at in range(ROUNDS):
        order = [before, now][:: (-1) ** at]
        both = [
            _in_process(library, case, {"": case.windows}, seconds / ROUNDS) for library in order
        ]
        found = [{kernel: one[""]["milliseconds"] for kernel, one in run.items()} for run in both]
        rounds.append(found[:: (-1) ** at])
    return [
        {
            "kernel": f"{case.name}, {kernel}",
            "before": min(before[kernel] for before, _ in rounds),
            "now": min(now[kernel] for _, now in rounds),
            "ratio": statistics.median(now[kernel] / before[kernel] for before, now in rounds),
        }
        for kernel in rounds[0][0]
    ]


def _in_process(library: Path, case: Case, windows: dict[str, list[int]], seconds: float) -> Times:
    arguments = [str(library.resolve()), json.dumps(asdict(case)), json.dumps(windows)]
    command = [sys.executable, "-m", "benchmarks.window_kernels", *arguments]
    done = subprocess.run(
        [*command, "--seconds", str(seconds)],
        cwd=Path(__file__).parent.parent,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: Times = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.window_kernels")
    parser.add_argument("library", type=Path, help="a CPU library")
    parser.add_argument("case", type=json.loads, help="the attributes of a Case, as JSON")
    parser.add_argument("windows", type=json.loads, help="as the ops take them, by name, as JSON")
    parser.add_argument("--seconds", type=float, default=0.0, help="of turns, for each of them")
    options = parser.parse_args()
    torch.ops.load_library(str(options.library.resolve()))  # type: ignore[no-untyped-call]
    torch.set_num_threads(1)
    case = Case(**{**options.case, "spatial": tuple(options.case["spatial"])})
    print(json.dumps(times_here(case, options.windows, options.seconds)))


if __name__ == "__main__":
    main()
