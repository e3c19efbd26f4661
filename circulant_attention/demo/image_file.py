"""Image files: read as floating point pixels, written in their own format and depth."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
import torch
from PIL import Image, ImageOps
from skimage import data
from torch import Tensor

from circulant_attention.demo.output import Problem

_WHITE = {np.dtype(bool): 1, np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
_GREY_OR_RGB = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
_data: Any = data  # without type annotations of its own


@dataclass(frozen=True)
class Photograph:
    """A grey or colour image and what its file has beside the colours.

    ``pixels`` is ``(C, H, W)`` with 1 (grey) or 3 (colour) channels, float32 or float64: from 0
    (black) to 1 (white) for files of 1, 8 or 16 bit, else the numbers of the file.
    """

    name: str
    pixels: Tensor
    dtype: np.dtype[Any]  # of a channel in the file
    black: float = 0.0  # or the smallest and the largest of floating point numbers
    white: float = 1.0
    alpha: Any = None  # (H, W, 1), as in the file
    planar: bool = False  # channels first in the file
    metadata: dict[str, Any] = field(default_factory=dict)  # "icc_profile", "exif"

    @property
    def depth(self) -> str:
        """The depth of a channel, such as "8 bit" or "float32"."""
        white = _WHITE.get(self.dtype)
        return f"{white.bit_length()} bit" if white else str(self.dtype)

    def as_fraction(self, pixels: Tensor) -> Tensor:
        """Pixels from 0 (black) to 1 (white)."""
        return (pixels - self.black) / (self.white - self.black)


def read(path: str | None) -> Photograph:
    """Reads a file of any format that Pillow reads, or a TIFF; None is scikit-image's cameraman.

    Raises Problem unless it is one grey or colour image of 1, 8 or 16 bit or of floating point.
    """
    if path is None:
        return from_array("camera", _data.camera())
    if not Path(path).is_file():
        raise Problem(f"cannot read {path}: there is no such file")
    try:
        with warnings.catch_warnings():
            # Pillow warns about images that might be decompression bombs.
            warnings.simplefilter("ignore")
            array, others = _decoded(path)
    except (Problem, MemoryError):
        raise
    except Exception as error:
        # The libraries do not document which exceptions a damaged file raises.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Problem(f"cannot read {path} as an image: {reason}") from error
    return from_array(path, array, **others)


def _decoded(path: str) -> tuple[Any, dict[str, Any]]:
    if suffix_of(path) in ("tif", "tiff"):
        with tifffile.TiffFile(path) as file:
            page, series = file.pages.first, file.series[0]
            if page.photometric in _GREY_OR_RGB:
                array, axes = series.asarray(), series.axes
                # S is samples, C channels, Q unknown: the pages of an array written channels first.
                planar = axes == "SYX" or (axes in ("CYX", "QYX") and len(array) == 3)
                others = {"planar": planar, "metadata": {"icc_profile": page.iccprofile}}
                return np.moveaxis(array, 0, -1) if planar else array, others
    with Image.open(path) as image:
        # The second frame of an MPO file, which phones write as JPEG, is a preview or depth map.
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
            raise Problem(f"cannot use {path}: expected one image, got several")
        if image.mode in ("CMYK", "HSV", "LAB", "YCbCr"):
            raise Problem(f"cannot use {path}: expected grey or RGB colour, got {image.mode}")
        upright = ImageOps.exif_transpose(image)
        metadata = {n: upright.info[n] for n in ("icc_profile", "exif") if upright.info.get(n)}
        if image.mode in ("P", "PA"):
            upright = upright.convert("RGBA" if "transparency" in image.info else "RGB")
        array = np.asarray(upright)
        if image.format == "PNG" and array.ndim == 3:
            content = Path(path).read_bytes()
            if content[24] == 16:  # bits per channel, of which Pillow keeps 8
                array = imagecodecs.png_decode(content)
        return array, {"metadata": metadata}


def from_array(name: str, array: Any, **others: Any) -> Photograph:
    """A photograph from ``(H, W)`` or ``(H, W, C)``: grey or colour, and possibly alpha."""
    array = array[..., None] if array.ndim == 2 else array
    if array.size == 0:
        raise Problem(f"cannot use {name}: the image is empty")
    if array.ndim != 3 or array.shape[2] > 4:
        raise Problem(f"cannot use {name}: expected one grey or colour image, got {array.shape}")
    colours, alpha = np.split(array, [array.shape[2] - (array.shape[2] % 2 == 0)], -1)
    if array.dtype in _WHITE:
        colours = colours.astype(np.float32) / np.float32(_WHITE[array.dtype])
    elif array.dtype.kind == "f":
        colours = colours.astype(np.promote_types(array.dtype, np.float32))
        if not np.isfinite(colours).all():
            raise Problem(f"cannot use {name}: expected finite numbers, got inf or nan")
        black, white = float(colours.min()), float(colours.max())
        others |= {"black": black, "white": white if white > black else black + 1}
    else:
        raise Problem(
            f"cannot use {name}: expected 1, 8 or 16 bit per channel or floating point numbers, "
            f"got {array.dtype}"
        )
    pixels = torch.from_numpy(np.ascontiguousarray(np.moveaxis(colours, -1, 0)))
    return Photograph(name, pixels, array.dtype, alpha=alpha if alpha.size else None, **others)


def encoded(photo: Photograph, pixels: Tensor, path: str) -> bytes:
    """The content of a file of pixels in the depth of a photograph, with its transparency.

    The suffix of ``path`` is the format. Raises Problem if that cannot hold the photograph.
    """
    array, white = pixels.movedim(0, -1).numpy(), _WHITE.get(photo.dtype)
    array = (np.rint(array.clip(0, 1) * white) if white else array).astype(photo.dtype)
    if photo.alpha is not None:
        array = np.concatenate([array, photo.alpha[: array.shape[0], : array.shape[1]]], -1)
    array = np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array)
    suffix, buffer = suffix_of(path), io.BytesIO()
    try:
        if suffix in ("tif", "tiff"):
            tifffile.imwrite(
                buffer,
                np.moveaxis(array, -1, 0) if photo.planar and array.ndim == 3 else array,
                photometric="rgb" if len(photo.pixels) == 3 else "minisblack",
                planarconfig=("separate" if photo.planar else "contig")
                if array.ndim == 3
                else None,
                extrasamples=None if photo.alpha is None else ["unassalpha"],
                iccprofile=photo.metadata.get("icc_profile"),
                metadata=None,
            )
        elif white == 65535 and suffix == "png":
            buffer.write(imagecodecs.png_encode(array))
        elif white not in (1, 255):
            raise ValueError("use .png or .tif" if white else "use .tif")
        else:
            format = Image.registered_extensions()[f".{suffix}"]
            Image.fromarray(array).save(buffer, format, quality=95, **photo.metadata)
    except KeyError as error:
        dotted = Path(path).suffix.lower()
        raise Problem(f"cannot write {path}: unknown format {dotted}") from error
    except (OSError, ValueError) as error:
        raise Problem(f"cannot write an image of {photo.depth} to {path}: {error}") from error
    return buffer.getvalue()


def suffix_of(path: str) -> str:
    """The format of a file by its name: "png"."""
    return Path(path).suffix.lower()[1:]
