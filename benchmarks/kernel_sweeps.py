"""The kernels over sizes, dtypes and biases, and a small call."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import CASES, Case
from benchmarks.kernel_calls import PRODUCTS, kernels
from benchmarks.peers import groups, roll, simfun
from benchmarks.timing import in_turns, spread
from benchmarks.worker import make_inputs

# Grids and windows; each has 4 times the pixels or offsets of the previous one.
GROWTH = Case("growth", 1, 32, (120, 120), 7)
GRIDS = ((60, 60), (120, 120), (240, 240))
WINDOWS = ((7, 7), (13, 15), (27, 29))
BIASED_CASES = ("readme", "heads")
DTYPES_CASE = CASES["many_small"]
SMALL = Case("small", 1, 16, (32, 32), 5)


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
    return results


def measure_dtypes(budget: float) -> list[dict[str, Any]]:
    """The seconds of other dtypes, those of float32 and, of attention, those of torch.roll."""
    case = DTYPES_CASE
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
    return results


def biased(case: Case) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Calls of the fused forward and of its backward with each combination of biases, by name."""
    ops = torch.ops.circulant_attention
    q, k, v, dy = groups(case, *make_inputs(case))
    window, kind = case.windows, simfun(case).kind
    offsets = torch.randn(case.heads, math.prod(window))
    keys = torch.randn(case.batch, case.pixels)
    settings = (window, kind, case.scale)
    y, lse = ops.attention(q, k, v, *settings)
    made: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "no bias": (
            lambda: ops.attention(q, k, v, *settings),
            lambda: ops.attention_backward(dy, q, k, v, y, lse, *settings),
        )
    }
    terms = {
        "a bias of the offsets": (offsets, None),
        "a bias of the keys": (None, keys),
        "both": (offsets, keys),
    }
    for name, biases in terms.items():
        out = ops.biased_attention(q, k, v, *biases, *settings)
        inputs = (dy, q, k, v, *biases, *out, None, *settings)
        made[name] = (
            lambda biases=biases: ops.biased_attention(q, k, v, *biases, *settings),
            lambda inputs=inputs: ops.biased_attention_backward(*inputs),
        )
    return made


def measure_biases(budget: float) -> list[dict[str, Any]]:
    """The time with biases over the time without, of the fused forward and its backward."""
    results = []
    for case in (CASES[name] for name in BIASED_CASES):
        calls = biased(case)
        for at, kernel in enumerate(("fused forward", "fused backward")):
            found = in_turns([pair[at] for pair in calls.values()], budget, time.thread_time)
            for column, name in enumerate(calls):
                ratio = spread([turn[column] / turn[0] for turn in found])
                row = {"case": case.name, "kernel": kernel, "biases": name, "ratio": ratio}
                results.append(row | {"seconds": spread([turn[column] for turn in found])})
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
    return {
        "seconds": spread([ours for ours, _ in turns]),
        "sdpa_seconds": spread([theirs for _, theirs in turns]),
        "ratio": spread([ours / theirs for ours, theirs in turns]),
    }
