"""DTensors as shards of a grid: which placements there are, and what the others should be.

The checks read what is equal on every rank, so that all of them raise together: a rank that raises
alone leaves the others waiting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.placement_types import Placement, _StridedShard

from circulant_attention.distributed.grid import ShardedDim, ShardedGrid
from circulant_attention.distributed.shards import chunk_sizes

BATCH, CHANNELS = 0, 1


@dataclass(frozen=True)
class Placed:
    """Features ``(B, C, *spatial)`` on a mesh, or a matrix ``(B, heads, *spatial, K)``.

    Attributes:
        mesh: The mesh.
        placements: One per mesh dim: Replicate, or Shard of the batch, the channels (or heads), or
            a spatial dim.
        grid: The spatial dims.
        batch: The number of samples on this rank.
        batch_size: That of all ranks.
        parts: The number of shards of the channels.
    """

    mesh: DeviceMesh
    placements: tuple[Placement, ...]
    grid: ShardedGrid
    batch: int
    batch_size: int
    parts: int

    def local(self, name: str, x: Tensor, channels: int) -> Tensor:
        """The shard of ``x``, which has ``channels`` on each rank.

        Raises:
            ValueError: If the shard has other sizes than torch gives it.
        """
        shard: Tensor = check_dtensor(name, x).to_local()
        expected = (self.batch, channels, *self.grid.local_size)
        if tuple(shard.shape) != expected:
            raise ValueError(
                f"expected the shard of {name} on this rank to have shape {expected}, as "
                f"torch.chunk cuts {tuple(x.shape)}, got {tuple(shard.shape)}: pass shape and "
                f"stride to DTensor.from_local, or use ShardedGrid(..., sizes) for other shards"
            )
        return shard

    def wrap(self, x: Tensor, shape: Sequence[int]) -> DTensor:
        """The DTensor of global ``shape`` with shards ``x`` and these placements."""
        return from_shards(x, self.mesh, self.placements, shape)

    def wrap_sums(self, x: Tensor, shape: Sequence[int]) -> DTensor:
        """The DTensor of global ``shape`` of sums over the dims beyond the first ``len(shape)``.

        Where these are sharded, ``x`` is a summand.
        """
        placements = [
            Partial() if isinstance(p, Shard) and p.dim >= len(shape) else p
            for p in self.placements
        ]
        return from_shards(x, self.mesh, placements, shape)

    def parameter(self, name: str, x: Tensor) -> Tensor:
        """A replicated parameter on this rank; its gradients are summed over ranks with shards.

        Raises:
            TypeError: If a parameter that requires a gradient is a plain tensor.
            ValueError: If a DTensor is not replicated on the mesh.
        """
        if not isinstance(x, DTensor):
            if x.requires_grad:
                raise TypeError(
                    f"expected a {name} that requires a gradient to be a replicated DTensor, which "
                    f"sums the gradients of all ranks, got a plain tensor: use "
                    f"distribute_tensor({name}, mesh, mesh.ndim * [Replicate()])"
                )
            return x
        if x.device_mesh != self.mesh or not all(isinstance(p, Replicate) for p in x.placements):
            raise ValueError(
                f"expected {name} replicated on the mesh of the grid, {self.mesh}, got "
                f"{x.placements} on {x.device_mesh}: use {name}.redistribute"
            )
        grads = [Partial() if isinstance(p, Shard) else p for p in self.placements]
        local: Tensor = x.to_local(grad_placements=grads)
        return local

    def bias(self, x: Tensor, nheads: int) -> Tensor:
        """The rows ``(heads, K)`` of a bias ``(nheads or 1, *window)`` for the heads on this rank.

        Raises:
            TypeError: If a bias that requires a gradient is a plain tensor.
            ValueError: If a DTensor is not replicated on the mesh.
        """
        x = self.parameter("bias", x)
        return self.own(x.flatten(1), 0, CHANNELS, nheads)

    def own(self, x: Tensor, dim: int, of: int, size: int) -> Tensor:
        """The part of this rank along ``dim``, where dim ``of`` of the features has ``size``."""
        if x.shape[dim] == 1:
            return x
        for at, p in enumerate(self.placements):
            if isinstance(p, Shard) and p.dim == of and self.mesh.size(at) > 1:
                sizes = chunk_sizes(size, self.mesh.size(at))
                rank = self.mesh.get_local_rank(at)
                return x.narrow(dim, sum(sizes[:rank]), sizes[rank])
        return x

    def heads(self, nheads: int) -> int:
        """The heads on each rank.

        Raises:
            ValueError: If the ranks do not hold whole heads.
        """
        if nheads % self.parts:
            raise ValueError(
                f"expected nheads to be divisible by {self.parts}, the ranks over which the "
                f"channels are sharded, got {nheads}: use redistribute to replicate the channels"
            )
        return nheads // self.parts


def from_shards(
    x: Tensor, mesh: DeviceMesh, placements: Sequence[Placement], shape: Sequence[int]
) -> DTensor:
    """A DTensor from its shards, which may be uneven."""
    stride = tuple(prod(shape[dim + 1 :]) for dim in range(len(shape)))
    # Without shape and stride torch takes the shards for even ones.
    return DTensor.from_local(
        x.contiguous(), mesh, placements, run_check=False, shape=torch.Size(shape), stride=stride
    )


def check_dtensor(name: str, x: Any) -> DTensor:
    """The argument, if it is a DTensor; else raises TypeError."""
    if isinstance(x, DTensor):
        return x
    raise TypeError(
        f"expected {name} to be a DTensor like the other arguments, got {type(x).__name__}: use "
        f"distribute_tensor, or DTensor.from_local for a shard"
    )


def check_placed(**tensors: Any) -> Placed:
    """How some DTensors ``(B, C, *spatial)`` lie on their mesh, which is the same for all.

    Raises:
        TypeError: If one is not a DTensor.
        ValueError: If meshes or placements differ, or are none of a sharded grid.
    """
    (first, x), *others = ((name, check_dtensor(name, x)) for name, x in tensors.items())
    for name, other in others:
        if other.device_mesh != x.device_mesh:
            raise ValueError(
                f"expected {name} on the device mesh of {first}, {x.device_mesh}, got "
                f"{other.device_mesh}"
            )
        if other.placements != x.placements:
            raise ValueError(
                f"expected {name} with the placements of {first}, {x.placements}, got "
                f"{other.placements}: use {name}.redistribute(placements={first}.placements)"
            )
    return placed(first, x, x.dim() - 2)


def placed(name: str, x: DTensor, spatial_dims: int) -> Placed:
    """How a DTensor lies on its mesh; its first two dims are the batch and the channels or heads.

    Raises:
        ValueError: If its placements are none of a sharded grid.
    """
    mesh = x.device_mesh
    cut: dict[int, int] = {}
    placements: list[Placement] = []
    for at, placement in enumerate(x.placements):
        if mesh.size(at) == 1 and not placement.is_partial():
            placements.append(placement)
            continue
        check_placement(name, placement, at)
        placements.append(placement)
        if not isinstance(placement, Shard):
            continue
        dim = placement.dim % x.dim()
        if dim in cut:
            raise ValueError(
                f"dim {dim} of {name} is sharded over the mesh dims {cut[dim]} and {at}: expected "
                f"at most one; flatten these dims of the mesh, or redistribute {name}"
            )
        if dim >= 2 + spatial_dims:
            raise ValueError(f"expected {name} sharded over its first {2 + spatial_dims} dims")
        cut[dim] = at
    batch, parts = x.shape[BATCH], 1
    if BATCH in cut:
        at = cut[BATCH]
        batch = chunk_sizes(batch, mesh.size(at))[mesh.get_local_rank(at)]
    if CHANNELS in cut:
        parts = mesh.size(cut[CHANNELS])
        if x.shape[CHANNELS] % parts:
            raise ValueError(
                f"dim 1 of {name} is sharded over {parts} ranks: expected its size to be divisible "
                f"by that, got {x.shape[CHANNELS]}"
            )
    spatial_size = tuple(x.shape[2 : 2 + spatial_dims])
    dims: list[ShardedDim | None] = []
    for dim, size in enumerate(spatial_size, 2):
        if dim not in cut:
            dims.append(None)
            continue
        at = cut[dim]
        sizes = chunk_sizes(size, mesh.size(at))
        dims.append(ShardedDim(sizes, mesh.get_local_rank(at), mesh.get_group(at).group_name))
    grid = ShardedGrid._from(spatial_size, tuple(dims))
    return Placed(mesh, tuple(placements), grid, batch, x.shape[BATCH], parts)


def check_placement(name: str, placement: Placement, at: int) -> None:
    """Raises unless the placement on mesh dim ``at`` is Replicate or Shard."""
    if placement.is_partial():
        raise ValueError(
            f"{name} is {placement} on mesh dim {at}: its shards are summands, not values; use "
            f"{name}.redistribute(...) first"
        )
    known = isinstance(placement, Shard | Replicate) and not isinstance(placement, _StridedShard)
    if not known:
        raise ValueError(
            f"expected {name} to be Replicate or Shard on mesh dim {at}, got {placement}: use "
            f"{name}.redistribute(...) first"
        )
