"""Fused attention of DTensors: inputs on several ranks become one output.

Each rank has some of the inputs. It gathers the keys of all, computes the rows of its queries, and
the means of the rows, and then of the values, are summed over the ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.placement_types import Placement

from circulant_attention.checks import check_mask
from circulant_attention.distributed.batches import mask_of, of_whole_samples
from circulant_attention.distributed.local import nothing
from circulant_attention.distributed.parameters import call_on_shard
from circulant_attention.distributed.placements import check_dtensor, check_placement, from_shards
from circulant_attention.distributed.shards import chunk_sizes
from circulant_attention.nn.averaged_softmax import averaged_softmax
from circulant_attention.nn.pooling import stacked

_whole_samples = of_whole_samples("FusedAttention")


def fused_attention(
    module: Any,
    x: Tensor | Sequence[Tensor],
    mask: Tensor | None = None,
    need_weights: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The ``forward`` of FusedAttention.

    The inputs of a collection may be on several ranks: each computes f of its own. Patches reach
    over the borders of shards, so images are sharded over the batch only.
    """
    x = check_dtensor("x", x if isinstance(x, Tensor) else stacked(x))
    if module.window is not None or not any(_is_cut(x, at) for at in range(x.device_mesh.ndim)):
        found: Tensor | tuple[Tensor, Tensor] = _whole_samples(module, x, mask, need_weights)
        return found
    _check(module, x)
    if mask is not None:
        check_mask(mask, x.shape[:2], "(B, L)")
    return _pooled(module, x, mask, need_weights)


def _is_cut(x: DTensor, at: int) -> bool:
    placement = x.placements[at]
    return isinstance(placement, Shard) and placement.dim == 1 and x.device_mesh.size(at) > 1


def _check(module: Any, x: DTensor) -> None:
    if module.norm is not None or module.fuse is not None:
        raise ValueError(
            "expected norm=None and fuse=None for inputs that are sharded, since others see the "
            "scores of all: use x.redistribute to shard the batch"
        )
    for at, placement in enumerate(x.placements):
        check_placement("x", placement, at)
        if isinstance(placement, Shard) and placement.dim > 1 and x.device_mesh.size(at) > 1:
            raise ValueError(
                f"expected x (B, L, *shape) to be sharded over B or L, got {placement} on mesh "
                f"dim {at}: use x.redistribute"
            )
    if x.placements.count(Shard(0)) > 1 or x.placements.count(Shard(1)) > 1:
        raise ValueError(
            f"expected each dim of x on at most one mesh dim, got {x.placements}: flatten these "
            f"dims of the mesh, or redistribute x"
        )


def _pooled(
    module: Any, x: DTensor, mask: Tensor | None, need_weights: bool
) -> Tensor | tuple[Tensor, Tensor]:
    mesh, placements = x.device_mesh, x.placements
    batch, inputs = x.shape[:2]
    own = x.to_local()
    flat = own.flatten(0, 1)
    made = []
    for f in (module.f_Q, module.f_K, module.f_V):
        if isinstance(f, nn.Module):
            made.append(call_on_shard(f, mesh, placements, flat))
        else:
            made.append(flat if f is None else f(flat))
    q, k, v = (y.reshape(*own.shape[:2], y.shape[1:].numel()) for y in made)
    if q.shape != k.shape:
        raise ValueError(
            f"expected f_K to give columns of the length of f_Q, {q.shape[2]}, got {k.shape[2]}"
        )
    dtype = torch.promote_types(q.dtype, k.dtype)
    # The inputs whole, and the gradients of each rank summands.
    whole = [_at_inputs(p, Replicate()) for p in placements]
    summands = [_at_inputs(p, Partial()) for p in placements]
    at = placements.index(Shard(1))
    sizes = chunk_sizes(inputs, mesh.size(at))
    first = sum(sizes[: mesh.get_local_rank(at)])
    kept = mask_of(mask, mesh, whole)
    if kept is not None:
        # Also removes NaNs of the padding.
        left_out = ~kept.narrow(1, first, own.shape[1]).unsqueeze(-1)
        q, k, v = (z.masked_fill(left_out, 0) for z in (q, k, v))
    q, k = q.to(dtype), k.to(dtype)
    cut_keys = from_shards(k, mesh, placements, (batch, inputs, k.shape[2]))
    keys = cut_keys.redistribute(placements=whole).to_local(grad_placements=summands)
    scale = 1.0 / math.sqrt(v.shape[2]) if module.scale is None else module.scale
    if own.shape[1]:
        weights = averaged_softmax(q, keys, kept, scale, first)
    else:
        wide = torch.promote_types(dtype, torch.float32)
        weights = nothing(keys.new_zeros(len(keys), inputs, dtype=wide), q, 0 * keys)
    total = from_shards(weights, mesh, summands, (batch, inputs))
    weights = total.redistribute(placements=placements)
    pooled = (weights.to_local().to(v.dtype).unsqueeze(1) @ v).squeeze(1)
    total = from_shards(pooled, mesh, summands, (batch, v.shape[2])).redistribute(placements=whole)
    pooled = total.to_local()
    if not module.flatten:
        pooled = pooled.reshape(len(pooled), *made[2].shape[1:])
    if isinstance(module.g_V, nn.Module):
        pooled = call_on_shard(module.g_V, mesh, whole, pooled)
    elif module.g_V is not None:
        pooled = module.g_V(pooled)
    y = from_shards(pooled, mesh, whole, (batch, *pooled.shape[1:]))
    return (y, weights) if need_weights else y


def _at_inputs(placement: Placement, other: Placement) -> Placement:
    return other if placement == Shard(1) else placement
