"""The example gives the losses of one process; the benchmark's model gives the bytes sent."""

from __future__ import annotations

import torch
import torch.distributed as dist
from attention_checks import mesh_of

from benchmarks.distributed import ITEM, model_bytes
from circulant_attention.distributed import ShardedGrid, extend_halos, messages
from examples import distributed


def losses_of_the_example() -> None:
    """Rows and columns that are not divided evenly; compared with one process in the example."""
    if dist.get_world_size() == 4:
        distributed.main(["--size", "37", "--steps", "3", "--compare"])


def bytes_of_the_model() -> None:
    world = dist.get_world_size()
    for mesh_shape, size, window in (
        ((world,), (8 * world, 6), 5),
        ((2, world // 2) if world > 1 else (1, 1), (16, 16), 7),
        ((2, world // 2) if world > 1 else (1, 1), (8, 8, 5), 3),
    ):
        mesh = mesh_of(mesh_shape)
        grid = ShardedGrid(size, {dim: mesh.get_group(dim) for dim in range(mesh.ndim)})
        k, v = torch.randn(2, 1, 3, *grid.local_size)
        before = messages.Sent.bytes
        extend_halos(k, v, W=window, grid=grid)
        cut = [dim for dim in range(mesh.ndim) if mesh.size(dim) > 1]
        assert k.element_size() == ITEM
        assert messages.Sent.bytes - before == model_bytes(grid.local_size, cut, window, 3)
