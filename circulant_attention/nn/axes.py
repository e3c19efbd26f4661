"""Grids with the channels in any dim: their checks, and a map of the lines along one axis."""

from __future__ import annotations

from torch import Tensor, nn

from circulant_attention.checks import check_mask


def channel_index(name: str, index: int, num_dimensions: int) -> int:
    """The position of the channel dim, counted from the front of (B, ...)."""
    total = num_dimensions + 2
    front = index + total if index < 0 else index
    if not 1 <= front < total:
        raise ValueError(
            f"expected {name} to name a dim of a {total}-dimensional input other than dim 0, "
            f"the batch, got {index}"
        )
    return front


def check_grid(x: Tensor, dim: int, dim_index: int, num_dimensions: int) -> None:
    """Raises unless ``x`` has this many axes, and ``dim`` channels in dim ``dim_index``."""
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


def check_grid_mask(mask: Tensor | None, x: Tensor, dim_index: int) -> None:
    """Raises unless ``mask`` is None, or boolean and of the shape of ``x`` without channels."""
    if mask is not None:
        grid = [size for i, size in enumerate(x.shape) if i != dim_index]
        check_mask(mask, grid, "(B, *grid)")


class AlongAxis(nn.Module):
    """Applies ``fn`` to the lines along one axis; every other dim joins the batch.

    Args:
        axis: The axis of the lines.
        channel: The dim of the channels.
        fn: Maps ``(lines, length, C)`` to the same shape, with a bool mask ``(lines, length)``.
    """

    def __init__(self, axis: int, channel: int, fn: nn.Module) -> None:
        super().__init__()
        self.axis = axis
        self.channel = channel
        self.fn = fn

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Maps the grid ``x``; pixels where ``mask`` is False have no influence and become 0."""
        lines = x.movedim((self.axis, self.channel), (-2, -1))
        if mask is None:
            out = self.fn(lines.flatten(0, -3))
        else:
            # The mask has no channel dim: axes behind the channels are one dim earlier in it.
            kept = mask.movedim(self.axis - (self.axis > self.channel), -1).unsqueeze(-1)
            # A softmax over no keys is NaN. A fully masked line attends to all its pixels, and
            # its result is set to 0.
            keys = (kept | ~kept.any(dim=-2, keepdim=True)).flatten(0, -3).squeeze(-1)
            out = self.fn(lines.flatten(0, -3), mask=keys)
        out = out.unflatten(0, lines.shape[:-2])
        if mask is not None:
            out = out.masked_fill(~kept, 0.0)
        return out.movedim((-2, -1), (self.axis, self.channel))  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        """The axis."""
        return f"axis={self.axis}"
