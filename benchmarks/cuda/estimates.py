"""Bounds of the kernels' speed on an H200, from counts of machine code. Nothing is measured.

``python -m benchmarks.cuda.estimates`` writes the tables of README.md from ``counts.json``;
``... --count`` makes that file first: it compiles the CUDA library and counts the rounds of its
loops (``tests/native/loop_rounds.py``), and prints the plans of the problems by the kernels' own
code, compiled for the host (``plans.cpp``).

A block keeps a multiprocessor busy for its issue slots, four per cycle, for its cycles of shared
memory, and for its products on tensor cores, whichever takes longest. Latency is not counted, nor
are the tables of a tile and what is done per channel or row before its values are moved.
"""

from __future__ import annotations

import argparse
import heapq
import importlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cases import Case
from benchmarks.cuda.cases import GPU_CASES

HERE = Path(__file__).parent
COUNTS = HERE / "counts.json"
WRITE = "python -m benchmarks.cuda.estimates"
RENEW = f"{WRITE} --count"
CASES = {name: GPU_CASES[name] for name in ("readme", "large", "large_both")}

ARCHITECTURES = ("sm_80", "sm_90")

# An H200, by its data sheet, but for the rate of `mma.sync`, which is assumed.
FLOPS, BANDWIDTH, MULTIPROCESSORS, TENSOR_FLOPS = 67e12, 4.3e12, 132, 620e12
LANES = 128  # multiply-adds of a multiprocessor per cycle
CLOCK = FLOPS / (2 * LANES * MULTIPROCESSORS)
HMMA_CYCLES = 2 * 16 * 8 * 16 * CLOCK * MULTIPROCESSORS / TENSOR_FLOPS

STRIP = 8  # taps, as in csrc/cuda/strips.cuh
Plan = dict[str, int]  # of a launch, see plans.h


