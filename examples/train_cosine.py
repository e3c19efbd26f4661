"""Denoise a photograph with a network of convolutions and cosine attention."""

import torch
from photographs import SIZE, check_denoiser, train_denoiser
from torch import Tensor, nn

from circulant_attention.nn import CosMHSA


class Denoiser(nn.Module):
    """Subtracts its estimate of the noise: local convolutions, cosine attention over the tile."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()

        def near() -> nn.Module:
            return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())

        def far() -> nn.Module:
            return CosMHSA(n_head=4, external_dim=channels, size=SIZE, dropout=0.0)

        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.ReLU(),
            near(),
            far(),
            near(),
            far(),
            near(),
            nn.Conv2d(channels, 1, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Denoise tiles ``(B, 1, SIZE, SIZE)``."""
        return x - self.layers(x)


if __name__ == "__main__":
    torch.manual_seed(0)
    net = Denoiser()
    train_denoiser(net, steps=100, rate=6e-3)
    check_denoiser(net, at_least=26.5)
