"""The kernels by the widths of the vector units, each in its own process.

The library chooses its instruction set once, by the variable CIRCULANT_ATTENTION_CPU.
"""

import functools
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import limits, tasks
from benchmarks.cases import Case
from benchmarks.kernel_calls import measure_case

VARIABLE = "CIRCULANT_ATTENTION_CPU"
# Bits of a vector. The plain code is compiled for the oldest processors: without FMA.
WIDTHS = {"avx512": 512, "avx2": 256, "plain": 128}
# For imports, inputs, and at least three turns on a busy machine.
PROCESS_SECONDS = 120


@dataclass(frozen=True)
class Task(tasks.Task):
    """A case, to be measured with this number of threads for so many seconds."""

    threads: int
    seconds: float
    bits: int


@functools.cache
def instruction_sets() -> list[str]:
    """The instruction sets of both the library and the processor, fastest first."""
    code = (
        "import torch, circulant_attention; x = torch.ones(1, 1, 1);"
        "torch.ops.circulant_attention.similarity(x, x, [1], 0)"
    )
    # An unknown name is refused with a list of the known ones.
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tasks.ROOT,
        env={**os.environ, VARIABLE: "?"},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stderr.rpartition("has code for: ")[2].split("\n")[0].split(", ")


def measure(case: Case, threads: int, seconds: float) -> list[dict[str, Any]]:
    """The kernels of a case with every instruction set."""
    results = []
    for name in instruction_sets():
        task = Task(case, threads, seconds, WIDTHS[name])
        limit = seconds + PROCESS_SECONDS
        status, measured = tasks.run("benchmarks.widths", task, limit, **{VARIABLE: name})
        if measured is None:
            raise RuntimeError(f"expected the time of {name}, got status {status}")
        results.append({"instruction set": name, "bits": task.bits, **measured})
    return results


def main() -> None:
    """Measures the task of the command line."""
    task = Task.from_json(sys.argv[1])
    measured = measure_case(task.case, [task.threads], task.seconds)[0]
    # The fractions are those of the widest vectors.
    measured["fma_flops_per_second of the width"] = limits.fma_peak(task.threads, task.bits)
    tasks.write_result(Path(sys.argv[2]), measured)


if __name__ == "__main__":
    main()
