"""The arguments ``scale``, ``bias`` and ``key_mask`` on a shard."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.placement_types import Placement

from circulant_attention.distributed.grid import Halos
from circulant_attention.distributed.placements import BATCH, CHANNELS, Placed
from circulant_attention.matrix.score_terms import Options, additive, check_mask, checked_bias

Terms = tuple[float, Tensor | None, Tensor | None]
"""The scale, the bias ``(heads, K)``, and the numbers ``(P, extended pixels)`` of the keys."""


def of_dtensors(
    options: Options,
    where: Placed,
    halos: Halos,
    nheads: int,
    default: float,
    device: torch.device,
) -> Terms:
    """The terms of this rank's shard of DTensors.

    A mask that is a DTensor gets its halo from the other ranks. A plain one is the same on every
    rank, and nothing is sent.

    Args:
        options: The arguments.
        where: How q lies on the mesh.
        halos: The grid and the window.
        nheads: The heads on all ranks.
        default: The scale if none is given.
        device: The device of q.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If one does not fit, or placements differ from those of q.
    """
    scale, bias, mask = options.checked_scale(default), options.bias, options.key_mask
    if bias is not None:
        checked_bias(bias, halos.geometry, nheads, device)
        bias = where.bias(bias, nheads)
    if mask is None:
        return scale, bias, None
    batch, size = where.batch_size, halos.grid.spatial_size
    check_mask(mask, size, (batch, nheads), device)
    batch_shape = where.batch, nheads // where.parts
    if isinstance(mask, DTensor):
        mask = _shard(mask, where, nheads)
        return scale, bias, _packed(_extended(mask, halos), batch_shape)
    if mask.requires_grad:
        raise TypeError(
            "expected a key_mask that requires a gradient to be a DTensor, which sums the "
            "gradients of all ranks, got a plain tensor: use distribute_tensor"
        )
    mask = where.own(_with_heads(mask, len(size)), 0, BATCH, batch)
    mask = halos.of_whole(where.own(mask, 1, CHANNELS, nheads))
    return scale, bias, _packed(additive(mask), batch_shape)


def of_shards(
    options: Options,
    halos: Halos,
    batch_shape: tuple[int, int],
    default: float,
    device: torch.device,
) -> Terms:
    """The terms of plain shards with ``batch_shape = (B, heads)``; the mask is a shard, too.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If one does not fit.
    """
    scale, bias, mask = options.checked_scale(default), options.bias, options.key_mask
    if bias is not None:
        bias = checked_bias(bias, halos.geometry, batch_shape[1], device).flatten(1)
    if mask is None:
        return scale, bias, None
    size = halos.grid.local_size
    check_mask(mask, size, batch_shape, device)
    extended = _extended(_with_heads(mask, len(size)), halos)
    return scale, bias, _packed(extended, batch_shape)


def _shard(mask: DTensor, where: Placed, nheads: int) -> Tensor:
    """The mask ``(B or 1, heads or 1, *local)`` of this rank's pixels."""
    spatial_dims = len(where.grid.spatial_size)
    leading = mask.dim() - spatial_dims
    if mask.device_mesh != where.mesh:
        raise ValueError(
            f"expected key_mask on the device mesh of q, {where.mesh}, got {mask.device_mesh}"
        )
    expected = _placements(mask, where, leading)
    own = tuple(
        p if where.mesh.size(at) > 1 else expected[at] for at, p in enumerate(mask.placements)
    )
    if own != expected:
        raise ValueError(
            f"expected key_mask with the placements {expected}, as q lies on the mesh, got "
            f"{mask.placements}: use key_mask.redistribute(placements={expected})"
        )
    # Ranks with other samples, heads or pixels and the same mask have summands of its gradient.
    pairs = zip(own, where.placements, strict=True)
    grads = [Partial() if isinstance(q, Shard) and p == Replicate() else p for p, q in pairs]
    local: Tensor = mask.to_local(grad_placements=grads)
    shape = (*(_local_leading(mask.shape[:leading], where, nheads)), *where.grid.local_size)
    if tuple(local.shape) != shape:
        raise ValueError(
            f"expected the shard of key_mask on this rank to have shape {shape}, as torch.chunk "
            f"cuts {tuple(mask.shape)}, got {tuple(local.shape)}: pass shape and stride to "
            f"DTensor.from_local"
        )
    return _with_heads(local, spatial_dims)


def _placements(mask: DTensor, where: Placed, leading: int) -> tuple[Placement, ...]:
    """Those of q, where the mask has the dim, and Replicate elsewhere."""
    found: list[Placement] = []
    for placement in where.placements:
        moved = _moved(placement, leading)
        if isinstance(moved, Shard) and moved.dim < leading and mask.shape[moved.dim] == 1:
            moved = Replicate()
        found.append(moved)
    return tuple(found)


def _moved(placement: Placement, leading: int) -> Placement:
    """The placement of the same dim of a mask with ``leading`` dims before the spatial ones."""
    if not isinstance(placement, Shard) or leading == 2 or placement.dim == BATCH:
        return placement
    return Replicate() if placement.dim == CHANNELS else Shard(placement.dim - 1)


def _local_leading(sizes: Sequence[int], where: Placed, nheads: int) -> tuple[int, ...]:
    own = where.batch, nheads // where.parts
    return tuple(n if size > 1 else size for size, n in zip(sizes, own, strict=False))


def _with_heads(mask: Tensor, spatial_dims: int) -> Tensor:
    return mask.unsqueeze(1) if mask.dim() == 1 + spatial_dims else mask


def _extended(mask: Tensor, halos: Halos) -> Tensor:
    """The mask with its halo, as numbers."""
    if mask.dtype == torch.bool:
        # One byte per pixel travels.
        (numbers,) = halos.extend(mask.to(torch.uint8))
        return additive(numbers.bool())
    (mask,) = halos.extend(mask)
    return mask


def _packed(mask: Tensor, batch_shape: tuple[int, int]) -> Tensor:
    """Numbers ``(B or 1, heads or 1, *extended)`` of the keys as ``(P, extended pixels)``."""
    mask = mask.flatten(2)
    mask = mask[:, 0] if mask.shape[1] == 1 else mask.expand(*batch_shape, -1).flatten(0, 1)
    # The native ops want a row, without samples too.
    return mask if mask.shape[0] else mask.sum(0, keepdim=True)
