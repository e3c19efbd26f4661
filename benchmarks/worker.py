"""Measures one entry in its own process: see :mod:`benchmarks.tasks`.

In a fresh process an entry shares no allocations, compiled code or threads with others, and a limit
ends one entry only.
"""

import gc
import re
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import tasks
from benchmarks.cases import Case
from benchmarks.peers import ATTENTIONS, OPERATIONS, Run, circulant

# Largest accepted difference from this package, relative to the largest element: float32 rounding
# is far below, a wrong window, scale or boundary far above.
TOLERANCE = 1e-3
SGEMM_SIZE = 2048
# Environment variables that make glibc return large blocks to the system at once, so that resident
# memory is memory in use. For memory measurements only: allocations become slower.
RETURN_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


@dataclass(frozen=True)
class Task(tasks.Task):
    """The measurement and its limits."""

    entry: str
    backward: bool
    measure: str  # "memory" or "time"
    call_seconds: float  # a call that takes longer is too slow
    memory_bytes: int  # limit on top of torch and the inputs
    budget_seconds: float  # stop repeating after this time
    repetitions: int  # or after so many calls


class GaveUp(Exception):
    """An entry reached a limit, or disagrees with this package."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def measure(task: Task) -> dict[str, Any]:
    """The measurement, or the status (too slow, too big, wrong, refused) and its reason."""
    try:
        result = measure_memory(task) if task.measure == "memory" else measure_time(task)
        return {"status": "ok", **result}
    except GaveUp as reached:
        return {"status": reached.status, "reason": str(reached)}
    except MemoryError:
        return {"status": "too big", "reason": f"more than {gigabytes(task.memory_bytes)}"}
    except Exception as error:  # any error of a peer is its result
        asked = re.search(r"tried to allocate (\d+) bytes", str(error))
        if asked:
            limit, more = gigabytes(task.memory_bytes), gigabytes(int(asked[1]))
            reason = f"asked for another {more}, with a limit of {limit} in all"
            return {"status": "too big", "reason": reason}
        return {"status": "refused", "reason": f"{type(error).__name__}: {first_line(error)}"}


def first_line(error: Exception) -> str:
    """The first line of an error message, shortened to a note."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), "")[:300]


def measure_memory(task: Task) -> dict[str, Any]:
    """Peak memory of a call above the memory before it, and memory kept by the preparation."""
    inputs = make_inputs(task.case)
    limit_memory(task.memory_bytes)
    before = status_bytes("VmRSS")
    start = time.perf_counter()
    run = prepare(task)
    gc.collect()
    prepared = status_bytes("VmRSS") - before
    call = bind(run, inputs, task.backward)
    call()
    first = time.perf_counter() - start
    gc.collect()
    before = status_bytes("VmRSS")
    reset_peak()
    seconds = timed(call)
    peak = status_bytes("VmHWM") - before
    if seconds > task.call_seconds:
        raise GaveUp("too slow", f"one call took {seconds:.0f} s (limit {task.call_seconds:.0f} s)")
    return {"first_seconds": first, "prepared_bytes": max(prepared, 0), "peak_bytes": peak}


def measure_time(task: Task) -> dict[str, Any]:
    """Median and quartiles of the seconds of a call; calls of this package and sgemm alternate."""
    inputs = make_inputs(task.case)
    limit_memory(task.memory_bytes)
    call = bind(prepare(task), inputs, task.backward)
    ours = bind(circulant(task.case), inputs, task.backward)
    factor = torch.randn(SGEMM_SIZE, SGEMM_SIZE)
    product = torch.empty_like(factor)

    def sgemm() -> None:
        torch.mm(factor, factor, out=product)

    if task.entry in ATTENTIONS:
        compare(call(), ours())
    ours(), sgemm(), call()
    times: dict[str, list[float]] = {"sgemm": [], "ours": [], "entry": []}
    end = time.perf_counter() + task.budget_seconds
    while len(times["entry"]) < 3 or (
        time.perf_counter() < end and len(times["entry"]) < task.repetitions
    ):
        times["sgemm"].append(timed(sgemm))
        times["ours"].append(timed(ours))
        times["entry"].append(timed(call))
    medians = {name: statistics.median(values) for name, values in times.items()}
    quartiles = statistics.quantiles(times["entry"], n=4)
    return {
        "seconds": medians["entry"],
        "iqr_seconds": quartiles[2] - quartiles[0],
        "repetitions": len(times["entry"]),
        "flops": flops(task),
        "sgemm_flops_per_second": 2 * SGEMM_SIZE**3 / medians["sgemm"],
        "times_ours": medians["entry"] / medians["ours"],
    }


def flops(task: Task) -> int:
    """Useful operations: an attention is two products, its derivative four more, a map is one.

    The derivative needs one product for each of dA, dq, dk and dv; recomputed ones do not count.
    """
    if task.entry in OPERATIONS:
        return task.case.product_flops
    return (6 if task.backward else 2) * task.case.product_flops


def make_inputs(
    case: Case, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """q, k, v and the cotangent of y."""
    generator = torch.Generator(device).manual_seed(0)
    return [torch.randn(case.shape, generator=generator, device=device).to(dtype) for _ in range(4)]


def prepare(task: Task) -> Run:
    return {**ATTENTIONS, **OPERATIONS}[task.entry](task.case)


def bind(run: Run, inputs: list[Tensor], backward: bool) -> Callable[[], tuple[Tensor, ...]]:
    """The call to measure: y, or the gradients of <y, dy> to q, k and v."""
    q, k, v, dy = inputs
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]

    def forward() -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (run(q, k, v),)

    def forward_backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad(run(*leaves), leaves, dy)

    return forward_backward if backward else forward


def compare(
    results: tuple[Tensor, ...], ours: tuple[Tensor, ...], tolerance: float = TOLERANCE
) -> None:
    error = difference(results, ours)
    if not error <= tolerance:
        raise GaveUp("wrong", f"differs from ours by {error:.1e} of the largest element")


def difference(results: tuple[Tensor, ...], ours: tuple[Tensor, ...]) -> float:
    """The largest difference relative to the largest element; NaN if there is a NaN."""
    parts = [
        (result - expected).abs().max() / expected.abs().max()
        for result, expected in zip(results, ours, strict=True)
    ]
    return torch.stack(parts).max().item()


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def status_bytes(name: str) -> int:
    """A field of /proc/self/status: VmRSS is resident memory, VmHWM its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise GaveUp("refused", f"no {name} in /proc/self/status: memory is measured on Linux only")


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def limit_memory(extra: int) -> None:
    """Limits the growth of the address space to ``extra`` bytes."""
    limit = status_bytes("VmSize") + extra
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def gigabytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
    tasks.write_result(Path(sys.argv[2]), measure(Task.from_json(sys.argv[1])))
