"""The row softmax of the similarity: the native op and its derivatives.

Its derivatives are those of the softmax and of the similarity, composed of
:mod:`circulant_attention.ops.primitives`, so derivatives of every order follow.
"""

from __future__ import annotations

from math import prod
from typing import Any

from torch import Tensor

from circulant_attention.ops import primitives
from circulant_attention.ops.biased_attention import with_biases
from circulant_attention.ops.biases import biases
from circulant_attention.ops.precision import widened
from circulant_attention.ops.primitives import SimilarityKind
from circulant_attention.ops.registration import (
    batch_into_groups,
    differentiable,
    groups_into_batch,
)
from circulant_attention.ops.softmax import softmax_gradient, softmax_or_zeros
from circulant_attention.ops.windows import offsets, presence


class _Adjacency:
    @staticmethod
    def fake(x: Tensor, y: Tensor, window: list[int], kind: int, scale: float) -> Tensor:
        return x.new_empty(x.shape[0], prod(x.shape[2:]), offsets(window, x.dim() - 2))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, y, ctx.window, ctx.kind, ctx.scale = inputs
        ctx.save_for_backward(x, y, output)
        ctx.save_for_forward(x, y, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        dtype = grad.dtype
        x, y, weights, grad = map(widened, (*ctx.saved_tensors, grad))
        # Of the scores. The scale multiplies features, which are fewer.
        values = softmax_gradient(grad, weights)
        dx = dy = None
        if ctx.needs_input_grad[0]:
            dx = primitives.apply(values, ctx.scale * y, ctx.window)
            # Each row of `values` sums to zero, unless the weights are rounded.
            if ctx.kind == SimilarityKind.DISTANCE and dtype != x.dtype:
                dx = dx - primitives.row_sums(values, x) * (ctx.scale * x)
            dx = dx.to(dtype)
        if ctx.needs_input_grad[1]:
            dy = primitives.apply_transposed(values, ctx.scale * x, ctx.window)
            if ctx.kind == SimilarityKind.DISTANCE:
                dy = dy - primitives.column_sums(values, x, ctx.window) * (ctx.scale * y)
            dy = dy.to(dtype)
        return dx, dy, None, None, None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor | None, dy: Tensor | None, *_: Any) -> Any:
        dtype = ctx.saved_tensors[-1].dtype
        x, y, weights = map(widened, ctx.saved_tensors)
        dx, dy = (d if d is None else ctx.scale * widened(d) for d in (dx, dy))
        scores = primitives.similarity_tangent(x, y, dx, dy, ctx.window, ctx.kind)
        if scores is None:
            return None
        # The Jacobian of the softmax is symmetric.
        return softmax_gradient(scores, weights).to(dtype)

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, x: Tensor, y: Tensor, window: list[int], kind: int, scale: float
    ) -> Any:
        x, y = (batch_into_groups(info, d, t) for d, t in zip(in_dims[:2], (x, y), strict=True))
        return groups_into_batch(info, adjacency(x, y, window, kind, scale)), 0


_adjacency = differentiable("adjacency", _Adjacency)


def adjacency(x: Tensor, y: Tensor, window: list[int], kind: int, scale: float) -> Tensor:
    """The row softmax of ``scale`` times the similarities, in CSR order.

    Half precision is computed in float32, and each entry rounded once.

    Args:
        x: Queries ``(G, C, *spatial)``.
        y: Keys, of the same shape and dtype.
        window: The window, as :mod:`circulant_attention.ops.windows` says.
        kind: A :class:`circulant_attention.ops.primitives.SimilarityKind`.
        scale: The factor of the similarities.

    Returns:
        ``(G, N, K)``: ``exp(S_ij) / sum_k exp(S_ik)`` with ``S = scale * similarity(x, y)``.
    """
    result: Tensor = _adjacency(x, y, window, int(kind), scale)
    return result


def biased_adjacency(
    x: Tensor,
    y: Tensor,
    bias: Tensor | None,
    key_bias: Tensor | None,
    window: list[int],
    kind: int,
    scale: float,
) -> Tensor:
    """:func:`adjacency` with biases, as ``biased_attention`` takes them.

    Composed of the primitives. A row without any key holds zeros.
    """
    scores = biased_scores(x, y, bias, key_bias, window, kind, scale)
    return softmax_or_zeros(scores).to(x.dtype)


def biased_scores(
    x: Tensor,
    y: Tensor,
    bias: Tensor | None,
    key_bias: Tensor | None,
    window: list[int],
    kind: int,
    scale: float,
) -> Tensor:
    """The scores ``(G, N, K)`` of :func:`biased_adjacency`, -inf for absent keys."""
    scores = primitives.similarity(widened(x), widened(y), window, kind) * scale
    added = biases(x.shape[0], bias, key_bias, window, x.shape[2:])
    return with_biases(scores, added, presence(window, x.shape[2:], x.device))
