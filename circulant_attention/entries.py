"""The stored entries of a Circulant: what they are, and other forms of the same."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from circulant_attention import _features, indexing
from circulant_attention._deferred import Deferred
from circulant_attention.geometry import Geometry

if TYPE_CHECKING:
    from typing_extensions import Self


class Entries(ABC):
    """What a Circulant tells about itself, as a tensor would, and its conversions."""

    _source: Tensor | Deferred
    geometry: Geometry

    @abstractmethod
    def with_values(self, values: Tensor | Deferred) -> Self:
        """The same geometry with other entries."""

    @property
    def values(self) -> Tensor:
        """The stored entries ``(B, heads, N * K)``, in CSR order; they carry the gradient."""
        source = self._source
        return source.get() if isinstance(source, Deferred) else source

    @property
    def rows(self) -> Tensor:
        """The stored entries row by row, ``(B, heads, N, K)``."""
        return self.values.reshape(
            *self._source.shape[:2], self.geometry.pixels, self.geometry.offsets
        )

    @property
    def data(self) -> Tensor:
        """A ``torch.sparse_csr`` tensor ``(B, heads, N, N)`` over the same memory.

        Index tensors are shared by every batch and head. Differentiable once (torch has no second
        derivatives of sparse tensors, and does not compile them): use :attr:`values` for more.
        """
        lead = self.shape[:2]
        crow = self.geometry.crow_indices(self.device)
        col = self.geometry.col_indices(self.device)
        return torch.sparse_csr_tensor(
            crow.expand(*lead, -1),
            col.expand(*lead, -1),
            self.values,
            self.shape,
            check_invariants=False,
        )

    @property
    def window(self) -> tuple[int, ...]:
        """The odd window length of each spatial dim."""
        return self.geometry.window

    @property
    def spatial_size(self) -> tuple[int, ...]:
        """The sizes of the spatial dims."""
        return self.geometry.spatial_size

    @property
    def shape(self) -> torch.Size:
        """``(B, heads, N, N)``."""
        batch, heads, _ = self._source.shape
        return torch.Size((batch, heads, self.geometry.pixels, self.geometry.pixels))

    def size(self, dim: int | None = None) -> torch.Size | int:
        """The shape, or its entry ``dim``."""
        return self.shape if dim is None else self.shape[dim]

    @property
    def ndim(self) -> int:
        """Always 4, for batch, heads, rows and columns."""
        return 4

    def dim(self) -> int:
        """Always 4, for batch, heads, rows and columns."""
        return 4

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the stored entries."""
        return self._source.dtype

    @property
    def device(self) -> torch.device:
        """Device of the stored entries."""
        return self._source.device

    @property
    def nnz(self) -> int:
        """The number of stored entries, over all batches and heads."""
        return self._source.shape.numel()

    @property
    def requires_grad(self) -> bool:
        """Whether the stored entries require a gradient."""
        return self._source.requires_grad

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Asks for the gradient of :attr:`values`, in place."""
        self.values.requires_grad_(requires_grad)
        return self

    def is_complex(self) -> bool:
        """Whether the dtype is complex."""
        return self.dtype.is_complex

    def is_floating_point(self) -> bool:
        """Whether the dtype is a real floating dtype."""
        return self.dtype.is_floating_point

    def to_dense(self) -> Tensor:
        """The dense ``(B, heads, N, N)`` tensor, differentiable; N squared entries per head."""
        return indexing.dense_rows(self.rows, self.geometry, slice(None))

    def to_sparse_csr(self) -> Tensor:
        """The same as :attr:`data`."""
        return self.data

    def crow_indices(self) -> Tensor:
        """Row pointers ``(B, heads, N + 1)``, shared by every batch and head (stride 0)."""
        return self.geometry.crow_indices(self.device).expand(*self.shape[:2], -1)

    def col_indices(self) -> Tensor:
        """Columns ``(B, heads, N * K)``, shared by every batch and head (stride 0)."""
        return self.geometry.col_indices(self.device).expand(*self.shape[:2], -1)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """To another dtype or device, as ``torch.Tensor.to``."""
        values = self.values.to(*args, **kwargs)
        _features.check_dtype("dtype", values.dtype)
        return self if values is self.values else self.with_values(values)

    def cpu(self) -> Self:
        """To the CPU."""
        return self.to("cpu")

    def cuda(self, device: torch.device | str | int = "cuda") -> Self:
        """To a CUDA device."""
        return self.to(device)

    def float(self) -> Self:
        """To float32."""
        return self.to(torch.float32)

    def double(self) -> Self:
        """To float64."""
        return self.to(torch.float64)

    def half(self) -> Self:
        """To float16."""
        return self.to(torch.float16)

    def bfloat16(self) -> Self:
        """To bfloat16."""
        return self.to(torch.bfloat16)

    def detach(self) -> Self:
        """The same entries without their history."""
        return self.with_values(self.values.detach())

    def clone(self) -> Self:
        """A copy with entries of its own; differentiable."""
        return self.with_values(self.values.clone())

    def copy(self) -> Self:
        """A copy with entries of its own; Julia's name for :meth:`clone`."""
        return self.clone()

    def similar(self) -> Self:
        """The same shape, dtype and device with entries not set (to be written in place)."""
        return self.with_values(
            torch.empty(self._source.shape, dtype=self.dtype, device=self.device)
        )

    @property
    def real(self) -> Self:
        """The real part; itself if real."""
        return self.with_values(self.values.real) if self.is_complex() else self

    @property
    def imag(self) -> Self:
        """The imaginary part of a complex Circulant."""
        return self.with_values(self.values.imag)

    def complex(self) -> Self:
        """As complex; itself if complex."""
        return self if self.is_complex() else self.to(self.dtype.to_complex())

    def conj(self) -> Self:
        """The complex conjugate; itself if real."""
        # Not torch's lazy conjugate, which vmap of forward mode cannot look through.
        return self.with_values(self.values.conj_physical()) if self.is_complex() else self
