"""Inputs of the tests of errors, and the check of an error's type and message."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from inputs import features, matrix
from torch import Tensor

from circulant_attention import Circulant

SIZE = (5, 4)
DTYPES = "float16, bfloat16, float32, float64, complex64, complex128"
# A device without memory, which every torch has: it stands for any other one.
OTHER_DEVICE = "meta"


def good_x(
    device: str,
    batch: int = 2,
    channels: int = 6,
    size: tuple[int, ...] = SIZE,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Good features, for 2 or 3 heads."""
    return features(batch, channels, size, device, dtype)


def good_A(device: str, *, heads: int = 3, dtype: torch.dtype = torch.float64) -> Circulant:
    """A good Circulant on their grid."""
    return matrix(SIZE, 3, device, heads=heads, dtype=dtype)


def check_error(call: Callable[[], object], error: type[Exception], message: str) -> None:
    """Calls, and wants exactly this type of error, with this in its message."""
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    assert message in str(caught.value)
