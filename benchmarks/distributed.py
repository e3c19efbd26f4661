"""Bytes sent against the model, and time, of attention on 1, 2 and 4 processes of one thread each.

``python -m benchmarks.distributed`` prints the tables; with ``--output`` it writes them too. The
whole grid is the same for every number of processes. The processes talk by gloo on this machine.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from benchmarks import report
from circulant_attention.distributed import (
    ShardedGrid,
    extend_halos,
    gather_halos,
    messages,
    set_overlap,
    sharded_attention,
)

CASES = {
    "image": ((256, 256), 7),
    "volume": ((48, 48, 48), 5),
}
MESHES = ((1,), (2,), (4,), (2, 2))
CHANNELS = 16
ITEM = 4  # bytes of a float32


COLUMNS = [
    *("mesh", "shard", "kB sent per rank", "model kB", "messages", "FLOP / byte"),
    *("forward ms", "speedup", "forward + backward ms", "speedup", "processor ms"),
    *("exchange ms", "return ms"),
    *("forward, overlapped ms", "both, overlapped ms", "processor ms"),
]


def model_bytes(local: Sequence[int], cut: Sequence[int], window: int, channels: int) -> int:
    """The bytes that a rank sends for one forward pass, and again for one backward pass.

    Dim after dim, the halos of k and v have the cross-section of the shard with the halos before
    it; in a dim that is cut a rank sends w - 1 pixels of it, half to each side.
    """
    size, pixels = list(local), 0
    for dim in cut:
        size[dim] += window - 1
        pixels += (window - 1) * prod(size) // size[dim]
    return 2 * channels * ITEM * pixels


def model_flops(local: Sequence[int], window: int, channels: int) -> int:
    """Of a forward pass of a shard: q . k and A v, 2 C each for every pixel and offset."""
    return 4 * channels * prod(local) * window ** len(local)


def fastest(call: Callable[[], object], seconds: float) -> tuple[float, float]:
    """The least wall time and the least processor time of the slowest rank."""
    best, end = torch.full((2,), torch.inf), time.monotonic() + seconds
    while True:
        dist.barrier()
        wall, processor = time.perf_counter(), time.process_time()
        call()
        taken = torch.tensor([time.perf_counter() - wall, time.process_time() - processor])
        taken = torch.cat([taken, torch.tensor([float(time.monotonic() < end)])])
        dist.all_reduce(taken, dist.ReduceOp.MAX)
        best = torch.minimum(best, taken[:2])
        # The ranks end together.
        if not taken[2]:
            return float(best[0]), float(best[1])


class Calls:
    """What is timed, for one grid."""

    def __init__(self, grid: ShardedGrid, window: int, inputs: list[Tensor], dy: Tensor) -> None:
        self.grid, self.window, self.inputs, self.dy = grid, window, inputs, dy
        self.extended = self.exchange()

    def forward(self) -> Tensor:
        return sharded_attention(*self.inputs, self.window, grid=self.grid)

    def both(self) -> object:
        leaves = [x.detach().requires_grad_() for x in self.inputs]
        y = sharded_attention(*leaves, self.window, grid=self.grid)
        return torch.autograd.grad(y, leaves, self.dy)

    def exchange(self) -> tuple[Tensor, ...]:
        return extend_halos(*self.inputs[1:], W=self.window, grid=self.grid)

    def give_back(self) -> tuple[Tensor, ...]:
        return gather_halos(*self.extended, W=self.window, grid=self.grid)


def measure(rank: int, world: int, store: str, mesh_shape: tuple, seconds: float, out: Any) -> None:
    """Runs on every rank."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    mesh = init_device_mesh("cpu", mesh_shape)
    for name, (size, window) in CASES.items():
        cut = range(len(mesh_shape))
        grid = ShardedGrid(size, {dim: mesh.get_group(dim) for dim in cut})
        torch.manual_seed(rank)
        q, k, v, dy = torch.randn(4, 1, CHANNELS, *grid.local_size)

        calls = Calls(grid, window, [q, k, v], dy)
        before = messages.Sent.bytes, messages.Sent.messages
        calls.forward()
        sent = messages.Sent.bytes - before[0], messages.Sent.messages - before[1]
        measured = {
            key: fastest(getattr(calls, key), seconds)
            for key in ("forward", "both", "exchange", "give_back")
        }
        set_overlap(True)
        for key in ("forward", "both"):
            measured[f"{key}, overlapped"] = fastest(getattr(calls, key), seconds)
        set_overlap(False)
        parted = [dim for dim in cut if mesh_shape[dim] > 1]
        wanted = model_bytes(grid.local_size, parted, window, CHANNELS)
        if rank == 0:
            out.put(
                {
                    "case": name,
                    "mesh": mesh_shape,
                    "local": grid.local_size,
                    "bytes": sent[0],
                    "messages": sent[1],
                    "model_bytes": wanted,
                    "flops": model_flops(grid.local_size, window, CHANNELS),
                    "seconds": measured,
                }
            )
    dist.barrier()
    dist.destroy_process_group()


