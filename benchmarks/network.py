"""A whole network: GroupCDL of the size of its published checkpoints, and the share of its parts.

Beside it is the same network with its matrices in plain PyTorch, by tiles of 8 x 8 pixels. The
parameters are random: the time does not depend on them.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import tasks, tiled, timing
from benchmarks.cases import Case
from benchmarks.worker import compare
from examples.groupcdl.network import Config, GroupCDL
from examples.groupcdl.parameters import initialise

PARTS = ("adjacency", "blend", "apply", "convolutions")
SIGMA = 25 / 255
# A process may take this many times the budget: it checks the results, then takes 3 turns at least.
PROCESS_BUDGETS = 20


@dataclass(frozen=True)
class Task(tasks.Task):
    """The codes of the network, ``case``, and the seconds for repetitions."""

    budget_seconds: float


class Stopwatch:
    """Adds up the seconds of the parts of a network."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)

    def timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, counted for a part."""

        def measured(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = call(*arguments)
            self.seconds[part] += time.perf_counter() - start
            return result

        return measured

    def watch(self, net: GroupCDL) -> None:
        """Count the calls of a network from now on."""
        similarity = net.nonlocal_similarity
        similarity.adjacency = self.timed("adjacency", similarity.adjacency)
        similarity.blend = self.timed("blend", similarity.blend)
        similarity.apply_matrix = self.timed("apply", similarity.apply_matrix)
        for layer in net.layers:
            layer.forward = self.timed("convolutions", layer.forward)

    def run(self, net: GroupCDL, y: Tensor) -> dict[str, float]:
        """The seconds of a call, in all and by parts."""
        self.seconds = dict.fromkeys(PARTS, 0.0)
        start = time.perf_counter()
        net(y, SIGMA)
        return {"total": time.perf_counter() - start, **self.seconds}


class TiledMatrix:
    """The stored entries of a matrix by chunks of tiles; its dense tiles are made on first use."""

    def __init__(self, tiles: tiled.Tiles, values: list[Tensor]) -> None:
        self.tiles, self.values = tiles, values
        self.matrices: list[Tensor] = []

    def __matmul__(self, x: Tensor) -> Tensor:
        self.matrices = self.matrices or [self.tiles.put(values) for values in self.values]
        chunks = zip(self.matrices, self.tiles.keys(x), strict=True)
        return self.tiles.grid(
            [tiled.product(self.tiles, matrix, values) for matrix, values in chunks]
        )


def use_tiles(net: GroupCDL, case: Case) -> None:
    """Give a network matrices in plain PyTorch."""
    tiles, similarity = tiled.Tiles(case), net.nonlocal_similarity

    def adjacency(x: Tensor, y: Tensor) -> TiledMatrix:
        chunks = zip(tiles.queries(x), tiles.keys(y), strict=True)
        return TiledMatrix(tiles, [tiled.weights(tiles, *chunk) for chunk in chunks])

    def blend(new: TiledMatrix, last: TiledMatrix) -> TiledMatrix:
        pairs = zip(last.values, new.values, strict=True)
        return TiledMatrix(tiles, [torch.lerp(*pair, similarity.gamma) for pair in pairs])

    similarity.adjacency, similarity.blend = adjacency, blend


def make(case: Case) -> tuple[GroupCDL, Tensor]:
    """The network of GroupCDL-25 with codes of the case, and an image."""
    config = Config(
        K=30, M=169, s=2, nlss_hidden=case.channels, nlss_windowsize=case.window, nlss_update=5
    )
    generator = torch.Generator().manual_seed(0)
    net = initialise(GroupCDL(config), generator)
    sizes = [config.s * size for size in case.spatial]
    return net, torch.rand(case.batch, 1, *sizes, generator=generator)


@torch.no_grad()
def measure(case: Case, budget: float) -> dict[str, Any]:
    """The parts of the fastest call, ours and in plain PyTorch; their calls alternate."""
    ours, y = make(case)
    plain, _ = make(case)
    use_tiles(plain, case)
    compare((plain(y, SIGMA),), (ours(y, SIGMA),))
    nets = {"ours": ours, "plain": plain}
    stopwatches = {name: Stopwatch() for name in nets}
    for name, net in nets.items():
        stopwatches[name].watch(net)
    calls: dict[str, list[dict[str, float]]] = {name: [] for name in nets}
    for _ in timing.turns(budget):
        for name, net in nets.items():
            calls[name].append(stopwatches[name].run(net, y))
    return {
        name: {**min(found, key=lambda call: call["total"]), "calls": len(found)}
        for name, found in calls.items()
    }


def run(case: Case, budget: float) -> dict[str, Any]:
    """The measurement in a process of its own, or the reason why there is none."""
    limit = PROCESS_BUDGETS * budget
    status, measured = tasks.run("benchmarks.network", Task(case, budget), limit)
    if measured is not None:
        return {"status": "ok", **measured}
    reason = f"status {status}" if status is not None else f"no result after {limit:.0f} s"
    return {"status": "refused", "reason": reason}


def summary(result: dict[str, Any]) -> str:
    """A line for the screen."""
    if result["status"] != "ok":
        return f"network       {result['reason']}"
    ours, plain = result["ours"]["total"], result["plain"]["total"]
    return f"network       ours {ours * 1e3:.0f} ms, in plain PyTorch {plain * 1e3:.0f} ms"


def markdown(case: Case, result: dict[str, Any]) -> list[str]:
    """The section of the report."""
    sizes = " x ".join(str(2 * size) for size in case.spatial)
    lines = [
        "",
        f"## network: GroupCDL, 30 layers of 169 filters, an image of {sizes} pixels",
        "",
    ]
    if result["status"] != "ok":
        return [*lines, f"Not measured: {result['reason']}."]
    ours, plain = result["ours"], result["plain"]
    rows = [
        f"| {part} | {cell(ours, part)} | {cell(plain, part)} | {ratio(ours, plain, part)} |"
        for part in (*PARTS, "rest", "total")
    ]
    return [
        *lines,
        f"Codes of {case}; the fastest of {ours['calls']} calls each.",
        "",
        "| part | this package, ms (share) | matrices in plain PyTorch, ms (share) | times ours |",
        "|---|---|---|---|",
        *rows,
    ]


def seconds(found: dict[str, float], part: str) -> float:
    """The seconds of a part; the rest is what no part counts."""
    if part == "rest":
        return found["total"] - sum(found[name] for name in PARTS)
    return found[part]


def cell(found: dict[str, float], part: str) -> str:
    """Milliseconds and their share."""
    spent = seconds(found, part)
    return f"{spent * 1e3:.0f} ({spent / found['total']:.0%})"


def ratio(ours: dict[str, float], plain: dict[str, float], part: str) -> str:
    """How much longer plain PyTorch takes."""
    return f"{seconds(plain, part) / seconds(ours, part):.1f}"


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
    task = Task.from_json(sys.argv[1])
    tasks.write_result(Path(sys.argv[2]), measure(task.case, task.budget_seconds))
