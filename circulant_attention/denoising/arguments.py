"""Checks of the arguments of non-local means."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circulant_attention.checks import check_dtype, is_int
from circulant_attention.ops.registration import transform_active
from circulant_attention.window import BOUNDARIES


def check_image(image: object, *, batched: bool = False) -> None:
    """Raises unless ``image`` is ``(B, C, H, W)``, or ``(C, H, W)`` unless ``batched``."""
    if not isinstance(image, Tensor):
        raise TypeError(f"expected image to be a tensor, got {type(image).__name__}")
    if not (image.is_floating_point() or image.is_complex()):
        raise TypeError(
            f"expected image to be floating point or complex, got {image.dtype}: convert it, and "
            "divide by the value of white, such as 255, for an image between 0 and 1"
        )
    check_dtype("image", image.dtype)
    if image.dim() != 4 and (batched or image.dim() != 3):
        shape = "(B, C, H, W)" if batched else "(B, C, H, W) or (C, H, W)"
        raise ValueError(f"expected image of shape {shape}, got {tuple(image.shape)}")
    if 0 in image.shape[-3:]:
        raise ValueError(f"expected image with channels and pixels, got {tuple(image.shape)}")


def check_width(name: str, width: object, image: Tensor) -> None:
    """Raises unless ``width`` is odd, positive and not larger than the image."""
    if not is_int(width):
        raise TypeError(f"expected {name} to be an int, got {type(width).__name__}")
    if width < 1 or width % 2 == 0:
        raise ValueError(f"expected {name} to be odd and positive, got {width}")
    if width > min(image.shape[-2:]):
        raise ValueError(
            f"expected {name} not larger than the image of {_size(image)} pixels, got {width}"
        )


def checked_boundary(boundary: object) -> tuple[int, int]:
    """The numbers of the boundaries of rows and columns, from a name or one name for each."""
    names = (boundary, boundary) if isinstance(boundary, str) else boundary
    if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"expected boundary to be a string or two, got {boundary!r}")
    if len(names) != 2 or not all(name in BOUNDARIES for name in names):
        raise ValueError(
            f"expected boundary to be 'circular' or 'truncated', or two of them, got {boundary!r}"
        )
    return BOUNDARIES.index(names[0]), BOUNDARIES.index(names[1])


def check_number(name: str, number: object, *, zero: bool = False) -> None:
    """Raises unless ``number`` is a finite positive number, of Python or NumPy, or zero."""
    if not isinstance(number, int | float | np.integer | np.floating) or isinstance(number, bool):
        raise TypeError(f"expected {name} to be a number, got {type(number).__name__}")
    # torch.compile traces comparisons of a number that varies, but not math.isfinite.
    if not 0 <= number < math.inf or (number == 0 and not zero):
        wanted = "zero or more" if zero else "positive"
        raise ValueError(f"expected {name} to be {wanted}, got {number}")


def checked_sigma(sigma: Any, image: Tensor, *, zero: bool = False) -> float | Tensor:
    """Sigma as a number, or as a tensor that broadcasts with ``(B, C, H, W)`` on its device."""
    if not isinstance(sigma, Tensor):
        check_number("sigma", sigma, zero=zero)
        return float(sigma)
    if sigma.is_complex() or sigma.dtype == torch.bool:
        raise TypeError(f"expected sigma to be real, got {sigma.dtype}")
    shapes = [(), tuple(image.shape[:-3])]
    if tuple(sigma.shape) not in shapes:
        wanted = "()" if image.dim() == 3 else f"() or (B,) = ({len(image)},)"
        raise ValueError(f"expected sigma of shape {wanted}, got {tuple(sigma.shape)}")
    if sigma.dim() and sigma.device != image.device:
        raise ValueError(
            f"expected sigma on the device of image, {image.device}, got sigma on {sigma.device}"
        )
    if not (torch.compiler.is_compiling() or transform_active() or sigma.is_meta):
        for number in sigma.detach().flatten().tolist():
            check_number("sigma", number, zero=zero)
    return sigma.to(image.device, image.real.dtype).reshape(-1, 1, 1, 1)


def checked_pixel(pixel: Any, image: Tensor) -> tuple[int, int]:
    """Row and column of a pixel of the image."""
    if not isinstance(pixel, tuple | list) or not all(is_int(at) for at in pixel):
        raise TypeError(f"expected pixel to be two ints, (row, column), got {pixel!r}")
    if len(pixel) != 2:
        raise ValueError(f"expected pixel to be two ints, (row, column), got {pixel}")
    if not all(0 <= at < size for at, size in zip(pixel, image.shape[-2:], strict=True)):
        raise ValueError(f"expected pixel in the image of {_size(image)} pixels, got {pixel}")
    return int(pixel[0]), int(pixel[1])


def checked_tile(tile: object, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a tile, those of the image for None."""
    if tile is None:
        return height, width
    sizes = tile if isinstance(tile, tuple) else (tile, tile)
    if len(sizes) != 2 or not all(is_int(size) for size in sizes):
        raise TypeError(f"expected tile to be an int, two ints or None, got {tile!r}")
    rows, columns = sizes
    if rows < 1 or columns < 1:
        raise ValueError(f"expected tile to be positive, got {tile}")
    return min(rows, height), min(columns, width)


def _size(image: Tensor) -> str:
    return " x ".join(str(size) for size in image.shape[-2:])
