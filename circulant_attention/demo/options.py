"""The command line, checked as far as it can be without reading the photograph."""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from circulant_attention.demo.problem import Problem, first_line
from circulant_attention.similarity import DistanceSimilarity, circulant_adjacency

PROGRAM = "python -m circulant_attention"

_FORMATS = ("png", "jpg", "jpeg", "pdf", "svg", "tif", "tiff", "webp")
_SMALLEST_SIGMA = 1e-6


@dataclass(frozen=True)
class Options:
    """What to do; see the help of the command line."""

    image: str | None
    sigma: float
    window: int
    patch: int
    output: str
    format: str
    device: torch.device


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Problem(message)


def parse(arguments: Sequence[str] | None) -> Options:
    """Parses and checks a command line.

    Args:
        arguments: The arguments; None for those of the process.

    Returns:
        The options.

    Raises:
        Problem: If an argument is wrong, or what the demo needs is not there.
    """
    parser = _Parser(
        prog=PROGRAM,
        description="Adds noise to a photograph, removes it by non-local means with circulant "
        "attention and with scikit-image, and draws both with the attention of three pixels.",
    )
    parser.add_argument(
        "image",
        nargs="?",
        help="a photograph, grey or colour, 8 or 16 bit (default: the cameraman of scikit-image)",
    )
    parser.add_argument(
        "--sigma",
        type=float,
        default=0.1,
        help="standard deviation of the noise, as a fraction of the range from black to white: "
        "0.1 is 25.5 grey levels of 255 (default: %(default)s)",
    )
    parser.add_argument(
        "--window",
        type=int,
        default=21,
        help="pixels of the attention window in each dim, odd (default: %(default)s)",
    )
    parser.add_argument(
        "--patch",
        type=int,
        default=7,
        help="pixels of the patches that are compared in each dim, odd (default: %(default)s)",
    )
    parser.add_argument(
        "--output", default="denoised.png", help="the picture to write (default: %(default)s)"
    )
    parser.add_argument(
        "--device", default="cpu", help='"cpu", "cuda" or "cuda:1" (default: %(default)s)'
    )
    given = parser.parse_args(arguments)
    if not _SMALLEST_SIGMA <= given.sigma <= 1:
        raise Problem(
            f"--sigma must lie between {_SMALLEST_SIGMA:g} and 1, in units of the range from black "
            f"to white, got {given.sigma:g}"
        )
    for name in ("window", "patch"):
        width = getattr(given, name)
        if width < 1 or width % 2 == 0:
            raise Problem(f"--{name} must be odd and positive, got {width}")
    check_installed()
    return Options(
        given.image,
        given.sigma,
        given.window,
        given.patch,
        given.output,
        _checked_format(given.output, given.image),
        _checked_device(given.device),
    )


def check_installed() -> None:
    """Raises Problem unless scikit-image and matplotlib are there."""
    packages = {"skimage": "scikit-image", "matplotlib": "matplotlib"}
    missing = [name for module, name in packages.items() if not importlib.util.find_spec(module)]
    if missing:
        raise Problem(
            f"the demo needs {' and '.join(missing)}: pip install 'circulant-attention[demo]'"
        )


def check_size(options: Options, pixels: Tensor) -> None:
    """Raises Problem unless window and patch fit into the photograph ``(C, H, W)``."""
    height, width = pixels.shape[1:]
    for name, length in (("window", options.window), ("patch", options.patch)):
        if length > min(height, width):
            raise Problem(
                f"--{name} must not be larger than the image of {height} x {width} pixels, "
                f"got {length}"
            )


def _checked_format(output: str, image: str | None) -> str:
    suffix = Path(output).suffix.lower().removeprefix(".")
    if suffix not in _FORMATS:
        raise Problem(f"--output must end in one of .{', .'.join(_FORMATS)}, got {output}")
    if image and os.path.exists(image) and os.path.exists(output):
        if os.path.samefile(image, output):
            raise Problem(f"--output would be written over the photograph {image}")
    return suffix


def _checked_device(name: str) -> torch.device:
    """A device that the native code runs on, tried out."""
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise Problem(f"--device must be cpu or cuda, got {name}")
        x = torch.zeros(1, 1, 1, 1, device=device)
        circulant_adjacency(DistanceSimilarity(), x, x, 1).values.cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise Problem(f"cannot use --device {name}: {first_line(error)}") from error
    return device
