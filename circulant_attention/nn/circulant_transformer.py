"""A transformer block with circulant attention."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor, nn

from circulant_attention.checks import check_positive
from circulant_attention.geometry import WindowLike
from circulant_attention.matrix.circulant import Circulant
from circulant_attention.nn.circulant import (
    CirculantAttention1d,
    CirculantAttention2d,
    CirculantAttention3d,
)
from circulant_attention.nn.norms import ChannelLayerNorm
from circulant_attention.nn.pointwise import pointwise_conv
from circulant_attention.similarity import AbstractSimilarity

_ATTENTION = {1: CirculantAttention1d, 2: CirculantAttention2d, 3: CirculantAttention3d}


class CirculantTransformerBlock(nn.Module):
    r"""A transformer block with circulant attention.

    .. math::

        z = x + \operatorname{attention}(\operatorname{norm}_1(x)), \quad
        y = z + \operatorname{MLP}(\operatorname{norm}_2(z))

    with layer norms over the channels, and an MLP for every pixel: to ``mlp_ratio`` times as many
    channels, GELU, and back.

    Args:
        channels: The number of channels C.
        heads: The number of heads; divides C.
        window: The length of the window: an odd int, or one odd int per spatial dim; or a
            :class:`~circulant_attention.Window`.
        spatial_dims: 1 for sequences, 2 for images, 3 for volumes.
        mlp_ratio: The MLP's hidden channels for each of C.
        similarity: The dot product when left out, or the distance.
        bandwidth: The bandwidth of the distance, see :class:`CirculantAttention2d`.
        learn_bandwidth: Whether every head learns its bandwidth.
        bandwidth_degree: The degree of its logarithm in the noise level.
        relative_bias: Whether every head learns a number for each offset of the window.
        dropout: The probability of dropping an element of each branch's result in training.
        attention_dropout: The probability of dropping an entry of the adjacency in training.
        device: The device of the parameters.
        dtype: The dtype of the parameters.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Note:
        With N pixels and K of them in a window: O(N C (C + K)) operations and O(N C) memory.

    Example:
        >>> import torch
        >>> from circulant_attention.nn import CirculantTransformerBlock
        >>> block = CirculantTransformerBlock(16, heads=4, window=5)
        >>> block(torch.randn(2, 16, 12, 10)).shape
        torch.Size([2, 16, 12, 10])

    References:
        Vaswani et al., Attention is all you need, NeurIPS 2017; Xiong et al., On layer
        normalization in the transformer architecture, ICML 2020.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        window: WindowLike,
        spatial_dims: int = 2,
        *,
        mlp_ratio: int = 4,
        similarity: AbstractSimilarity | None = None,
        bandwidth: float | None = None,
        learn_bandwidth: bool = False,
        bandwidth_degree: int = 0,
        relative_bias: bool = False,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if spatial_dims not in _ATTENTION:
            raise ValueError(f"expected spatial_dims to be 1, 2 or 3, got {spatial_dims}")
        check_positive(mlp_ratio=mlp_ratio)
        self.attention = _ATTENTION[spatial_dims](
            channels,
            heads,
            window,
            similarity=similarity,
            bandwidth=bandwidth,
            learn_bandwidth=learn_bandwidth,
            bandwidth_degree=bandwidth_degree,
            relative_bias=relative_bias,
            dropout=dropout,
            attention_dropout=attention_dropout,
            device=device,
            dtype=dtype,
        )
        self.norm1 = ChannelLayerNorm(channels, device=device, dtype=dtype)
        self.norm2 = ChannelLayerNorm(channels, device=device, dtype=dtype)
        hidden = mlp_ratio * channels
        self.mlp = nn.Sequential(
            pointwise_conv(spatial_dims, channels, hidden, device=device, dtype=dtype),
            nn.GELU(),
            pointwise_conv(spatial_dims, hidden, channels, device=device, dtype=dtype),
            nn.Dropout(dropout),
        )

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        for module in (self.attention, self.norm1, self.norm2, self.mlp[0], self.mlp[2]):
            module.reset_parameters()  # type: ignore[operator]

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
        """Transform.

        Args:
            x: ``(B, C, *spatial)``; no circular dim shorter than the span of the window.
            need_weights: Whether to return the adjacency too.
            average_attn_weights: Whether to return the mean of the adjacency over the heads.
            key_mask: Which pixels take part as keys, ``(B, *spatial)`` or ``(B, heads, *spatial)``;
                see :meth:`CirculantAttention2d.forward`.
            sigma: The noise level, with ``bandwidth_degree``: a number, or one for each image,
                ``(B,)`` or ``(B, 1, *1)``.

        Returns:
            A tensor of the shape of x; with ``need_weights`` also the adjacency, a
            :class:`~circulant_attention.Circulant` ``(B, heads, N, N)``, or ``(B, 1, N, N)`` if it
            is the mean.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If a shape does not fit, or ``sigma`` is left out or not used.
        """
        self.attention._check_input(x)
        attended, A = self.attention(self.norm1(x), True, key_mask=key_mask, sigma=sigma)
        z = x + attended
        y: Tensor = z + self.mlp(self.norm2(z))
        if average_attn_weights and need_weights:
            A = A.mean(1)
        return (y, A) if need_weights else y
