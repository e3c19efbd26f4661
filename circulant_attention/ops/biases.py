"""What is added to scores, in CSR order: a bias of each offset and of each key.

Differentiable to every order, and deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from circulant_attention.ops import primitives
from circulant_attention.ops.windows import CIRCULAR, four_numbers, key_size


def biases(
    groups: int,
    bias: Tensor | None,
    key_bias: Tensor | None,
    window: Sequence[int],
    size: Sequence[int],
) -> Tensor | None:
    """The sum of both biases for every group, ``(G, N, K)`` or with fewer groups that repeat.

    Args:
        groups: G, the number of groups.
        bias: ``(H, K)`` in the order of the offsets; group g uses row ``g % H``.
        key_bias: ``(P, pixels of the keys)``; group g uses row ``g // (G / P)``.
        window: The window, as :mod:`circulant_attention.ops.windows` says.
        size: The spatial size of the queries.

    Returns:
        A tensor that broadcasts to ``(G, N, K)``; None without biases.
    """
    terms = []
    if bias is not None:
        rows = offset_biases(bias, window, size)
        terms.append(rows.repeat(groups // rows.shape[0], 1, 1))
    if key_bias is not None:
        rows = key_biases(key_bias, window, size)
        terms.append(rows.repeat_interleave(groups // rows.shape[0], 0))
    return sum(terms[1:], terms[0]) if terms else None


def key_biases(key_bias: Tensor, window: Sequence[int], size: Sequence[int]) -> Tensor:
    """The biases ``(P, pixels of the keys)`` of keys as ``(P, N, K)`` in CSR order."""
    keys = key_bias.reshape(-1, 1, *key_size(size, window))
    ones = key_bias.new_ones(keys.shape[0], 1, *size)
    return primitives.similarity(ones, keys, list(window), primitives.SimilarityKind.DOT)


def offset_biases(bias: Tensor, window: Sequence[int], size: Sequence[int]) -> Tensor:
    """The biases ``(H, K)`` of offsets as ``(H, N, K)`` in CSR order."""
    order = offsets_of_slots(window, size, bias.device)
    if torch.compiler.is_compiling():
        return _placed(bias, prod(size), order)
    placed: Tensor = _Placed.apply(bias, prod(size), order)  # type: ignore[no-untyped-call]
    return placed


def offsets_of_slots(
    window: Sequence[int], size: Sequence[int], device: torch.device
) -> Tensor | None:
    """The number of the offset ``(N, K)`` in each slot; None if they are in order."""
    parts = four_numbers(window, len(size))
    if all(boundary != CIRCULAR or before + after == 0 for before, after, _, boundary in parts):
        return None
    slots = torch.zeros(1, 1, dtype=torch.int64, device=device)
    for n, (before, after, dilation, boundary) in zip(size, parts, strict=True):
        offsets = torch.arange(before + after + 1, device=device)
        order = offsets.expand(n, -1)
        if boundary == CIRCULAR:
            pixels = torch.arange(n, device=device)[:, None]
            order = (pixels + dilation * (offsets - before)).remainder(n).argsort(-1)
        joined = slots[:, None, :, None] * offsets.numel() + order[None, :, None, :]
        slots = joined.flatten(0, 1).flatten(1)
    return slots


def _placed(bias: Tensor, pixels: int, order: Tensor | None) -> Tensor:
    rows = bias[:, None].expand(-1, pixels, -1)
    return rows if order is None else rows.gather(2, order.expand(rows.shape))


class _Placed(torch.autograd.Function):
    """The same with a gradient that adds in an order that only the sizes determine."""

    generate_vmap_rule = True

    @staticmethod
    def forward(bias: Tensor, pixels: int, order: Tensor | None) -> Tensor:
        return _placed(bias, pixels, order).contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.pixels, order = inputs
        ctx.save_for_backward(order)
        ctx.save_for_forward(order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (order,) = ctx.saved_tensors
        if order is not None:
            grad = grad.gather(2, order.argsort(-1).expand(grad.shape))
        return ordered_sum(grad, 1), None, None

    @staticmethod
    def jvp(ctx: Any, dbias: Tensor, *_: Any) -> Tensor:
        return _placed(dbias, ctx.pixels, *ctx.saved_tensors)


def ordered_sum(x: Tensor, dim: int) -> Tensor:
    """The sum over a dim in an order that only its size determines: halves are added."""
    while (size := x.shape[dim]) > 1:
        half = size // 2
        halves = x.narrow(dim, 0, half) + x.narrow(dim, half, half)
        x = torch.cat([halves, x.narrow(dim, size - 1, 1)], dim) if size % 2 else halves
    return x.squeeze(dim)
