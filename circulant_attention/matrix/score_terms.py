"""The arguments ``scale``, ``bias``, ``key_mask`` and ``dropout_p``: checks and packing.

A bias has a number for each offset of the window, a mask one for each key pixel. Both are kept as
:mod:`circulant_attention.ops.biased_attention` takes them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from circulant_attention.geometry import Geometry
from circulant_attention.matrix.algebra import number, without_absent
from circulant_attention.ops.biases import key_biases, offset_biases

_REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class ScoreTerms(NamedTuple):
    """What is added to the scores: ``bias (H, K)`` and ``key_bias (P, N)``, each None for none."""

    bias: Tensor | None = None
    key_bias: Tensor | None = None

    def of(self, group: int, groups: int) -> ScoreTerms:
        """The terms of one of ``groups`` groups."""
        bias, key_bias = self
        if bias is not None:
            head = group % bias.shape[0]
            bias = bias[head : head + 1]
        if key_bias is not None:
            row = group // (groups // key_bias.shape[0])
            key_bias = key_bias[row : row + 1]
        return ScoreTerms(bias, key_bias)


_NO_TERMS = ScoreTerms()


class Options(NamedTuple):
    """These arguments as they are given.

    The default of ``dropout_p`` is an int: a compiler for changing sizes takes a float for an input
    that changes, too, and compiles again when it is compared.
    """

    scale: float | None = None
    bias: Tensor | None = None
    key_mask: Tensor | None = None
    dropout_p: float = 0

    def checked_scale(self, default: float) -> float:
        """The scale as a float; ``default`` for None."""
        if self.scale is None:
            return default
        scale = _checked_number("scale", self.scale)
        if not math.isfinite(scale):
            raise ValueError(f"expected scale to be finite, got {self.scale}")
        return scale

    def checked_dropout(self) -> float:
        """The probability of dropping an entry."""
        if type(self.dropout_p) is int and self.dropout_p == 0:
            return 0
        p = _checked_number("dropout_p", self.dropout_p)
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"expected dropout_p to be a probability in [0, 1], got {p}")
        return p

    def checked_terms(
        self, geometry: Geometry, batch_shape: tuple[int, int], device: torch.device
    ) -> ScoreTerms:
        """The bias and the mask, packed for ``batch_shape = (B, heads)``; raises unless they fit.

        The bias is ``(heads or 1, *window)``, the mask bool or real, ``(B or 1, *spatial)`` or
        ``(B or 1, heads or 1, *spatial)``.
        """
        bias = key_bias = None
        if self.bias is None and self.key_mask is None:
            return _NO_TERMS
        if self.bias is not None:
            bias = checked_bias(self.bias, geometry, batch_shape[1], device).flatten(1)
        if self.key_mask is not None:
            key_bias = additive(checked_mask(self.key_mask, geometry, batch_shape, device))
            if key_bias.shape[1] == 1:
                key_bias = key_bias[:, 0]
            else:
                key_bias = key_bias.expand(*batch_shape, -1).flatten(0, 1)
        return ScoreTerms(bias, key_bias)


def _checked_number(name: str, value: Any) -> float:
    given = number(name, value)
    if isinstance(given, complex):
        raise TypeError(f"expected {name} to be a real number, got {given}")
    return given


def checked_bias(bias: object, geometry: Geometry, heads: int, device: torch.device) -> Tensor:
    """The argument, if it is a bias ``(heads or 1, *window)``; else raises."""
    _check_tensor("bias", bias, (*_REAL,), "of a real floating dtype")
    assert isinstance(bias, Tensor)
    if bias.shape[1:] != geometry.lengths or bias.dim() == 0 or not _fits(bias.shape[:1], (heads,)):
        raise ValueError(
            f"expected bias of shape (heads or 1, *window) = ({_or_one(heads)}, "
            f"{', '.join(map(str, geometry.lengths))}), got {tuple(bias.shape)}"
        )
    _check_device("bias", bias, device)
    return bias


def checked_mask(
    mask: object, geometry: Geometry, batch_shape: tuple[int, int], device: torch.device
) -> Tensor:
    """The argument as ``(B or 1, heads or 1, N)``, if it is a mask of keys; else raises."""
    mask = check_mask(mask, geometry.spatial_size, batch_shape, device)
    one = mask.dim() == 1 + len(geometry.spatial_size)
    return (mask.unsqueeze(1) if one else mask).flatten(2)


def check_mask(
    mask: object, spatial_size: Sequence[int], batch_shape: tuple[int, int], device: torch.device
) -> Tensor:
    """The argument, if it is a mask of keys; else raises."""
    _check_tensor("key_mask", mask, (torch.bool, *_REAL), "of dtype bool or a real floating dtype")
    assert isinstance(mask, Tensor)
    leading = mask.dim() - len(spatial_size)
    # Symbolic sizes of a compiler are compared one by one.
    on_grid = leading in (1, 2) and all(
        size == own for size, own in zip(mask.shape[leading:], spatial_size, strict=True)
    )
    if not on_grid or not _fits(mask.shape[:leading], batch_shape):
        batch, heads = map(_or_one, batch_shape)
        grid = ", ".join(map(str, spatial_size))
        raise ValueError(
            f"expected key_mask of shape (B or 1, *spatial) = ({batch}, {grid}) or (B or 1, heads "
            f"or 1, *spatial) = ({batch}, {heads}, {grid}), got {tuple(mask.shape)}"
        )
    _check_device("key_mask", mask, device)
    return mask


def _fits(leading: torch.Size, sizes: tuple[int, ...]) -> bool:
    """Whether leading dims broadcast to the first of ``sizes``."""
    return all(size in (1, own) for size, own in zip(leading, sizes, strict=False))


def additive(mask: Tensor) -> Tensor:
    """A mask as numbers that are added to the scores: zero where a bool mask is True."""
    if mask.dtype != torch.bool:
        return mask
    numbers = torch.zeros(mask.shape, device=mask.device)
    return numbers.masked_fill(~mask, -torch.inf)


def dropped(values: Tensor, p: float) -> Tensor:
    """The values, each zero with probability p, and the others divided by 1 - p."""
    return functional.dropout(values, p) if p > 0 else values


def add_bias(values: Tensor, geometry: Geometry, bias: object) -> Tensor:
    """The values ``(B, heads, N * K)`` plus a bias ``(heads or 1, *window)``."""
    checked = checked_bias(bias, geometry, values.shape[1], values.device)
    terms = offset_biases(checked.flatten(1), geometry.op_window, geometry.spatial_size)
    return without_absent(values + terms.flatten(1), geometry)


def mask_keys(values: Tensor, geometry: Geometry, mask: object) -> Tensor:
    """The values ``(B, heads, N * K)`` with a mask of keys added to them."""
    batch_shape = values.shape[0], values.shape[1]
    checked = checked_mask(mask, geometry, batch_shape, values.device)
    added = additive(checked)
    terms = key_biases(added.flatten(0, 1), geometry.op_window, geometry.spatial_size)
    terms = terms.reshape(*added.shape[:2], geometry.nnz)
    if checked.dtype == torch.bool:
        return values.masked_fill(terms == -torch.inf, -torch.inf)
    return without_absent(values + terms, geometry)


def _check_tensor(name: str, x: object, dtypes: tuple[torch.dtype, ...], described: str) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"expected {name} to be a tensor, got {type(x).__name__}")
    if x.layout != torch.strided:
        raise TypeError(f"expected {name} to be a dense tensor, got layout {x.layout}")
    if x.dtype not in dtypes:
        raise TypeError(f"expected {name} to be {described}, got {x.dtype}")


def _check_device(name: str, x: Tensor, device: torch.device) -> None:
    if x.device != device:
        raise ValueError(f"expected {name} on {device}, got {name} on {x.device}")


def _or_one(size: int) -> str:
    return "1" if size == 1 else f"{size} or 1"
