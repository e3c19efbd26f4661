"""Axial attention: attention along one axis of a grid at a time, over any number of axes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from circulant_attention.checks import check_mask, check_positive, positive_ints
from circulant_attention.nn.self_attention import SelfAttention


def _channel_index(name: str, index: int, num_dimensions: int) -> int:
    """The position of the channel dim counted from the front, in (B, ...) with `num_dimensions`."""
    total = num_dimensions + 2
    front = index + total if index < 0 else index
    if not 1 <= front < total:
        raise ValueError(
            f"expected {name} to name a dim of a {total}-dimensional input other than dim 0, "
            f"the batch, got {index}"
        )
    return front


def _check_input(x: Tensor, dim: int, dim_index: int, num_dimensions: int) -> None:
    total = num_dimensions + 2
    if x.dim() != total:
        raise ValueError(
            f"expected x to have {total} dims (batch, channels and {num_dimensions} axes), "
            f"got shape {tuple(x.shape)}"
        )
    if x.shape[dim_index] != dim:
        raise ValueError(
            f"expected x to have dim={dim} channels in dim {dim_index}, got {x.shape[dim_index]} "
            f"(shape {tuple(x.shape)})"
        )


def _check_grid_mask(mask: Tensor | None, x: Tensor, dim_index: int) -> None:
    if mask is not None:
        grid = [size for i, size in enumerate(x.shape) if i != dim_index]
        check_mask(mask, grid, "(B, *grid)")


class _AlongAxis(nn.Module):
    """Apply `fn` to the sequences along one axis; every other dim joins the batch."""

    def __init__(self, axis: int, channel: int, fn: nn.Module) -> None:
        super().__init__()
        self.axis = axis
        self.channel = channel
        self.fn = fn

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        lines = x.movedim((self.axis, self.channel), (-2, -1))
        if mask is None:
            out = self.fn(lines.flatten(0, -3))
        else:
            # In the mask, which has no channel dim, the axes behind the channels sit one earlier.
            kept = mask.movedim(self.axis - (self.axis > self.channel), -1).unsqueeze(-1)
            # A line without a pixel that takes part may attend to anything: its result is dropped.
            keys = (kept | ~kept.any(dim=-2, keepdim=True)).flatten(0, -3).squeeze(-1)
            out = self.fn(lines.flatten(0, -3), mask=keys)
        out = out.unflatten(0, lines.shape[:-2])
        if mask is not None:
            out = out.masked_fill(~kept, 0.0)
        return out.movedim((-2, -1), (self.axis, self.channel))  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"axis={self.axis}"


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
        self.dim_index = _channel_index("dim_index", dim_index, num_dimensions)
        self.sum_axial_out = sum_axial_out
        self.axial_attentions = nn.ModuleList(
            _AlongAxis(
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
        _check_input(x, self.dim, self.dim_index, self.num_dimensions)
        _check_grid_mask(mask, x, self.dim_index)
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
        self.emb_dim_index = _channel_index("emb_dim_index", emb_dim_index, len(shape))
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
        _check_input(x, self.dim, self.emb_dim_index, len(self.shape))
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
