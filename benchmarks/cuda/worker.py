"""Measures one case in its own process: see :mod:`benchmarks.tasks`.

The results are written after each entry, so that they stay when a limit ends the process.
"""

import dataclasses
import gc
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
from benchmarks.cuda.measure import times
from benchmarks.peers import ATTENTIONS, OPERATIONS, Run, circulant, random_values
from benchmarks.worker import GaveUp, bind, compare, first_line, make_inputs

DEVICE = "cuda"
# Largest accepted difference from this package, relative to the largest element: rounding is below,
# a wrong window, scale or boundary far above.
TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 5e-2}


def transpose(case: Case) -> Run:
    """The values of the transposed matrix."""
    from circulant_attention.ops import primitives as ops

    values = random_values(case)
    return lambda q, k, v: ops.transpose(values, list(case.spatial), case.windows)


MAPS = {**OPERATIONS, "transpose": transpose}
PEERS = ("FlexAttention", "torch.sparse", "pad + unfold", "dense SDPA")


@dataclass(frozen=True)
class Task(tasks.Task):
    """The measurement of a case and its limits."""

    dtype: str
    budget_seconds: float  # of repetitions of an entry
    total_seconds: float  # no entry starts after this time


def entries(dtype: torch.dtype) -> list[tuple[str, bool]]:
    """Names, and whether with gradients. This package is first, in case time runs out."""
    maps = list(MAPS) if dtype == torch.float32 else []
    return [
        ("circulant_attention", False),
        ("circulant_attention", True),
        *((name, False) for name in maps),
        *((name, backward) for name in PEERS for backward in (False, True)),
    ]


def measure(task: Task, keep: Callable[[list[dict[str, Any]]], None]) -> None:
    """Measures every entry; ``keep`` gets all results so far after each."""
    dtype = getattr(torch, task.dtype)
    end = time.perf_counter() + task.total_seconds
    inputs = make_inputs(task.case, DEVICE, dtype)
    load_libraries(dtype)
    results: list[dict[str, Any]] = []
    for name, backward in entries(dtype):
        result: dict[str, Any] = {"entry": name, "backward": backward}
        if time.perf_counter() > end:
            result.update(status="not run", reason="the time for this case was over")
        else:
            result.update(measure_entry(task, name, backward, inputs))
        results.append(result)
        keep(results)
        gc.collect()
        torch.cuda.empty_cache()


def load_libraries(dtype: torch.dtype) -> None:
    """Warms up cuBLAS, which keeps memory from the first product of each thread."""
    x = torch.zeros(16, 16, dtype=dtype, device=DEVICE, requires_grad=True)
    torch.mm(x, x).sum().backward()


def measure_entry(task: Task, name: str, backward: bool, inputs: list[Tensor]) -> dict[str, Any]:
    """Times and memory of an entry, or the reason that there are none."""
    case = task.case
    try:
        before = torch.cuda.memory_allocated()
        start = time.perf_counter()
        with torch.device(DEVICE):
            run = {**ATTENTIONS, **MAPS}[name](case)
        call = bind(run, inputs, backward)
        found = call()
        torch.cuda.synchronize()
        first = time.perf_counter() - start
        if name in ATTENTIONS:
            ours = bind(circulant(case), inputs, backward)()
            compare(found, ours, TOLERANCES[inputs[0].dtype])
            del ours
        del found
        prepared = max(torch.cuda.memory_allocated() - before, 0)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - before
        return {
            "status": "ok",
            "first_seconds": first,
            "prepared_bytes": prepared,
            "peak_bytes": peak,
            **dataclasses.asdict(times(call, task.budget_seconds)),
            **work(case, name, backward, inputs[0].element_size()),
        }
    except GaveUp as reached:
        return {"status": reached.status, "reason": str(reached)}
    except torch.cuda.OutOfMemoryError as error:
        return {"status": "too big", "reason": first_line(error)}
    except Exception as error:  # any error of a peer is its result
        return {"status": "refused", "reason": f"{type(error).__name__}: {first_line(error)}"}


def work(case: Case, name: str, backward: bool, size: int) -> dict[str, int]:
    """Useful operations, and the bytes of inputs and results, once each.

    Attention is two products with the pattern of A, its derivative four more, a map one; a
    transposition computes nothing. Work outside of the window and recomputation do not count.
    """
    features = case.batch * case.channels * case.pixels * size
    values = case.batch * case.heads * case.pixels * case.offsets * size
    if name == "transpose":
        return {"flops": 0, "bytes": 2 * values}
    if name in MAPS:
        return {"flops": case.product_flops, "bytes": 2 * features + values}
    if backward:
        return {"flops": 6 * case.product_flops, "bytes": 8 * features}
    return {"flops": 2 * case.product_flops, "bytes": 4 * features}


def main(text: str, target: Path) -> None:
    warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
    torch.set_float32_matmul_precision("highest")
    measure(Task.from_json(text), lambda results: tasks.write_result(target, results))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
