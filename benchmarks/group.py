"""The matrix as a value: a blend, and one group of a GroupCDL network.

The group is an adjacency, its blend with the matrix of the last group, and five applications.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks import limits, tiled, timing
from benchmarks.cases import Case
from benchmarks.peers import simfun
from benchmarks.worker import compare, make_inputs

WEIGHT = 0.3  # of the new matrix in the blend
APPLICATIONS = 5
COPIES = 5  # in a turn


def inputs(case: Case) -> list[Tensor]:
    """q, k, those of the last group, and v; the similarities are scaled by ``case.scale``."""
    root = case.scale**0.5
    q, k, last_q, last_k = (x * root for x in make_inputs(case))
    return [q, k, last_q, last_k, make_inputs(case)[2].flip(1)]


def ours(case: Case) -> tuple[Callable[[], Tensor], Callable[[], Tensor], Tensor]:
    """The group, the blend alone, and the values of a matrix."""
    from circulant_attention import circulant_adjacency

    q, k, last_q, last_k, v = inputs(case)
    similarity = simfun(case)
    last = circulant_adjacency(similarity, last_q, last_k, case.window)
    new = circulant_adjacency(similarity, q, k, case.window)

    def group() -> Tensor:
        matrix = circulant_adjacency(similarity, q, k, case.window)
        matrix = WEIGHT * matrix + (1 - WEIGHT) * last
        y = v
        for _ in range(APPLICATIONS):
            y = matrix @ y
        return y

    def blend() -> Tensor:
        return (WEIGHT * new + (1 - WEIGHT) * last).values

    return group, blend, last.values


def plain(case: Case) -> Callable[[], Tensor]:
    """The same group in plain PyTorch, by tiles."""
    q, k, last_q, last_k, v = inputs(case)
    tiles = tiled.Tiles(case)

    def adjacency(q: Tensor, k: Tensor) -> list[Tensor]:
        chunks = zip(tiles.queries(q), tiles.keys(k), strict=True)
        return [tiled.weights(tiles, queries, keys) for queries, keys in chunks]

    last = adjacency(last_q, last_k)

    def group() -> Tensor:
        matrices = [
            tiles.put(torch.lerp(old, new, WEIGHT))
            for old, new in zip(last, adjacency(q, k), strict=True)
        ]
        y = v
        for _ in range(APPLICATIONS):
            chunks = zip(matrices, tiles.keys(y), strict=True)
            y = tiles.grid([tiled.product(tiles, matrix, values) for matrix, values in chunks])
        return y

    return group


def measure(case: Case, threads: int, budget: float) -> dict[str, Any]:
    """The blend beside a copy into new memory; the group beside plain PyTorch."""
    with timing.threads(threads), torch.no_grad():
        group, blend, values = ours(case)
        peer = plain(case)
        compare((peer(),), (group(),))
        copies, others = [], []
        for _ in timing.turns(budget):
            times = (limits.copy_into_new_memory(values, threads) for _ in range(COPIES))
            copies.append(min(times))
            others.append([timing.fastest(call) for call in (blend, group, peer)])
    named = zip(("blend", "group", "plain group"), zip(*others, strict=True), strict=True)
    return {
        "case": case.name,
        "threads": threads,
        "bytes": values.nbytes,
        "copy": timing.shortest(copies),
        **{name: timing.shortest(list(seconds)) for name, seconds in named},
    }
