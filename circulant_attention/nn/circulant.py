"""Circulant attention as a layer."""

from __future__ import annotations

import math
from typing import ClassVar, Literal, overload

import torch
from torch import Tensor, nn

from circulant_attention.attention import attend
from circulant_attention.checks import (
    check_dropout,
    check_heads,
    check_odd,
    per_dim,
)
from circulant_attention.geometry import WindowLike
from circulant_attention.matrix.circulant import Circulant
from circulant_attention.nn.pointwise import pointwise_conv
from circulant_attention.similarity import (
    AbstractSimilarity,
    DistanceSimilarity,
    DotSimilarity,
    check_similarity,
)
from circulant_attention.window import Window, dims_of


class _CirculantAttention(nn.Module):
    spatial_dims: ClassVar[int]
    log_bandwidth: Tensor | None

    def __init__(
        self,
        channels: int,
        heads: int,
        window: WindowLike,
        *,
        similarity: AbstractSimilarity | None = None,
        bandwidth: float | None = None,
        learn_bandwidth: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_heads("channels", channels, heads)
        check_dropout(dropout)
        self.similarity = DotSimilarity() if similarity is None else check_similarity(similarity)
        takes_bandwidth = isinstance(self.similarity, DistanceSimilarity)
        if not takes_bandwidth and (bandwidth is not None or learn_bandwidth):
            raise ValueError(
                "bandwidth and learn_bandwidth need similarity=DistanceSimilarity(), "
                f"got {self.similarity}"
            )
        if bandwidth is not None and not 0.0 < bandwidth < math.inf:
            raise ValueError(f"expected bandwidth to be positive and finite, got {bandwidth}")
        self.channels = channels
        self.heads = heads
        self.window = _checked_window(window, self.spatial_dims)
        self._smallest_grid = _smallest_grid(self.window, self.spatial_dims)
        self.initial_bandwidth = (channels // heads) ** 0.25 if bandwidth is None else bandwidth
        self.log_bandwidth = None
        if learn_bandwidth:
            self.log_bandwidth = nn.Parameter(torch.empty(heads, device=device, dtype=dtype))

        def projection() -> nn.Module:
            return pointwise_conv(
                self.spatial_dims, channels, channels, bias=bias, device=device, dtype=dtype
            )

        self.to_q = projection()
        self.to_k = projection()
        self.to_v = projection()
        self.to_out = projection()
        self.dropout = nn.Dropout(dropout)
        self._reset_bandwidth()

    def _reset_bandwidth(self) -> None:
        if self.log_bandwidth is not None:
            nn.init.constant_(self.log_bandwidth, math.log(self.initial_bandwidth))

    def reset_parameters(self) -> None:
        """Draw the weights anew, and reset the bandwidths to their initial values."""
        for projection in (self.to_q, self.to_k, self.to_v, self.to_out):
            projection.reset_parameters()  # type: ignore[operator]
        self._reset_bandwidth()

    @overload
    def forward(self, x: Tensor) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, need_weights: Literal[False]) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, need_weights: Literal[True]) -> tuple[Tensor, Circulant]: ...
    def forward(self, x: Tensor, need_weights: bool = False) -> Tensor | tuple[Tensor, Circulant]:
        """Attend.

        Args:
            x: ``(B, C, *spatial)``; no circular dim shorter than the span of the window.
            need_weights: Whether to return the adjacency too.

        Returns:
            A tensor of the shape of x; with ``need_weights`` also the adjacency, a
            :class:`~circulant_attention.Circulant` ``(B, heads, N, N)`` whose rows sum to one.

        Raises:
            ValueError: If the shape does not fit.
        """
        self._check_input(x)
        q, k, v = self.to_q(x), self.to_k(x), self.to_v(x)
        if isinstance(self.similarity, DistanceSimilarity):
            q, k = self._scaled(q), self._scaled(k)
        settings = self.window, self.similarity, self.heads
        y, A = attend(q, k, v, *settings, need_weights=need_weights)
        y = self.dropout(self.to_out(y))
        return (y, A) if need_weights else y

    def _check_input(self, x: Tensor) -> None:
        if x.dim() != 2 + self.spatial_dims or x.shape[1] != self.channels:
            raise ValueError(
                f"expected x of shape (B, {self.channels}, *spatial) with {self.spatial_dims} "
                f"spatial dim(s), got {tuple(x.shape)}"
            )
        if any(n > size for n, size in zip(self._smallest_grid, x.shape[2:], strict=True)):
            raise ValueError(
                f"expected x with a grid of at least {self._smallest_grid}, the span of the "
                f"circular window {self.window}, got {tuple(x.shape[2:])}"
            )

    def _scaled(self, features: Tensor) -> Tensor:
        """Features scaled to distances in units of the bandwidth.

        The attention divides squared distances by the root of a head's channels, the square of
        the default bandwidth.
        """
        root = (self.channels // self.heads) ** 0.25
        if self.log_bandwidth is None:
            scaled: Tensor = features * (root / self.initial_bandwidth)
            return scaled
        factors = root * torch.exp(-self.log_bandwidth)
        factors = factors.repeat_interleave(self.channels // self.heads)
        scaled = features * factors.view(-1, *(1,) * self.spatial_dims)
        return scaled

    def extra_repr(self) -> str:
        """The arguments."""
        text = f"channels={self.channels}, heads={self.heads}, window={self.window}, "
        text += f"similarity={self.similarity}"
        if isinstance(self.similarity, DistanceSimilarity):
            learned = self.log_bandwidth is not None
            text += f", bandwidth={self.initial_bandwidth:g}, learn_bandwidth={learned}"
        return text


def _checked_window(window: WindowLike, dims: int) -> tuple[int, ...] | Window:
    """A Window for ``dims`` spatial dims, or one odd int per dim; raises for anything else."""
    if isinstance(window, Window):
        dims_of(window, dims)
        return window
    widths = per_dim("window", window, dims)
    check_odd(**{f"window[{i}]": width for i, width in enumerate(widths)})
    return widths


def _smallest_grid(window: tuple[int, ...] | Window, dims: int) -> tuple[int, ...]:
    """The sizes of the smallest grid that the window fits."""
    if not isinstance(window, Window):
        return window
    return tuple(dim.span if dim.circular else 1 for dim in dims_of(window, dims))


class CirculantAttention2d(_CirculantAttention):
    r"""Multi-head attention of every pixel to a window around it, which wraps or ends at borders.

    .. math::

        y = W_o \operatorname{concat}_h \bigl(A_h v_h\bigr) + b_o, \quad
        A_h = \operatorname{softmax}(S_h)

    with :math:`q = W_q x + b_q`, :math:`k = W_k x + b_k` and :math:`v = W_v x + b_v`, where for
    pixel j in the window around pixel i, and with e channels in a head,
    :math:`S_{h,ij} = q_{h,i} \cdot k_{h,j} / \sqrt e` for the dot product, and
    :math:`S_{h,ij} = -|q_{h,i} - k_{h,j}|^2 / (2 \beta_h^2)` for the distance, with the bandwidth
    :math:`\beta_h`. All W are convolutions of one pixel. :class:`CirculantAttention1d` and
    :class:`CirculantAttention3d` are the same for sequences and volumes.

    Args:
        channels: The number of channels C.
        heads: The number of heads; divides C.
        window: The length of the window: an odd int, or one odd int per spatial dim; or a
            :class:`~circulant_attention.Window`.
        similarity: :class:`~circulant_attention.DotSimilarity` (when left out) or
            :class:`~circulant_attention.DistanceSimilarity`.
        bandwidth: The bandwidth of the distance, in the units of q and k; :math:`e^{1/4}` when left
            out, which is the scale of :func:`~circulant_attention.circulant_attention`.
        learn_bandwidth: Whether every head learns the logarithm of its bandwidth.
        bias: Whether the four convolutions have a bias.
        dropout: The probability of dropping an element of the result in training.
        device: The device of the parameters.
        dtype: The dtype of the parameters.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If ``heads`` does not divide C, an int in ``window`` is even, a Window has
            another number of dims, or a bandwidth is given without the distance.

    Note:
        With N pixels and K of them in a window: O(N C (C + K)) operations and O(N C) memory. The
        N K entries of each head's adjacency are computed on first use.

    Example:
        >>> import torch
        >>> from circulant_attention.nn import CirculantAttention2d
        >>> attn = CirculantAttention2d(16, heads=4, window=(3, 5))
        >>> x = torch.randn(2, 16, 12, 10)
        >>> y, A = attn(x, need_weights=True)
        >>> y.shape, A.shape
        (torch.Size([2, 16, 12, 10]), torch.Size([2, 4, 120, 120]))

    References:
        ``circulant_mh_attention`` in CirculantAttention.jl; Janjušević et al., GroupCDL:
        Interpretable denoising and compressed sensing MRI via learned group-sparsity and circulant
        attention, IEEE Transactions on Computational Imaging 11 (2025), 201-212.
    """

    spatial_dims = 2


class CirculantAttention1d(_CirculantAttention):
    """:class:`CirculantAttention2d` for sequences ``(B, C, length)``.

    Args:
        channels: The number of channels C.
        heads: The number of heads; divides C.
        window: The length of the window, odd, or a :class:`~circulant_attention.Window`.
        similarity: The dot product when left out, or the distance.
        bandwidth: The bandwidth of the distance.
        learn_bandwidth: Whether every head learns its bandwidth.
        bias: Whether the four convolutions have a bias.
        dropout: The probability of dropping an element of the result in training.
        device: The device of the parameters.
        dtype: The dtype of the parameters.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If ``heads`` does not divide C, an int in ``window`` is even, a Window has
            another number of dims, or a bandwidth is given without the distance.

    Example:
        >>> import torch
        >>> from circulant_attention.nn import CirculantAttention1d
        >>> CirculantAttention1d(16, heads=4, window=9)(torch.randn(2, 16, 100)).shape
        torch.Size([2, 16, 100])

    References:
        ``circulant_mh_attention`` in CirculantAttention.jl; Janjušević et al., GroupCDL, IEEE
        Transactions on Computational Imaging 11 (2025), 201-212.
    """

    spatial_dims = 1


class CirculantAttention3d(_CirculantAttention):
    """:class:`CirculantAttention2d` for volumes ``(B, C, depth, height, width)``.

    Args:
        channels: The number of channels C.
        heads: The number of heads; divides C.
        window: The length of the window: an odd int, or one odd int per spatial dim; or a
            :class:`~circulant_attention.Window`.
        similarity: The dot product when left out, or the distance.
        bandwidth: The bandwidth of the distance.
        learn_bandwidth: Whether every head learns its bandwidth.
        bias: Whether the four convolutions have a bias.
        dropout: The probability of dropping an element of the result in training.
        device: The device of the parameters.
        dtype: The dtype of the parameters.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If ``heads`` does not divide C, an int in ``window`` is even, a Window has
            another number of dims, or a bandwidth is given without the distance.

    Example:
        >>> import torch
        >>> from circulant_attention.nn import CirculantAttention3d
        >>> attn = CirculantAttention3d(16, heads=4, window=(1, 3, 3))
        >>> attn(torch.randn(2, 16, 3, 6, 5)).shape
        torch.Size([2, 16, 3, 6, 5])

    References:
        ``circulant_mh_attention`` in CirculantAttention.jl; Janjušević et al., GroupCDL, IEEE
        Transactions on Computational Imaging 11 (2025), 201-212.
    """

    spatial_dims = 3
