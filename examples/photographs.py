"""Data, training and test of the examples that denoise photographs.

A network learns on tiles of four photographs of scikit-image and is tested on a fifth, with noise
of standard deviation 25 / 255 (a PSNR of 20.2 dB).
"""

import time

import numpy as np
import torch
from skimage import data
from torch import Tensor, nn

SIZE = 32
SIGMA = 25 / 255


def tiles(photograph: np.ndarray, step: int = SIZE) -> Tensor:
    """The square tiles ``(B, 1, SIZE, SIZE)`` of a photograph as grey values from 0 to 1."""
    grey = torch.tensor(photograph, dtype=torch.float32) / 255
    grey = grey.mean(-1) if grey.dim() == 3 else grey
    return grey.unfold(0, SIZE, step).unfold(1, SIZE, step).reshape(-1, 1, SIZE, SIZE)


def psnr(x: Tensor, clean: Tensor) -> float:
    """The peak signal-to-noise ratio in dB, for a peak of 1."""
    return -10 * (x - clean).square().mean().log10().item()


def train_denoiser(net: nn.Module, steps: int, rate: float) -> None:
    """Train a network that maps noisy tiles to clean ones; `rate` is the largest learning rate."""
    photographs = (data.astronaut(), data.coffee(), data.chelsea(), data.brick())
    clean = torch.cat([tiles(photograph, step=SIZE // 2) for photograph in photographs])
    optimiser = torch.optim.AdamW(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    start = time.perf_counter()
    net.train()
    for step in range(1, steps + 1):
        x = clean[torch.randint(len(clean), (16,))]
        x = x.flip(-1) if step % 2 else x.mT
        loss = (net(x + SIGMA * torch.randn_like(x)) - x).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step}: loss {loss.item():.5f}, {time.perf_counter() - start:.0f} s")


def check_denoiser(net: nn.Module, at_least: float) -> None:
    """Print the PSNR on the unseen photograph, and check it."""
    x = tiles(data.camera())
    noisy = x + SIGMA * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    net.eval()
    with torch.no_grad():
        reached = psnr(net(noisy), x)
    print(f"PSNR: {psnr(noisy, x):.2f} dB noisy, {reached:.2f} dB denoised (at least {at_least})")
    assert reached >= at_least
