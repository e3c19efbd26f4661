"""Attention with biases of the offsets and of the keys: the native op and its derivatives.

As :mod:`circulant_attention.ops.attention`: the fused op has a fused backward, and second
derivatives, forward mode and torch.func transforms use the same function composed of primitives.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor

from circulant_attention.ops import primitives
from circulant_attention.ops.biases import biases, ordered_sum
from circulant_attention.ops.library import NAMESPACE
from circulant_attention.ops.precision import sum_dtype, widened
from circulant_attention.ops.registration import (
    batch_into_groups,
    groups_into_batch,
    register,
    transform_active,
)
from circulant_attention.ops.softmax import softmax_or_zeros
from circulant_attention.ops.windows import presence

_native = getattr(torch.ops, NAMESPACE)


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
    """``y_i = sum_j softmax_j(S_ij) v_j`` with biased scores, for every group.

    ``S_ij = scale * similarity(q_i, k_j) + bias_o + key_bias_j``, where o is the offset of key j
    from query i. Where a bias is -inf the key is absent; its features must be finite all the same,
    as in torch's attention. A row without any key has ``y = 0``, a log-sum-exp of -inf and zero
    gradients.

    Args:
        q: Queries ``(G, C, *spatial)``, real.
        k: Keys, of the same shape and dtype; in a valid window on a larger grid.
        v: Values ``(G, C_v, *spatial)`` on the grid of k, of the same dtype.
        bias: ``(H, K)`` in the order of the offsets, or None; group g uses row ``g % H``. Both
            biases have the dtype of the sums: float32 for half precision.
        key_bias: ``(P, pixels of the keys)``, or None; group g uses row ``g // (G / P)``.
        window: The window, as :mod:`circulant_attention.ops.windows` says.
        kind: A :class:`circulant_attention.ops.primitives.SimilarityKind`.
        scale: The factor of the similarities.

    Returns:
        A tensor like ``v`` on the grid of ``q``, and the log-sum-exp ``(G, N)`` of the scores; both
        are differentiable.
    """
    inputs = (q, k, v, bias, key_bias, window, int(kind), scale)
    if transform_active() and not torch.compiler.is_compiling():
        return composed_biased_attention(*inputs)
    y, lse = _native.biased_attention(*inputs)
    return y, lse


def composed_biased_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    key_bias: Tensor | None,
    window: list[int],
    kind: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """The same function composed of the primitives; forms the matrix, has every derivative."""
    scores = primitives.similarity(widened(q), widened(k), window, kind) * scale
    added = biases(q.shape[0], bias, key_bias, window, q.shape[2:])
    scores = with_biases(scores, added, presence(window, q.shape[2:], q.device))
    y = primitives.apply(softmax_or_zeros(scores), widened(v), window)
    # In rows without keys any number: -inf would give NaN.
    empty = (scores.detach() == -torch.inf).all(-1)
    lse = scores.masked_fill(empty[..., None], 0).logsumexp(-1).masked_fill(empty, -torch.inf)
    return y.to(v.dtype), lse


def with_biases(scores: Tensor, added: Tensor | None, present: Tensor | None) -> Tensor:
    """``scores + added``, and -inf where ``added`` is -inf or ``present`` is False."""
    if added is not None:
        scores = (scores + added).masked_fill(added == -torch.inf, -torch.inf)
    return scores if present is None else scores.masked_fill(~present, -torch.inf)


def _fake(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    key_bias: Tensor | None,
    window: list[int],
    kind: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    lse = q.new_empty(q.shape[0], prod(q.shape[2:]), dtype=sum_dtype(q.dtype))
    return v.new_empty(*v.shape[:2], *q.shape[2:]), lse


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, window, kind, scale = inputs
    ctx.settings = window, kind, scale
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, *output)


def _backward(ctx: Any, dy: Tensor | None, dlse: Tensor | None) -> Any:
    *inputs, y, lse = ctx.saved_tensors
    needed = ctx.needs_input_grad[:5]
    if dy is None and dlse is None:
        return (None,) * 8
    if torch.is_grad_enabled():
        # create_graph=True: the gradients need a graph of their own.
        wanted = [x for x, needs in zip(inputs, needed, strict=True) if needs]
        recomputed = composed_biased_attention(*inputs, *ctx.settings)
        outputs = [x for x, dx in zip(recomputed, (dy, dlse), strict=True) if dx is not None]
        given = [dx for dx in (dy, dlse) if dx is not None]
        # lse does not depend on v.
        found = iter(
            torch.autograd.grad(outputs, wanted, given, create_graph=True, allow_unused=True)
        )
        gradients = [next(found) if needs else None for needs in needed]
    else:
        if dy is None:
            dy = torch.zeros_like(y)
        computed = _native.biased_attention_backward(dy, *inputs, y, lse, dlse, *ctx.settings)
        gradients = [dx if needs else None for dx, needs in zip(computed, needed, strict=True)]
    return *gradients, None, None, None


def _joined(info: Any, in_dims: Any, inputs: Any) -> list[Tensor | None]:
    return [
        None if x is None else batch_into_groups(info, dim, x)
        for dim, x in zip(in_dims, inputs, strict=True)
    ]


def _head_of_each_group(info: Any, in_dim: int | None, bias: Tensor | None, groups: int) -> Any:
    """The biases of offsets ``(B G, K)``, one for each of the ``G`` groups of a batch."""
    if bias is None:
        return None
    bias = bias.expand(info.batch_size, -1, -1) if in_dim is None else bias.movedim(in_dim, 0)
    return bias.repeat(1, groups // bias.shape[1], 1).flatten(0, 1)


def _vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
    q, k, v, _, key_bias = _joined(info, in_dims[:5], inputs[:5])
    assert q is not None
    bias = _head_of_each_group(info, in_dims[3], inputs[3], q.shape[0] // info.batch_size)
    outputs = _native.biased_attention(q, k, v, bias, key_bias, *inputs[5:])
    return tuple(groups_into_batch(info, x) for x in outputs), (0, 0)


def _backward_fake(
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
) -> tuple[Tensor, ...]:
    gradients = [x.new_empty(x.shape) for x in (q, k, v)]
    for x in (bias, key_bias):
        gradients.append(lse.new_empty(0 if x is None else x.shape))
    return tuple(gradients)


def _backward_vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
    tensors = _joined(info, in_dims[:9], inputs[:9])
    dy, bias = tensors[0], inputs[4]
    assert dy is not None
    tensors[4] = _head_of_each_group(info, in_dims[4], bias, dy.shape[0] // info.batch_size)
    gradients = _native.biased_attention_backward(*tensors, *inputs[9:])
    split = [groups_into_batch(info, x) for x in gradients]
    if bias is not None:
        heads = bias.shape[0] if in_dims[4] is None else bias.movedim(in_dims[4], 0).shape[1]
        per_group = split[3]
        split[3] = ordered_sum(per_group.reshape(info.batch_size, -1, heads, per_group.shape[2]), 1)
    return tuple(split), (0,) * 5


register("biased_attention", _fake, _vmap, _backward, _setup_context)
register("biased_attention_backward", _backward_fake, _backward_vmap)
