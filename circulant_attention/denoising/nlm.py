r"""Non-local means: denoising by attention of patches to the patches around them.

The features of a pixel are the patch around it, the similarity is their distance, the values are
the noisy pixels themselves. So the whole method is::

    denoised, A = circulant_attention(DistanceSimilarity(), features, features, image, window)

References:
    A. Buades, B. Coll, J.-M. Morel, A non-local algorithm for image denoising, CVPR 2005; and
    Non-local means denoising, Image Processing On Line 1, 2011.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import functional

from circulant_attention.checks import is_int
from circulant_attention.denoising import tiling
from circulant_attention.denoising.arguments import (
    check_image,
    check_number,
    check_width,
    checked_boundary,
    checked_pixel,
    checked_sigma,
    checked_tile,
)
from circulant_attention.denoising.means import (
    denoised_tiles,
    features,
    noiseless_kept,
    unfolded,
)
from circulant_attention.denoising.tiling import Span
from circulant_attention.ops import dtypes
from circulant_attention.ops.autocast import cast_for_autocast
from circulant_attention.ops.dispatch import takes_distributed
from circulant_attention.ops.primitives import SimilarityKind
from circulant_attention.ops.registration import transform_active
from circulant_attention.ops.windows import CIRCULAR, VALID

# For circulant_attention.nn.

DEFAULT_BANDWIDTH = 0.7
"""The default bandwidth h in units of the noise's standard deviation."""

DEFAULT_MEMORY = 1 << 29
"""The default memory for the patches of a tile: 512 MiB."""


