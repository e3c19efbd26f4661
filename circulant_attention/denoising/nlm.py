r"""Non-local means: denoising by attention of patches to the patches around them.

The features of a pixel are the patch around it, the similarity is their distance, the values are
the noisy pixels themselves. So the whole method is::

    A = circulant_adjacency(DistanceSimilarity(), features, features, window)
    denoised = A @ image

References:
    A. Buades, B. Coll, J.-M. Morel, A non-local algorithm for image denoising, CVPR 2005; and
    Non-local means denoising, Image Processing On Line 1, 2011.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from circulant_attention import checks
from circulant_attention.checks import is_int
from circulant_attention.denoising import tiling as _tiles
from circulant_attention.denoising.tiling import Span
from circulant_attention.matrix.circulant import Circulant
from circulant_attention.ops import dtypes as _features
from circulant_attention.ops.registration import transform_active
from circulant_attention.similarity import DistanceSimilarity, circulant_adjacency

# Patches are compared in a slightly smoothed image, with these weights along each dim, which leaves
# about a fifth of the noise variance. For the distance of a patch to itself has no noise: with much
# of it in all other distances, a pixel would outweigh its equals.
_SMOOTHING = (0.1875, 0.625, 0.1875)

DEFAULT_BANDWIDTH = 0.7
"""The bandwidth h in units of the noise's standard deviation, unless told otherwise."""

DEFAULT_MEMORY = 1 << 29
"""Bytes for the weights and patches of a tile, unless told otherwise: 512 MiB."""


def patches(image: Tensor, patch: int) -> Tensor:
    r"""The patch around every pixel, as channels.

    .. math:: p_{(c, o), i} = x_{c, (i + o) \bmod \text{size}}, \quad o \in \text{patch}

    Args:
        image: ``(B, C, H, W)``, real or complex.
        patch: The odd length P of a patch in both dims, not larger than the image.

    Returns:
        A tensor ``(B, C * P * P, H, W)``, channels of the image outermost, then rows and columns of
        the patch.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If the image has another number of dims, or the patch is even or does not fit.

    Note:
        Patches wrap at the borders. Differentiable.

    Example:
        >>> image = torch.arange(12.0).reshape(1, 1, 3, 4)
        >>> patches(image, 3)[0, :, 1, 1]
        tensor([ 0.,  1.,  2.,  4.,  5.,  6.,  8.,  9., 10.])
        >>> patches(image, 3)[0, :, 0, 0]
        tensor([11.,  8.,  9.,  3.,  0.,  1.,  7.,  4.,  5.])
    """
    _check_image(image, batched=True)
    _check_width("patch", patch, image)
    return _patches(image, patch)


