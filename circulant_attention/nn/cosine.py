"""Cosine attention: attention over a whole grid in linear time, which weights near pixels more."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from circulant_attention.checks import (
    check_dropout,
    check_heads,
    check_positive,
    is_int,
    per_dim,
    positive_ints,
)
from circulant_attention.nn.norms import ChannelStdNorm
from circulant_attention.nn.pointwise import pointwise_conv
from circulant_attention.ops.autocast import without_autocast
from circulant_attention.ops.dispatch import takes_distributed

_SIZE = "an int or 1 to 3 ints"


class _CosAttn(nn.Module):
    spatial_dims: ClassVar[int]
    attn_coef: Tensor

    def __init__(
        self,
        N: int | Sequence[int],
        n_head: int = 8,
        M: int | Sequence[int] = 16,
        *,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.N = per_dim("N", N, self.spatial_dims)
        self.M = per_dim("M", M, self.spatial_dims)
        check_positive(n_head=n_head)
        if any(m <= n for m, n in zip(self.M, self.N, strict=True)):
            raise ValueError(
                f"expected M to be larger than the grid in every dim (the cosine would reach 0), "
                f"got M={self.M} for N={self.N}"
            )
        if eps <= 0.0:
            raise ValueError(f"expected eps to be positive, got {eps}")
        self.n_head = n_head
        self.eps = eps
        coefficients = torch.empty(2**self.spatial_dims, *self.N, device=device, dtype=dtype)
        self.register_buffer("attn_coef", coefficients)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Compute the table of cosines and sines, the only state of the module."""
        terms = torch.ones(1, *(1 for _ in self.N), dtype=torch.float64)
        for dim, (n, m) in enumerate(zip(self.N, self.M, strict=True)):
            angle = torch.arange(n, dtype=torch.float64) * (math.pi / (2 * m))
            waves = torch.stack([angle.cos(), angle.sin()])
            waves = waves.view(1, 2, *(n if i == dim else 1 for i in range(len(self.N))))
            terms = (terms.unsqueeze(1) * waves).flatten(0, 1)
        with torch.no_grad():
            self.attn_coef.copy_(terms)

    @takes_distributed
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend.

        Args:
            q: Queries ``(B, C, *grid)``; no dim of the grid longer than in ``N``.
            k: Keys ``(B, C, *key_grid)``. The grid of the keys may differ; both start at position
                0 in every dim.
            v: Values ``(B, C_v, *key_grid)``.

        Returns:
            ``(B, C_v, *grid)`` of the dtype of v. Half precision is computed in float32, also
            under autocast.

        Raises:
            ValueError: If shapes do not fit, or ``n_head`` does not divide C or C_v.
        """
        self._check_inputs(q, k, v)
        here, there = (self._terms([slice(n) for n in x.shape[2:]]) for x in (q, k))
        return self._attended(q, k, v, here, there, self.n_head, q.shape[1], lambda sums: sums)

    def _check_inputs(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Raises unless the shapes fit."""
        for name, x in (("q", q), ("k", k), ("v", v)):
            self._check(name, x, len(q))
        if k.shape[1] != q.shape[1]:
            raise ValueError(
                f"expected k to have the channels of q, {q.shape[1]}, got {k.shape[1]}"
            )
        if v.shape[2:] != k.shape[2:]:
            raise ValueError(
                f"expected v to have the grid of k, {tuple(k.shape[2:])}, got {tuple(v.shape[2:])}"
            )

    def _attended(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        here: Tensor,
        there: Tensor,
        heads: int,
        channels: int,
        total: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """The attention of some pixels, also of a part of a grid.

        Args:
            q: As for :meth:`forward`.
            k: As there.
            v: As there.
            here: The terms of the pixels of q, as :meth:`_terms` gives them.
            there: Those of the pixels of k.
            heads: The heads of q, k and v.
            channels: The channels of all heads, also of those that are elsewhere.
            total: Makes sums over the pixels of k ``(2**d, B, heads, C_v / heads + 1, C / heads)``
                sums over all pixels.

        Returns:
            A tensor like v, on the grid of q.
        """
        dtype = torch.promote_types(torch.promote_types(q.dtype, v.dtype), torch.float32)

        def split(x: Tensor) -> Tensor:
            return x.reshape(len(x), heads, x.shape[1] // heads, x.shape[2:].numel())

        def features(x: Tensor) -> Tensor:
            return split(functional.relu(x * channels**-0.25) + self.eps)

        with without_autocast(q.device):
            queries, keys = features(q.to(dtype)), features(k.to(dtype))
            values = split(v.to(dtype))
            # Term by term: fewer copies of the features at a time than in one product.
            contexts = []
            for term in there.to(dtype):
                placed = keys * term
                # The last row sums the weights, for the normalisation.
                context = [values @ placed.mT, placed.sum(dim=-1).unsqueeze(2)]
                contexts.append(torch.cat(context, dim=2))
            sums = queries.new_zeros(())
            for context, term in zip(total(torch.stack(contexts)), here.to(dtype), strict=True):
                sums = torch.addcmul(sums, context @ queries, term)
            out = sums[:, :, :-1] / sums[:, :, -1:]
        return out.reshape(len(q), v.shape[1], *q.shape[2:]).to(v.dtype)

    def _check(self, name: str, x: Tensor, batch: int) -> None:
        if x.dim() != 2 + self.spatial_dims or len(x) != batch:
            symbols = ("length", "height, width", "depth, height, width")[self.spatial_dims - 1]
            raise ValueError(
                f"expected {name} to have shape (B, C, {symbols}) with B={batch}, "
                f"got {tuple(x.shape)}"
            )
        check_heads(f"the number of channels of {name}", x.shape[1], self.n_head)
        if any(size > n for size, n in zip(x.shape[2:], self.N, strict=True)):
            raise ValueError(
                f"expected {name} to have a grid of at most N={self.N}, got {tuple(x.shape[2:])}"
            )

    def _terms(self, pixels: Sequence[slice]) -> Tensor:
        """Products of cosines and sines on a part of the grid, ``(2**d, pixels)``."""
        index = slice(None), *pixels
        return self.attn_coef[index].flatten(1)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"N={self.N}, n_head={self.n_head}, M={self.M}, eps={self.eps}"


class CosAttn2d(_CosAttn):
    r"""Attention with a similarity that falls off as the cosine of the distance in each dim.

    .. math::

        y_p = \frac{\sum_r s_{pr} v_r}{\sum_r s_{pr}}, \quad
        s_{pr} = \bar q_p \cdot \bar k_r \prod_{d}
            \cos\Bigl(\frac{\pi}{2} \frac{p_d - r_d}{M_d}\Bigr), \quad
        \bar q = \operatorname{relu}(q / C^{1/4}) + \varepsilon

    for the pixels p, r of the two-dimensional grid and in every head, and likewise
    :math:`\bar k`. As cos(a - b) = cos a cos b + sin a sin b, the similarity is the dot product of
    :math:`2^d = 4` terms for every channel: no pair of pixels is formed. The module has no
    parameters. :class:`CosAttn1d` and :class:`CosAttn3d` are the same for sequences and
    volumes.

    Args:
        N: The largest size of the grid: an int for a square, or one int per spatial dim.
        n_head: The number of heads; divides the channels.
        M: The scale of the cosine in pixels, larger than N: an int or one int per spatial dim.
            The similarity would vanish at this distance.
        eps: Added to every feature: every pixel has positive weights.
        device: The device of the table of cosines.
        dtype: The dtype of the table of cosines.

    Raises:
        TypeError: If a number that counts is not an int.
        ValueError: If M is not larger than N, or an argument is out of range.

    Note:
        With N pixels and h heads: :math:`O(2^d N C C_v / h)` operations and
        :math:`O(2^d N C + N C_v)` memory, both linear in N.

    Example:
        >>> import torch
        >>> from circulant_attention.nn import CosAttn2d
        >>> attn = CosAttn2d((12, 20), n_head=4, M=24)
        >>> q, k, v = torch.randn(3, 2, 16, 12, 20)
        >>> attn(q, k, v).shape
        torch.Size([2, 16, 12, 20])

    References:
        Qin et al., cosFormer: Rethinking softmax in attention, ICLR 2022, arXiv:2202.08791. The
        form for grids is that of CosAttention2D (github.com/ParadoxZW/CosAttention2d), whose
        arguments and table these are.
    """

    spatial_dims = 2


class CosAttn1d(_CosAttn):
    """:class:`CosAttn2d` for sequences ``(B, C, length)``: two terms.

    Args:
        N: The largest length.
        n_head: The number of heads; divides the channels.
        M: The scale of the cosine, larger than N.
        eps: Added to every feature.
        device: The device of the table of cosines.
        dtype: The dtype of the table of cosines.

    Raises:
        TypeError: If a number that counts is not an int.
        ValueError: If M is not larger than N, or an argument is out of range.

    Example:
        >>> import torch
        >>> from circulant_attention.nn import CosAttn1d
        >>> q, k, v = torch.randn(3, 2, 16, 100)
        >>> CosAttn1d(100, n_head=4, M=128)(q, k, v).shape
        torch.Size([2, 16, 100])

    References:
        Qin et al., cosFormer: Rethinking softmax in attention, ICLR 2022, arXiv:2202.08791.
    """

    spatial_dims = 1


class CosAttn3d(_CosAttn):
    """:class:`CosAttn2d` for volumes ``(B, C, depth, height, width)``: eight terms.

    Args:
        N: The largest size: an int for a cube, or one int per spatial dim.
        n_head: The number of heads; divides the channels.
        M: The scale of the cosine, larger than N: an int or one int per spatial dim.
        eps: Added to every feature.
        device: The device of the table of cosines.
        dtype: The dtype of the table of cosines.

    Raises:
        TypeError: If a number that counts is not an int.
        ValueError: If M is not larger than N, or an argument is out of range.

    Example:
        >>> import torch
        >>> from circulant_attention.nn import CosAttn3d
        >>> q, k, v = torch.randn(3, 2, 16, 4, 6, 5)
        >>> CosAttn3d((4, 6, 5), n_head=4, M=8)(q, k, v).shape
        torch.Size([2, 16, 4, 6, 5])

    References:
        Qin et al., cosFormer: Rethinking softmax in attention, ICLR 2022, arXiv:2202.08791.
    """

    spatial_dims = 3


class CosMHSA(nn.Module):
    r"""A residual layer of multi-head cosine self-attention on a grid.

    .. math::

        y = \operatorname{norm}\bigl(x + \operatorname{dropout}(W_m
            \operatorname{CosAttn}(W_q x, W_k x, W_v x) + b_m)\bigr)

    with the norm over the channels, (x - mean) / (std + 1e-6) with the unbiased standard deviation,
    a gain and a bias, and M two pixels larger than ``size``.

    Args:
        n_head: The number of heads; divides ``external_dim``.
        external_dim: The number of channels C, at least 2.
        size: The largest size of the grid: an int for a square, or one int per spatial dim, one to
            three of them.
        dropout: The probability of dropping an element of the attention's result in training.
        device: The device of the parameters.
        dtype: The dtype of the parameters.

    Raises:
        TypeError: If a number that counts is not an int.
        ValueError: If ``n_head`` does not divide ``external_dim``, or an argument is out of range.

    Note:
        With N pixels, d spatial dims and h heads: :math:`O(N C^2 (1 + 2^d / h))` operations and
        :math:`O(2^d N C)` memory.

    Example:
        >>> import torch
        >>> from circulant_attention.nn import CosMHSA
        >>> layer = CosMHSA(n_head=4, external_dim=16, size=(12, 20))
        >>> layer(torch.randn(2, 16, 12, 20)).shape
        torch.Size([2, 16, 12, 20])

    References:
        Qin et al., cosFormer: Rethinking softmax in attention, ICLR 2022, arXiv:2202.08791.
        Arguments and parameter names are those of CosAttention2D
        (github.com/ParadoxZW/CosAttention2d), which always attends with 8 heads.
    """

    def __init__(
        self,
        n_head: int,
        external_dim: int,
        size: int | Sequence[int],
        dropout: float = 0.1,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_heads("external_dim", external_dim, n_head)
        check_dropout(dropout)
        if external_dim < 2:
            raise ValueError(
                f"expected external_dim to be at least 2 to be normalised, got {external_dim}"
            )
        grid = per_dim("size", size, 2) if is_int(size) else positive_ints("size", size, _SIZE)
        if not 1 <= len(grid) <= 3:
            raise ValueError(f"expected size to be {_SIZE}, got {grid}")
        self.external_dim = external_dim
        attention = (CosAttn1d, CosAttn2d, CosAttn3d)[len(grid) - 1]

        def projection(bias: bool) -> nn.Module:
            return pointwise_conv(
                len(grid), external_dim, external_dim, bias=bias, device=device, dtype=dtype
            )

        self.linear_v = projection(bias=False)
        self.linear_k = projection(bias=False)
        self.linear_q = projection(bias=False)
        self.linear_merge = projection(bias=True)
        self.cos_att = attention(
            grid, n_head, tuple(n + 2 for n in grid), device=device, dtype=dtype
        )
        self.dropout = nn.Dropout(dropout)
        self.norm = ChannelStdNorm(
            (external_dim, *(1 for _ in grid)),
            correction=1,
            eps=1e-6,
            names=("weight", "bias"),
            device=device,
            dtype=dtype,
        )

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        for module in self.children():
            if not isinstance(module, nn.Dropout):
                module.reset_parameters()  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        """Attend, add, normalise.

        Args:
            x: ``(B, C, *grid)``; no dim of the grid longer than in ``size``.

        Returns:
            A tensor of the shape of x.

        Raises:
            ValueError: If the shape does not fit.
        """
        grid, channels = self.cos_att.N, self.external_dim
        fits = x.dim() == 2 + len(grid) and x.shape[1] == channels
        if not fits or any(a > b for a, b in zip(x.shape[2:], grid, strict=True)):
            raise ValueError(
                f"expected x to have shape (B, {channels}, *grid) with a grid of at most {grid}, "
                f"got {tuple(x.shape)}"
            )
        attended = self.cos_att(self.linear_q(x), self.linear_k(x), self.linear_v(x))
        out: Tensor = self.norm(x + self.dropout(self.linear_merge(attended)))
        return out
