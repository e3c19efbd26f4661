"""Denoise a photograph with convolutions and circulant attention with learned bandwidths."""

import torch
from photographs import check_denoiser, train_denoiser
from torch import Tensor, nn

from circulant_attention import DistanceSimilarity
from circulant_attention.nn import CirculantTransformerBlock


class Denoiser(nn.Module):
    """Subtracts its estimate of the noise; attention compares pixels by feature distance."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()

        def near() -> nn.Module:
            return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())

        def block() -> nn.Module:
            return CirculantTransformerBlock(
                channels,
                heads=4,
                window=9,
                mlp_ratio=2,
                similarity=DistanceSimilarity(),
                learn_bandwidth=True,
            )

        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.ReLU(),
            near(),
            block(),
            near(),
            near(),
            nn.Conv2d(channels, 1, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Denoise images ``(B, 1, H, W)`` that are at least as large as the window."""
        return x - self.layers(x)


if __name__ == "__main__":
    torch.manual_seed(0)
    net = Denoiser()
    train_denoiser(net, steps=100, rate=3e-3)
    check_denoiser(net, at_least=26.5)
