"""The CPU kernels compared with sgemm: ``python -m benchmarks.kernels``.

Every kernel alternates with one product of 2048 x 2048 matrices in the same process. The report has
the median of the ratios of the two rates, since other load slows both: by wall time with all
threads, and by the processor time of one thread, which depends little on other load. See README.md.
"""

import argparse
import ctypes
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import kernel_report, report
from benchmarks.cases import CASES, Case
from benchmarks.peers import groups, random_values, roll
from benchmarks.worker import SGEMM_SIZE, make_inputs

# Products of the case in one call, by the mathematics: recomputation does not count.
PRODUCTS = {
    "fused forward": 2,
    "fused backward": 5,
    "similarity": 1,
    "apply": 1,
    "transposed apply": 1,
}
TABLE = ("readme", "large_window", "heads", "many_small")
# Grids and windows; each has 4 times the pixels or offsets of the previous one.
GROWTH = Case("growth", 1, 32, (120, 120), 7)
GRIDS = ((60, 60), (120, 120), (240, 240))
WINDOWS = ((7, 7), (13, 15), (27, 29))
SMALL = Case("small", 1, 16, (32, 32), 5)
# Shorter calls are repeated until a turn takes this long.
TURN_SECONDS = 0.02


def kernels(
    case: Case, windows: list[int] | None = None, dtype: torch.dtype = torch.float32
) -> dict[str, Callable[[], object]]:
    """A call of each kernel on random numbers, by name."""
    import circulant_attention  # noqa: F401  (registers the ops)

    ops = torch.ops.circulant_attention
    window = windows or case.windows
    q, k, v, dy = (x.to(dtype) for x in groups(case, *make_inputs(case)))
    size = (*q.shape[:1], case.pixels, window[0] * window[-1])
    values = random_values(case) if windows is None else torch.rand(size)
    values = values.to(dtype)
    y, lse = ops.attention(q, k, v, window, 0, case.scale)
    backward = (dy, q, k, v, y, lse, window, 0, case.scale)
    return {
        "fused forward": lambda: ops.attention(q, k, v, window, 0, case.scale),
        "fused backward": lambda: ops.attention_backward(*backward),
        "similarity": lambda: ops.similarity(q, k, window, 0),
        "apply": lambda: ops.apply(values, v, window),
        "transposed apply": lambda: ops.apply_transposed(values, v, window),
    }


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Sets the number of torch's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_memory() -> None:
    """Makes glibc reuse freed memory, as other allocators do.

    By default, it returns blocks above 32 MiB to the system, which zeroes every page again.
    """
    # From glibc's <malloc.h>; other C libraries have no mallopt, or one without effect.
    trim_threshold, mmap_max = -1, -4
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_max, 0)


