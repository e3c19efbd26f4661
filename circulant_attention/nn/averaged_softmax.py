"""The mean of the rows of a softmax matrix, without the matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import FunctionCtx

from circulant_attention.ops.autocast import without_autocast

# Rows of the matrix that are held at a time.
_ROWS = 128


def averaged_softmax(
    q: Tensor, k: Tensor, mask: Tensor | None, scale: float, first: int = 0
) -> Tensor:
    r"""The weights that a uniform mixture of queries gives to the keys.

    .. math:: a_i = \frac{1}{L} \sum_j \operatorname{softmax}_i(\text{scale} \, k_i \cdot q_j)

    The L x L matrix is made 128 rows at a time, and again in the backward pass: memory linear in
    L. In forward mode that also records a graph, the graph keeps the whole matrix. In half
    precision, also under autocast, dot products have the dtype of q and k; softmax and sums are in
    float32.

    Args:
        q: Queries ``(B, L, u)``, or some adjacent ones of L, whose part of the sum is returned.
        k: Keys ``(B, L, u)`` of the same dtype.
        mask: Bool ``(B, L)``, False for inputs that are neither keys nor queries.
        scale: The factor of the dot products.
        first: The number of the first query.

    Returns:
        ``(B, L)``, at least float32.
    """
    if forward_ad._current_level >= 0:  # within a forward-mode level; a private name
        return _averaged(q, k, mask, scale, first)
    weights: Tensor = _AveragedSoftmax.apply(q, k, mask, scale, first)  # type: ignore[no-untyped-call]
    return weights


def _averaged(q: Tensor, k: Tensor, mask: Tensor | None, scale: float, first: int) -> Tensor:
    with without_autocast(q.device):
        total = torch.zeros((), device=q.device)
        for part in _parts(q.shape[1]):
            total = total + _rows(q, k, mask, scale, first, part).sum(dim=1)
        return total * _share(k, mask)


def _rows(
    q: Tensor, k: Tensor, mask: Tensor | None, scale: float, first: int, part: slice
) -> Tensor:
    """Some rows of the softmax over the keys, ``(B, rows, L)``; those of no query are zero."""
    scores = (scale * q[:, part]) @ k.mT
    dtype = torch.promote_types(q.dtype, torch.float32)
    if mask is None:
        return scores.softmax(dim=-1, dtype=dtype)
    scores = scores.masked_fill(~mask.unsqueeze(1), -torch.inf)
    queries = mask.narrow(1, first, q.shape[1])[:, part]
    return scores.softmax(dim=-1, dtype=dtype) * queries.unsqueeze(-1)


def _share(k: Tensor, mask: Tensor | None) -> Tensor | float:
    """The weight of a query in the mean, ``(B, 1)`` if it depends on the sample."""
    if mask is None:
        return 1.0 / k.shape[1]
    dtype = torch.promote_types(k.dtype, torch.float32)
    return mask.sum(dim=1, keepdim=True, dtype=dtype).reciprocal()


def _parts(length: int) -> list[slice]:
    """Slices of at most 128 rows. A range would fix the length of a compiled graph."""
    parts, start = [], 0
    while start < length:
        parts.append(slice(start, start + _ROWS))
        start += _ROWS
    return parts


class _Context(FunctionCtx):
    saved_tensors: tuple[Tensor, ...]
    scale: float
    first: int


class _AveragedSoftmax(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(q: Tensor, k: Tensor, mask: Tensor | None, scale: float, first: int) -> Tensor:
        return _averaged(q, k, mask, scale, first)

    @staticmethod
    def setup_context(ctx: _Context, inputs: tuple[Any, ...], output: Tensor) -> None:
        q, k, mask, ctx.scale, ctx.first = inputs
        ctx.save_for_backward(q, k, mask)

    @staticmethod
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, mask = ctx.saved_tensors
        with without_autocast(q.device):
            # Every row has the same cotangent. Its small factors are multiplied after the matrix
            # products: before them they would underflow in half precision.
            columns = grad.unsqueeze(1)
            factor = ctx.scale * _share(k, mask)
            if isinstance(factor, Tensor):
                factor = factor.unsqueeze(-1)
            dq, dk = [], torch.zeros((), dtype=grad.dtype, device=k.device)
            for part in _parts(q.shape[1]):
                rows = _rows(q, k, mask, ctx.scale, ctx.first, part)
                scores = rows * (columns - (rows * columns).sum(dim=-1, keepdim=True))
                scores = scores.to(k.dtype)
                dq.append((factor * (scores @ k)).to(q.dtype))
                dk = dk + (scores.mT @ q[:, part]).to(grad.dtype)
            return torch.cat(dq, dim=1), (factor * dk).to(k.dtype), None, None, None
