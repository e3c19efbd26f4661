"""The primitive native ops and their derivatives: linear maps closed under differentiation.

All take groups: a group is one (batch, head) pair. ``x`` and ``y`` are ``(G, C, *spatial)``,
``values`` are ``(G, N, K)`` in CSR order; all inputs of a call have one real dtype. A window is
as :mod:`circulant_attention.ops.windows` says. The public
functions check their arguments; the ops check again only what memory safety needs.

Each cotangent and tangent below is one of the same ops: derivatives of every order, forward and
reverse, need no kernel of their own, and none of them scatters.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from math import prod
from typing import Any

from torch import Tensor

from circulant_attention.ops.registration import (
    add_tangents,
    batch_into_groups,
    differentiable,
    groups_into_batch,
)
from circulant_attention.ops.windows import key_size, mirrored, offsets, presence, query_size

Product = Callable[[Tensor, Tensor, list[int]], Tensor]
"""The type of :func:`apply` and :func:`apply_transposed`."""


class SimilarityKind(IntEnum):
    """The ``kind`` argument of the native ops, as in ``csrc/ops.cpp``."""

    DOT = 0
    DISTANCE = 1


_DOT = SimilarityKind.DOT


def _ones_like_pixels(x: Tensor) -> Tensor:
    """One channel of ones on the grid of ``x``."""
    return x.new_ones(x.shape[0], 1, *x.shape[2:])


def row_sums(values: Tensor, x: Tensor) -> Tensor:
    """``sum_j A_ij`` as one channel ``(G, 1, *spatial)`` on the grid of ``x``."""
    return values.sum(-1).reshape(_ones_like_pixels(x).shape)


def column_sums(values: Tensor, x: Tensor, window: list[int]) -> Tensor:
    """``sum_i A_ij`` as one channel ``(G, 1, *spatial)``; ``x`` is on the grid of the queries."""
    return apply_transposed(values, _ones_like_pixels(x), window)


def similarity_tangent(
    x: Tensor, y: Tensor, dx: Tensor | None, dy: Tensor | None, window: list[int], kind: int
) -> Tensor | None:
    """The tangent of the similarity of ``x`` and ``y`` with tangents ``dx`` and ``dy``."""
    terms = []
    # -1/2 |x_i - y_j|^2 = x_i . y_j - 1/2 |x_i|^2 - 1/2 |y_j|^2; the last two terms are dot
    # products with a channel of ones.
    if dx is not None:
        terms.append(similarity(dx, y, window, _DOT))
        if kind == SimilarityKind.DISTANCE:
            norm = (x * dx).sum(1, keepdim=True)
            terms.append(-similarity(norm, _ones_like_pixels(y), window, _DOT))
    if dy is not None:
        terms.append(similarity(x, dy, window, _DOT))
        if kind == SimilarityKind.DISTANCE:
            norm = (y * dy).sum(1, keepdim=True)
            terms.append(-similarity(_ones_like_pixels(x), norm, window, _DOT))
    return add_tangents(*terms)


class _Similarity:
    @staticmethod
    def fake(x: Tensor, y: Tensor, window: list[int], kind: int) -> Tensor:
        return x.new_empty(x.shape[0], prod(x.shape[2:]), offsets(window, x.dim() - 2))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, y, ctx.window, ctx.kind = inputs
        ctx.save_for_backward(x, y)
        ctx.save_for_forward(x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, y = ctx.saved_tensors
        dx = dy = None
        present = presence(ctx.window, x.shape[2:], x.device)
        if present is not None:
            grad = grad.where(present, 0)
        if ctx.needs_input_grad[0]:
            dx = apply(grad, y, ctx.window)
            if ctx.kind == SimilarityKind.DISTANCE:
                dx = dx - row_sums(grad, x) * x
        if ctx.needs_input_grad[1]:
            dy = apply_transposed(grad, x, ctx.window)
            if ctx.kind == SimilarityKind.DISTANCE:
                dy = dy - column_sums(grad, x, ctx.window) * y
        return dx, dy, None, None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor | None, dy: Tensor | None, *_: Any) -> Any:
        x, y = ctx.saved_tensors
        return similarity_tangent(x, y, dx, dy, ctx.window, ctx.kind)

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, y: Tensor, window: list[int], kind: int) -> Any:
        x, y = (batch_into_groups(info, d, t) for d, t in zip(in_dims[:2], (x, y), strict=True))
        return groups_into_batch(info, similarity(x, y, window, kind)), 0


class _Apply:
    """The rules of both products with A: each is the other's adjoint."""

    transposed = False

    @classmethod
    def fake(cls, values: Tensor, x: Tensor, window: list[int]) -> Tensor:
        size = (key_size if cls.transposed else query_size)(x.shape[2:], window)
        return x.new_empty(*x.shape[:2], *size)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        values, x, ctx.window = inputs
        ctx.save_for_backward(values, x)
        ctx.save_for_forward(values, x)

    @classmethod
    def product(cls, values: Tensor, x: Tensor, window: list[int]) -> Tensor:
        return (apply_transposed if cls.transposed else apply)(values, x, window)

    @classmethod
    def backward(cls, ctx: Any, grad: Tensor) -> Any:
        values, x = ctx.saved_tensors
        dvalues = dx = None
        if ctx.needs_input_grad[0]:
            rows, columns = (x, grad) if cls.transposed else (grad, x)
            dvalues = similarity(rows, columns, ctx.window, _DOT)
        if ctx.needs_input_grad[1]:
            adjoint = apply if cls.transposed else apply_transposed
            dx = adjoint(values, grad, ctx.window)
        return dvalues, dx, None

    @classmethod
    def jvp(cls, ctx: Any, dvalues: Tensor | None, dx: Tensor | None, *_: Any) -> Any:
        values, x = ctx.saved_tensors
        return add_tangents(
            None if dvalues is None else cls.product(dvalues, x, ctx.window),
            None if dx is None else cls.product(values, dx, ctx.window),
        )

    @classmethod
    def vmap(cls, info: Any, in_dims: Any, values: Tensor, x: Tensor, window: list[int]) -> Any:
        values = batch_into_groups(info, in_dims[0], values)
        x = batch_into_groups(info, in_dims[1], x)
        return groups_into_batch(info, cls.product(values, x, window)), 0