def in_turns(
    calls: list[Callable[[], object]],
    budget: float,
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """The seconds of each call, once per turn, all calls in every turn, for `budget` seconds."""

    def seconds(call: Callable[[], object], repeats: int) -> float:
        start = clock()
        for _ in range(repeats):
            call()
        return (clock() - start) / repeats

    repeats = []
    for call in calls:
        call()
        repeats.append(max(1, int(TURN_SECONDS / max(seconds(call, 1), 1e-7))))
    turns = []
    end = time.perf_counter() + budget
    while len(turns) < 3 or time.perf_counter() < end:
        turns.append([seconds(call, n) for call, n in zip(calls, repeats, strict=True)])
    return turns


def spread(numbers: list[float]) -> dict[str, float]:
    """The median and the quartiles."""
    low, middle, high = statistics.quantiles(numbers, n=4)
    return {"median": middle, "low": low, "high": high}


def sgemm() -> Callable[[], object]:
    factor = torch.randn(SGEMM_SIZE, SGEMM_SIZE)
    product = torch.empty_like(factor)
    return lambda: torch.mm(factor, factor, out=product)


def measure_ratios(
    names: list[str], budget: float, clock: Callable[[], float]
) -> list[dict[str, Any]]:
    """The rate of every kernel over that of sgemm, case by case."""
    product = sgemm()
    results = []
    for name in names:
        for kernel, call in kernels(CASES[name]).items():
            flops = PRODUCTS[kernel] * CASES[name].product_flops
            turns = in_turns([product, call], budget, clock)
            rates = [2 * SGEMM_SIZE**3 / product for product, _ in turns]
            ratios = [flops / own / rate for (_, own), rate in zip(turns, rates, strict=True)]
            results.append(
                {
                    "case": name,
                    "kernel": kernel,
                    "ratio": spread(ratios),
                    "seconds": spread([own for _, own in turns]),
                    "flops": flops,
                    "sgemm_flops_per_second": statistics.median(rates),
                    "turns": len(turns),
                }
            )
            show(results[-1], "ratio")
    return results


def measure_growth(budget: float) -> list[dict[str, Any]]:
    """The seconds of every kernel while N, then K, grows by 16."""
    series = {
        "N": [(replace(GROWTH, spatial=grid), GROWTH.windows) for grid in GRIDS],
        "K": [(GROWTH, list(window)) for window in WINDOWS],
    }
    results = []
    for what, problems in series.items():
        calls = [kernels(case, window) for case, window in problems]
        sizes = [case.pixels * window[0] * window[1] for case, window in problems]
        for kernel in PRODUCTS:
            turns = in_turns([call[kernel] for call in calls], budget, time.thread_time)
            each = [spread([turn[i] for turn in turns]) for i in range(len(problems))]
            results.append({"grows": what, "kernel": kernel, "seconds": each, "entries": sizes})
            results[-1]["factor"] = spread([turn[-1] / turn[0] for turn in turns])
            show(results[-1], "factor")
    return results


def measure_threads(budget: float) -> list[dict[str, Any]]:
    """The speedup of two threads over one."""

    def with_threads(call: Callable[[], object], number: int) -> Callable[[], object]:
        def run() -> None:
            with threads(number):
                call()

        return run

    results = []
    for kernel, call in kernels(CASES["readme"]).items():
        turns = in_turns([with_threads(call, 1), with_threads(call, 2)], budget)
        results.append({"kernel": kernel, "speedup": spread([one / two for one, two in turns])})
        show(results[-1], "speedup")
    return results


def measure_new_memory(names: list[str], budget: float) -> list[dict[str, Any]]:
    """The slowdown of the similarity by glibc's default; memory is reused afterwards."""
    calls = {name: kernels(CASES[name])["similarity"] for name in names}
    default = {name: in_turns([call], budget) for name, call in calls.items()}
    keep_memory()
    results = []
    for name, call in calls.items():
        kept = statistics.median(turn[0] for turn in in_turns([call], budget))
        slower = spread([turn[0] / kept for turn in default[name]])
        results.append({"case": name, "kernel": "similarity", "new memory": slower})
        show(results[-1], "new memory")
    return results


def measure_dtypes(budget: float) -> list[dict[str, Any]]:
    """The seconds of other dtypes, those of float32 and, of attention, those of torch.roll."""
    case = CASES["many_small"]
    float32 = kernels(case)
    results = []
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        q, k, v, _ = (x.to(dtype) for x in make_inputs(case))
        rolled = roll(case)
        for kernel, call in kernels(case, dtype=dtype).items():
            calls = [float32[kernel], call]
            if kernel == "fused forward":
                calls.append(lambda tensors=(q, k, v), run=rolled: run(*tensors))
            turns = in_turns(calls, budget, time.thread_time)
            result = {"dtype": str(dtype).removeprefix("torch."), "kernel": kernel}
            result["times float32"] = spread([turn[1] / turn[0] for turn in turns])
            if len(calls) > 2:
                result["roll"] = spread([turn[2] / turn[1] for turn in turns])
            results.append(result)
            show(result, "times float32")
    return results


def measure_small(budget: float) -> dict[str, Any]:
    """One small call of the public function, and torch's dense attention of its pixels."""
    from circulant_attention import circulant_attention

    q, k, v, _ = make_inputs(SMALL)
    rows: list[Tensor] = [x.flatten(2).mT.unsqueeze(1).contiguous() for x in (q, k, v)]
    turns = in_turns(
        [
            lambda: circulant_attention(q, k, v, SMALL.window),
            lambda: torch.nn.functional.scaled_dot_product_attention(*rows),
        ],
        budget,
    )
    result = {
        "seconds": spread([ours for ours, _ in turns]),
        "sdpa_seconds": spread([theirs for _, theirs in turns]),
        "ratio": spread([ours / theirs for ours, theirs in turns]),
    }
    show({"kernel": "small call", **result}, "ratio")
    return result


def instruction_sets() -> list[str]:
    """The instruction sets of both the library and the processor, fastest first."""
    code = (
        "import torch, circulant_attention; x = torch.ones(1, 1, 1);"
        "torch.ops.circulant_attention.similarity(x, x, [1], 0)"
    )
    # An unknown name is refused with a list of the known ones.
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=report.ROOT,
        env={**os.environ, "CIRCULANT_ATTENTION_CPU": "?"},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stderr.rpartition("has code for: ")[2].split("\n")[0].split(", ")


def show(result: dict[str, Any], name: str) -> None:
    labels = [str(result[key]) for key in ("case", "grows", "dtype", "kernel") if key in result]
    found = result[name]
    print(
        f"{' '.join(labels):32s} {name} {found['median']:.3f} "
        f"({found['low']:.3f} to {found['high']:.3f})",
        flush=True,
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("--output", type=Path, help="write OUTPUT.json and OUTPUT.md")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (%(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="for each number of the table (%(default)s)"
    )
    parser.add_argument("--cases", nargs="+", choices=TABLE, default=list(TABLE), metavar="CASE")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    run = report.surroundings("benchmarks.kernels", arguments)
    available = instruction_sets()
    run["machine"]["instruction set"] = os.environ.get("CIRCULANT_ATTENTION_CPU") or available[0]
    run["machine"]["instruction sets"] = ", ".join(available)
    run["new memory"] = measure_new_memory(options.cases, options.seconds / 2)
    run["ratios"] = measure_ratios(options.cases, options.seconds, time.perf_counter)
    run["threads"] = measure_threads(options.seconds)
    with threads(1):
        run["ratios of one thread"] = measure_ratios(
            options.cases, options.seconds, time.thread_time
        )
        run["growth"] = measure_growth(options.seconds)
        run["dtypes"] = measure_dtypes(options.seconds / 2)
    run["small"] = measure_small(options.seconds)
    run["machine"]["load after"] = round(os.getloadavg()[0], 2)
    text = kernel_report.markdown(run)
    print("\n" + text)
    if options.output:
        report.write(options.output, run, text)


if __name__ == "__main__":
    main()
