"""Attention with biases written out densely, for any window."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from windows import CIRCULAR, VALID, Dims


def offsets_of_pairs(dims: Dims) -> Tensor:
    """The number of the offset at which query i sees key j, ``(N, M)``; -1 where it does not."""
    joined = torch.zeros(1, 1, dtype=torch.int64)
    for dim in dims:
        own = torch.full((dim.size, dim.keys), -1)
        first = 0 if dim.boundary == VALID else -dim.before
        for i in range(dim.size):
            for o in range(dim.before + dim.after + 1):
                j = i + dim.dilation * (first + o)
                if dim.boundary == CIRCULAR:
                    j %= dim.size
                if 0 <= j < dim.keys:
                    own[i, j] = o
        one, other = joined[:, None, :, None], own[None, :, None, :]
        both = one * (dim.before + dim.after + 1) + other
        joined = both.where((one >= 0) & (other >= 0), -1).flatten(0, 1).flatten(1)
    return joined


def sum_over_offsets(matrices: Tensor, dims: Dims) -> Tensor:
    """The sums ``(*, K)`` of dense matrices over the pairs at each offset."""
    pairs = offsets_of_pairs(dims)
    count = torch.Size([dim.before + dim.after + 1 for dim in dims]).numel()
    seen = pairs >= 0
    sums = matrices.new_zeros(*matrices.shape[:-2], count)
    return sums.index_add(-1, pairs[seen], matrices[..., seen])


class Attended(NamedTuple):
    y: Tensor  # (G, C, N)
    lse: Tensor  # (G, N)
    weights: Tensor  # (G, N, M)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    key_bias: Tensor | None,
    dims: Dims,
    kind: int,
    scale: float,
) -> Attended:
    """Of ``(G, C, N)`` and ``(G, C, M)``; differentiable."""
    scores = scale * (q.mT @ k)
    if kind:
        scores = -0.5 * scale * (q.mT[..., None] - k[:, None]).square().sum(2)
    pairs, groups = offsets_of_pairs(dims), q.shape[0]
    added = torch.zeros(pairs.shape, dtype=scores.dtype).masked_fill(pairs < 0, -torch.inf)
    added = added.expand(scores.shape)
    if bias is not None:
        heads = torch.arange(groups) % bias.shape[0]
        added = added + bias[heads][:, pairs.clamp(min=0)]
    if key_bias is not None:
        rows = torch.arange(groups) // (groups // key_bias.shape[0])
        added = added + key_bias[rows][:, None]
    empty = (added == -torch.inf).all(-1, keepdim=True)
    scores = torch.where(empty, 0, scores + added)
    weights = torch.where(empty, 0, scores.softmax(-1))
    lse = torch.where(empty[..., 0], -torch.inf, scores.logsumexp(-1))
    return Attended(v @ weights.mT, lse, weights)
