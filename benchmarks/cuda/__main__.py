"""Measures on the GPU and writes the tables: see README.md."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import tasks
from benchmarks.cases import Case
from benchmarks.cuda import report
from benchmarks.cuda.cases import GPU_CASES
from benchmarks.cuda.measure import copy_bandwidth, product_rate
from benchmarks.cuda.worker import Task
from benchmarks.report import write

# Limit of the first case, as a part of all time: compiling FlexAttention takes most of it.
CASE_SHARE = 0.3
# Seconds that an entry may take after the end of the time, if it started before.
OVERTIME = 60.0


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if not torch.cuda.is_available():
        print("benchmarks.cuda: there is no CUDA device", file=sys.stderr)
        return 1
    end = time.perf_counter() + options.seconds
    torch.set_float32_matmul_precision("highest")
    run = report.surroundings(arguments)
    run["copy_bytes_per_second"] = copy_bandwidth()
    run["product_flops_per_second"] = {
        name: product_rate(getattr(torch, name)) for name in ("float32", "bfloat16")
    }
    torch.cuda.empty_cache()
    run["results"] = []
    for name in options.cases:
        for dtype in options.dtypes:
            left = end - time.perf_counter()
            limit = min(left, max(options.seconds * CASE_SHARE, left / len(options.cases)))
            found = measure(GPU_CASES[name], dtype, options.budget_seconds, limit)
            run["results"] += [{"case": name, "dtype": dtype, **result} for result in found]
            print(report.summary(run, name, dtype), flush=True)
            if options.output:  # after each case: a killed process keeps its results
                write(options.output, run, report.markdown(run))
    print("\n" + report.markdown(run))
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cuda", description=__doc__)
    parser.add_argument(
        "--cases", nargs="+", choices=GPU_CASES, default=list(GPU_CASES), metavar="CASE"
    )
    parser.add_argument(
        "--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32"], metavar="DTYPE"
    )
    parser.add_argument("--output", type=Path, help="write OUTPUT.json and OUTPUT.md")
    parser.add_argument("--seconds", type=float, default=200.0, help="for everything (%(default)s)")
    parser.add_argument(
        "--budget-seconds", type=float, default=1.0, help="of repetitions (%(default)s)"
    )
    return parser.parse_args(arguments)


def measure(case: Case, dtype: str, budget: float, limit: float) -> list[dict[str, Any]]:
    """The results of a case that arrive within ``limit`` seconds."""
    if limit < budget:
        reason = "the time for all cases was over"
        return [{"entry": "all", "backward": False, "status": "not run", "reason": reason}]
    task = Task(case, dtype, budget, limit)
    status, found = tasks.run("benchmarks.cuda.worker", task, limit + OVERTIME)
    found = found or []
    ended = f"no end after {limit + OVERTIME:.0f} s" if status is None else ""
    if status:
        ended = f"the process ended with status {status}"
    if ended:
        found.append({"entry": "the rest", "backward": False, "status": "not run", "reason": ended})
    return found


if __name__ == "__main__":
    sys.exit(main())
