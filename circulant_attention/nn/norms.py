"""Norms over the channels, dim 1, of a grid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ChannelLayerNorm(nn.LayerNorm):
    """:class:`torch.nn.LayerNorm` over dim 1: weight (x - mean) / sqrt(var + eps) + bias."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, C, *spatial)`` to the same shape."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class ChannelStdNorm(nn.Module):
    r"""Divides by the standard deviation itself: gain (x - mean) / (std + eps) + bias.

    Two architectures define their norm like this, and differ in the details that are arguments
    here.

    Args:
        shape: The shape of the gain and of the bias; they broadcast to x.
        correction: std is :math:`\sqrt{\sum_c (x_c - \text{mean})^2 / (C - \text{correction})}`.
        eps: Added to std.
        names: The names of the gain and of the bias in the state dict.
        device: The device of the parameters.
        dtype: The dtype of the parameters.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        correction: int,
        eps: float,
        names: tuple[str, str],
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.correction = correction
        self.eps = eps
        self.names = names
        for name in names:
            parameter = nn.Parameter(torch.empty(tuple(shape), device=device, dtype=dtype))
            self.register_parameter(name, parameter)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the gain to one and the bias to zero."""
        gain, bias = (self.get_parameter(name) for name in self.names)
        nn.init.ones_(gain)
        nn.init.zeros_(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, C, *spatial)`` to the same shape."""
        centred = x - x.mean(dim=1, keepdim=True)
        # Where all channels are equal, the gradient of a norm is zero, that of a root infinite.
        length = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
        std = length / (x.shape[1] - self.correction) ** 0.5
        gain, bias = (getattr(self, name) for name in self.names)
        normed: Tensor = gain * (centred / (std + self.eps)) + bias
        return normed

    def extra_repr(self) -> str:
        """The arguments."""
        shape = tuple(self.get_parameter(self.names[0]).shape)
        return f"{shape}, correction={self.correction}, eps={self.eps}"
