"""Adds noise to images, denoises them with a Julia checkpoint, and prints the PSNR and the time."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from examples.groupcdl import checkpoint, images
from examples.groupcdl.network import GroupCDL

MAX_SEED = 2**32 - 1
HEAD = "| image | pixels | noisy, dB | denoised, dB | s |\n|---|---|---|---|---|"


class Parser(argparse.ArgumentParser):
    """A parser with errors of one line."""

    def error(self, message: str) -> NoReturn:
        """Print the error and end with status 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    try:
        run(options)
    except (ValueError, OSError) as error:
        parser.error(" ".join(str(error).split()))


def make_parser() -> Parser:
    """The options."""
    parser = Parser(prog="python -m examples.groupcdl", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="a folder with net.bson and config.yaml")
    parser.add_argument("image", type=Path, help="an image, or a folder of images for a table")
    parser.add_argument(
        "--sigma", type=level, required=True, help="the noise level, of a range of 255"
    )
    parser.add_argument("--seed", type=seed, default=0, help="of the noise (%(default)s)")
    parser.add_argument("--output", type=Path, help="a folder for the noisy and denoised images")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    return parser


def level(text: str) -> float:
    """A noise level."""
    value = float(text)
    if not 0 <= value <= 255:
        raise argparse.ArgumentTypeError(f"must be from 0 to 255, not {text}")
    return value


def seed(text: str) -> int:
    """A seed."""
    value = int(text)
    if not 0 <= value <= MAX_SEED:
        raise argparse.ArgumentTypeError(f"must be from 0 to {MAX_SEED}, not {text}")
    return value


def run(options: argparse.Namespace) -> None:
    """Check all input, then denoise and print."""
    device = find_device(options.device)
    net = checkpoint.load(options.checkpoint).to(device)
    paths = images.find(options.image)
    for path in paths:
        check(net, path)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
    rows = []
    if options.image.is_dir():
        print(HEAD)
    for path in paths:
        clean = images.read(path, net.config.C)
        noisy = images.add_noise(clean, options.sigma / 255, options.seed, path.name)
        denoised, seconds = denoise(net, noisy, options.sigma / 255, device)
        row = (images.psnr(noisy, clean), images.psnr(denoised, clean), seconds)
        rows.append(row)
        size = f"{clean.shape[-1]} x {clean.shape[-2]}"
        if options.image.is_dir():
            print(line(path.name, size, row), flush=True)
        else:
            noisy_db, denoised_db, seconds = row
            print(f"{path.name}, {size}: noisy {noisy_db:.2f} dB, ", end="")
            print(f"denoised {denoised_db:.2f} dB, {seconds:.2f} s")
        if options.output:
            images.save(noisy, options.output / f"{path.stem}_noisy.png")
            images.save(denoised, options.output / f"{path.stem}_denoised.png")
    if options.image.is_dir():
        print(line(f"mean of {len(rows)}", "", tuple(map(mean, zip(*rows, strict=True)))))


def find_device(name: str) -> torch.device:
    """The device, if it is there."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"there is no device {name}: {reason}") from None
    return device


def check(net: GroupCDL, path: Path) -> None:
    """Refuse an image that the network cannot take."""
    x = images.read(path, net.config.C)
    try:
        net.check_image(x)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def denoise(
    net: GroupCDL, noisy: Tensor, sigma: float, device: torch.device
) -> tuple[Tensor, float]:
    """The image, and the seconds of the network."""
    noisy = noisy.to(device)
    synchronise(device)
    start = time.perf_counter()
    with torch.no_grad():
        denoised = net(noisy, sigma)
    synchronise(device)
    return denoised.cpu(), time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def line(name: str, size: str, row: tuple[float, ...]) -> str:
    """A line of the table."""
    noisy_db, denoised_db, seconds = row
    return f"| {name} | {size} | {noisy_db:.2f} | {denoised_db:.2f} | {seconds:.2f} |"


def mean(values: tuple[float, ...]) -> float:
    """The arithmetic mean."""
    return sum(values) / len(values)


if __name__ == "__main__":
    sys.exit(main())
