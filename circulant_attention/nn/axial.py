"""Axial attention: attention along one axis of a grid at a time, over any number of axes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from circulant_attention.checks import check_positive, positive_ints
from circulant_attention.nn.axes import AlongAxis, channel_index, check_grid, check_grid_mask
from circulant_attention.nn.self_attention import SelfAttention
from circulant_attention.ops.dispatch import takes_distributed


class AxialAttention(nn.Module):
    r"""Self-attention along each axis of a grid, the axes' results summed or chained.

    .. math::

        y = \sum_a A_a(x) \quad \text{or} \quad y = A_d(\cdots A_2(A_1(x)))

    where :math:`A_a` is :class:`SelfAttention` among the pixels that differ only in their position
    on axis a.

    Args:
        dim: The number of channels C.
        num_dimensions: The number of axes d: 2 for images, 3 for video.
        heads: The number of heads.
        dim_heads: The number of channels per head; ``dim // heads`` when left out, and then
            ``heads`` must divide ``dim``.
        dim_index: The position of the channels in the input, whose dim 0 is the batch.
        sum_axial_out: Whether to sum the axes' results or to run through the axes in order.
        dropout: The probability of dropping an attention weight in training.
        device: The device of the parameters.
        dtype: The dtype of the parameters.

    Raises:
        TypeError: If a number that counts is not an int.
        ValueError: If an argument is out of range.

    Note:
        With N pixels, axes of sizes :math:`n_a` and D = ``heads * dim_heads``:
        :math:`O(d N C D + N D \sum_a n_a)` operations, so :math:`O(N^{1.5})` on a square image,
        and O(N (C + D)) memory.

    Example:
        >>> import torch
        >>> from circulant_attention.nn import AxialAttention
        >>> attn = AxialAttention(dim=8, dim_index=1, heads=2)
        >>> attn(torch.randn(1, 8, 12, 20)).shape
        torch.Size([1, 8, 12, 20])

    References:
        Ho et al., Axial attention in multidimensional transformers, arXiv:1912.12180. Arguments
        and parameter names are those of ``axial_attention`` 0.6.1.
    """

    def __init__(
        self,
        dim: int,
        num_dimensions: int = 2,
        heads: int = 8,
        dim_heads: int | None = None,
        dim_index: int = -1,
        sum_axial_out: bool = True,
        *,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_positive(num_dimensions=num_dimensions)
        self.dim = dim
        self.num_dimensions = num_dimensions
        self.dim_index = channel_index("dim_index", dim_index, num_dimensions)
        self.sum_axial_out = sum_axial_out
        self.axial_attentions = nn.ModuleList(
            AlongAxis(
                axis,
                self.dim_index,
                SelfAttention(dim, heads, dim_heads, dropout=dropout, device=device, dtype=dtype),
            )
            for axis in range(1, num_dimensions + 2)
            if axis != self.dim_index
        )

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        for module in self.modules():
            if isinstance(module, SelfAttention):
                module.reset_parameters()

    @takes_distributed
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend along every axis.

        Args:
            x: ``(B, *grid)`` with the channels in dim ``dim_index``.
            mask: Bool ``(B, *grid)`` without the channels, True where a pixel takes part. A pixel
                left out is not attended to, and is 0 in the result.

        Returns:
            A tensor of the shape of x.

        Raises:
            TypeError: If the mask is not bool.
            ValueError: If a shape does not fit, or the mask leaves a sample without pixels.
        """
        check_grid(x, self.dim, self.dim_index, self.num_dimensions)
        check_grid_mask(mask, x, self.dim_index)
        if self.sum_axial_out:
            first, *others = (attention(x, mask) for attention in self.axial_attentions)
            total: Tensor = sum(others, start=first)
            return total
        for attention in self.axial_attentions:
            x = attention(x, mask)
        return x

    def extra_repr(self) -> str:
        """The arguments."""
        return (
            f"dim={self.dim}, num_dimensions={self.num_dimensions}, dim_index={self.dim_index}, "
            f"sum_axial_out={self.sum_axial_out}"
        )


class AxialPositionalEmbedding(nn.Module):
    r"""Add a learned vector per position on every axis.

    .. math:: y_{c, i_1 \dots i_d} = x_{c, i_1 \dots i_d} + \sum_a P^a_{c, i_a}

    A grid smaller than ``shape`` uses the first positions of every axis.

    Args:
        dim: The number of channels C.
        shape: The largest size of every axis.
        emb_dim_index: The position of the channels in the input, whose dim 0 is the batch.
        device: The device of the parameters.
        dtype: The dtype of the parameters.

    Raises:
        TypeError: If a number that counts is not an int.
        ValueError: If an argument is out of range.

    Note:
        With N pixels on d axes of sizes :math:`n_a`: O(d N C) operations and memory,
        :math:`C \sum_a n_a` parameters.

    Example:
        >>> import torch
        >>> from circulant_attention.nn import AxialPositionalEmbedding
        >>> embed = AxialPositionalEmbedding(dim=8, shape=(32, 32))
        >>> embed(torch.randn(1, 8, 12, 20)).shape
        torch.Size([1, 8, 12, 20])

    References:
        Ho et al., Axial attention in multidimensional transformers, arXiv:1912.12180. Arguments
        and parameter names are those of ``axial_attention`` 0.6.1.
    """

    def __init__(
        self,
        dim: int,
        shape: Sequence[int],
        emb_dim_index: int = 1,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_positive(dim=dim)
        self.dim = dim
        self.shape = positive_ints("shape", shape)
        if not self.shape:
            raise ValueError("expected shape to hold the size of at least one axis, got none")
        self.emb_dim_index = channel_index("emb_dim_index", emb_dim_index, len(shape))
        self.axes = [i for i in range(1, len(shape) + 2) if i != self.emb_dim_index]
        for i, (axis, size) in enumerate(zip(self.axes, shape, strict=True)):
            sizes = [1] * (len(shape) + 2)
            sizes[self.emb_dim_index], sizes[axis] = dim, size
            parameter = nn.Parameter(torch.empty(sizes, device=device, dtype=dtype))
            self.register_parameter(f"param_{i}", parameter)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the vectors from the standard normal distribution."""
        for parameter in self.parameters():
            nn.init.normal_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Add the embedding.

        Args:
            x: ``(B, *grid)`` with the channels in dim ``emb_dim_index``; no axis longer than in
                ``shape``.

        Returns:
            A tensor of the shape of x.

        Raises:
            ValueError: If the shape does not fit, or the grid is larger than ``shape``.
        """
        check_grid(x, self.dim, self.emb_dim_index, len(self.shape))
        grid = tuple(x.shape[axis] for axis in self.axes)
        if any(size > largest for size, largest in zip(grid, self.shape, strict=True)):
            raise ValueError(
                f"expected x to have a grid of at most shape={self.shape}, the embedding's, "
                f"got {grid}"
            )
        for i, (axis, size) in enumerate(zip(self.axes, grid, strict=True)):
            x = x + getattr(self, f"param_{i}").narrow(axis, 0, size)
        return x

    def extra_repr(self) -> str:
        """The arguments."""
        return f"dim={self.dim}, shape={self.shape}, emb_dim_index={self.emb_dim_index}"
