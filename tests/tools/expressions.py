"""Sums of scaled matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from inputs import matrix
from torch import Tensor

from circulant_attention import Circulant

# Of matrices A, B and C, and a tensor m; also of their values.
EXPRESSIONS: dict[str, Callable[..., Any]] = {
    "a A": lambda A, B, C, m: 0.3 * A,
    "-A": lambda A, B, C, m: -A,
    "m A": lambda A, B, C, m: m * A,
    "A / a": lambda A, B, C, m: A / 3,
    "A / m": lambda A, B, C, m: A / m,
    "A + B": lambda A, B, C, m: A + B,
    "A - B": lambda A, B, C, m: A - B,
    "a A + b B": lambda A, B, C, m: 0.3 * A + 0.7 * B,
    "a A - b B": lambda A, B, C, m: 0.3 * A - 0.7 * B,
    "A - c B": lambda A, B, C, m: A - 0.25 * B,
    "c A - B": lambda A, B, C, m: 0.25 * A - B,
    "B - A / c": lambda A, B, C, m: B - A / 5,
    "-A + B": lambda A, B, C, m: -A + B,
    "A + m A": lambda A, B, C, m: A + m * A,
    "m A + B": lambda A, B, C, m: m * A + B,
    "m A - (1 - m) B": lambda A, B, C, m: m * A - (1 - m) * B,
    "A / m + B / c": lambda A, B, C, m: A / m + B / 3,
    "A - B / m": lambda A, B, C, m: A - B / m,
    "c (A + m B)": lambda A, B, C, m: 0.5 * (A + m * B),
    "a b A + B": lambda A, B, C, m: 2 * (0.3 * A) + B,
    "0 A + B": lambda A, B, C, m: B - 0 * A,
    "a A + b B + C": lambda A, B, C, m: 0.3 * A + 0.7 * B + C,
    "a A + b B - m C / c": lambda A, B, C, m: 0.3 * A + 0.7 * B - m * C / 3,
    "A B": lambda A, B, C, m: A * B,
    "lerp": lambda A, B, C, m: torch.lerp(A, B, 0.3),
    "lerp by m": lambda A, B, C, m: torch.lerp(A, B, m) if isinstance(A, Tensor) else A.lerp(B, m),
}


def operands(
    device: str, dtype: torch.dtype = torch.float64, factor: tuple[int, ...] = (2, 3, 1, 1)
) -> tuple[Circulant, Circulant, Circulant, Tensor]:
    A, B, C = (matrix((5, 4), 3, device, dtype=dtype) for _ in range(3))
    real = torch.rand(factor, dtype=torch.float64, device=device) + 0.5
    return A, B, C, real.to(dtype)
