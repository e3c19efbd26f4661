"""Flop formulas of the native ops, for ``torch.utils.flop_counter.FlopCounterMode``.

Each map between ``C`` channels and a matrix of ``N * K`` entries takes ``2 N K C`` flops per group:
one product and one addition per entry and channel, for both similarities. As for torch's own
attention, the softmax is not counted, and a backward that recomputes its scores counts them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from circulant_attention.ops.library import NAMESPACE
from circulant_attention.ops.windows import offsets

Shape = Sequence[int]

_ops = getattr(torch.ops, NAMESPACE)


def _flops_per_channel(x: Shape, window: Shape) -> int:
    """``2 G N K`` for queries ``(G, C, *spatial)``."""
    return 2 * x[0] * prod(x[2:]) * offsets(window, len(x) - 2)


@register_flop_formula([_ops.similarity, _ops.adjacency])
def _similarity(x: Shape, y: Shape, window: Shape, *_: Any, **__: Any) -> int:
    return _flops_per_channel(x, window) * x[1]


@register_flop_formula([_ops.apply, _ops.apply_transposed])
def _apply(values: Shape, x: Shape, window: Shape, **_: Any) -> int:
    return 2 * prod(values) * x[1]


@register_flop_formula(
    [_ops.transpose, _ops.softmax_backward, _ops.linear_combination, _ops.new_values]
)
def _uncounted(*_: Any, **__: Any) -> int:
    return 0


@register_flop_formula(_ops.attention)
def attention_flops(q: Shape, k: Shape, v: Shape, window: Shape, *_: Any, **__: Any) -> int:
    """Scores, then their product with v."""
    return _flops_per_channel(q, window) * (q[1] + v[1])


@register_flop_formula(_ops.attention_backward)
def attention_backward_flops(
    dy: Shape, q: Shape, k: Shape, v: Shape, y: Shape, lse: Shape, window: Shape, *_: Any, **__: Any
) -> int:
    """Scores again, dq and dk over the channels of q; dv and dy . v over those of v."""
    return _flops_per_channel(q, window) * (3 * q[1] + 2 * v[1])


@register_flop_formula(_ops.biased_attention)
def _biased_attention(
    q: Shape,
    k: Shape,
    v: Shape,
    bias: Shape | None,
    key_bias: Shape | None,
    window: Shape,
    *_: Any,
    **__: Any,
) -> int:
    """As attention: the biases are not counted."""
    return attention_flops(q, k, v, window)


@register_flop_formula(_ops.biased_attention_backward)
def _biased_attention_backward(
    dy: Shape,
    q: Shape,
    k: Shape,
    v: Shape,
    bias: Shape | None,
    key_bias: Shape | None,
    y: Shape,
    lse: Shape,
    dlse: Shape | None,
    window: Shape,
    *_: Any,
    **__: Any,
) -> int:
    return attention_backward_flops(dy, q, k, v, y, lse, window)
