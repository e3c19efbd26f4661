"""GroupCDL: a convolutional dictionary network with a group threshold, in PyTorch.

Each layer k is a step of a proximal gradient method for the codes z of an image y,

    z <- T_k(z - A_k (H^H H B_k z - H^H y)),

where A_k is a convolution with stride s, B_k the adjoint of one, and H the operator that made y
from the image (the identity for noise alone). T_k is a threshold of each code by the energy of its
group. A group is the neighbourhood of a pixel under a circulant matrix: the codes of similar pixels
in a window.

The code follows the networks of github.com/nikopj/GroupCDL-TIP; docs/groupcdl.md has it beside
Julia. Tensors are (B, C, H, W) here. Symbols are those of the Julia package: K layers, M filters, C
channels of the image, filters of p x p pixels, stride s, thresholds of degree d in the noise level.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circulant_attention import Circulant, DistanceSimilarity, DotSimilarity, circulant_adjacency

EPSILON = 1e-8
# Projections to fewer channels: for the comparison and the energy (2), the comparison, or neither.
COMPRESSED = {"all": 2, True: 2, "similarity": 1, False: 0}


@dataclasses.dataclass(frozen=True)
class Config:
    """The section ``net`` of a configuration, with Julia's names and defaults."""

    K: int = 20
    M: int = 32
    C: int = 1
    p: int = 7
    s: int = 1
    d: int = 0
    is_complex: bool = False
    nlss_hidden: int | None = None  # M, if not given
    nlss_similarity: str = "distance"
    nlss_windowsize: int = 1  # 1: no groups, the plain network CDLNet
    nlss_update: int = 1  # every so many layers, Julia's nlss_Δupdate
    nlss_compressed: str | bool = True

    def __post_init__(self) -> None:
        for name in ("K", "M", "C", "p", "s", "nlss_windowsize", "nlss_update"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.grouped and self.K < 2:
            raise ValueError("K must be at least 2 for groups: the first layer has none")
        if self.nlss_windowsize % 2 == 0:
            raise ValueError(f"nlss_windowsize must be odd, not {self.nlss_windowsize}")
        if self.p < self.s:
            raise ValueError(f"p must be at least s, not {self.p} with s = {self.s}")
        if self.nlss_similarity.lower() not in ("distance", "dot"):
            raise ValueError(f"nlss_similarity must be distance or dot, not {self.nlss_similarity}")
        if self.nlss_compressed not in COMPRESSED:
            raise ValueError(
                f"nlss_compressed must be all, similarity or false, not {self.nlss_compressed}"
            )

    @property
    def grouped(self) -> bool:
        """Whether there are groups."""
        return self.nlss_windowsize > 1

    @property
    def hidden(self) -> int:
        """The channels of the projected codes."""
        return self.M if self.nlss_hidden is None else self.nlss_hidden

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of images, codes and kernels."""
        return torch.complex64 if self.is_complex else torch.float32


class Operator(Protocol):
    """What made the data y from an image x, before noise."""

    def adjoint(self, y: Tensor) -> Tensor:
        """H^H y."""

    def gramian(self, x: Tensor) -> Tensor:
        """H^H H x."""


class Identity:
    """Noise alone: H x = x."""

    def adjoint(self, y: Tensor) -> Tensor:
        """Y itself."""
        return y

    def gramian(self, x: Tensor) -> Tensor:
        """X itself."""
        return x


class MaskedFourier:
    """Some samples of the Fourier transform, as in MRI: H x = mask * fft(x).

    The transform is orthonormal, so noise has the same level in the samples and in H^H y. The mask
    is (H, W) or broadcasts to (B, C, H, W), and the sizes of the image are multiples of the stride.
    """

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def __call__(self, x: Tensor) -> Tensor:
        """H x."""
        return self.mask * torch.fft.fft2(x, norm="ortho")

    def adjoint(self, y: Tensor) -> Tensor:
        """H^H y."""
        return torch.fft.ifft2(self.mask * y, norm="ortho")

    def gramian(self, x: Tensor) -> Tensor:
        """H^H H x."""
        return self.adjoint(self(x))


class Layer(nn.Module):
    """A gradient step; its kernels are ``(M, C, p, p)`` and its thresholds ``(d + 1, M, 1, 1)``."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        kernels = (config.M, config.C, config.p, config.p)
        self.stride = config.s
        self.analysis = nn.Parameter(torch.empty(kernels, dtype=config.dtype))
        self.synthesis = nn.Parameter(torch.empty(kernels, dtype=config.dtype))
        self.thresholds = nn.Parameter(torch.empty(config.d + 1, config.M, 1, 1))

    def forward(self, z: Tensor | None, y: Tensor, operator: Operator) -> Tensor:
        """``z - A (H^H H B z - y)``, with y already mapped by H^H; no z is a z of zeros."""
        if z is None:
            return analyse(y, self.analysis, self.stride)
        residual = operator.gramian(synthesise(z, self.synthesis, self.stride)) - y
        return z - analyse(residual, self.analysis, self.stride)

    def threshold(self, sigma: Tensor) -> Tensor:
        """The thresholds for a noise level ``(B or 1, 1, 1, 1)``: a polynomial in it."""
        return sum(t * sigma**degree for degree, t in enumerate(self.thresholds))


class NonlocalSimilarity(nn.Module):
    """The matrix of the groups and the energy of the codes in them.

    The projections are convolutions of 1 x 1 pixels, real ones for complex codes too.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.window = config.nlss_windowsize
        self.distance = config.nlss_similarity.lower() == "distance"
        down, up = (config.hidden, config.M, 1, 1), (config.M, config.hidden, 1, 1)
        level = COMPRESSED[config.nlss_compressed]
        self.theta = nn.Parameter(torch.empty(down)) if level > 0 else None
        self.phi = nn.Parameter(torch.empty(down)) if level > 0 else None
        self.alpha = nn.Parameter(torch.empty(down)) if level > 1 else None
        self.beta = nn.Parameter(torch.empty(up)) if level > 1 else None
        self.gamma = nn.Parameter(torch.tensor([0.8]))

    def forward(self, z: Tensor, last: Circulant | None) -> Circulant:
        """The adjacency of the codes, blended with the last one if there is one."""
        new = self.adjacency(project(z, self.theta), project(z, self.phi))
        return new if last is None else self.blend(new, last)

    def energy(self, matrix: Circulant, z: Tensor) -> Tensor:
        """The norm of each code over its group: ``beta sqrt(A |alpha z|^2)``."""
        squares = squared_modulus(project(z, self.alpha))
        norms = (self.apply_matrix(matrix, squares) + EPSILON).sqrt()
        return project(norms, self.beta).relu()

    def adjacency(self, x: Tensor, y: Tensor) -> Circulant:
        """A softmax over the window around each pixel."""
        if self.distance:
            return circulant_adjacency(DistanceSimilarity(), x, y, self.window)
        root = x.shape[1] ** 0.25
        return circulant_adjacency(DotSimilarity(), x / root, y / root, self.window)

    def blend(self, new: Circulant, last: Circulant) -> Circulant:
        """``gamma new + (1 - gamma) last``."""
        return last.lerp(new, self.gamma)

    def apply_matrix(self, matrix: Circulant, x: Tensor) -> Tensor:
        """``A x`` on the pixels of each channel."""
        return matrix @ x


class GroupCDL(nn.Module):
    """The network; ``config.nlss_windowsize = 1`` is CDLNet, with soft thresholds.

    Its parameters have no values before :func:`checkpoint.load` or :func:`parameters.initialise`.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.K))
        self.nonlocal_similarity = NonlocalSimilarity(config) if config.grouped else None
        kernels = (config.M, config.C, config.p, config.p)
        self.dictionary = nn.Parameter(torch.empty(kernels, dtype=config.dtype))

    def forward(self, y: Tensor, sigma: float | Tensor, operator: Operator | None = None) -> Tensor:
        """The image.

        Args:
            y: Noisy images ``(B, C, H, W)``, or data that an ``operator`` maps to such images.
            sigma: The noise level, a number or ``(B, 1, 1, 1)``.
            operator: What made y; noise alone, if not given.

        Returns:
            Images of the shape of y.

        Raises:
            ValueError: If the image or the noise level does not fit: :meth:`check_image`.
        """
        operator = operator or Identity()
        self.check_image(y, padded=isinstance(operator, Identity))
        sigma = torch.as_tensor(sigma, dtype=y.real.dtype, device=y.device)
        if sigma.dim() and sigma.shape not in ((1, 1, 1, 1), (len(y), 1, 1, 1)):
            shapes = f"a number or ({len(y)}, 1, 1, 1)"
            raise ValueError(f"sigma must be {shapes}, not {tuple(sigma.shape)}")
        y, mean, pad = self.preprocess(operator.adjoint(y))
        z, _ = self.encode(y, sigma, operator)
        x = synthesise(z, self.dictionary, self.config.s) + mean
        return F.pad(x, [-n for n in pad])

    def encode(
        self, y: Tensor, sigma: Tensor, operator: Operator
    ) -> tuple[Tensor, Circulant | None]:
        """The codes ``(B, M, H / s, W / s)`` of preprocessed images, and the last matrix."""
        z, matrix = None, None
        for k, layer in enumerate(self.layers, 1):
            if self.nonlocal_similarity and self.compares(k):
                matrix = self.nonlocal_similarity(z, matrix)
            z = layer(z, y, operator)
            threshold = layer.threshold(sigma)
            if matrix is None:
                z = soft_threshold(z, threshold)
            else:
                energy = self.nonlocal_similarity.energy(matrix, z)
                z = z * (1 - threshold / (energy + EPSILON)).relu()
        return z, matrix

    def compares(self, k: int) -> bool:
        """Whether the codes before layer k, counted from 1, give a new matrix."""
        return k == 2 or (k > 2 and k % self.config.nlss_update == 0)

    def preprocess(self, y: Tensor) -> tuple[Tensor, Tensor, list[int]]:
        """Reflect the borders up to multiples of the stride and take off the mean of each image."""
        rows, columns = (padding(size, self.config.s) for size in y.shape[2:])
        pad = [*columns, *rows]
        y = F.pad(y, pad, mode="reflect") if any(pad) else y
        mean = y.mean((1, 2, 3), keepdim=True)
        return y - mean, mean, pad

    def check_image(self, y: Tensor, padded: bool = True) -> None:
        """Refuse images that do not fit: channels, dtype, smaller than the window, odd sizes."""
        config = self.config
        if y.dim() != 4 or y.shape[1] != config.C:
            raise ValueError(f"y must be (B, {config.C}, H, W), not {tuple(y.shape)}")
        if y.is_complex() != config.is_complex:
            kind = "complex" if config.is_complex else "real"
            raise ValueError(f"y must be {kind} for this network, not {y.dtype}")
        least = smallest(config)
        if min(y.shape[2:]) < least:
            sizes = " x ".join(map(str, y.shape[2:]))
            raise ValueError(
                f"an image of {sizes} pixels is too small: windows of {config.nlss_windowsize} "
                f"with stride {config.s} need at least {least} x {least}"
            )
        if not padded and any(size % config.s for size in y.shape[2:]):
            sizes = " x ".join(map(str, y.shape[2:]))
            raise ValueError(f"with this operator, {sizes} must be multiples of {config.s}")


