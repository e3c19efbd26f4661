"""The self-check: the installed native code against the formula, in plain torch."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from circulant_attention.denoising import nonlocal_means

TOLERANCE = 1e-10
"""What the two may differ by: far above the rounding of float64, far below any mistake."""

_WINDOW = 5
_PATCH = 3
_SIGMA = 0.2


def largest_difference(device: torch.device) -> float:
    """Compares non-local means of a small random image with its definition, in float64.

    Args:
        device: Where the native code runs.

    Returns:
        The largest difference of the two results.
    """
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 12, 17, dtype=torch.float64, generator=generator)
    native = nonlocal_means(image.to(device), _SIGMA, window=_WINDOW, patch=_PATCH, bandwidth=1)
    return float((native.cpu() - _definition(image)).abs().max())


def _definition(image: Tensor) -> Tensor:
    """Non-local means, one offset after the other."""
    smooth = image
    for dim in (1, 2):
        smooth = 0.1875 * smooth.roll(1, dim) + 0.625 * smooth + 0.1875 * smooth.roll(-1, dim)
    centred = range(-(_PATCH // 2), _PATCH // 2 + 1)
    spread = (_PATCH - 1) / 4
    gaussian = torch.exp(-torch.tensor(list(centred)).double().square() / (2 * spread**2))
    patch_weights = torch.outer(gaussian, gaussian) / gaussian.sum() ** 2
    numerator, denominator = torch.zeros_like(image), torch.zeros_like(image[0])
    for offset in itertools.product(range(-(_WINDOW // 2), _WINDOW // 2 + 1), repeat=2):
        shift = (-offset[0], -offset[1])
        apart = (smooth - smooth.roll(shift, (1, 2))).square().mean(0)
        distance = torch.zeros_like(apart)
        for (row, down), (column, right) in itertools.product(enumerate(centred), repeat=2):
            distance += patch_weights[row, column] * apart.roll((-down, -right), (0, 1))
        weight = torch.exp(-distance / _SIGMA**2)
        numerator += weight * image.roll(shift, (1, 2))
        denominator += weight
    return numerator / denominator
