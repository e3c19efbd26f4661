"""Photographs: reading them, adding noise, measuring what is left of it."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circulant_attention.demo.problem import Problem, first_line

_BITS = {np.dtype(bool): 1, np.dtype(np.uint8): 8, np.dtype(np.uint16): 16}


@dataclass(frozen=True)
class Photograph:
    """A photograph whose black is 0 and whose white is 1.

    Attributes:
        name: What to call it.
        pixels: ``(C, H, W)``, float32, with 1 (grey) or 3 (colour) channels.
        bits: Bits per channel in its file.
        has_alpha: Whether its file has a transparency, which is left out here.
    """

    name: str
    pixels: Tensor
    bits: int
    has_alpha: bool = False


def read(path: str | None) -> Photograph:
    """Reads a photograph.

    Args:
        path: A file of any format that Pillow reads, or a TIFF; None for scikit-image's cameraman.

    Returns:
        The photograph.

    Raises:
        Problem: If there is no such file, or it is not one grey or colour image of 1, 8 or 16 bit.
    """
    if path is None:
        from skimage import data

        camera: Any = data.camera  # without type annotations of its own
        return from_array("camera", camera())
    if not Path(path).is_file():
        raise Problem(f"cannot read {path}: there is no such file")
    try:
        with warnings.catch_warnings():
            # Of images of more pixels than a malicious file should make us read.
            warnings.simplefilter("ignore")
            pixels = _pixels(path)
    except (Problem, MemoryError):
        raise
    except Exception as error:
        # Which exceptions a damaged file may raise is written nowhere.
        raise Problem(f"cannot read {path} as an image: {first_line(error)}") from error
    return from_array(path, pixels)


def _pixels(path: str) -> Any:
    """Pillow reads the most formats, but makes 8 bits of 16 in colour: those go elsewhere."""
    if Path(path).suffix.lower() in (".tif", ".tiff"):
        import tifffile

        return tifffile.imread(path)
    content = Path(path).read_bytes()
    # Bits per channel are the ninth byte of the header, which follows 16 bytes that mark a PNG.
    if content.startswith(b"\x89PNG\r\n\x1a\n") and content[24:25] == b"\x10":
        import imagecodecs

        return imagecodecs.png_decode(content)
    return _read_with_pillow(path)


def _read_with_pillow(path: str) -> Any:
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise Problem(f"cannot use {path}: expected one image, got several")
        if image.mode == "CMYK":
            raise Problem(f"cannot use {path}: expected grey or RGB colour, got CMYK")
        upright = ImageOps.exif_transpose(image)
        if image.mode in ("P", "PA"):
            upright = upright.convert("RGBA" if "transparency" in image.info else "RGB")
        return np.asarray(upright)


def from_array(name: str, array: Any) -> Photograph:
    """A photograph from pixels as scikit-image holds them.

    Args:
        name: What to call it.
        array: ``(H, W)`` or ``(H, W, C)`` with grey, grey and alpha, colour, or colour and alpha;
            bool, uint8 or uint16.

    Returns:
        The photograph.

    Raises:
        Problem: For other shapes and dtypes, and empty ones.
    """
    array = np.asarray(array)
    bits = _BITS.get(array.dtype)
    if bits is None:
        raise Problem(f"cannot use {name}: expected 8 or 16 bit per channel, got {array.dtype}")
    if array.size == 0:
        raise Problem(f"cannot use {name}: the image is empty")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] > 4:
        raise Problem(f"cannot use {name}: expected one grey or colour image, got {array.shape}")
    has_alpha = array.shape[2] in (2, 4)
    colours = array[..., :-1] if has_alpha else array
    pixels = torch.from_numpy(colours.astype(np.float32) / np.float32(2**bits - 1))
    return Photograph(name, pixels.movedim(-1, 0).contiguous(), bits, has_alpha)


def add_noise(pixels: Tensor, sigma: float, seed: int) -> Tensor:
    """The pixels with Gaussian noise of this standard deviation, not clipped."""
    generator = torch.Generator().manual_seed(seed)
    return pixels + sigma * torch.randn(pixels.shape, generator=generator)


def psnr(pixels: Tensor, reference: Tensor) -> float:
    """The peak signal-to-noise ratio in dB, for a range from 0 to 1."""
    error = float((pixels.double() - reference.double()).square().mean())
    return math.inf if error == 0 else -10 * math.log10(error)


def denoised_by_skimage(
    pixels: Tensor, sigma: float, window: int, patch: int, bandwidth: float
) -> Tensor:
    """What scikit-image's non-local means makes of the pixels ``(C, H, W)``.

    Args:
        pixels: The noisy pixels.
        sigma: The standard deviation of the noise.
        window: The length of the window, ``2 * patch_distance + 1``.
        patch: The length of a patch.
        bandwidth: ``h / sigma``.

    Returns:
        ``(C, H, W)``.
    """
    from skimage.restoration import denoise_nl_means

    result = denoise_nl_means(
        pixels.movedim(0, -1).double().numpy(),
        patch_size=patch,
        patch_distance=window // 2,
        h=bandwidth * sigma,
        sigma=sigma,
        channel_axis=-1,
    )
    # It drops dims of size one.
    return torch.from_numpy(result).reshape(pixels.movedim(0, -1).shape).movedim(-1, 0)
