"""Convolutions with a kernel of one pixel, computed as matrix products."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from circulant_attention.ops.dispatch import takes_distributed


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``weight (C_out, C_in, 1, ...) @ x (B, C_in, *spatial) + bias`` at every pixel."""
    matrix = weight.flatten(1).expand(x.shape[0], -1, -1)
    pixels = x.flatten(2)
    if bias is None:
        y = torch.bmm(matrix, pixels)
    else:
        y = torch.baddbmm(bias.unsqueeze(1), matrix, pixels)
    return y.reshape(x.shape[0], y.shape[1], *x.shape[2:])


@takes_distributed
def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """:func:`product`, of DTensors too."""
    return product(x, weight, bias)


class _Pointwise(nn.Module):
    """The forward pass: weight @ x + bias at every pixel.

    On a CPU the product is as fast as torch's convolution in float32 and faster in half precision.
    It also compiles for dynamic grids: in a graph with a convolution, inductor (2.13, CPU) fails
    on 4-dimensional views of symbolic size that are kept for the backward pass, and the heads of
    an attention are views of this kind.
    """

    weight: Tensor
    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, C_in, *spatial)`` to ``(B, C_out, *spatial)``."""
        return pointwise(x, self.weight, self.bias)


class PointwiseConv1d(_Pointwise, nn.Conv1d):
    """:class:`torch.nn.Conv1d` with kernel size 1."""


class PointwiseConv2d(_Pointwise, nn.Conv2d):
    """:class:`torch.nn.Conv2d` with kernel size 1."""


class PointwiseConv3d(_Pointwise, nn.Conv3d):
    """:class:`torch.nn.Conv3d` with kernel size 1."""


_CLASSES = {1: PointwiseConv1d, 2: PointwiseConv2d, 3: PointwiseConv3d}


def pointwise_conv(
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    *,
    bias: bool = True,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """A convolution of one pixel for 1, 2 or 3 spatial dims."""
    convolution = _CLASSES[spatial_dims]
    return convolution(in_channels, out_channels, 1, bias=bias, device=device, dtype=dtype)
