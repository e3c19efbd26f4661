"""torch's scaled dot product attention, with every derivative."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from circulant_attention.ops.registration import transform_active

# The fused CUDA kernels put the batch into a launch dimension that ends at 2^16 - 1.
_LARGEST_BATCH = 65535


def scaled_dot_product_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float
) -> Tensor:
    r"""softmax(q k^T / sqrt(e)) v, by a fused kernel wherever one has the derivatives.

    torch's fused kernels are differentiable once, in reverse mode, outside of ``torch.func``.
    Everything else is computed by its mathematical backend, which forms the matrix: all under
    ``torch.func`` and forward mode, and the backward pass when a graph of it is recorded.

    Args:
        q: Queries ``(B, heads, t, e)``.
        k: Keys ``(B, heads, s, e)``.
        v: Values ``(B, heads, s, e)``.
        mask: Bool, broadcastable to ``(B, heads, t, s)``, True where a key takes part.
        dropout: The probability of dropping a weight.

    Returns:
        ``(B, heads, t, e)``.
    """
    if torch.compiler.is_compiling():
        return _in_parts(q, k, v, mask, dropout)
    if transform_active():
        return _mathematical(q, k, v, mask, dropout)
    out = _in_parts(q, k, v, mask, dropout)
    # The weights that dropout kept cannot be drawn again.
    if dropout == 0.0 and out.requires_grad:
        out = _Twice.apply(out, q, k, v, mask)  # type: ignore[no-untyped-call]
    return out


def _in_parts(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    # A loop over a range would fix the batch of a compiled graph.
    if q.shape[0] <= _LARGEST_BATCH:
        return functional.scaled_dot_product_attention(q, k, v, mask, dropout)
    outs = []
    for i in range(0, q.shape[0], _LARGEST_BATCH):
        part = slice(i, i + _LARGEST_BATCH)
        some = None if mask is None else mask[part]
        outs.append(
            functional.scaled_dot_product_attention(q[part], k[part], v[part], some, dropout)
        )
    return torch.cat(outs)


def _mathematical(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    with sdpa_kernel(SDPBackend.MATH):
        return functional.scaled_dot_product_attention(q, k, v, mask, dropout)


class _Twice(torch.autograd.Function):
    """The identity on ``out``, for a backward pass that may be differentiated.

    A plain backward pass hands the cotangent on to the fused kernel that made ``out``. One that
    records a graph goes to q, k and v instead, through the mathematical backend.
    """

    @staticmethod
    def forward(
        ctx: Any, out: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(q, k, v, mask)
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        if not torch.is_grad_enabled():
            return dout, None, None, None, None
        q, k, v, mask = ctx.saved_tensors
        needed = ctx.needs_input_grad[1:4]
        wanted = [x for x, needs in zip((q, k, v), needed, strict=True) if needs]
        again = _mathematical(q, k, v, mask, 0.0)
        found = iter(torch.autograd.grad(again, wanted, dout, create_graph=True))
        return None, *(next(found) if needs else None for needs in needed), None
