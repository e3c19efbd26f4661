"""Multi-head attention over sequences, which the axial modules apply along each axis."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from circulant_attention.checks import (
    check_dropout,
    check_heads,
    check_mask,
    check_positive,
)
from circulant_attention.nn.scaled_dot_product import scaled_dot_product_attention


class SelfAttention(nn.Module):
    r"""Multi-head attention over sequences.

    .. math::

        y = W_o \operatorname{concat}_h \bigl(
            \operatorname{softmax}(q_h k_h^T / \sqrt{e}) \, v_h \bigr) + b_o,
        \quad q = W_q x, \quad (k, v) = W_{kv} z

    with z = ``kv``, or x when that is left out.

    Args:
        dim: The number of channels C.
        heads: The number of heads.
        dim_heads: The number of channels per head, e; ``dim // heads`` when left out, and then
            ``heads`` must divide ``dim``.
        dropout: The probability of dropping an attention weight in training.
        device: The device of the parameters.
        dtype: The dtype of the parameters.

    Raises:
        TypeError: If a number that counts is not an int.
        ValueError: If ``heads`` does not divide ``dim`` and ``dim_heads`` is left out, or an
            argument is out of range.

    Note:
        With t queries, s keys and D = ``heads * dim_heads``: O((t + s) C D + t s D) operations,
        and O((t + s) (C + D)) memory where ``scaled_dot_product_attention`` has a fused kernel
        for the device and dtype. Forward mode, ``torch.func`` and derivatives of derivatives take
        its mathematical backend and O(t s) memory. In a compiled graph, and with dropout, a fused
        kernel is differentiable once.

    Example:
        >>> import torch
        >>> from circulant_attention.nn import SelfAttention
        >>> attn = SelfAttention(dim=16, heads=4)
        >>> attn(torch.randn(2, 10, 16)).shape
        torch.Size([2, 10, 16])

    References:
        Vaswani et al., Attention is all you need, NeurIPS 2017. Arguments and parameter names are
        those of ``axial_attention`` 0.6.1.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        dim_heads: int | None = None,
        *,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if dim_heads is None:
            check_heads("dim", dim, heads)
            dim_heads = dim // heads
        check_positive(dim=dim, heads=heads, dim_heads=dim_heads)
        check_dropout(dropout)
        self.dim = dim
        self.heads = heads
        self.dim_heads = dim_heads
        self.dropout = dropout
        hidden = heads * dim_heads
        self.to_q = nn.Linear(dim, hidden, bias=False, device=device, dtype=dtype)
        self.to_kv = nn.Linear(dim, 2 * hidden, bias=False, device=device, dtype=dtype)
        self.to_out = nn.Linear(hidden, dim, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draw the parameters anew, as `torch.nn.Linear` does."""
        for layer in (self.to_q, self.to_kv, self.to_out):
            layer.reset_parameters()

    def forward(self, x: Tensor, kv: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            x: Queries ``(B, t, dim)``.
            kv: Keys and values ``(B, s, dim)``; x when left out.
            mask: Bool ``(B, s)``, True where a key takes part.

        Returns:
            ``(B, t, dim)``.

        Raises:
            TypeError: If the mask is not bool.
            ValueError: If a shape does not fit, or the mask leaves a sample without keys.
        """
        kv = x if kv is None else kv
        for name, tensor in (("x", x), ("kv", kv)):
            if tensor.dim() != 3 or tensor.shape[2] != self.dim or len(tensor) != len(x):
                raise ValueError(
                    f"expected {name} to have shape (B, length, dim) with B={len(x)} and "
                    f"dim={self.dim}, got {tuple(tensor.shape)}"
                )
        if mask is not None:
            check_mask(mask, kv.shape[:2], "(B, s)")
            mask = mask[:, None, None, :]

        def heads_first(z: Tensor) -> Tensor:
            return z.reshape(*z.shape[:2], self.heads, self.dim_heads).transpose(1, 2)

        q = heads_first(self.to_q(x))
        k, v = map(heads_first, self.to_kv(kv).chunk(2, dim=-1))
        p = self.dropout if self.training else 0.0
        out = scaled_dot_product_attention(q, k, v, mask, p)
        result: Tensor = self.to_out(out.transpose(1, 2).flatten(2))
        return result

    def extra_repr(self) -> str:
        """The arguments."""
        return (
            f"dim={self.dim}, heads={self.heads}, dim_heads={self.dim_heads}, "
            f"dropout={self.dropout}"
        )
