"""Cosine attention of DTensors: its sums over the grid are summed over the ranks, too."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.placement_types import Placement

from circulant_attention.distributed.placements import (
    Placed,
    check_dtensor,
    check_placed,
    from_shards,
    placed,
)


def cos_attn(module: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The ``forward`` of cosine attention; one all-reduce of the sums over the pixels of k.

    The message does not grow with the grid: ``2**d (C_v / heads + 1) C`` numbers per sample.
    """
    where = check_placed(q=q, k=k, v=v)
    module._check_inputs(q, k, v)
    of_keys = placed("k", check_dtensor("k", k), k.dim() - 2)
    heads = where.heads(module.n_head)
    own_q, own_k, own_v = (
        at.local(name, x, x.shape[1] // where.parts)
        for name, x, at in (("q", q, where), ("k", k, of_keys), ("v", v, of_keys))
    )
    here, there = (_terms(module, at) for at in (where, of_keys))

    def total(sums: Tensor) -> Tensor:
        return _total(sums, where, (len(sums), q.shape[0], module.n_head, *sums.shape[3:]))

    y = module._attended(own_q, own_k, own_v, here, there, heads, q.shape[1], total)
    return where.wrap(y, (*v.shape[:2], *q.shape[2:]))


def _terms(module: Any, where: Placed) -> Tensor:
    """The terms of this rank's pixels; distribute_module makes the table a DTensor, too."""
    coefficients = module.attn_coef
    if isinstance(coefficients, DTensor):
        coefficients = coefficients.to_local()
    own = slice(None), *where.grid.slices
    terms: Tensor = coefficients[own].flatten(1)
    return terms


def _total(sums: Tensor, where: Placed, shape: tuple[int, ...]) -> Tensor:
    """Sums ``(terms, B, heads, ...)`` over the pixels of a rank, summed over the ranks."""
    parts: list[Placement] = []
    for p in where.placements:
        if isinstance(p, Shard):
            # The batch and the heads are one dim further behind.
            parts.append(Shard(p.dim + 1) if p.dim < 2 else Partial())
        else:
            parts.append(Replicate())
    whole = [Replicate() if isinstance(p, Partial) else p for p in parts]
    result = from_shards(sums, where.mesh, parts, shape).redistribute(placements=whole)
    # Each rank has other queries, with summands of the gradient.
    local: Tensor = result.to_local(grad_placements=parts)
    return local
