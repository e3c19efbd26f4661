"""Stored entries that are computed when somebody first looks at them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from circulant_attention.geometry import Geometry
from circulant_attention.ops import primitives as ops


class Deferred(ABC):
    """The values ``(B, heads, N * K)`` of a Circulant, known by shape, dtype and device only.

    Args:
        shape: ``(B, heads, N * K)``.
        dtype: The dtype that the values will have.
        inputs: The tensors that they will be computed from; the first tells the device.
    """

    def __init__(self, shape: torch.Size, dtype: torch.dtype, *inputs: Tensor) -> None:
        self.shape = shape
        self.dtype = dtype
        self.device = inputs[0].device
        self.inputs = inputs
        self._records_grad = torch.is_grad_enabled()
        self._versions = _versions(inputs)
        self._values: Tensor | None = None

    @property
    def requires_grad(self) -> bool:
        """Whether the values require a gradient."""
        if self._values is not None:
            return self._values.requires_grad
        return self._records_grad and any(x.requires_grad for x in self.inputs)

    @property
    def pending(self) -> bool:
        """Whether the values have not been computed yet."""
        return self._values is None

    @abstractmethod
    def compute(self) -> Tensor:
        """Computes the values."""

    def get(self) -> Tensor:
        """The values, computed on the first call and kept.

        Raises:
            RuntimeError: If what they are computed from was changed in place since.
        """
        if self._values is None:
            self.check_unchanged()
            # The history is that of the moment at which the matrix was made, so that a look at
            # its entries under torch.no_grad cuts no gradient.
            with torch.set_grad_enabled(self._records_grad):
                self._values = self.compute()
        return self._values

    def check_unchanged(self) -> None:
        """Raises RuntimeError if an input was changed in place since."""
        if _versions(self.inputs) != self._versions:
            raise RuntimeError(
                "the entries of this Circulant were not computed yet, and a tensor that they come "
                "from has been changed in place since: look at A.values before the change"
            )


def _versions(inputs: tuple[Tensor, ...]) -> list[int]:
    """How often each tensor was changed in place, as far as torch counts it."""
    if torch.compiler.is_compiling():
        return []  # compiled graphs keep in-place changes in order themselves
    return [0 if x.is_inference() else x._version for x in inputs]


class TransposedValues(Deferred):
    """The values of a transposed Circulant.

    ``A.mT @ x`` needs none: it runs the transposed map on the values of ``A``. Whatever else is
    done with ``A.mT`` permutes them.

    Args:
        parent: The values of the Circulant that is transposed.
        geometry: Its geometry.
    """

    def __init__(self, parent: Tensor, geometry: Geometry) -> None:
        super().__init__(parent.shape, parent.dtype, parent)
        self.geometry = geometry

    @property
    def parent(self) -> Tensor:
        """The values that are transposed.

        Raises:
            RuntimeError: If they were changed in place since.
        """
        self.check_unchanged()
        return self.inputs[0] if self._records_grad else self.inputs[0].detach()

    def compute(self) -> Tensor:
        """Computes the values."""
        return transposed_values(self.inputs[0], self.geometry)


def transposed_values(values: Tensor, geometry: Geometry) -> Tensor:
    """Permutes the values ``(B, heads, N * K)`` of A into those of its transpose."""
    if values.is_complex():
        parts = torch.cat([values.real, values.imag], 1)
        real, imag = transposed_values(parts, geometry).chunk(2, 1)
        return torch.complex(real, imag)
    groups = values.reshape(-1, geometry.pixels, geometry.offsets)
    permuted = ops.transpose(groups, list(geometry.spatial_size), list(geometry.window))
    return permuted.reshape(values.shape)
