"""The demo from the command line to the picture."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from circulant_attention.demo import options as command_line
from circulant_attention.demo import output, photograph, picture, selfcheck
from circulant_attention.demo.options import Options
from circulant_attention.demo.photograph import Photograph, psnr
from circulant_attention.demo.problem import Problem
from circulant_attention.demo.progress import Progress
from circulant_attention.denoising import (
    DEFAULT_BANDWIDTH,
    attention_window,
    bytes_per_pixel,
    tile_size,
)
from circulant_attention.nn import NonlocalDenoiser

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SEED = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo.

    Args:
        arguments: The command line; None for that of the process.

    Returns:
        The exit status: 0, 1 if the self-check failed, 2 if something asked for cannot be done.
    """
    try:
        options = command_line.parse(arguments)
        photo = photograph.read(options.image)
        command_line.check_size(options, photo.pixels)
        with output.reserved(options.output) as file:
            is_right = _check_self(options.device)
            picture.save(_denoise(options, photo), file, options.format)
    except Problem as problem:
        print(f"{command_line.PROGRAM}: error: {problem}", file=sys.stderr)
        return 2
    print(f"\nThe picture is in {options.output}")
    return 0 if is_right else 1


def _check_self(device: torch.device) -> bool:
    difference = selfcheck.largest_difference(device)
    is_right = difference <= selfcheck.TOLERANCE
    verdict = "right" if is_right else f"WRONG, {selfcheck.TOLERANCE:g} is allowed"
    _say("self-check", f"native code within {difference:.1e} of plain torch in float64: {verdict}")
    return is_right


def _denoise(options: Options, photo: Photograph) -> Figure:
    """Adds noise, removes it in both ways, says how that went, and draws it."""
    window, patch, sigma = options.window, options.patch, options.sigma
    noisy = photograph.add_noise(photo.pixels, sigma, _SEED)
    tile = tile_size(noisy, window=window, patch=patch)
    _describe(options, photo, tile)

    print("\nCirculant attention ...", flush=True)
    on_device = noisy.to(options.device)
    denoiser = NonlocalDenoiser(sigma, window=window, patch=patch)
    ours, our_seconds = _timed(lambda: denoiser(on_device, progress=Progress("tiles")).cpu())
    print("scikit-image ...", flush=True)
    theirs, their_seconds = _timed(
        lambda: photograph.denoised_by_skimage(noisy, sigma, window, patch, DEFAULT_BANDWIDTH)
    )
    panels = []
    print(f"\n{'':24}{'PSNR':>9}{'time':>12}")
    for name, pixels, seconds in (
        ("noisy", noisy, None),
        ("circulant attention", ours, our_seconds),
        ("scikit-image", theirs, their_seconds),
    ):
        decibels = f"{psnr(pixels, photo.pixels):.2f} dB"
        took = "" if seconds is None else f"{seconds:.1f} s"
        print(f"{name:24}{decibels:>9}{took:>12}".rstrip())
        panels.append(picture.Panel(", ".join(filter(None, (name, decibels, took))), pixels))
    ahead = psnr(ours, photo.pixels) - psnr(theirs, photo.pixels)
    print(f"{abs(ahead):.2f} dB {'ahead of' if ahead >= 0 else 'behind'} scikit-image", flush=True)

    marks = [
        picture.Mark(kind, at, attention_window(on_device, sigma, at, window=window, patch=patch))
        for kind, at in picture.telling_pixels(photo.pixels, window).items()
    ]
    title = (
        f"Non-local means by circulant attention: window {window} x {window}, "
        f"patches {patch} x {patch}, noise of standard deviation {sigma:g}"
    )
    return picture.draw(title, panels, marks)


def _describe(options: Options, photo: Photograph, tile: tuple[int, int]) -> None:
    """Says what will be done, with its sizes."""
    channels, height, width = photo.pixels.shape
    window, patch = options.window, options.patch
    colour = "grey" if channels == 1 else "colour"
    alpha = ", transparency left out" if photo.has_alpha else ""
    _say(
        "photograph", f"{photo.name}, {height} x {width} pixels, {colour}, {photo.bits} bit{alpha}"
    )
    _say("noise", f"Gaussian, sigma {options.sigma:g} of the range from black to white")
    _say("features", f"patches of {patch} x {patch} pixels, {channels * patch**2} channels")
    weights = height * width * window**2
    _say("window", f"{window} x {window}, {window**2} neighbours a pixel, {weights:,} weights")
    _say("bandwidth", f"h = {DEFAULT_BANDWIDTH} sigma = {DEFAULT_BANDWIDTH * options.sigma:g}")
    count = math.ceil(height / tile[0]) * math.ceil(width / tile[1])
    block = math.prod(
        min(size + window - 1, of) for size, of in zip(tile, (height, width), strict=True)
    )
    memory = block * bytes_per_pixel(photo.pixels, window=window, patch=patch) / 2**20
    _say("tiles", f"{count} of {tile[0]} x {tile[1]} pixels, {memory:.0f} MiB each at the most")
    threads = f", {torch.get_num_threads()} threads" if options.device.type == "cpu" else ""
    _say("device", f"{options.device}{threads}")


def _say(what: str, text: str) -> None:
    print(f"{what:12}{text}", flush=True)


def _timed(work: Callable[[], Tensor]) -> tuple[Tensor, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start
