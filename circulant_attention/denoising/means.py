"""The means of non-local means: the patches of a tile, and its attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from circulant_attention.denoising import tiling
from circulant_attention.denoising.tiling import Span
from circulant_attention.ops import dtypes
from circulant_attention.ops.autocast import cast_for_autocast
from circulant_attention.ops.primitives import SimilarityKind
from circulant_attention.ops.registration import transform_active
from circulant_attention.ops.windows import CIRCULAR

# Patches are compared in a slightly smoothed image, with these weights along each dim, which leaves
# about a fifth of the noise variance. A patch's distance to itself is noise-free: without smoothing
# the centre pixel would dominate.
_SMOOTHING = (0.1875, 0.625, 0.1875)


def reach(window: int, patch: int) -> int:
    """The distance to the farthest pixel that the mean of a pixel depends on, in each dim."""
    return window // 2 + _margin(patch)


def _margin(patch: int) -> int:
    return patch // 2 + len(_SMOOTHING) // 2


def denoised_tiles(
    batch: Tensor,
    noise: float | Tensor,
    rows: Sequence[Span],
    columns: Sequence[Span],
    window: int,
    patch: int,
    bandwidth: float,
    border: tuple[int, int],
    progress: Callable[[int, int], None] | None,
) -> Tensor:
    """The tiles of an image ``(B, C, H, W)`` at some rows and columns, side by side.

    The arguments are those of :func:`nonlocal_means`, checked; zeros in a tensor ``noise`` are
    taken for ones.
    """
    if isinstance(noise, Tensor):
        scale: float | Tensor = 1 / (bandwidth * torch.where(noise != 0, noise, 1))
    else:
        scale = 1 / (bandwidth * noise)
    # Attention divides its scores by the root of the number of features.
    scale = scale * (batch.shape[1] * patch**2) ** 0.25
    total = len(rows) * len(columns)

    def denoised(batch: Tensor, row: Span, column: Span) -> Tensor:
        keys = features(batch, row, column, border, patch, scale)
        queries = keys[..., row.queries, column.queries]
        q, k, v = cast_for_autocast(queries, keys, tiling.take(batch, row, column, border))
        W = _op_window(window, row, column)
        y = dtypes.attention(q, k, v, W, SimilarityKind.DISTANCE, q.shape[1] ** -0.5)
        return y[..., row.crop, column.crop]

    again = total > 1 and _recomputes(batch, scale)
    strips: list[Tensor] = []
    for row in rows:
        strip = []
        for column in columns:
            if again:
                strip.append(checkpoint(denoised, batch, row, column, use_reentrant=False))
            else:
                strip.append(denoised(batch, row, column))
            if progress is not None:
                progress(len(strips) * len(columns) + len(strip), total)
        strips.append(torch.cat(strip, -1))
    return torch.cat(strips, -2)


def noiseless_kept(result: Tensor, batch: Tensor, noise: float | Tensor) -> Tensor:
    """The result, and the image itself where the noise is zero."""
    return torch.where(noise != 0, result, batch) if isinstance(noise, Tensor) else result


def _op_window(window: int, row: Span, column: Span) -> tuple[int, ...]:
    """The window of a tile as the native ops take it."""
    if row.boundary == column.boundary == CIRCULAR:
        return window, window
    return tuple(n for at in (row, column) for n in (window // 2, window // 2, 1, at.boundary))


def features(
    image: Tensor,
    row: Span,
    column: Span,
    border: tuple[int, int],
    patch: int,
    scale: float | Tensor,
) -> Tensor:
    """Patches f of a block with ``1/2 |f_i - f_j|^2 = scale^2 d_ij``."""
    smooth = _smoothed(tiling.take(image, row, column, border, _margin(patch)))
    offsets = torch.arange(patch, dtype=torch.float64, device="cpu") - patch // 2
    gaussian = torch.exp(-0.5 * (offsets / (max(patch - 1, 1) / 4)) ** 2)
    weights = torch.outer(gaussian, gaussian)
    weights = torch.sqrt(2 * weights / (image.shape[1] * weights.sum()))
    if isinstance(scale, Tensor):
        features = unfolded(smooth, patch)
        factors = scale[..., None, None] * weights.to(scale)[..., None, None]
        return (features * factors).flatten(1, 3)
    factors = (scale * weights).to(image.device, image.real.dtype)
    return unfolded(smooth, patch).mul_(factors[..., None, None]).flatten(1, 3)


def unfolded(image: Tensor, patch: int) -> Tensor:
    """The patches inside an image ``(B, C, H, W)``: ``(B, C, P, P, H - P + 1, W - P + 1)``."""
    for dim in (-2, -1):
        # Row offsets, then column offsets, each behind the dims that are there.
        inside = image.shape[dim] - patch + 1
        views = [image.narrow(dim, start, inside) for start in range(patch)]
        image = torch.stack(views, -3)
    return image


def _smoothed(image: Tensor) -> Tensor:
    """The smoothed pixels that have neighbours on both sides in both dims."""
    side, middle, _ = _SMOOTHING
    for dim in (-2, -1):
        inner = image.shape[dim] - 2
        before, centre, after = (image.narrow(dim, start, inner) for start in range(3))
        image = middle * centre + side * (before + after)
    return image


def _recomputes(image: Tensor, scale: float | Tensor) -> bool:
    """True if a backward pass can follow that computes the tiles again."""
    differentiable = image.requires_grad or (isinstance(scale, Tensor) and scale.requires_grad)
    return torch.is_grad_enabled() and differentiable and not transform_active()
