"""Flop formulas of attention that overlaps with its messages, as in ``ops/flops.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from circulant_attention.distributed import overlap  # noqa: F401  (registers the ops)
from circulant_attention.ops.flops import attention_backward_flops, attention_flops
from circulant_attention.ops.library import NAMESPACE

Shape = Sequence[int]

_ops = getattr(torch.ops, NAMESPACE)


@register_flop_formula(_ops.attention_with_halos)
def _attention(
    q: Shape,
    k: Shape,
    v: Shape,
    bias: Shape | None,
    key_bias: Shape | None,
    window: Shape,
    *_: Any,
    **__: Any,
) -> int:
    """Interior and strips together are the queries of the shard."""
    return attention_flops(q, k, v, window)


@register_flop_formula(_ops.attention_with_halos_backward)
def _attention_backward(
    dy: Shape,
    dkeys: Shape | None,
    dvalues: Shape | None,
    q: Shape,
    k: Shape,
    v: Shape,
    bias: Shape | None,
    key_bias: Shape | None,
    y: Shape,
    lse: Shape,
    of_keys: bool,
    window: Shape,
    *_: Any,
    **__: Any,
) -> int:
    return attention_backward_flops(dy, q, k, v, y, lse, window)