def smallest(config: Config) -> int:
    """The smallest size of an image: a window of codes must fit, and a border to reflect."""
    return max((config.nlss_windowsize - 1) * config.s + 1, config.s)


def padding(size: int, stride: int) -> tuple[int, int]:
    """What is added before and after to make a size a multiple of the stride."""
    extra = -size % stride
    return math.ceil(extra / 2), extra // 2


def edges(kernel: Tensor, stride: int) -> list[int]:
    """The zeros around the image of a convolution with p x p pixels, for ``F.pad``."""
    extra = kernel.shape[-1] - stride
    return [math.ceil(extra / 2), extra // 2] * 2


def analyse(x: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """Images ``(B, C, H, W)`` to codes ``(B, M, H / s, W / s)``."""
    return F.conv2d(F.pad(x, edges(kernel, stride)), kernel, stride=stride)


def synthesise(z: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """The adjoint of :func:`analyse` with the same kernel."""
    x = F.conv_transpose2d(z, kernel.conj_physical(), stride=stride)
    return F.pad(x, [-n for n in edges(kernel, stride)])


def project(z: Tensor, weight: Tensor | None) -> Tensor:
    """A real convolution of 1 x 1 pixels; no weight is the identity."""
    if weight is None:
        return z
    return F.conv2d(z, weight.to(z.dtype))


def squared_modulus(z: Tensor) -> Tensor:
    """``|z|^2``."""
    return torch.view_as_real(z).square().sum(-1) if z.is_complex() else z.square()


def soft_threshold(z: Tensor, threshold: Tensor) -> Tensor:
    """``sign(z) max(|z| - threshold, 0)``."""
    return z.sgn() * (z.abs() - threshold).relu()