class _ApplyTransposed(_Apply):
    transposed = True


class _Transpose:
    @staticmethod
    def fake(values: Tensor, spatial_size: list[int], window: list[int]) -> Tensor:
        return values.new_empty(values.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.spatial_size, ctx.window = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        window = mirrored(ctx.window, len(ctx.spatial_size))
        return transpose(grad, ctx.spatial_size, window), None, None

    @staticmethod
    def jvp(ctx: Any, dvalues: Tensor, *_: Any) -> Any:
        return transpose(dvalues, ctx.spatial_size, ctx.window)

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, values: Tensor, spatial_size: list[int], window: list[int]
    ) -> Any:
        values = batch_into_groups(info, in_dims[0], values)
        return groups_into_batch(info, transpose(values, spatial_size, window)), 0


_similarity = differentiable("similarity", _Similarity)
_apply = differentiable("apply", _Apply)
_apply_transposed = differentiable("apply_transposed", _ApplyTransposed)
_transpose = differentiable("transpose", _Transpose)


def similarity(x: Tensor, y: Tensor, window: list[int], kind: int) -> Tensor:
    """Similarities of neighbouring pixels, in CSR order.

    Args:
        x: Queries ``(G, C, *spatial)``.
        y: Keys, of the same shape and dtype; in a valid window on a larger grid.
        window: The window.
        kind: A :class:`SimilarityKind`.

    Returns:
        ``(G, N, K)``: ``sum_c x_ci y_cj``, or ``-1/2 sum_c (x_ci - y_cj)^2``.
    """
    result: Tensor = _similarity(x, y, window, int(kind))
    return result


def apply(values: Tensor, x: Tensor, window: list[int]) -> Tensor:
    """``y_i = sum_j A_ij x_j`` for every channel.

    Args:
        values: The stored entries ``(G, N, K)`` of A.
        x: ``(G, C, *spatial)`` on the grid of the keys, of the same dtype.
        window: The window.

    Returns:
        A tensor like ``x`` on the grid of the queries.
    """
    result: Tensor = _apply(values, x, window)
    return result


def apply_transposed(values: Tensor, x: Tensor, window: list[int]) -> Tensor:
    """``y_j = sum_i A_ij x_i`` for every channel.

    Args:
        values: The stored entries ``(G, N, K)`` of A.
        x: ``(G, C, *spatial)`` on the grid of the queries, of the same dtype.
        window: The window.

    Returns:
        A tensor like ``x`` on the grid of the keys.
    """
    result: Tensor = _apply_transposed(values, x, window)
    return result


def transpose(values: Tensor, spatial_size: list[int], window: list[int]) -> Tensor:
    """The stored entries of the transposed matrix, in its CSR order; its window is mirrored.

    Args:
        values: The stored entries ``(G, N, K)`` of A.
        spatial_size: The sizes of the spatial dims.
        window: The window.

    Returns:
        ``(G, N, K)``.
    """
    result: Tensor = _transpose(values, spatial_size, window)
    return result
