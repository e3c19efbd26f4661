"""Circulant attention as a layer."""

from __future__ import annotations

from typing import ClassVar, Literal, overload

import torch
from torch import Tensor, nn

from circulant_attention.attention import attend
from circulant_attention.checks import (
    check_dropout,
    check_heads,
    check_odd,
    is_int,
    is_sequence,
    per_dim,
)
from circulant_attention.geometry import WindowLike
from circulant_attention.matrix.circulant import Circulant
from circulant_attention.matrix.score_terms import Options
from circulant_attention.nn.bandwidth import Bandwidths
from circulant_attention.nn.pointwise import pointwise_conv
from circulant_attention.similarity import (
    AbstractSimilarity,
    DistanceSimilarity,
    DotSimilarity,
    check_similarity,
)
from circulant_attention.window import Window, dims_of


class _CirculantAttention(Bandwidths):
    spatial_dims: ClassVar[int]
    relative_bias: Tensor | None

    def __init__(
        self,
        channels: int,
        heads: int,
        window: WindowLike,
        *,
        similarity: AbstractSimilarity | None = None,
        bandwidth: float | None = None,
        learn_bandwidth: bool = False,
        bandwidth_degree: int = 0,
        bias: bool = True,
        relative_bias: bool = False,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_heads("channels", channels, heads)
        check_dropout(dropout)
        check_dropout(attention_dropout, "attention_dropout")
        self.similarity = DotSimilarity() if similarity is None else check_similarity(similarity)
        self._make_bandwidth(
            self.similarity,
            channels,
            heads,
            bandwidth,
            learn_bandwidth,
            bandwidth_degree,
            device,
            dtype,
        )
        self.channels = channels
        self.heads = heads
        self.window = _checked_window(window, self.spatial_dims)
        self._smallest_grid = _smallest_grid(self.window, self.spatial_dims)
        self.relative_bias = None
        if relative_bias:
            lengths = _lengths(self.window, self.spatial_dims)
            self.relative_bias = nn.Parameter(
                torch.empty(heads, *lengths, device=device, dtype=dtype)
            )

        def projection() -> nn.Module:
            return pointwise_conv(
                self.spatial_dims, channels, channels, bias=bias, device=device, dtype=dtype
            )

        self.to_q = projection()
        self.to_k = projection()
        self.to_v = projection()
        self.to_out = projection()
        self.dropout = nn.Dropout(dropout)
        # An int where nothing is dropped: a compiler takes a float for an input that changes.
        self.attention_dropout = attention_dropout or 0
        self._reset_terms()

    def _reset_terms(self) -> None:
        self._reset_bandwidth()
        if self.relative_bias is not None:
            nn.init.zeros_(self.relative_bias)

    def reset_parameters(self) -> None:
        """Draw the weights anew, and reset bandwidths and relative bias to their initial values."""
        for projection in (self.to_q, self.to_k, self.to_v, self.to_out):
            projection.reset_parameters()  # type: ignore[operator]
        self._reset_terms()

    @overload
    def forward(
        self,
        x: Tensor,
        need_weights: Literal[False] = False,
        *,
        average_attn_weights: bool = False,
        key_mask: Tensor | None = None,
        sigma: float | Tensor | None = None,
    ) -> Tensor: ...
    @overload
    def forward(
        self,
        x: Tensor,
        need_weights: Literal[True],
        *,
        average_attn_weights: bool = False,
        key_mask: Tensor | None = None,
        sigma: float | Tensor | None = None,
    ) -> tuple[Tensor, Circulant]: ...
    def forward(
        self,
        x: Tensor,
        need_weights: bool = False,
        *,
        average_attn_weights: bool = False,
        key_mask: Tensor | None = None,
        sigma: float | Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Circulant]:
        """Attend.

        Args:
            x: ``(B, C, *spatial)``; no circular dim shorter than the span of the window.
            need_weights: Whether to return the adjacency too.
            average_attn_weights: Whether to return the mean of the adjacency over the heads.
            key_mask: Which pixels take part as keys: bool, True for those that do, or real numbers
                that are added to the scores; ``(B, *spatial)`` or ``(B, heads, *spatial)``, where B
                and heads may be 1. A pixel without any key in its window gives the bias of the
                output projection.
            sigma: The noise level, with ``bandwidth_degree``: a number, or one for each image,
                ``(B,)`` or ``(B, 1, *1)``.

        Returns:
            A tensor of the shape of x; with ``need_weights`` also the adjacency, a
            :class:`~circulant_attention.Circulant` ``(B, heads, N, N)`` whose rows sum to one,
            unless entries are dropped in training; ``(B, 1, N, N)`` if it is the mean.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If a shape does not fit, or ``sigma`` is left out or not used.
        """
        self._check_input(x)
        noise = self._checked_sigma(sigma, x)
        q, k, v = self.to_q(x), self.to_k(x), self.to_v(x)
        if isinstance(self.similarity, DistanceSimilarity):
            q, k = self._scaled(q, noise), self._scaled(k, noise)
        dropout = self.attention_dropout if self.training else 0
        options = Options(None, self.relative_bias, key_mask, dropout)
        settings = self.window, self.similarity, self.heads
        y, A = attend(q, k, v, *settings, options=options, need_weights=need_weights)
        y = self.dropout(self.to_out(y))
        if average_attn_weights and need_weights:
            A = A.mean(1)
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

    def extra_repr(self) -> str:
        """The arguments."""
        text = f"channels={self.channels}, heads={self.heads}, window={self.window}, "
        text += f"similarity={self.similarity}"
        if isinstance(self.similarity, DistanceSimilarity):
            learned = self.log_bandwidth is not None
            text += f", bandwidth={self.initial_bandwidth:g}, learn_bandwidth={learned}"
            if self.bandwidth_degree:
                text += f", bandwidth_degree={self.bandwidth_degree}"
        if self.relative_bias is not None:
            text += ", relative_bias=True"
        if self.attention_dropout:
            text += f", attention_dropout={self.attention_dropout}"
        return text


def _checked_window(window: WindowLike, dims: int) -> tuple[int, ...] | Window:
    """A Window for ``dims`` spatial dims, or one odd int per dim; raises for anything else."""
    if isinstance(window, Window):
        dims_of(window, dims)
        return window
    if not is_int(window) and not is_sequence(window):
        raise TypeError(
            f"expected window to be a Window, an odd int or {dims} odd ints, "
            f"got {type(window).__name__}"
        )
    widths = per_dim("window", window, dims)
    check_odd(**{f"window[{i}]": width for i, width in enumerate(widths)})
    return widths


def _smallest_grid(window: tuple[int, ...] | Window, dims: int) -> tuple[int, ...]:
    """The sizes of the smallest grid that the window fits."""
    if not isinstance(window, Window):
        return window
    return tuple(dim.span if dim.circular else 1 for dim in dims_of(window, dims))


def _lengths(window: tuple[int, ...] | Window, dims: int) -> tuple[int, ...]:
    """The number of offsets of each dim."""
    if not isinstance(window, Window):
        return window
    return tuple(dim.length for dim in dims_of(window, dims))


class CirculantAttention2d(_CirculantAttention):
    r"""Multi-head attention of every pixel to a window around it, which wraps or ends at borders.

    .. math::

        y = W_o \operatorname{concat}_h \bigl(A_h v_h\bigr) + b_o, \quad
        A_h = \operatorname{softmax}(S_h)

    with :math:`q = W_q x + b_q`, :math:`k = W_k x + b_k` and :math:`v = W_v x + b_v`, where for
    pixel j in the window around pixel i, and with e channels in a head,
    :math:`S_{h,ij} = q_{h,i} \cdot k_{h,j} / \sqrt e` for the dot product, and
    :math:`S_{h,ij} = -|q_{h,i} - k_{h,j}|^2 / (2 \beta_h^2)` for the distance, with the bandwidth
    :math:`\beta_h`. A relative bias :math:`b_{h,j-i}` and a mask of keys are added to
    :math:`S_{h,ij}`. All W are convolutions of one pixel. :class:`CirculantAttention1d` and
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
        bandwidth_degree: The degree of that logarithm as a polynomial in the noise level
            :math:`\sigma`, which :meth:`forward` takes then:
            :math:`\log \beta_h = \sum_n \theta_{hn} \sigma^n`, at first constant.
        bias: Whether the four convolutions have a bias.
        relative_bias: Whether every head learns a number for each offset of the window, the
            parameter ``relative_bias (heads, *window)``; at first zero. It does not depend on the
            size of the grid.
        dropout: The probability of dropping an element of the result in training.
        attention_dropout: The probability of dropping an entry of the adjacency in training. Then
            its N K entries are in memory.
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
        bandwidth_degree: The degree of its logarithm in the noise level.
        bias: Whether the four convolutions have a bias.
        relative_bias: Whether every head learns a number for each offset.
        dropout: The probability of dropping an element of the result in training.
        attention_dropout: The probability of dropping an entry of the adjacency in training.
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
        bandwidth_degree: The degree of its logarithm in the noise level.
        bias: Whether the four convolutions have a bias.
        relative_bias: Whether every head learns a number for each offset.
        dropout: The probability of dropping an element of the result in training.
        attention_dropout: The probability of dropping an entry of the adjacency in training.
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