def up(a: int, b: int) -> int:
    return -(-a // b)


@dataclass(frozen=True)
class Launch:
    """Blocks, and what each takes: issue slots, cycles of shared memory, tensor-core products."""

    blocks: int
    slots: float
    wavefronts: float
    products: float = 0

    def cycles(self) -> dict[str, float]:
        """The cycles of a multiprocessor that a block takes."""
        return {
            "issue slots": self.slots / 4,
            "shared memory": self.wavefronts,
            "tensor cores": self.products * HMMA_CYCLES,
        }

    def seconds(self, whole: bool) -> float:
        """The least time, with blocks cut or computed whole by multiprocessors."""
        rounds = up(self.blocks, MULTIPROCESSORS) if whole else self.blocks / MULTIPROCESSORS
        return rounds * max(self.cycles().values()) / CLOCK


def in_one(parts: list[Launch]) -> float:
    """The least time of a launch of several parts, with whole blocks.

    A multiprocessor takes the next block once it is free.
    """
    free = [0.0] * MULTIPROCESSORS
    for part in parts:
        cycles = max(part.cycles().values())
        for _ in range(part.blocks):
            heapq.heapreplace(free, free[0] + cycles)
    return max(free) / CLOCK


def launch(blocks: int, parts: list[tuple[float, Any]], products: float = 0) -> Launch:
    """A launch of rounds of loops: how often a block makes each, its slots and its wavefronts."""
    return Launch(blocks, *(sum(n * loop[i] for n, loop in parts) for i in range(2)), products)


class Counts:
    """The contents of ``counts.json``, and what follows from them."""

    def __init__(self, contents: dict[str, Any]) -> None:
        self.contents = contents

    def loop(self, kernel: str, role: str, architecture: str = "sm_90") -> list[Any]:
        """The first loop with a role: slots, wavefronts, products, instructions."""
        return self.contents[f"{architecture} {kernel}"][role][0]

    def sums(self, kernel: str, architecture: str = "sm_90") -> list[Any]:
        """The last loop that multiplies: in attention, that of the weighted sums."""
        return self.contents[f"{architecture} {kernel}"]["products"][-1]

    def move(self, kernel: str, role: str, which: int = -1) -> tuple[float, float]:
        """Slots and wavefronts of a load, or store, of a warp."""
        slots, wavefronts, moves = self.contents[f"sm_90 {kernel}"][role][which]
        return slots / moves, wavefronts / moves

    def seconds(self, name: str, op: str, whole: bool, dtype: str = "float32") -> float:
        """The least time of an op, with blocks cut or computed whole by multiprocessors."""
        launches = self.launches(name, op, dtype)
        if whole and (op, dtype) == ("attention_backward", "float32"):
            return in_one(launches)
        return sum(launch.seconds(whole) for launch in launches)

    def launches(self, name: str, op: str, dtype: str = "float32") -> list[Launch]:
        """The launches of an op that have a plan, or their parts, but for transpose."""
        plans = [plan for plan in self.contents[f"{name} {op} {dtype}"] if len(plan) > 1]
        case, is_half = CASES[name], dtype != "float32"
        if op == "similarity":
            return [self.similarity(case, plan) for plan in plans]
        if op.startswith("apply"):
            return [self.apply(case, plan, op == "apply_transposed") for plan in plans]
        kernels = {
            ("attention", False): [("kernel<float, false>", 1)],
            # The gradients of queries, keys and values: 2, 2 and 1 products beside the sums.
            ("attention_backward", False): [
                ("backward_kernel<float, false>", n) for n in (2, 2, 1)
            ],
            # Octets at a time, and numbers of a pixel of the halo.
            ("attention", True): [("mma_kernel<Half, 64, false>", 3, 0)],
            ("attention_backward", True): [
                ("mma_backward_kernel<Half, 64, false, false, false>", 1, 0),
                ("mma_backward_kernel<Half, 64, true, true, false>", 1, 2),
            ],
        }[op, is_half]
        of_plan: Any = self.tensor_cores if is_half else self.attention
        return [
            of_plan(case, plan, f"attention_{kernel}", *numbers)
            for plan, (kernel, *numbers) in zip(plans, kernels, strict=True)
        ]

    def similarity(self, case: Case, p: Plan) -> Launch:
        kernel, channels = "similarity_kernel<float, false>", case.group_shape[1]
        strips = case.window * up(case.window, STRIP) / p["steps"]
        entries = p["d"] * p["h"] * p["w"] * strips * STRIP
        parts = [
            (channels * strips, self.loop(kernel, "products")),
            (channels * p["channel"] / 32, self.move(kernel, "loads")),
            (entries / 32, self.move(kernel, "stores")),
            (8, self.loop(kernel, "tile")),
        ]
        return launch(p["blocks"], parts)

    def apply(self, case: Case, p: Plan, transposed: bool) -> Launch:
        kernel, W = f"apply_kernel<float, {str(transposed).lower()}>", case.window
        passes = up(W, STRIP)
        # Of a segment that is a whole window row, only the last row of the tile is new.
        rows = p["h"] * up(passes * STRIP, p["segment"])
        rows = (W + p["h"] - 1) / W if p["segment"] >= W else rows
        columns = up(p["w"] + min(p["segment"], W) - 1, 32)
        entries = p["d"] * p["h"] * p["w"] * passes * STRIP
        parts = [
            (W * p["warps"] * passes, self.loop(kernel, "products")),
            (W * entries / 32, self.move(kernel, "loads")),
            (W * p["d"] * rows * columns * p["block_channels"], self.move(kernel, "loads", 0)),
        ]
        return launch(p["blocks"], parts)

    def attention(self, case: Case, p: Plan, kernel: str, products: int) -> Launch:
        """``products`` for scores and gradients of weights, and one weighted sum."""
        C, W, warps = case.group_shape[1], case.window, 8
        assert C == 64, "as many channels as a block sums, in two passes"
        strips = W * up(W, STRIP)
        columns = up(p["w"] + min(p["box_w"], W) - 1, 32)
        halo = (p["d"] + p["box_d"] - 1) * (p["h"] + p["box_h"] - 1) * columns
        staged = (products + 1) * C * halo + products * C * 4
        parts = [
            (strips * C * products, self.loop(kernel, "products")),
            (strips * warps * 2 * 2, self.sums(kernel)),  # half a strip at a time
            (p["steps"] * staged, self.move(kernel, "loads")),
            (p["steps"] * warps, self.loop(kernel, "step")),
            (warps, self.loop(kernel, "tile")),
        ]
        return launch(p["blocks"], parts)

    def tensor_cores(self, case: Case, p: Plan, kernel: str, together: int, numbers: int) -> Launch:
        bands, steps, warps = case.window // 2 + 1, p["bands"] * p["chunks"], 8
        copies = (4 * 64 << p["log_positions"]) / 256  # of a thread
        parts = [
            (warps * bands * up(p["octets"], together), self.loop(kernel, "products")),
            (warps * steps, self.loop(kernel, "step")),
            (warps * steps * 2, self.loop(kernel, "row")),  # with a line of two features
            (warps * steps * 4, self.loop(kernel, "line")),
            (warps * steps * copies, self.loop(kernel, "copy")),
            (warps * steps * numbers, self.loop(kernel, "number")),
            (warps, self.loop(kernel, "tile")),
        ]
        products = self.loop(kernel, "products")[2] / together
        return launch(p["blocks"], parts, warps * bands * p["octets"] * products)

    def of_step(self, kernel: str) -> int:
        """Slots of a step on tensor cores, beside its octets and what it copies."""
        step, row, line = (self.loop(kernel, role)[0] for role in ("step", "row", "line"))
        return step + 2 * row + 4 * line

    def transposition(self, case: Case) -> float:
        """Seconds for the issue slots of ``transpose``."""
        kernel = "transpose_kernel<unsigned int>"
        slots = sum(self.move(kernel, role)[0] for role in ("loads", "stores"))
        entries = case.group_shape[0] * case.pixels * case.offsets
        return entries / 32 * slots / 4 / MULTIPROCESSORS / CLOCK


def load() -> Counts:
    return Counts(json.loads(COUNTS.read_text()))


def native(module: str) -> Any:
    """A module of ``tests/native``."""
    sys.path.insert(0, str(HERE.parents[1] / "tests" / "native"))
    try:
        return importlib.import_module(module)
    finally:
        sys.path.pop(0)


def compiler() -> str:
    """The release of nvcc."""
    nvcc = os.environ.get("NVCC", "nvcc")
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    return re.findall(r"release (\S+),", text)[0]


def count() -> dict[str, Any]:
    """Counts of the machine code, by architecture and kernel."""
    library = native("resource_report").build().library
    return native("loop_rounds").all_counts(library, ARCHITECTURES)


def plan() -> dict[str, Any]:
    """The plans of launches, by problem, op and dtype."""
    build = native("cuda_on_host.build")
    ninja = build.Ninja(["-O0", "-std=c++20", "-include", str(HERE / "plans.h")])
    sources = [*build.kernels(), *(build.HERE / f"{name}.cpp" for name in build.DEVICE)]
    sources.append(HERE / "plans.cpp")
    target = ninja.link([ninja.object(path, f"{path.stem}.o") for path in sources], "plans")
    program = ninja.run(build.BUILD / "plans") / target
    found: dict[str, Any] = {}
    for name, case in CASES.items():
        sizes = map(str, (*case.group_shape, case.window))
        done = subprocess.run([program, *sizes], capture_output=True, text=True, check=True)
        for line in map(json.loads, done.stdout.splitlines()):
            if isinstance(line, str):
                plans = found.setdefault(f"{name} {line}", [])
            else:
                plans.append(line)
    return found


def main(arguments: list[str] | None = None) -> None:
    from benchmarks.cuda import estimate_tables

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", action="store_true", help="make counts.json anew")
    if parser.parse_args(arguments).count:
        contents = {"nvcc": compiler()} | count() | plan()
        lines = [f"{json.dumps(name)}: {json.dumps(some)}" for name, some in contents.items()]
        COUNTS.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    estimate_tables.write(load())


if __name__ == "__main__":
    main()
