"""The work behind the command line: read, check, denoise, compare, write."""

from __future__ import annotations

import math
import os
import sys
import time
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from skimage import metrics, restoration
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from circulant_attention.demo import figure, image_file, selfcheck
from circulant_attention.demo.image_file import Photograph
from circulant_attention.demo.output import Problem, writable, write_file
from circulant_attention.denoising import (
    DEFAULT_BANDWIDTH,
    attention_window,
    bytes_per_pixel,
    nonlocal_means,
    tile_size,
)

_ADDED = 0.1
_SMALLEST_SIGMA = 1e-6
# Pixels to draw: of the cameraman; of other images at these fractions of the shown part.
_CAMERA_PIXELS = {"flat": (31, 464), "edge": (183, 49), "texture": (498, 174)}
_FRACTIONS = (0.25, 0.5, 0.75)
# Without type annotations of their own.
_estimate_sigma: Any = restoration.estimate_sigma
_psnr: Any = metrics.peak_signal_noise_ratio


def run(options: Namespace) -> int:
    """Carries out a command line; 1 if the self-check failed, else 0.

    Raises Problem, before any work, if the request cannot be carried out.
    """
    _choose_files(options)
    photo = image_file.read(options.image)
    _choose_noise(options, photo)
    noisy = photo.pixels
    if options.add_noise:
        generator = torch.Generator().manual_seed(0)
        noisy = noisy + options.add_noise * torch.randn(noisy.shape, generator=generator)
    sizes = {"window": options.window, "patch": options.patch}
    tile = tile_size(noisy, **sizes)
    tiles = math.prod(-(-size // part) for size, part in zip(noisy.shape[1:], tile, strict=True))
    difference = selfcheck.largest_difference(options.device)
    is_right = difference <= selfcheck.TOLERANCE
    verdict = "right" if is_right else f"WRONG, {selfcheck.TOLERANCE:g} is allowed"
    _say("self-check", f"native code within {difference:.1e} of plain torch in float64: {verdict}")
    _describe(options, photo, tile, tiles)

    print("\nCirculant attention ...")
    start = time.perf_counter()
    # A log gets a line every other second.
    interval = 0.1 if sys.stderr.isatty() else 2.0
    with tqdm(desc="tiles", total=tiles, mininterval=interval) as bar:
        denoised = nonlocal_means(
            noisy.to(options.device),
            options.sigma,
            **sizes,
            boundary=options.boundary,
            tile=tile,
            progress=lambda *_: bar.update(),
        ).cpu()
    seconds = f"{time.perf_counter() - start:.1f} s"
    if options.add_noise:
        panels = _compare(options, photo, noisy, denoised, seconds)
    else:
        print(f"denoised in {seconds}")
        panels = {
            photo.name: photo.as_fraction(noisy),
            f"denoised, {seconds}": photo.as_fraction(denoised),
            "removed, black to white: -3 to 3 sigma": (noisy - denoised) / options.sigma / 6 + 0.5,
        }
    print()
    if options.output:
        write_file(options.output, image_file.encoded(photo, denoised, options.output))
        print(f"The denoised image is in {options.output}")
    if options.figure:
        write_file(options.figure, _draw(options, noisy.to(options.device), panels))
        print(f"The figure is in {options.figure}")
    return 0 if is_right else 1


def _choose_files(options: Namespace) -> None:
    """Sets the files to write; Problem if one of them is a file to keep."""
    image = options.image
    if image and not options.output:
        options.output = writable(f"denoised{Path(image).suffix or '.png'}")
    elif not options.output and not options.figure:
        options.figure = writable("denoised.png")
    for name, path in (("--output", options.output), ("--figure", options.figure)):
        if path and image and os.path.exists(path) and os.path.exists(image):
            if os.path.samefile(image, path):
                raise Problem(f"{name} would be written over the image {image}")
    if options.output and options.figure:
        if os.path.realpath(options.output) == os.path.realpath(options.figure):
            raise Problem(f"--output and --figure must differ, got {options.output} twice")


def _choose_noise(options: Namespace, photo: Photograph) -> None:
    """Sets the levels of the noise; Problem if an option does not fit the photograph."""
    height, width = photo.pixels.shape[1:]
    for name, length in (("window", options.window), ("patch", options.patch)):
        if length > min(height, width):
            raise Problem(
                f"--{name} must not be larger than the image of {height} x {width} pixels, "
                f"got {length}"
            )
    if options.output:
        image_file.encoded(photo, photo.pixels[:, :8, :8], options.output)
    high = photo.white - photo.black
    low = _SMALLEST_SIGMA * high
    for name, sigma in (("--sigma", options.sigma), ("--add-noise", options.add_noise)):
        if sigma and not low <= sigma <= high:
            raise Problem(
                f"{name} must lie between {low:g} and {high:g} for pixels from {photo.black:g} "
                f"(black) to {photo.white:g} (white), got {sigma:g}"
            )
    if options.image is None:
        options.add_noise = options.add_noise or options.sigma or _ADDED
    options.origin = "given" if options.sigma else "added" if options.add_noise else "estimated"
    options.sigma = options.sigma or options.add_noise
    if not options.sigma:
        with warnings.catch_warnings():
            # Images that are too small or flat for an estimate.
            warnings.simplefilter("ignore")
            pixels = photo.pixels.numpy()
            options.sigma = float(_estimate_sigma(pixels, channel_axis=0, average_sigmas=True))
        if not options.sigma >= low:
            raise Problem(
                f"cannot estimate the noise of {photo.name}, got {options.sigma:g}: give --sigma"
            )


def _describe(options: Namespace, photo: Photograph, tile: tuple[int, int], tiles: int) -> None:
    """Prints the task with its sizes."""
    channels, height, width = photo.pixels.shape
    window, patch, sigma = options.window, options.patch, options.sigma
    colour = "grey" if channels == 1 else "colour"
    alpha = "" if photo.alpha is None else ", transparency kept"
    unit = "of the range from black to white"
    if photo.dtype.kind == "f":
        unit = f"for pixels from {photo.black:g} to {photo.white:g}"
    weights = height * width * window**2
    sides = zip(tile, (height, width), strict=True)
    block = math.prod(n if part == n else part + window - 1 for part, n in sides)
    memory = block * bytes_per_pixel(photo.pixels, window=window, patch=patch) / 2**20
    threads = f", {torch.get_num_threads()} threads" if options.device.type == "cpu" else ""
    _say("photograph", f"{photo.name}, {height} x {width} pixels, {colour}, {photo.depth}{alpha}")
    if options.add_noise:
        _say("added noise", f"Gaussian, sigma {options.add_noise:g} {unit}")
    _say("noise", f"sigma {sigma:.3g} {unit}, {options.origin}")
    _say("features", f"patches of {patch} x {patch} pixels, {channels * patch**2} channels")
    at_borders = "wraps" if options.boundary == "circular" else "ends"
    neighbours = f"{window**2} neighbours a pixel, {weights:,} weights, {at_borders} at borders"
    _say("window", f"{window} x {window}, {neighbours}")
    _say("bandwidth", f"h = {DEFAULT_BANDWIDTH} sigma = {DEFAULT_BANDWIDTH * sigma:.3g}")
    _say("tiles", f"{tiles} of {tile[0]} x {tile[1]} pixels, {memory:.0f} MiB each at the most")
    _say("device", f"{options.device}{threads}")


def _say(what: str, text: str) -> None:
    print(f"{what:12}{text}")


def _compare(
    options: Namespace, photo: Photograph, noisy: Tensor, denoised: Tensor, seconds: str
) -> dict[str, Tensor]:
    """Denoises with scikit-image, prints a table of both, and gives the images to draw."""
    print("scikit-image ...")
    start = time.perf_counter()
    result = restoration.denoise_nl_means(
        noisy.movedim(0, -1).double().numpy(),
        patch_size=options.patch,
        patch_distance=options.window // 2,
        h=DEFAULT_BANDWIDTH * options.sigma,
        sigma=options.sigma,
        channel_axis=-1,
    )
    their_seconds = f"{time.perf_counter() - start:.1f} s"
    # It drops dims of size one.
    theirs = torch.from_numpy(result).reshape(noisy.movedim(0, -1).shape).movedim(-1, 0)
    clean = photo.as_fraction(photo.pixels).double().numpy()
    panels, ratios = {}, []
    print(f"\n{'':24}{'PSNR':>9}{'time':>12}")
    for name, pixels, took in (
        ("noisy", noisy, ""),
        ("circulant attention", denoised, seconds),
        ("scikit-image", theirs, their_seconds),
    ):
        fraction = photo.as_fraction(pixels)
        ratios.append(_psnr(clean, fraction.double().numpy(), data_range=1))
        decibels = f"{ratios[-1]:.2f} dB"
        print(f"{name:24}{decibels:>9}{took:>12}".rstrip())
        panels[", ".join(filter(None, (name, decibels, took)))] = fraction
    ahead = ratios[1] - ratios[2]
    print(f"{abs(ahead):.2f} dB {'ahead of' if ahead >= 0 else 'behind'} scikit-image")
    return panels


def _draw(options: Namespace, noisy: Tensor, panels: dict[str, Tensor]) -> bytes:
    window, patch, sigma = options.window, options.patch, options.sigma
    borders = {"window": window, "patch": patch, "boundary": options.boundary}
    pixels = _CAMERA_PIXELS
    if options.image:
        parts = figure.shown_part(noisy.shape)
        at = [[int(p.start + f * (p.stop - p.start)) for p in parts] for f in _FRACTIONS]
        pixels = {f"({row}, {column})": (row, column) for row, column in at}
    marks = [
        figure.Mark(name, at, attention_window(noisy, sigma, at, **borders), options.boundary)
        for name, at in pixels.items()
    ]
    title = (
        f"Non-local means by circulant attention: window {window} x {window}, "
        f"patches {patch} x {patch}, noise of standard deviation {sigma:.3g}"
    )
    return figure.draw(title, panels, marks, image_file.suffix_of(options.figure))
