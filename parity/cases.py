"""Grids, dtypes and data that the tests share."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from circulant_attention import DistanceSimilarity, DotSimilarity
from parity import reference


@dataclasses.dataclass(frozen=True)
class Grid:
    """Spatial sizes in Julia's order and a window."""

    spatial_size: tuple[int, ...]
    window: int

    def __str__(self) -> str:
        return "x".join(map(str, self.spatial_size)) + f"-w{self.window}"


# Windows 1, 3, 5 and 7; odd and even, square and oblong grids. In "-w5" of 5, 7x5 and 6x5 a window
# covers a whole dim; at 4, 6x4 and 8x8 windows the pixels whose windows wrap outnumber the others.
GRIDS = [
    Grid((9,), 1),
    Grid((4,), 3),
    Grid((11,), 3),
    Grid((5,), 5),
    Grid((12,), 5),
    Grid((10,), 7),
    Grid((6, 9), 1),
    Grid((6, 4), 3),
    Grid((5, 8), 3),
    Grid((7, 5), 5),
    Grid((6, 10), 5),
    Grid((8, 8), 5),
    Grid((8, 11), 7),
]
FEW_GRIDS = [Grid((11,), 3), Grid((6,), 5), Grid((5, 8), 3), Grid((7, 5), 5), Grid((9, 8), 7)]

DTYPES = [np.float32, np.float64, np.complex64, np.complex128]
DOUBLES = [np.float64, np.complex128]
SIMFUNS = ["dot", "distance"]

SIMFUN = {"dot": DotSimilarity(), "distance": DistanceSimilarity()}
REFERENCE_SIMFUN = {
    "dot": reference.DotSimilarity(),
    "distance": reference.DistanceSimilarity(),
}

grids = pytest.mark.parametrize("grid", GRIDS, ids=str)
few_grids = pytest.mark.parametrize("grid", FEW_GRIDS, ids=str)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
doubles = pytest.mark.parametrize("dtype", DOUBLES, ids=lambda t: t.__name__)
simfuns = pytest.mark.parametrize("simfun", SIMFUNS)


def normal(shape: tuple[int, ...], dtype: type, *seed: object) -> np.ndarray:
    """Give column-major standard normal numbers that depend on the arguments only."""
    key = "/".join(map(str, (shape, *seed)))
    rng = np.random.default_rng(np.frombuffer(key.encode(), dtype=np.uint8))
    values = rng.standard_normal(shape)
    if np.issubdtype(dtype, np.complexfloating):
        values = (values + 1j * rng.standard_normal(shape)) / np.sqrt(2)
    return np.asfortranarray(values, dtype=dtype)


def exact(*arrays: np.ndarray) -> list[np.ndarray]:
    """Give the same numbers in the reference's precision."""
    return [np.asfortranarray(x, dtype=np.result_type(x, np.float64)) for x in arrays]


def torch_dtype(dtype: type) -> torch.dtype:
    """Give torch's name of a dtype."""
    return torch.from_numpy(np.zeros(1, dtype)).dtype


def real_of(dtype: type) -> type:
    """Give the real dtype of the same precision."""
    return np.zeros((), dtype).real.dtype.type


def images(grid: Grid, channels: int, batch: int, dtype: type, names: str) -> list[np.ndarray]:
    """Give one random image per letter of ``names``."""
    return [normal((*grid.spatial_size, channels, batch), dtype, name) for name in names]


def random_circulant(
    grid: Grid, heads: int, batch: int, dtype: type, *seed: object
) -> reference.Circulant:
    """Give a circulant array with random entries."""
    pattern = reference.ones(grid.window, (*grid.spatial_size, heads, batch))
    return pattern.like(normal(pattern.nzVal.shape, dtype, *seed))


def inner(a: np.ndarray, b: np.ndarray) -> float:
    """Give the real inner product ``Re sum conj(a) b``."""
    return float(np.real(np.vdot(a, b)))


def pairs(sizes: tuple[int, ...]) -> itertools.product:
    """Give every multi-index of the sizes, from one."""
    return itertools.product(*(range(1, size + 1) for size in sizes))


@dataclasses.dataclass(frozen=True)
class NetworkCase:
    """The data of a small network of the Julia package's gradient tests, at its sizes."""

    x: np.ndarray
    z1: np.ndarray
    z2: np.ndarray
    target: np.ndarray
    parameters: reference.network.Parameters


def network_case(dims: int, nheads: int, dtype: type) -> NetworkCase:
    """Give 12 pixels per dim, 4 channels, batch 2, kernels of 3 per dim onto 8 channels."""
    x, z1, z2 = (normal((12,) * dims + (4, 2), dtype, name) for name in ("x", "z1", "z2"))
    # The weights are small enough for the softmax not to saturate.
    wx, wk, wq, wv = (normal((3,) * dims + (4, 8), dtype, n) * 3**-dims for n in "xkqv")
    wz = normal((3,) * dims + (8, 4), dtype, "z") * 3**-dims
    alpha = np.full((1, 1, nheads, 1), 0.8, dtype=real_of(dtype), order="F")
    parameters = reference.network.Parameters(wx, wk, wq, wv, wz, alpha)
    return NetworkCase(x, z1, z2, normal((8,) * dims + (4, 2), dtype, "t"), parameters)
