"""The self-check: the installed native code against the formula, in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from circulant_attention.denoising import nonlocal_means

TOLERANCE = 1e-10
"""The allowed difference: far above the rounding of float64, far below any mistake."""

_WINDOW = 5
_SIGMA = 0.2


def largest_difference(device: torch.device) -> float:
    """Compares non-local means of a small random image with its definition, in float64."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 12, 17, dtype=torch.float64, generator=generator)
    native = nonlocal_means(image.to(device), _SIGMA, window=_WINDOW, patch=3, bandwidth=1)
    return float((native.cpu() - _definition(image)).abs().max())


def _definition(image: Tensor) -> Tensor:
    """Non-local means by a dense matrix."""

    def patches(x: Tensor) -> Tensor:
        return F.unfold(F.pad(x, (1,) * 4, mode="circular"), 3)

    taps = torch.tensor([3, 10, 3], dtype=image.dtype) / 16
    smooth = torch.outer(taps, taps).flatten() @ patches(image[:, None])
    gaussian = torch.tensor([-2.0, 0.0, -2.0], dtype=image.dtype).exp()  # 2, 0 and 2 sigma
    weights = torch.outer(gaussian, gaussian).flatten() / gaussian.sum() ** 2
    features = patches(smooth.reshape(image[:, None].shape))
    differences = features[..., None] - features[..., None, :]
    distances = (weights[:, None, None] * differences**2).sum(1).mean(0)
    near = [
        (torch.arange(size) - torch.arange(size)[:, None] + _WINDOW // 2) % size < _WINDOW
        for size in image.shape[1:]
    ]
    scores = (-distances / _SIGMA**2).masked_fill(~torch.kron(*near), -torch.inf)
    return (image.flatten(1) @ scores.softmax(-1).mT).reshape(image.shape)
