"""The CPU kernels as fractions of the FMA peak: ``python -m benchmarks.kernels``.

The FMA peak of the processor, sgemm and the kernels alternate in the same process, for each number
of threads. See README.md.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

import circulant_attention
from benchmarks import group, kernel_report, kernel_sweeps, limits, report, timing, widths
from benchmarks.cases import GROUP, KERNEL_CASES
from benchmarks.kernel_calls import measure_case
from benchmarks.widths import instruction_sets
from circulant_attention.ops.library import library_paths

# The parts of --seconds for each number of the sweeps, and for each instruction set.
SWEEP_PART, SET_PART = 0.1, 0.5


def machine(counts: list[int]) -> dict[str, Any]:
    """What the report of every benchmark lacks: instruction sets and compilers."""
    sets = instruction_sets()
    library = library_paths(Path(circulant_attention.__file__).parent)[0]
    return {
        "threads": ", ".join(map(str, counts)),
        "instruction set": os.environ.get(widths.VARIABLE) or sets[0],
        "instruction sets": ", ".join(sets),
        "widest vector": f"{limits.widest_vector()} bits",
        "compiler of the FMA loop": limits.compiler_version(),
        "compiler of the library": limits.compiler_of(library),
    }


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("--output", type=Path, help="write OUTPUT.json and OUTPUT.md")
    parser.add_argument(
        "--threads",
        type=int,
        nargs="+",
        default=[count for count in (1, 2, 4) if count <= usable_cores()],
        help="numbers of threads, those of 1, 2 and 4 that there are cores for (%(default)s)",
    )
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="for each case of the table (%(default)s)"
    )
    names = list(KERNEL_CASES)
    parser.add_argument("--cases", nargs="+", choices=names, default=names, metavar="CASE")
    parser.add_argument("--table", action="store_true", help="the table only, nothing else")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    options = parse(arguments)
    counts = sorted(set(options.threads))
    shown = kernel_report.shown_threads(counts)
    start = time.perf_counter()
    run = report.surroundings("benchmarks.kernels", arguments)
    run["machine"].update(machine(counts))
    run["table"] = []
    for name in options.cases:
        run["table"] += measure_case(KERNEL_CASES[name], counts, options.seconds)
        print("\n".join(kernel_report.progress(run["table"][-len(counts) :])), flush=True)
    if not options.table:
        run["group"] = group.measure(GROUP, shown, options.seconds)
        part = options.seconds * SET_PART
        run["widths"] = widths.measure(KERNEL_CASES["readme"], shown, part)
        sweep = options.seconds * SWEEP_PART
        with timing.threads(1):
            run["growth"] = kernel_sweeps.measure_growth(sweep)
            run["dtypes"] = kernel_sweeps.measure_dtypes(sweep)
            run["biases"] = kernel_sweeps.measure_biases(sweep)
        with timing.threads(shown):
            run["small"] = kernel_sweeps.measure_small(sweep)
    run["machine"]["load after"] = round(os.getloadavg()[0], 2)
    run["machine"]["minutes"] = round((time.perf_counter() - start) / 60, 1)
    report.publish(run, kernel_report.markdown(run), options.output)


if __name__ == "__main__":
    main()
