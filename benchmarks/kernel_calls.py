"""The CPU kernels of a case, as fractions of the FMA peak of the processor."""

import statistics
from collections.abc import Callable
from typing import Any

import torch

from benchmarks import limits, timing
from benchmarks.cases import Case
from benchmarks.peers import groups, random_values, simfun
from benchmarks.worker import make_inputs

# Products of the case in one call, by the mathematics: recomputation does not count.
PRODUCTS = {
    "fused forward": 2,
    "fused backward": 5,
    "similarity": 1,
    "adjacency": 1,
    "apply": 1,
    "transposed apply": 1,
}
SGEMM_SIZE = 1024


def kernels(
    case: Case, windows: list[int] | None = None, dtype: torch.dtype = torch.float32
) -> dict[str, Callable[[], object]]:
    """A call of each kernel on random numbers, by name. Each result is a new tensor."""
    ops = torch.ops.circulant_attention
    window, kind = windows or case.windows, simfun(case).kind
    q, k, v, dy = (x.to(dtype) for x in groups(case, *make_inputs(case)))
    size = (*q.shape[:1], case.pixels, window[0] * window[-1])
    values = random_values(case) if windows is None else torch.rand(size)
    values = values.to(dtype)
    y, lse = ops.attention(q, k, v, window, kind, case.scale)
    backward = (dy, q, k, v, y, lse, window, kind, case.scale)
    return {
        "fused forward": lambda: ops.attention(q, k, v, window, kind, case.scale),
        "fused backward": lambda: ops.attention_backward(*backward),
        "similarity": lambda: ops.similarity(q, k, window, kind),
        "adjacency": lambda: ops.adjacency(q, k, window, kind, case.scale),
        "apply": lambda: ops.apply(values, v, window),
        "transposed apply": lambda: ops.apply_transposed(values, v, window),
    }


def sgemm() -> Callable[[], object]:
    """A product of two square matrices of SGEMM_SIZE into existing memory."""
    factor = torch.randn(SGEMM_SIZE, SGEMM_SIZE)
    product = torch.empty_like(factor)
    return lambda: torch.mm(factor, factor, out=product)


def measure_case(case: Case, counts: list[int], budget: float) -> list[dict[str, Any]]:
    """Every kernel of a case, for each number of threads.

    In each turn, for each number of threads: the FMA peak, sgemm, and all kernels.
    """
    calls, product = kernels(case), sgemm()
    found: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
    for turn in timing.turns(budget):
        for count in counts:
            with timing.threads(count):
                product()  # starts the threads
                peak = limits.fma_peak(count)
                seconds = {"sgemm": timing.fastest(product)}
                for name in rotated(list(calls), turn):
                    seconds[name] = timing.fastest(calls[name])
            found[count].append({"peak": peak, **seconds})
    results = [fractions(case, count, found[count]) for count in counts]
    for result, count in zip(results, counts, strict=True):
        for kernel in result["kernels"]:
            one, own = ([turn[kernel] for turn in found[n]] for n in (counts[0], count))
            result["kernels"][kernel]["speedup"] = {
                "best": min(one) / min(own),
                "median": statistics.median(a / b for a, b in zip(one, own, strict=True)),
            }
    return results


def rotated(names: list[str], turn: int) -> list[str]:
    """Another name comes first in each turn."""
    first = turn % len(names)
    return names[first:] + names[:first]


def fractions(case: Case, count: int, turns: list[dict[str, float]]) -> dict[str, Any]:
    """Rates over the FMA peak.

    Best: the shortest time by the highest peak of all turns. Median: of the ratios within a turn.
    """
    peaks = [turn["peak"] for turn in turns]
    flops = {"sgemm": 2 * SGEMM_SIZE**3} | {
        name: products * case.product_flops for name, products in PRODUCTS.items()
    }
    measured = {}
    for name, operations in flops.items():
        seconds = [turn[name] for turn in turns]
        ratios = [operations / own / peak for own, peak in zip(seconds, peaks, strict=True)]
        measured[name] = {
            "flops": operations,
            "seconds": timing.shortest(seconds),
            "fraction": {
                "best": operations / min(seconds) / max(peaks),
                "median": statistics.median(ratios),
            },
        }
    return {
        "case": case.name,
        "threads": count,
        "turns": len(turns),
        "fma_flops_per_second": timing.largest(peaks),
        "sgemm": measured.pop("sgemm"),
        "kernels": measured,
    }
