"""Axial attention of DTensors: along an axis that is cut, x is cut along another one meanwhile."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.placement_types import Placement

from circulant_attention.distributed.batches import mask_of
from circulant_attention.distributed.parameters import call_on_shard
from circulant_attention.distributed.placements import check_dtensor, check_placement, from_shards
from circulant_attention.nn.axes import check_grid, check_grid_mask

Placements = tuple[Placement, ...]


def axial_attention(module: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """The ``forward`` of AxialAttention.

    Along an axis that is whole on every rank, each rank attends on its own. Another axis is
    exchanged for one that is whole, or the batch, by an all-to-all, and back; where none is left,
    the lines are gathered, and the ranks compute the same ones.
    """
    x = check_dtensor("x", x)
    channel = module.dim_index
    check_grid(x, module.dim, channel, module.num_dimensions)
    check_grid_mask(mask, x, channel)
    placements = _checked(x, channel)

    def attended(part: Any, x: Any) -> Any:
        moved = _along(part.axis, x, channel, placements)
        shard = x.redistribute(placements=moved).to_local()
        of_mask = [_without_channel(p, channel) for p in moved]
        own = mask_of(mask, x.device_mesh, of_mask)
        y = call_on_shard(part, x.device_mesh, moved, shard, own)
        result = from_shards(y, x.device_mesh, moved, x.shape)
        return result.redistribute(placements=placements)

    if module.sum_axial_out:
        first, *others = (attended(part, x) for part in module.axial_attentions)
        total: Tensor = sum(others, start=first)
        return total
    for part in module.axial_attentions:
        x = attended(part, x)
    return x


def _checked(x: DTensor, channel: int) -> Placements:
    """The placements of x, if each rank has whole pixels; else raises."""
    cut: dict[int, int] = {}
    found: list[Placement] = []
    for at, placement in enumerate(x.placements):
        check_placement("x", placement, at)
        if isinstance(placement, Shard):
            dim = placement.dim % x.dim()
            if dim == channel:
                raise ValueError(
                    f"x is sharded over its channels, dim {dim}, on mesh dim {at}: axial attention "
                    f"needs whole pixels; use x.redistribute"
                )
            if dim in cut:
                raise ValueError(
                    f"dim {dim} of x is sharded over the mesh dims {cut[dim]} and {at}: expected "
                    f"at most one; flatten these dims of the mesh, or redistribute x"
                )
            cut[dim] = at
            placement = Shard(dim)
        found.append(placement)
    return tuple(found)


def _along(axis: int, x: DTensor, channel: int, placements: Placements) -> Placements:
    """The placements of x while it attends along an axis, which is whole on every rank."""
    at = next((i for i, p in enumerate(placements) if p == Shard(axis)), None)
    if at is None:
        return placements
    ranks = x.device_mesh.size(at)
    taken = {channel, *(p.dim for p in placements if isinstance(p, Shard))}
    free = [dim for dim in range(x.dim()) if dim not in taken and x.shape[dim] >= ranks]
    # The longest, which leaves the least difference between ranks.
    other = Shard(max(free, key=lambda dim: x.shape[dim])) if free else Replicate()
    return (*placements[:at], other, *placements[at + 1 :])


def _without_channel(placement: Placement, channel: int) -> Placement:
    """The placement of the same dim of a mask, which has no channels."""
    if not isinstance(placement, Shard):
        return placement
    return Shard(placement.dim - (placement.dim > channel))
