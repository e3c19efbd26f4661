"""The dtype of sums: float32 for half precision, as in the kernels."""

from __future__ import annotations

import torch
from torch import Tensor


def is_half(dtype: torch.dtype) -> bool:
    """Whether a dtype has 16 bits."""
    return dtype in (torch.float16, torch.bfloat16)


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which numbers of ``dtype`` are summed."""
    return torch.float32 if is_half(dtype) else dtype


def widened(x: Tensor) -> Tensor:
    """``x`` in the dtype of its sums."""
    return x.float() if is_half(x.dtype) else x
