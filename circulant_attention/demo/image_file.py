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

_TIFF = (".tif", ".tiff")
_DEPTH = {np.dtype(bool): "1 bit", np.dtype(np.uint8): "8 bit", np.dtype(np.uint16): "16 bit"}
_WHITE = {np.dtype(bool): 1, np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}


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
    alpha: Any = None  # (H, W), as in the file
    planar: bool = False  # channels first in the file
    metadata: dict[str, Any] = field(default_factory=dict)  # "icc_profile", "exif"

    @property
    def depth(self) -> str:
        """The depth of a channel, such as "8 bit" or "float32"."""
        return _DEPTH.get(self.dtype, str(self.dtype))

    def as_fraction(self, pixels: Tensor) -> Tensor:
        """Pixels from 0 (black) to 1 (white)."""
        return (pixels - self.black) / (self.white - self.black)


def read(path: str | None) -> Photograph:
    """Reads a file of any format that Pillow reads, or a TIFF; None is scikit-image's cameraman.

    Raises Problem unless it is one grey or colour image of 1, 8 or 16 bit or of floating point.
    """
    if path is None:
        camera: Any = data.camera  # without type annotations of its own
        return from_array("camera", camera())
    if not Path(path).is_file():
        raise Problem(f"cannot read {path}: there is no such file")
    try:
        with warnings.catch_warnings():
            # Pillow warns about images that might be decompression bombs.
            warnings.simplefilter("ignore")
            array, others = _read_tiff(path) if _suffix(path) in _TIFF else _read_pillow(path)
    except (Problem, MemoryError):
        raise
    except Exception as error:
        # The libraries do not document which exceptions a damaged file raises.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Problem(f"cannot read {path} as an image: {reason}") from error
    return from_array(path, array, **others)


def _read_tiff(path: str) -> tuple[Any, dict[str, Any]]:
    with tifffile.TiffFile(path) as file:
        page, series = file.pages.first, file.series[0]
        if page.photometric not in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB):
            return _read_pillow(path)
        array = series.asarray()
        # S is samples, C channels, Q unknown: the pages of an array written channels first.
        planar = series.axes == "SYX" or (series.axes in ("CYX", "QYX") and len(array) == 3)
        metadata = {"icc_profile": page.iccprofile} if page.iccprofile else {}
    array = np.moveaxis(array, 0, -1) if planar else array
    return array, {"planar": planar, "metadata": metadata}


def _read_pillow(path: str) -> tuple[Any, dict[str, Any]]:
    with Image.open(path) as image:
        # The second frame of an MPO file, which phones write as JPEG, is a preview or depth map.
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
            raise Problem(f"cannot use {path}: expected one image, got several")
        if image.mode in ("CMYK", "HSV", "LAB", "YCbCr"):
            raise Problem(f"cannot use {path}: expected grey or RGB colour, got {image.mode}")
        upright = ImageOps.exif_transpose(image)
        names = ("icc_profile", "exif")
        metadata = {name: upright.info[name] for name in names if upright.info.get(name)}
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
    array = np.asarray(array)
    if array.size == 0:
        raise Problem(f"cannot use {name}: the image is empty")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] > 4:
        raise Problem(f"cannot use {name}: expected one grey or colour image, got {array.shape}")
    has_alpha = array.shape[2] in (2, 4)
    colours = array[..., :-1] if has_alpha else array
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
    alpha = array[..., -1] if has_alpha else None
    return Photograph(name, pixels, array.dtype, alpha=alpha, **others)


def encoded(photo: Photograph, pixels: Tensor, path: str) -> bytes:
    """The content of a file of pixels in the depth of a photograph, with its transparency.

    The suffix of ``path`` is the format. Raises Problem if that cannot hold the photograph.
    """
    array = pixels.movedim(0, -1).numpy()
    if photo.dtype in _WHITE:
        array = np.rint(array.clip(0, 1) * _WHITE[photo.dtype])
    array = array.astype(photo.dtype)
    if photo.alpha is not None:
        alpha = photo.alpha[: array.shape[0], : array.shape[1], None]
        array = np.concatenate([array, alpha], -1)
    array = np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array)
    suffix = _suffix(path)
    buffer = io.BytesIO()
    try:
        if suffix in _TIFF:
            _write_tiff(buffer, photo, array)
        elif photo.dtype == np.uint16 and suffix == ".png":
            buffer.write(imagecodecs.png_encode(array))
        elif photo.dtype not in (np.dtype(bool), np.dtype(np.uint8)):
            raise ValueError("use .tif" if photo.dtype.kind == "f" else "use .png or .tif")
        else:
            format = Image.registered_extensions()[suffix]
            Image.fromarray(array).save(buffer, format, quality=95, **photo.metadata)
    except KeyError as error:
        raise Problem(f"cannot write {path}: unknown format {suffix}") from error
    except (OSError, ValueError) as error:
        raise Problem(f"cannot write an image of {photo.depth} to {path}: {error}") from error
    return buffer.getvalue()


def _write_tiff(buffer: io.BytesIO, photo: Photograph, array: Any) -> None:
    tifffile.imwrite(
        buffer,
        np.moveaxis(array, -1, 0) if photo.planar and array.ndim == 3 else array,
        photometric="rgb" if len(photo.pixels) == 3 else "minisblack",
        planarconfig=("separate" if photo.planar else "contig") if array.ndim == 3 else None,
        extrasamples=None if photo.alpha is None else ["unassalpha"],
        iccprofile=photo.metadata.get("icc_profile"),
        metadata=None,
    )


def _suffix(path: str) -> str:
    return Path(path).suffix.lower()
