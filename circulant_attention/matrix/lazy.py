"""Stored entries that are computed on first use."""

from __future__ import annotations

import torch
from torch import Tensor

from circulant_attention.geometry import Geometry
from circulant_attention.matrix import algebra
from circulant_attention.ops import dtypes
from circulant_attention.ops.primitives import SimilarityKind


class LazyValues:
    """The values ``(B, heads, N * K)`` of a Circulant before they are computed.

    Args:
        shape: ``(B, heads, N * K)``.
        dtype: The dtype of the values.
        inputs: The tensors that the values come from, on the device of the values.
    """

    def __init__(self, shape: torch.Size, dtype: torch.dtype, *inputs: Tensor) -> None:
        self.shape = shape
        self.dtype = dtype
        self.device = inputs[0].device
        self.inputs = inputs
        self._records_grad = torch.is_grad_enabled()
        self._versions = None if torch.compiler.is_compiling() else _versions(inputs)
        self._values: Tensor | None = None

    @property
    def requires_grad(self) -> bool:
        """Whether the values require a gradient."""
        if self._values is not None:
            return self._values.requires_grad
        return self._records_grad and any(x.requires_grad for x in self.inputs)

    def compute(self) -> Tensor:
        """Computes the values."""
        raise NotImplementedError

    def get(self) -> Tensor:
        """The values, computed on the first call and kept.

        Raises:
            RuntimeError: If an input was changed in place before the first call.
        """
        if self._values is None:
            self.check_unchanged()
            # With the grad mode at construction: a first use under torch.no_grad cuts no gradient.
            with torch.set_grad_enabled(self._records_grad):
                self._values = self.compute()
        return self._values

    def check_unchanged(self) -> None:
        """Raises RuntimeError if an input was changed in place since construction."""
        # Compiled graphs keep changes in place in order themselves.
        if not torch.compiler.is_compiling() and _versions(self.inputs) != self._versions:
            raise RuntimeError(
                "the entries of this Circulant are not computed yet, and a tensor that they depend "
                "on has been changed in place since: use A.values before the change"
            )


def _versions(inputs: tuple[Tensor, ...]) -> list[int]:
    """The version counters of the inputs: torch counts changes in place."""
    return [0 if x.is_inference() else x._version for x in inputs]


class AttentionValues(LazyValues):
    """The values of ``softmax(simfun(q / C**0.25, k / C**0.25))``.

    Args:
        q: Queries ``(B * heads, C, *spatial)``; kept, as ``k``, as long as the matrix.
        k: Keys of the same shape.
        geometry: The grid and the window.
        kind: The similarity.
        batch_shape: ``(B, heads)``.
    """

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        geometry: Geometry,
        kind: SimilarityKind,
        batch_shape: tuple[int, int],
    ) -> None:
        dtype = q.dtype if q.dtype == k.dtype else torch.promote_types(q.dtype, k.dtype)
        shape = torch.Size((*batch_shape, geometry.nnz))
        super().__init__(shape, dtypes.real_dtype(dtype) if dtype.is_complex else dtype, q, k)
        self.geometry = geometry
        self.kind = kind

    def compute(self) -> Tensor:
        """The adjacency of q and k."""
        q, k = self.inputs
        scale = q.shape[1] ** -0.25
        weights = dtypes.adjacency(q * scale, k * scale, self.geometry.window, self.kind)
        return weights.reshape(self.shape)


class TransposedValues(LazyValues):
    """The values of a transposed Circulant.

    ``A.mT @ x`` needs none: it runs the transposed map on the values of ``A``. Every other use of
    ``A.mT`` permutes them.

    Args:
        parent: The values of the Circulant that is transposed.
        geometry: Its geometry.
    """

    def __init__(self, parent: Tensor, geometry: Geometry) -> None:
        super().__init__(parent.shape, parent.dtype, parent)
        self.geometry = geometry

    def compute(self) -> Tensor:
        """The permuted values of the parent."""
        return algebra.transpose(self.inputs[0], self.geometry)


def transpose_source(source: Tensor | LazyValues) -> Tensor | None:
    """The values that ``source`` is the transpose of, if its own are not computed; else None."""
    if not isinstance(source, TransposedValues) or source._values is not None:
        return None
    source.check_unchanged()
    (parent,) = source.inputs
    return parent if source._records_grad else parent.detach()
