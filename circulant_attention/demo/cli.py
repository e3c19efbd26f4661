"""The command line and its exit statuses."""

from __future__ import annotations

import argparse
import importlib.util
import math
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NoReturn

import torch

from circulant_attention.demo.output import Problem, Tolerant, writable
from circulant_attention.similarity import DistanceSimilarity, circulant_adjacency
from circulant_attention.window import BOUNDARIES

PROGRAM = "python -m circulant_attention"

_FIGURES = (".png", ".jpg", ".jpeg", ".pdf", ".svg", ".tif", ".tiff", ".webp")
_PACKAGES = {
    "skimage": "scikit-image",
    "matplotlib": "matplotlib",
    "imagecodecs": "imagecodecs",
    "pywt": "PyWavelets",
    "tqdm": "tqdm",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo with these arguments, or those of the process.

    The exit status is 1 if the self-check failed, 2 if the request cannot be carried out, 130 after
    an interruption, else 0.
    """
    with redirect_stdout(Tolerant(sys.stdout)), redirect_stderr(Tolerant(sys.stderr)):
        try:
            options = _parser().parse_args(arguments)
            _check_installed()
            from circulant_attention.demo.work import run  # needs these packages

            return run(options)
        except Problem as problem:
            message, status = f"error: {problem}", 2
        except KeyboardInterrupt:
            message, status = "interrupted", 130
        print(f"{PROGRAM}: {message}", file=sys.stderr)
        return status


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Problem(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description="Denoises an image by non-local means with circulant attention. Without IMAGE "
        "it adds noise to a photograph, removes it in this way and with scikit-image's non-local "
        "means, and draws both beside the attention of three pixels.",
    )
    add = parser.add_argument
    add(
        "image",
        nargs="?",
        help="a grey or colour image of 1, 8 or 16 bit or of floating point numbers (default: the "
        "cameraman of scikit-image)",
    )
    add(
        "--sigma",
        type=_positive,
        help="standard deviation of the noise: of files of 1, 8 or 16 bit as a fraction of the "
        "range from black to white, so that 0.1 is 25.5 of 255; of floating point numbers in "
        "their own unit (default: that of --add-noise, else an estimate from the image)",
    )
    add(
        "--add-noise",
        type=_positive,
        metavar="SIGMA",
        help="first add Gaussian noise of this standard deviation, and compare with scikit-image "
        "(default without IMAGE: 0.1, or --sigma; with IMAGE: no noise)",
    )
    add(
        "--window",
        type=_odd,
        default=21,
        help="pixels of the attention window in each dim, odd (default: %(default)s)",
    )
    add(
        "--patch",
        type=_odd,
        default=7,
        help="pixels of the patches that are compared in each dim, odd (default: %(default)s)",
    )
    add(
        "--boundary",
        choices=BOUNDARIES,
        default="circular",
        help="whether windows and patches wrap at the borders, or windows end there and patches "
        "are mirrored, which suits photographs (default: %(default)s)",
    )
    add(
        "--output",
        type=writable,
        help="the denoised image, in the size and depth of IMAGE; the suffix is the format "
        "(default with IMAGE: denoised and the suffix of IMAGE)",
    )
    add(
        "--figure",
        type=_figure,
        help="a figure of the result (default without IMAGE and --output: denoised.png)",
    )
    add(
        "--device",
        type=_device,
        default="cpu",
        help='"cpu", "cuda" or "cuda:1" (default: %(default)s)',
    )
    return parser


def _check_installed() -> None:
    """Raises Problem unless the packages of the demo are installed."""
    missing = [name for module, name in _PACKAGES.items() if not importlib.util.find_spec(module)]
    if missing:
        raise Problem(
            f"the demo needs {' and '.join(missing)}: pip install 'circulant-attention[demo]'"
        )


def _positive(text: str) -> float:
    if not 0 < float(text) < math.inf:
        raise argparse.ArgumentTypeError(f"must be positive, got {text}")
    return float(text)


def _odd(text: str) -> int:
    if int(text) < 1 or int(text) % 2 == 0:
        raise argparse.ArgumentTypeError(f"must be odd and positive, got {text}")
    return int(text)


def _figure(path: str) -> str:
    if Path(path).suffix.lower() not in _FIGURES:
        formats = ", ".join(_FIGURES)
        raise argparse.ArgumentTypeError(f"must end in one of {formats}, got {path}")
    return writable(path)


def _device(name: str) -> torch.device:
    """A device on which the native code was tried out."""
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise argparse.ArgumentTypeError(f"must be cpu or cuda, got {name}")
        x = torch.zeros(1, 1, 1, 1, device=device)
        circulant_adjacency(DistanceSimilarity(), x, x, 1).values.cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise argparse.ArgumentTypeError(f"cannot use {name}: {reason}") from error
    return device
