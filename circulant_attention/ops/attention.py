"""Fused attention, which never forms its matrix: the native op and its derivatives.

The op computes ``y`` and the log-sum-exp of each row and stores no score; its backward computes
the scores again. Second derivatives, forward mode and torch.func transforms use the same function
composed of :mod:`circulant_attention.ops.primitives`.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor

from circulant_attention.ops import primitives
from circulant_attention.ops.library import NAMESPACE
from circulant_attention.ops.precision import sum_dtype
from circulant_attention.ops.registration import (
    batch_into_groups,
    groups_into_batch,
    register,
    transform_active,
)
from circulant_attention.ops.softmax import softmax
from circulant_attention.ops.windows import presence

_native = getattr(torch.ops, NAMESPACE)


def attention(
    q: Tensor, k: Tensor, v: Tensor, window: list[int], kind: int, scale: float
) -> Tensor:
    """``y_i = sum_j softmax_j(scale * similarity(q_i, k_j)) v_j`` for every group.

    Args:
        q: Queries ``(G, C, *spatial)``, real.
        k: Keys, of the same shape and dtype; in a valid window on a larger grid.
        v: Values ``(G, C_v, *spatial)`` on the grid of k, of the same dtype.
        window: The window, as :mod:`circulant_attention.ops.windows` says.
        kind: A :class:`circulant_attention.ops.primitives.SimilarityKind`.
        scale: The factor of the similarities.

    Returns:
        A tensor like ``v`` on the grid of ``q``.
    """
    settings = (window, int(kind), scale)
    if transform_active() and not torch.compiler.is_compiling():
        return composed_attention(q, k, v, *settings)
    y: Tensor = _native.attention(q, k, v, *settings)[0]
    return y


def composed_attention(
    q: Tensor, k: Tensor, v: Tensor, window: list[int], kind: int, scale: float
) -> Tensor:
    """The same function composed of the primitives; forms the matrix, has every derivative."""
    scores = primitives.similarity(q, k, window, kind) * scale
    return primitives.apply(softmax(scores, presence(window, q.shape[2:], q.device)), v, window)


def _fake(
    q: Tensor, k: Tensor, v: Tensor, window: list[int], kind: int, scale: float
) -> tuple[Tensor, Tensor]:
    pixels = prod(q.shape[2:])
    lse = q.new_empty(q.shape[0], pixels, dtype=sum_dtype(q.dtype))
    return v.new_empty(*v.shape[:2], *q.shape[2:]), lse


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, *ctx.settings = inputs
    y, lse = output
    ctx.mark_non_differentiable(lse)
    ctx.save_for_backward(q, k, v, y, lse)


def _backward(ctx: Any, dy: Tensor, _: Any) -> Any:
    q, k, v, y, lse = ctx.saved_tensors
    needed = ctx.needs_input_grad[:3]
    if torch.is_grad_enabled():
        # create_graph=True: the gradients need a graph of their own.
        wanted = [x for x, needs in zip((q, k, v), needed, strict=True) if needs]
        recomputed = composed_attention(q, k, v, *ctx.settings)
        found = iter(torch.autograd.grad(recomputed, wanted, dy, create_graph=True))
        gradients = [next(found) if needs else None for needs in needed]
    else:
        gradients = _native.attention_backward(dy, q, k, v, y, lse, *ctx.settings)
    return *gradients, None, None, None


def _vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
    tensors = [batch_into_groups(info, d, x) for d, x in zip(in_dims[:3], inputs[:3], strict=True)]
    outputs = _native.attention(*tensors, *inputs[3:])
    return tuple(groups_into_batch(info, x) for x in outputs), (0, 0)


def _backward_fake(
    dy: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    y: Tensor,
    lse: Tensor,
    window: list[int],
    kind: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _backward_vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
    tensors = [batch_into_groups(info, d, x) for d, x in zip(in_dims[:6], inputs[:6], strict=True)]
    outputs = _native.attention_backward(*tensors, *inputs[6:])
    return tuple(groups_into_batch(info, x) for x in outputs), (0, 0, 0)


register("attention", _fake, _vmap, _backward, _setup_context)
register("attention_backward", _backward_fake, _backward_vmap)
