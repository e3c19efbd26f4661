"""The bandwidth of the distance similarity for each head: fixed, learned, or by the noise level."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from circulant_attention.checks import is_int
from circulant_attention.similarity import AbstractSimilarity, DistanceSimilarity


class Bandwidths(nn.Module):
    """Mixin with the bandwidths of an attention layer.

    Attributes:
        log_bandwidth: ``(heads,)``, the logarithms of the bandwidths at noise level 0, if learned.
        noise_bandwidth: ``(degree, heads)``, the coefficients of the powers 1 to ``degree`` of the
            noise level in the logarithm, if the bandwidth depends on it.
    """

    log_bandwidth: Tensor | None
    noise_bandwidth: Tensor | None

    def _make_bandwidth(
        self,
        similarity: AbstractSimilarity,
        channels: int,
        heads: int,
        bandwidth: float | None,
        learned: bool,
        degree: int,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        if not isinstance(similarity, DistanceSimilarity) and (bandwidth is not None or learned):
            raise ValueError(
                "bandwidth and learn_bandwidth need similarity=DistanceSimilarity(), "
                f"got {similarity}"
            )
        if bandwidth is not None and not 0.0 < bandwidth < math.inf:
            raise ValueError(f"expected bandwidth to be positive and finite, got {bandwidth}")
        if not is_int(degree):
            raise TypeError(f"expected bandwidth_degree to be an int, got {type(degree).__name__}")
        if degree < 0:
            raise ValueError(f"expected bandwidth_degree to be at least 0, got {degree}")
        if degree > 0 and not learned:
            raise ValueError(f"bandwidth_degree={degree} needs learn_bandwidth=True, got False")
        self.bandwidth_degree = int(degree)
        self._head_channels = channels // heads
        self.initial_bandwidth = self._head_channels**0.25 if bandwidth is None else bandwidth
        self.log_bandwidth = self.noise_bandwidth = None
        if learned:
            self.log_bandwidth = nn.Parameter(torch.empty(heads, device=device, dtype=dtype))
        if degree > 0:
            noise = torch.empty(degree, heads, device=device, dtype=dtype)
            self.noise_bandwidth = nn.Parameter(noise)

    def _reset_bandwidth(self) -> None:
        if self.log_bandwidth is not None:
            nn.init.constant_(self.log_bandwidth, math.log(self.initial_bandwidth))
        if self.noise_bandwidth is not None:
            nn.init.zeros_(self.noise_bandwidth)

    def _checked_sigma(self, sigma: float | Tensor | None, x: Tensor) -> Tensor | None:
        """The noise levels ``(B or 1,)``; raises unless they are given if and only if used."""
        if self.noise_bandwidth is None:
            if sigma is not None:
                raise ValueError("sigma needs a layer with bandwidth_degree of at least 1")
            return None
        if sigma is None:
            raise ValueError(
                f"expected sigma, the noise level, for bandwidth_degree={self.bandwidth_degree}, "
                "got None"
            )
        noise = self.noise_bandwidth
        levels = torch.as_tensor(sigma, dtype=noise.dtype, device=noise.device)
        batch, ones = x.shape[0], (1,) * (x.dim() - 1)
        if levels.dim() and levels.shape not in ((1,), (batch,), (1, *ones), (batch, *ones)):
            raise ValueError(
                f"expected sigma to be a number or of shape (B,) or (B, 1, *1) with B = {batch}, "
                f"got {tuple(levels.shape)}"
            )
        return levels.reshape(-1)

    def _scaled(self, features: Tensor, sigma: Tensor | None) -> Tensor:
        """Features scaled to distances in units of the bandwidth.

        The attention divides squared distances by the root of a head's channels, the square of
        the default bandwidth.
        """
        root = self._head_channels**0.25
        if self.log_bandwidth is None:
            scaled: Tensor = features * (root / self.initial_bandwidth)
            return scaled
        logarithm = self.log_bandwidth
        if self.noise_bandwidth is not None and sigma is not None:
            noise = torch.zeros_like(sigma)[:, None]
            for coefficients in self.noise_bandwidth.flip(0):
                noise = (noise + coefficients) * sigma[:, None]
            logarithm = logarithm + noise
        factors = root * torch.exp(-logarithm)
        factors = factors.repeat_interleave(self._head_channels, -1)
        scaled = features * factors.view(-1, features.shape[1], *(1,) * (features.dim() - 2))
        return scaled