@takes_distributed
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
    check_image(image, batched=True)
    check_width("patch", patch, image)
    rows, columns = (Span(0, n, slice(0, n), CIRCULAR) for n in image.shape[-2:])
    block = tiling.take(image, rows, columns, (CIRCULAR, CIRCULAR), patch // 2)
    return unfolded(block, patch).flatten(1, 3)


@takes_distributed
def nonlocal_means(
    image: Tensor,
    sigma: float | Tensor,
    *,
    window: int = 21,
    patch: int = 7,
    bandwidth: float = DEFAULT_BANDWIDTH,
    boundary: str | Sequence[str] = "circular",
    tile: int | tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    r"""Denoises an image: every pixel becomes a mean of the pixels with similar patches.

    .. math::
        y_i = \sum_j A_{ij} x_j, \qquad
        A_{ij} = \frac{\exp(-d_{ij} / h^2)}{\sum_k \exp(-d_{ik} / h^2)}, \qquad
        d_{ij} = \frac1C \sum_{c, o} g_o |\tilde x_{c, i+o} - \tilde x_{c, j+o}|^2

    Here j and k run over the window around pixel i, o over a patch of length P with weights
    :math:`g_o \propto \exp(-|o|^2 / 2a^2)`, a = (P - 1) / 4, that sum to one, and
    :math:`\tilde x` is the image smoothed by (3/16, 5/8, 3/16) along both dims. Everything wraps at
    the borders, or ends there: ``boundary``. The mean is taken of the image itself, not of the
    smoothed one.

    Args:
        image: ``(B, C, H, W)`` or ``(C, H, W)``, real or complex. Channels share their weights.
        sigma: Standard deviation of the noise of each channel, in the units of the image; for
            complex noise n, the root of the expected :math:`|n|^2`. Zero changes nothing. A number,
            a tensor ``()``, or a tensor ``(B,)`` with one value per image.
        window: The odd length of the window in both dims, not larger than the image.
        patch: The odd length P of a patch in both dims, not larger than the image.
        bandwidth: h in units of sigma. More averages more, and blurs more.
        boundary: ``"circular"``: windows and patches wrap. ``"truncated"``: windows end at the
            borders, and patches see the image mirrored at its outermost pixels; for photographs.
            A sequence has one for rows and one for columns: ``("truncated", "circular")`` is a
            map of the globe.
        tile: None computes the whole image at once, with a patch of ``C * patch ** 2`` numbers in
            memory for each pixel. The size of a tile, or its rows and columns, bounds the memory:
            tiles are computed one after the other; :func:`tile_size` chooses one.
        progress: Called after each tile with the number of finished tiles and the number of tiles.

    Returns:
        A tensor of the shape and dtype of ``image``.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If a shape or a number is out of range, or window or patch do not fit the image.

    Note:
        Differentiable in ``image`` and in a tensor ``sigma``. The weights are never stored, except
        for second derivatives, forward mode and ``torch.func`` transforms. With tiles, the backward
        pass computes the patches of each tile again (under transforms they are kept). Results with
        and without tiles differ by rounding at most. The values of a tensor ``sigma`` are checked
        unless the call is compiled or transformed; that waits for the device of ``sigma``.

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
    check_image(image)
    check_width("window", window, image)
    check_width("patch", patch, image)
    check_number("bandwidth", bandwidth)
    border = checked_boundary(boundary)
    height, width = image.shape[-2:]
    tile_rows, tile_columns = checked_tile(tile, height, width)
    noise = checked_sigma(sigma, image, zero=True)
    if not isinstance(noise, Tensor) and noise == 0:
        return image.clone()
    rows = tiling.spans(height, tile_rows, window // 2, border[0])
    columns = tiling.spans(width, tile_columns, window // 2, border[1])
    batch = image if image.dim() == 4 else image[None]
    result = denoised_tiles(batch, noise, rows, columns, window, patch, bandwidth, border, progress)
    return noiseless_kept(result, batch, noise).reshape(image.shape)


@takes_distributed
def attention_window(
    image: Tensor,
    sigma: float | Tensor,
    pixel: tuple[int, int],
    *,
    window: int = 21,
    patch: int = 7,
    bandwidth: float = DEFAULT_BANDWIDTH,
    boundary: str | Sequence[str] = "circular",
) -> Tensor:
    """The weights of :func:`nonlocal_means` in the window around one pixel.

    Args:
        image: ``(B, C, H, W)`` or ``(C, H, W)``, as for :func:`nonlocal_means`.
        sigma: As there, but positive: a number, a tensor ``()`` or a tensor ``(B,)``.
        pixel: Row and column of the pixel, two ints.
        window: As there.
        patch: As there.
        bandwidth: As there.
        boundary: As there.

    Returns:
        Weights ``(B, window, window)`` or ``(window, window)`` that sum to one, with the pixel in
        the middle, and zeros outside of an image whose windows are truncated.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If a shape or a number is out of range, or window or patch do not fit the image.

    Example:
        >>> weights = attention_window(torch.ones(1, 16, 16), 0.1, (0, 0), window=5, patch=3)
        >>> weights[0]
        tensor([0.0400, 0.0400, 0.0400, 0.0400, 0.0400])
    """
    check_image(image)
    check_width("window", window, image)
    check_width("patch", patch, image)
    check_number("bandwidth", bandwidth)
    at = checked_pixel(pixel, image)
    batch = image if image.dim() == 4 else image[None]
    noise = checked_sigma(sigma, image)
    border = checked_boundary(boundary)
    # A tile of one pixel: its keys are its window, as far as that is in the image.
    reaches = [
        (window // 2, window // 2)
        if boundary_of_dim == CIRCULAR
        else (min(window // 2, n), min(window // 2, size - 1 - n))
        for n, size, boundary_of_dim in zip(at, image.shape[-2:], border, strict=True)
    ]
    row, column = (
        Span(n - before, n + after + 1, slice(before, before + 1), VALID)
        for n, (before, after) in zip(at, reaches, strict=True)
    )
    keys = features(batch, row, column, border, patch, 1 / (bandwidth * noise))
    q, k = cast_for_autocast(keys[..., row.queries, column.queries], keys)
    W = tuple(n for before, after in reaches for n in (before, after, 1, VALID))
    weights = dtypes.adjacency(q, k, W, SimilarityKind.DISTANCE, 1.0)
    weights = weights.reshape(*image.shape[:-3], *keys.shape[-2:])
    absent = [window // 2 - reach for both in reversed(reaches) for reach in both]
    return functional.pad(weights, absent)


def tile_size(
    image: Tensor, *, window: int = 21, patch: int = 7, memory: int = DEFAULT_MEMORY
) -> tuple[int, int]:
    """The tile for which :func:`nonlocal_means` computes the least, within some memory.

    Args:
        image: ``(B, C, H, W)`` or ``(C, H, W)``; only its shape and dtype matter.
        window: As for :func:`nonlocal_means`.
        patch: As for :func:`nonlocal_means`.
        memory: Bytes for the patches of a tile. The image and its result come on top.

    Returns:
        Rows and columns, those of the image if all of it fits, one pixel if nothing does.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If a shape or a number is out of range, or window or patch do not fit the image.

    Example:
        >>> tile_size(torch.empty(1, 3000, 4000))
        (1000, 1000)
        >>> tile_size(torch.empty(1, 256, 256))
        (256, 256)
    """
    check_image(image)
    check_width("window", window, image)
    check_width("patch", patch, image)
    if not is_int(memory):
        raise TypeError(f"expected memory to be an int, got {type(memory).__name__}")
    if memory < 1:
        raise ValueError(f"expected memory to be positive, got {memory}")
    height, width = image.shape[-2:]
    pixels = memory // max(1, _bytes_per_pixel(image, window, patch))
    return tiling.best_tile((height, width), window // 2, pixels)


def bytes_per_pixel(image: Tensor, *, window: int = 21, patch: int = 7) -> int:
    """The memory for each pixel of a tile and of its halo while the tile is computed.

    The patches, ``C * patch ** 2``, twice, or three times for complex images, and intermediate
    images, of ``C * (patch + 6)`` numbers. In forward mode and under ``torch.func`` transforms
    also the weights, ``window ** 2``, three times.

    Args:
        image: ``(B, C, H, W)`` or ``(C, H, W)``; only its shape and dtype matter.
        window: As for :func:`nonlocal_means`.
        patch: As for :func:`nonlocal_means`.

    Returns:
        Bytes, an upper bound without a backward pass.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If a shape is out of range, or window or patch do not fit the image.

    Example:
        >>> bytes_per_pixel(torch.empty(1, 512, 512))
        444
    """
    check_image(image)
    check_width("window", window, image)
    check_width("patch", patch, image)
    return _bytes_per_pixel(image, window, patch)


def _bytes_per_pixel(image: Tensor, window: int, patch: int) -> int:
    channels = image.shape[:-2].numel()
    # The queries of a tile are a copy, and complex numbers become real ones.
    copies = 3 if image.is_complex() else 2
    numbers = channels * (copies * patch**2 + patch + 6)
    if transform_active():
        numbers += 3 * channels // image.shape[-3] * window**2
    return numbers * image.element_size()