def nonlocal_means(
    image: Tensor,
    sigma: float,
    *,
    window: int = 21,
    patch: int = 7,
    bandwidth: float = DEFAULT_BANDWIDTH,
    tile: int | tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    r"""Denoises an image: every pixel becomes a mean of those whose patches look alike.

    .. math::
        y_i = \sum_j A_{ij} x_j, \qquad
        A_{ij} = \frac{\exp(-d_{ij} / h^2)}{\sum_k \exp(-d_{ik} / h^2)}, \qquad
        d_{ij} = \frac1C \sum_{c, o} g_o |\tilde x_{c, i+o} - \tilde x_{c, j+o}|^2

    Here j and k run over the window around pixel i, o over a patch of length P with weights
    :math:`g_o \propto \exp(-|o|^2 / 2a^2)`, a = (P - 1) / 4, whose sum is one, and
    :math:`\tilde x` is the image smoothed by (3/16, 5/8, 3/16) along both dims. Everything wraps at
    the borders. What is averaged is the image itself, not the smoothed one.

    Args:
        image: ``(B, C, H, W)`` or ``(C, H, W)``, real or complex. Channels share their weights.
        sigma: Standard deviation of the noise of each channel, in the units of the image; for
            complex noise n, the root of the expected :math:`|n|^2`. Zero changes nothing.
        window: The odd length of the window in both dims, not larger than the image.
        patch: The odd length P of a patch in both dims, not larger than the image.
        bandwidth: h in units of sigma. More averages more, and blurs more.
        tile: None computes the whole image at once, with ``window ** 2`` weights in memory for
            each pixel. The size of a tile, or its rows and columns, bounds the memory by working
            through one tile after the other; :func:`tile_size` chooses one.
        progress: Called after each tile with the number of tiles done and the number of all.

    Returns:
        A tensor of the shape and dtype of ``image``.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If a shape or a number is out of range, or window or patch do not fit the image.

    Note:
        Differentiable in ``image``. With tiles, the backward pass computes each tile again rather
        than keep its weights (under ``torch.func`` transforms they are kept). Results with and
        without tiles differ by rounding at most: a row whose window wraps keeps its entries in a
        rotated order, so it sums them in another one.

    Example:
        >>> clean = torch.zeros(1, 32, 32)
        >>> clean[..., 16:] = 1
        >>> noisy = clean + 0.1 * torch.randn(clean.shape)
        >>> denoised = nonlocal_means(noisy, sigma=0.1, window=9, patch=5)
        >>> bool((denoised - clean).std() < 0.5 * (noisy - clean).std())
        True

    References:
        A. Buades, B. Coll, J.-M. Morel, A non-local algorithm for image denoising, CVPR 2005.
    """
    _check_image(image)
    _check_width("window", window, image)
    _check_width("patch", patch, image)
    _check_number("sigma", sigma, zero=True)
    _check_number("bandwidth", bandwidth)
    height, width = image.shape[-2:]
    tile_rows, tile_columns = _checked_tile(tile, height, width)
    if sigma == 0:
        return image.clone()
    scale = 1 / (bandwidth * sigma)
    reach = window // 2, _reach(patch)
    rows = _tiles.spans(height, tile_rows, *reach)
    columns = _tiles.spans(width, tile_columns, *reach)
    total = len(rows) * len(columns)

    def denoised(batch: Tensor, row: Span, column: Span) -> Tensor:
        A = _adjacency(batch, row, column, window, patch, scale)
        return (A @ _tiles.take(batch, row, column))[..., row.inner, column.inner]

    batch = image if image.dim() == 4 else image[None]
    again = total > 1 and _recomputes(batch)
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
    return torch.cat(strips, -2).reshape(image.shape)


def attention_window(
    image: Tensor,
    sigma: float,
    pixel: tuple[int, int],
    *,
    window: int = 21,
    patch: int = 7,
    bandwidth: float = DEFAULT_BANDWIDTH,
) -> Tensor:
    """The weights that :func:`nonlocal_means` gives to the window around one pixel.

    Args:
        image: ``(B, C, H, W)`` or ``(C, H, W)``, as for :func:`nonlocal_means`.
        sigma: As there, but positive.
        pixel: Row and column of the pixel.
        window: As there.
        patch: As there.
        bandwidth: As there.

    Returns:
        Weights ``(B, window, window)`` or ``(window, window)`` that sum to one, with the pixel in
        the middle.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If a shape or a number is out of range, or window or patch do not fit the image.

    Example:
        >>> weights = attention_window(torch.ones(1, 16, 16), 0.1, (0, 0), window=5, patch=3)
        >>> weights[0]
        tensor([0.0400, 0.0400, 0.0400, 0.0400, 0.0400])
    """
    _check_image(image)
    _check_width("window", window, image)
    _check_width("patch", patch, image)
    _check_number("sigma", sigma)
    _check_number("bandwidth", bandwidth)
    if not all(0 <= at < size for at, size in zip(pixel, image.shape[-2:], strict=True)):
        raise ValueError(f"expected a pixel of the image of {_size(image)} pixels, got {pixel}")
    batch = image if image.dim() == 4 else image[None]
    # A tile of one pixel: its block is its window, and the middle row has all of it, in order.
    row, column = (_tiles.padded(at, at + 1, window // 2, _reach(patch)) for at in pixel)
    A = _adjacency(batch, row, column, window, patch, 1 / (bandwidth * sigma))
    weights = A.rows[:, 0, window**2 // 2]
    return weights.reshape(*image.shape[:-3], window, window)


def tile_size(
    image: Tensor, *, window: int = 21, patch: int = 7, memory: int = DEFAULT_MEMORY
) -> tuple[int, int]:
    """The tile that costs :func:`nonlocal_means` the least work within some memory.

    Args:
        image: ``(B, C, H, W)`` or ``(C, H, W)``; only its shape and dtype matter.
        window: As for :func:`nonlocal_means`.
        patch: As for :func:`nonlocal_means`.
        memory: Bytes for the weights and patches of a tile. The image and its result come on top.

    Returns:
        Rows and columns, those of the image if all of it fits, one pixel if nothing does.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If a shape or a number is out of range, or window or patch do not fit the image.

    Example:
        >>> tile_size(torch.empty(1, 3000, 4000))
        (375, 308)
        >>> tile_size(torch.empty(1, 256, 256))
        (256, 256)
    """
    _check_image(image)
    _check_width("window", window, image)
    _check_width("patch", patch, image)
    if not is_int(memory):
        raise TypeError(f"expected memory to be an int, got {type(memory).__name__}")
    if memory < 1:
        raise ValueError(f"expected memory to be positive, got {memory}")
    height, width = image.shape[-2:]
    room = memory // _bytes_per_pixel(image, window, patch)
    return _tiles.best_tile((height, width), window // 2, room)


def bytes_per_pixel(image: Tensor, *, window: int = 21, patch: int = 7) -> int:
    """What each pixel of a tile and of its halo takes in memory while it is computed.

    Scores and weights, ``window ** 2`` each, lie there together, and patches, ``C * patch ** 2``,
    three times while they are made.

    Args:
        image: ``(B, C, H, W)`` or ``(C, H, W)``; only its shape and dtype matter.
        window: As for :func:`nonlocal_means`.
        patch: As for :func:`nonlocal_means`.

    Returns:
        Bytes, an upper bound.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If a shape is out of range, or window or patch do not fit the image.

    Example:
        >>> bytes_per_pixel(torch.empty(1, 512, 512))
        4116
    """
    _check_image(image)
    _check_width("window", window, image)
    _check_width("patch", patch, image)
    return _bytes_per_pixel(image, window, patch)


def _bytes_per_pixel(image: Tensor, window: int, patch: int) -> int:
    lead = image.shape[:-2].numel()
    batch = lead // image.shape[-3]
    weight = _features.real_dtype(image.dtype).itemsize
    return 2 * batch * window**2 * weight + 3 * lead * patch**2 * image.element_size()


def _adjacency(
    image: Tensor, row: Span, column: Span, window: int, patch: int, scale: float
) -> Circulant:
    """The weights of a block, those of the whole image in the rows of its tile."""
    features = _patch_features(_tiles.take(image, row, column, margin=True), patch, scale)
    for dim, span in ((-2, row), (-1, column)):
        features = features.narrow(dim, span.margin, span.stop - span.start)
    features = features.contiguous()
    return circulant_adjacency(DistanceSimilarity(), features, features, window)


def _patch_features(image: Tensor, patch: int, scale: float) -> Tensor:
    """Patches f with ``1/2 |f_i - f_j|^2 = scale^2 d_ij``."""
    offsets = torch.arange(patch, dtype=torch.float64) - patch // 2
    spread = max(patch - 1, 1) / 4
    gaussian = torch.exp(-0.5 * (offsets / spread) ** 2)
    weights = torch.outer(gaussian, gaussian).flatten()
    channels = image.shape[1]
    factors = scale * torch.sqrt(2 * weights / (channels * weights.sum()))
    factors = factors.to(image.device, _features.real_dtype(image.dtype))
    return _patches(_smoothed(image), patch) * factors.repeat(channels)[:, None, None]


def _patches(image: Tensor, patch: int) -> Tensor:
    for dim in (-2, -1):
        # Offsets of the rows, then of the columns, each behind the channels that are there.
        shifts = range(patch // 2, -(patch // 2) - 1, -1)
        image = torch.stack([image.roll(shift, dim) for shift in shifts], 2).flatten(1, 2)
    return image


def _smoothed(image: Tensor) -> Tensor:
    side, middle, _ = _SMOOTHING
    for dim in (-2, -1):
        image = middle * image + side * (image.roll(1, dim) + image.roll(-1, dim))
    return image


def _reach(patch: int) -> int:
    """How far the features of a pixel look: half a patch, and the smoothing."""
    return patch // 2 + len(_SMOOTHING) // 2


def _recomputes(image: Tensor) -> bool:
    """Whether there will be a backward pass, of the kind that can compute tiles again."""
    return torch.is_grad_enabled() and image.requires_grad and not transform_active()


def _checked_tile(tile: object, height: int, width: int) -> tuple[int, int]:
    if tile is None:
        return height, width
    sizes = tile if isinstance(tile, tuple) else (tile, tile)
    if len(sizes) != 2 or not all(is_int(size) for size in sizes):
        raise TypeError(f"expected tile to be an int, two ints or None, got {tile!r}")
    rows, columns = sizes
    if rows < 1 or columns < 1:
        raise ValueError(f"expected tile to be positive, got {tile}")
    return min(rows, height), min(columns, width)


def _check_image(image: object, *, batched: bool = False) -> None:
    if not isinstance(image, Tensor):
        raise TypeError(f"expected image to be a tensor, got {type(image).__name__}")
    checks.check_dtype("image", image.dtype)
    if image.dim() != 4 and (batched or image.dim() != 3):
        shape = "(B, C, H, W)" if batched else "(B, C, H, W) or (C, H, W)"
        raise ValueError(f"expected image of shape {shape}, got {tuple(image.shape)}")
    if 0 in image.shape[-3:]:
        raise ValueError(f"expected image with channels and pixels, got {tuple(image.shape)}")


def _check_width(name: str, width: object, image: Tensor) -> None:
    if not is_int(width):
        raise TypeError(f"expected {name} to be an int, got {type(width).__name__}")
    if width < 1 or width % 2 == 0:
        raise ValueError(f"expected {name} to be odd and positive, got {width}")
    if width > min(image.shape[-2:]):
        raise ValueError(
            f"expected {name} not larger than the image of {_size(image)} pixels, got {width}"
        )


def _check_number(name: str, number: object, *, zero: bool = False) -> None:
    if not isinstance(number, int | float) or isinstance(number, bool):
        raise TypeError(f"expected {name} to be a number, got {type(number).__name__}")
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        wanted = "zero or more" if zero else "positive"
        raise ValueError(f"expected {name} to be {wanted}, got {number}")


def _size(image: Tensor) -> str:
    return " x ".join(str(size) for size in image.shape[-2:])
