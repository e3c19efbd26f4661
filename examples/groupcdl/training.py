"""A step of training, and two short trainings.

    python -m examples.groupcdl.training            grey photographs with noise
    python -m examples.groupcdl.training --complex  a phantom from a third of its Fourier samples

The steps are those of GroupCDL-TIP: the mean squared error, Adam with gradients of a limited norm,
and a projection of the parameters after each step.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from skimage import data
from torch import Tensor, nn

from examples.groupcdl.images import psnr
from examples.groupcdl.network import Config, GroupCDL, Identity, MaskedFourier, Operator
from examples.groupcdl.parameters import initialise, project

CLIP = 0.05  # the norm of the gradient, at most
RATE = 3e-3  # of Adam; the authors train for days with a sixth of it
MEAN = 20  # losses of one line of output
SIZE = 64  # of the images

# Small networks: a step takes a fraction of a second on a CPU.
PHOTOGRAPHS = Config(K=6, M=32, s=2, d=1, nlss_hidden=16, nlss_windowsize=11, nlss_update=3)
PHANTOM = Config(K=8, M=16, s=2, is_complex=True, nlss_hidden=8, nlss_windowsize=11, nlss_update=4)

# Clean images, data made of them, the noise level, and the operator that made the data.
Problem = tuple[Tensor, Tensor, Tensor, Operator]


def step(net: GroupCDL, optimiser: torch.optim.Optimizer, problem: Problem) -> float:
    """One step of training; returns the loss before it."""
    clean, y, sigma, operator = problem
    loss = (net(y, sigma, operator) - clean).abs().square().mean()
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), CLIP)
    optimiser.step()
    project(net)
    return loss.item()


def train(
    net: GroupCDL, draw: Callable[[int], Problem], steps: int, rate: float, batch: int
) -> list[float]:
    """Train for some steps; returns the losses."""
    optimiser = torch.optim.Adam(net.parameters(), rate)
    losses: list[float] = []
    start = time.perf_counter()
    for _ in range(steps):
        losses.append(step(net, optimiser, draw(batch)))
        if len(losses) % MEAN == 0:
            mean = sum(losses[-MEAN:]) / MEAN
            print(f"step {len(losses)}: loss {mean:.5f}, {time.perf_counter() - start:.0f} s")
    return losses


class Photographs:
    """Tiles of photographs of scikit-image, with noise of a random level."""

    levels = (20 / 255, 30 / 255)

    def __init__(self, *photographs: np.ndarray, generator: torch.Generator) -> None:
        self.generator = generator
        self.images = [self.grey(photograph) for photograph in photographs]

    def grey(self, photograph: np.ndarray) -> Tensor:
        """Grey values from 0 to 1."""
        x = torch.tensor(photograph, dtype=torch.float32) / 255
        return x.mean(-1) if x.dim() == 3 else x

    def __call__(self, batch: int) -> Problem:
        """A batch of tiles."""
        clean = torch.stack([self.tile() for _ in range(batch)])[:, None]
        low, high = self.levels
        sigma = low + (high - low) * torch.rand(batch, 1, 1, 1, generator=self.generator)
        noise = torch.randn(clean.shape, generator=self.generator)
        return clean, clean + sigma * noise, sigma, Identity()

    def tile(self) -> Tensor:
        """A random tile of a random photograph."""
        image = self.images[self.random(len(self.images))]
        row, column = (self.random(size - SIZE + 1) for size in image.shape)
        return image[row : row + SIZE, column : column + SIZE]

    def random(self, below: int) -> int:
        """A random number from 0."""
        return int(torch.randint(below, (), generator=self.generator))


class Phantom:
    """The Shepp-Logan phantom with a random place and a smooth random phase, as in MRI.

    A third of the columns of its Fourier transform are kept, always those of low frequency.
    """

    sigma = torch.tensor(0.01)

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        whole = torch.tensor(data.shepp_logan_phantom(), dtype=torch.float32)[None, None]
        self.image = nn.functional.interpolate(whole, (SIZE, SIZE), mode="area")[0, 0]

    def __call__(self, batch: int) -> Problem:
        """A batch of phantoms and their samples."""
        clean = torch.stack([self.draw() for _ in range(batch)])[:, None]
        operator = MaskedFourier(self.mask())
        noise = torch.randn(clean.shape, dtype=clean.dtype, generator=self.generator)
        return clean, operator.mask * (operator(clean) + self.sigma * noise), self.sigma, operator

    def draw(self) -> Tensor:
        """A phantom that is moved, mirrored, and turned in the complex plane."""
        moves = torch.randint(-4, 5, (2,), generator=self.generator).tolist()
        image = self.image.roll(moves, (0, 1))
        image = image.flip(1) if torch.rand((), generator=self.generator) < 0.5 else image
        along = torch.linspace(-1, 1, SIZE)
        a, b, c = torch.randn(3, generator=self.generator)
        phase = a * along[:, None] + b * along + c
        return image * torch.polar(torch.ones_like(phase), phase)

    def mask(self) -> Tensor:
        """Columns to keep, in the order of ``torch.fft.fft2``."""
        kept = torch.rand(SIZE, generator=self.generator) < 0.25
        kept[:4] = kept[-4:] = True
        return kept.float()


def main(arguments: list[str] | None = None) -> None:
    """Train a small network and test it on a photograph, or phases, that it has not seen."""
    parser = argparse.ArgumentParser(prog="python -m examples.groupcdl.training")
    parser.add_argument("--complex", action="store_true", help="the phantom, not photographs")
    parser.add_argument("--steps", type=int, default=160, help="of training (%(default)s)")
    options = parser.parse_args(arguments)
    generator = torch.Generator().manual_seed(0)
    net = initialise(GroupCDL(PHANTOM if options.complex else PHOTOGRAPHS), generator)
    if options.complex:
        learn: Callable[[int], Problem] = Phantom(generator)
        problem = Phantom(torch.Generator().manual_seed(1))(16)
    else:
        seen = (data.astronaut(), data.coffee(), data.chelsea(), data.brick())
        learn = Photographs(*seen, generator=generator)
        test = torch.Generator().manual_seed(1)
        problem = Photographs(data.camera(), generator=test)(16)
    train(net, learn, options.steps, rate=RATE, batch=4)
    clean, y, sigma, operator = problem
    with torch.no_grad():
        x = net(y, sigma, operator)
    given = operator.adjoint(y)
    print(f"test: {psnr(given, clean):.2f} dB before, {psnr(x, clean):.2f} dB after the network")


if __name__ == "__main__":
    main()