def run_mesh(mesh: tuple[int, ...], seconds: float) -> list[dict[str, Any]]:
    """The results of all cases on one mesh."""
    context = mp.get_context("spawn")
    out = context.Queue()
    with tempfile.TemporaryDirectory() as directory:
        arguments = (prod(mesh), f"{directory}/store", mesh, seconds, out)
        spawned = mp.spawn(measure, arguments, nprocs=prod(mesh), join=False)
        results = [out.get(timeout=600) for _ in CASES]
        while not spawned.join():
            pass
    return results


def markdown(run: dict[str, Any]) -> str:
    """The tables."""
    made = (
        f": float32, batch 1, {CHANNELS} channels, one head, one thread per process, gloo on one "
        "machine. Times are the fastest of many calls, of the slowest rank: wall time, and the "
        "processor time of forward + backward. Where other programs want the cores, too, the wall "
        "times of several processes are mostly those of waiting for each other. The exchange is "
        "that of the forward pass alone, the return that of the backward pass. Overlapped: the "
        "interior of a shard is computed while its halos travel."
    )
    lines = report.head("One grid on several processes", run, made, run["machine"])
    for name, (size, window) in CASES.items():
        rows = [row for row in run["results"] if row["case"] == name]
        alone = {key: rows[0]["seconds"][key][0] for key in ("forward", "both")}
        lines += [
            "",
            f"## {name}: {' x '.join(map(str, size))}, window {window}",
            "",
            "| " + " | ".join(COLUMNS) + " |",
            "|---" * len(COLUMNS) + "|",
        ]
        for row in rows:
            taken = row["seconds"]
            ratio = f"{row['flops'] / row['bytes']:.0f}" if row["bytes"] else ""
            cells = [
                " x ".join(map(str, row["mesh"])),
                " x ".join(map(str, row["local"])),
                f"{row['bytes'] / 1e3:.1f}",
                f"{row['model_bytes'] / 1e3:.1f}",
                str(row["messages"]),
                ratio,
                f"{taken['forward'][0] * 1e3:.2f}",
                f"{alone['forward'] / taken['forward'][0]:.2f}",
                f"{taken['both'][0] * 1e3:.2f}",
                f"{alone['both'] / taken['both'][0]:.2f}",
                f"{taken['both'][1] * 1e3:.1f}",
                f"{taken['exchange'][0] * 1e3:.2f}",
                f"{taken['give_back'][0] * 1e3:.2f}",
                f"{taken['forward, overlapped'][0] * 1e3:.1f}",
                f"{taken['both, overlapped'][0] * 1e3:.1f}",
                f"{taken['both, overlapped'][1] * 1e3:.1f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distributed", description=__doc__)
    parser.add_argument("--output", type=Path, help="write OUTPUT.json and OUTPUT.md")
    parser.add_argument("--seconds", type=float, default=3.0, help="of repetitions of a call")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = report.surroundings("benchmarks.distributed")
    run["results"] = [row for mesh in MESHES for row in run_mesh(mesh, options.seconds)]
    report.publish(run, markdown(run), options.output)


if __name__ == "__main__":
    main()
