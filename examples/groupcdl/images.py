"""Image files as tensors, noise, and the error of an image."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".npy", ".png", ".tif", ".tiff", ".webp")
EIGHT_BIT = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")


def find(path: Path) -> list[Path]:
    """An image, or the images of a folder in the order of their names."""
    if path.is_dir():
        paths = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        if not paths:
            raise ValueError(f"{path} has no images ({', '.join(SUFFIXES)})")
        return paths
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    return [path]


def read(path: Path, channels: int) -> Tensor:
    """An image ``(1, C, H, W)`` with values from 0 to 1.

    An image in colour for a network of one channel becomes grey as in Julia, in 8 bits, and a grey
    one for a network of three channels has three equal ones. A file of NumPy has ``(H, W)`` or
    ``(C, H, W)`` numbers, real or complex, that are taken as they are.
    """
    if path.suffix.lower() == ".npy":
        return read_numpy(path)
    try:
        with Image.open(path) as image:
            if image.mode == "I;16":
                values = np.asarray(image, np.float32) / 65535
            elif image.mode in EIGHT_BIT:
                mode = "L" if channels == 1 else "RGB"
                values = np.asarray(image.convert(mode), np.float32) / 255
            else:
                raise ValueError(f"{path} has pixels of the unknown kind {image.mode}")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is no image: {error}") from None
    x = torch.from_numpy(values)
    x = x.expand(channels, -1, -1) if x.dim() == 2 else x.permute(2, 0, 1)
    return x[None].contiguous()


def read_numpy(path: Path) -> Tensor:
    """An array of numbers."""
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is no NumPy array: {error}") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fc":
        raise ValueError(f"{path} is no array of real or complex numbers")
    if values.ndim not in (2, 3):
        raise ValueError(f"{path} must be (H, W) or (C, H, W), not {values.shape}")
    x = torch.from_numpy(values.astype("complex64" if values.dtype.kind == "c" else "float32"))
    return x.reshape(1, -1, *x.shape[-2:])


def save(x: Tensor, path: Path) -> None:
    """Write an image ``(1, C, H, W)`` with values from 0 to 1; a complex one by its modulus."""
    x = x.abs() if x.is_complex() else x
    values = (x[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    Image.fromarray(values.squeeze(-1) if values.shape[-1] == 1 else values).save(path)


def add_noise(x: Tensor, sigma: float, seed: int, name: str) -> Tensor:
    """Add Gaussian noise, of variance ``sigma**2`` for complex numbers too.

    The noise depends on the seed and on the name of the image. So each image of a folder has its
    own, and the same one as alone.
    """
    generator = torch.Generator().manual_seed(seed + zlib.crc32(name.encode()))
    noise = torch.randn(x.shape, dtype=x.dtype, generator=generator)
    return x + sigma * noise


def psnr(x: Tensor, clean: Tensor) -> float:
    """The peak signal-to-noise ratio in dB for a peak of 1, without clipping."""
    return -10 * (x - clean).abs().square().mean().log10().item()
