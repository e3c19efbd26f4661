"""Biased attention on any device, by torch's own functions, offset by offset of the window.

See :mod:`circulant_attention.ops.fallback`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from circulant_attention.ops.precision import widened
from circulant_attention.ops.primitives import SimilarityKind
from circulant_attention.ops.windows import CIRCULAR, VALID, four_numbers


class _Dim:
    """The keys and the queries of one another along one dim, for each offset."""

    def __init__(self, size: int, window: tuple[int, ...], device: torch.device) -> None:
        before, after, dilation, boundary = window
        self.offsets = before + after + 1
        self.sizes = size, size + (dilation * (before + after) if boundary == VALID else 0)
        self._first = 0 if boundary == VALID else -dilation * before
        self._dilation, self._circular, self._device = dilation, boundary == CIRCULAR, device

    def others(self, offset: int, of_queries: bool) -> Tensor:
        """The key of each query at an offset, or the query of each key; -1 if there is none."""
        own, theirs = self.sizes if of_queries else self.sizes[::-1]
        distance = self._first + self._dilation * offset
        other = torch.arange(own, device=self._device) + (distance if of_queries else -distance)
        if self._circular:
            return other.remainder(theirs)
        return other.where((other >= 0) & (other < theirs), -1)


class _Pattern:
    """The pairs of queries and keys."""

    def __init__(self, size: list[int], window: list[int], device: torch.device) -> None:
        parts = four_numbers(window, len(size))
        self._dims = [_Dim(n, part, device) for n, part in zip(size, parts, strict=True)]

    def others(self, of_queries: bool) -> Iterator[Tensor]:
        """For each offset, the key ``(N,)`` of each query or the query of each key, -1 for none."""
        for offsets in itertools.product(*(range(dim.offsets) for dim in self._dims)):
            joined = None
            for dim, offset in zip(self._dims, offsets, strict=True):
                one = dim.others(offset, of_queries)
                if joined is None:
                    joined = one
                    continue
                size = dim.sizes[1 if of_queries else 0]
                both = joined[:, None] * size + one
                joined = both.where((joined[:, None] >= 0) & (one >= 0), -1).flatten()
            assert joined is not None
            yield joined


class _Scores:
    """The scores, and the weights, of each query and its key at one offset."""

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        bias: Tensor | None,
        key_bias: Tensor | None,
        window: list[int],
        kind: int,
        scale: float,
    ) -> None:
        self.q, self.k = rows_of(q), rows_of(k)
        self._pattern = _Pattern(list(q.shape[2:]), window, q.device)
        groups = q.shape[0]
        self._bias = None if bias is None else bias.repeat(groups // bias.shape[0], 1)
        self._key_bias = key_bias
        if key_bias is not None:
            self._key_bias = key_bias.repeat_interleave(groups // key_bias.shape[0], 0)
        self._kind, self._scale = kind, scale

    def of_queries(self) -> Iterator[tuple[Tensor, Tensor]]:
        """For each offset, the scores ``(G, N)`` of the queries, and their keys."""
        for offset, key in enumerate(self._pattern.others(True)):
            there, key = key >= 0, key.clamp(min=0)
            yield self._scores(offset, self.q, _take(self.k, key), key, there), key

    def of_keys(self) -> Iterator[tuple[Tensor, Tensor]]:
        """For each offset, the scores of the keys, and their queries."""
        for offset, query in enumerate(self._pattern.others(False)):
            there, query = query >= 0, query.clamp(min=0)
            yield self._scores(offset, _take(self.q, query), self.k, None, there), query

    def _scores(
        self, offset: int, q: Tensor, k: Tensor, key: Tensor | None, there: Tensor
    ) -> Tensor:
        score = score_of(q, k, self._kind) * self._scale
        if self._bias is not None:
            score = score + self._bias[:, offset, None]
        if self._key_bias is not None:
            score = score + (self._key_bias if key is None else _take(self._key_bias, key))
        return score.where(there, -torch.inf)

    def difference(self, q: Tensor, k: Tensor) -> Tensor:
        """The derivative of the similarity with respect to ``q``."""
        return k - q if self._kind == SimilarityKind.DISTANCE else k


def rows_of(x: Tensor) -> Tensor:
    """Features as ``(G, C, N)``, in the dtype of their sums."""
    return widened(x).flatten(2)


def score_of(x: Tensor, y: Tensor, kind: int) -> Tensor:
    """The similarity ``(G, N)`` of each pixel of ``x (G, C, N)`` with that of ``y``."""
    if kind == SimilarityKind.DISTANCE:
        return (x - y).square().sum(1) * -0.5
    return (x * y).sum(1)


def _take(x: Tensor, pixels: Tensor) -> Tensor:
    return x.index_select(-1, pixels)


def _above_scores(lse: Tensor) -> Tensor:
    """The log-sum-exp, for rows without a key infinity, with which each weight is zero."""
    return lse.where(lse != -torch.inf, torch.inf)


def biased_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    key_bias: Tensor | None,
    window: list[int],
    kind: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """As the native op of this name: the scores are computed twice and not stored."""
    scores, x = _Scores(q, k, bias, key_bias, window, kind, scale), rows_of(v)
    lse = scores.q.new_full((q.shape[0], scores.q.shape[2]), -torch.inf)
    for score, _ in scores.of_queries():
        lse = torch.logaddexp(lse, score)
    y, reference = x.new_zeros(*x.shape[:2], lse.shape[1]), _above_scores(lse)
    for score, key in scores.of_queries():
        y += (score - reference).exp()[:, None] * _take(x, key)
    return y.reshape(*v.shape[:2], *q.shape[2:]).to(v.dtype), lse


def biased_attention_backward(
    dy: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    key_bias: Tensor | None,
    y: Tensor,
    lse: Tensor,
    dlse: Tensor | None,
    window: list[int],
    kind: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As the native op of this name."""
    scores, x, dx = _Scores(q, k, bias, key_bias, window, kind, scale), rows_of(v), rows_of(dy)
    reference = _above_scores(lse)
    # sum_j P_ij dP_ij, one number per query.
    delta = (dx * rows_of(y)).sum(1)
    if dlse is not None:
        delta = delta - dlse
    dq, offset_sums = torch.zeros_like(scores.q), []
    for score, key in scores.of_queries():
        dp = (dx * _take(x, key)).sum(1)
        ds = (score - reference).exp() * (dp - delta)
        dq += ds[:, None] * scores.difference(scores.q, _take(scores.k, key))
        offset_sums.append(ds.sum(1))
    dk, dv = torch.zeros_like(scores.k), torch.zeros_like(x)
    key_sums = lse.new_zeros(lse.shape[0], dk.shape[2])
    for score, query in scores.of_keys():
        weight, dx_query = (score - _take(reference, query)).exp(), _take(dx, query)
        ds = weight * ((dx_query * x).sum(1) - _take(delta, query))
        dk += ds[:, None] * scores.difference(scores.k, _take(scores.q, query))
        dv += weight[:, None] * dx_query
        key_sums += ds
    dbias, dkey_bias = lse.new_empty(0), lse.new_empty(0)
    if bias is not None:
        sums = torch.stack(offset_sums, 1)
        dbias = sums.reshape(-1, *bias.shape).sum(0)
    if key_bias is not None:
        heads = key_sums.shape[0] // key_bias.shape[0]
        dkey_bias = key_sums.reshape(-1, heads, key_sums.shape[1]).sum(1)
    return (
        (scale * dq).reshape(q.shape).to(q.dtype),
        (scale * dk).reshape(k.shape).to(k.dtype),
        dv.reshape(v.shape).to(v.dtype),
        dbias,
        dkey_bias,
    )
