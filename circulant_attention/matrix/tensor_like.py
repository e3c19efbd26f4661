"""What a Circulant shares with any tensor: shape, dtype, device, conversions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from circulant_attention.checks import check_dtype, check_matrix, is_int
from circulant_attention.geometry import Geometry
from circulant_attention.matrix import algebra, export, indexing
from circulant_attention.matrix.lazy import LazyValues
from circulant_attention.ops import memory
from circulant_attention.ops.precision import sum_dtype

if TYPE_CHECKING:
    from typing_extensions import Self


class TensorLike:
    """Mixin with the attributes and conversions of ``torch.Tensor``, of the same names.

    The class that uses it has the values in ``_source``, computed or lazy, and a geometry.
    """

    _source: Tensor | LazyValues
    geometry: Geometry

    @property
    def _is_param(self) -> bool:
        """False: ``nn.Parameter(A)`` sets it, and is refused so."""
        return False

    @_is_param.setter
    def _is_param(self, value: bool) -> NoReturn:
        raise TypeError(
            "a Circulant cannot be an nn.Parameter: keep values = nn.Parameter(A.values) in the "
            "module, and use A.with_values(values) in forward"
        )

    @classmethod
    def _from(cls, source: Tensor | LazyValues, geometry: Geometry) -> Self:
        """The matrix of values that are known to fit; checks nothing."""
        result = object.__new__(cls)
        result._source = source
        result.geometry = geometry
        return result

    @property
    def values(self) -> Tensor:
        """The stored entries ``(B, heads, N * K)``, in CSR order; they carry the gradient.

        Lazy entries, of an attention or of a transposed matrix, are computed on first use.

        Example:
            >>> Circulant(3, (1, 2, 6)).values.shape
            torch.Size([1, 2, 18])
        """
        source = self._source
        return source.get() if isinstance(source, LazyValues) else source

    @property
    def rows(self) -> Tensor:
        """The stored entries row by row, ``(B, heads, N, K)``; a view of :attr:`values`."""
        geometry = self.geometry
        return self.values.reshape(*self._source.shape[:2], geometry.pixels, geometry.nnz_per_row)

    @property
    def data(self) -> Tensor:
        """A ``torch.sparse_csr`` tensor ``(B, heads, N, N)`` over the same memory.

        Of a truncated window it has a copy of the entries, without those that are absent. Index
        tensors are shared by every batch and head. ``A.data.values()`` and ``A.data[b, h]``
        are differentiable once; torch has no second derivatives of sparse tensors, no gradient of
        ``A.data.to_dense()``, and does not compile them: use :attr:`values` for more.

        Example:
            >>> A = Circulant(3, (1, 2, 6))
            >>> A.data.layout, A.data.values().data_ptr() == A.values.data_ptr()
            (torch.sparse_csr, True)

        References:
            The field ``data`` of ``Circulant`` in CirculantAttention.jl, ``src/circulant.jl``.
        """
        return torch.sparse_csr_tensor(
            *(self.crow_indices(), self.col_indices()),
            *(export.pruned(self.values, self.geometry), self.shape),
            check_invariants=False,
        )

    def crow_indices(self) -> Tensor:
        """Row pointers ``(B, heads, N + 1)``, shared by every batch and head (stride 0)."""
        return self.geometry.crow_indices(self.device).expand(*self._source.shape[:2], -1)

    def col_indices(self) -> Tensor:
        """Columns of the entries of :attr:`data`, ascending in each row, ``(B, heads, N * K)``.

        Of a truncated window there are fewer. int32, or int64 from 2**31 on.
        """
        return self.geometry.col_indices(self.device).expand(*self._source.shape[:2], -1)

    def to_sparse_csr(self) -> Tensor:
        """The same as :attr:`data`."""
        return self.data

    def to_dense(self) -> Tensor:
        """The dense ``(B, heads, N, N)`` tensor, differentiable; N squared entries per head."""
        return indexing.dense_rows(self.rows, self.geometry, slice(None))

    @property
    def shape(self) -> torch.Size:
        """``(B, heads, N, N)``."""
        batch, heads, _ = self._source.shape
        pixels = self.geometry.pixels
        return torch.Size((batch, heads, pixels, pixels))

    def size(self, dim: int | None = None) -> torch.Size | int:
        """The shape, or its entry ``dim``.

        Raises:
            TypeError: If ``dim`` is not an int.
            IndexError: If ``dim`` is not from -4 to 3.
        """
        if dim is None:
            return self.shape
        if not is_int(dim):
            raise TypeError(f"expected dim to be an int, got {type(dim).__name__}")
        if not -4 <= dim < 4:
            raise IndexError(f"expected dim from -4 to 3, got {dim}")
        return self.shape[dim]

    @property
    def ndim(self) -> int:
        """Always 4, for batch, heads, rows and columns."""
        return 4

    def dim(self) -> int:
        """The same as :attr:`ndim`."""
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
        batch, heads, _ = self._source.shape
        return batch * heads * self.geometry.present

    def numel(self) -> int:
        """The number of entries, stored or not: ``B * heads * N * N``."""
        return self.shape.numel()

    @property
    def requires_grad(self) -> bool:
        """Whether the stored entries require a gradient."""
        return self._source.requires_grad

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Requests the gradient of :attr:`values`, in place; returns the Circulant itself."""
        self.values.requires_grad_(requires_grad)
        return self

    def is_complex(self) -> bool:
        """Whether the dtype is complex."""
        return self.dtype.is_complex

    def is_floating_point(self) -> bool:
        """Whether the dtype is a real floating dtype."""
        return self.dtype.is_floating_point

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """To another dtype or device, as ``torch.Tensor.to``; itself if nothing changes.

        Raises:
            TypeError: If the dtype is none of float16, bfloat16, float32, float64, complex64 and
                complex128.
        """
        values = self.values.to(*args, **kwargs)
        check_dtype("dtype", values.dtype)
        return self if values is self.values else self._from(values, self.geometry)

    def cpu(self) -> Self:
        """To the CPU; itself if it is there."""
        return self.to("cpu")

    def cuda(self, device: torch.device | str | int = "cuda") -> Self:
        """To a CUDA device, by default the current one; itself if it is there."""
        return self.to(device)

    def float(self) -> Self:
        """To float32; itself if it is float32."""
        return self.to(torch.float32)

    def double(self) -> Self:
        """To float64; itself if it is float64."""
        return self.to(torch.float64)

    def half(self) -> Self:
        """To float16; itself if it is float16."""
        return self.to(torch.float16)

    def bfloat16(self) -> Self:
        """To bfloat16; itself if it is bfloat16."""
        return self.to(torch.bfloat16)

    def detach(self) -> Self:
        """The same entries, in the same memory, without their autograd history."""
        return self._from(self.values.detach(), self.geometry)

    def clone(self) -> Self:
        """A copy with memory of its own; differentiable."""
        return self._from(memory.clone(self.values), self.geometry)

    def copy(self) -> Self:
        """The same as :meth:`clone`, under Julia's name."""
        return self.clone()

    def similar(self) -> Self:
        """The same shape, dtype and device with uninitialized entries."""
        values = torch.empty(self._source.shape, dtype=self.dtype, device=self.device)
        return self._from(algebra.without_absent(values, self.geometry), self.geometry)

    @property
    def real(self) -> Self:
        """The real part; itself if real."""
        return self._from(self.values.real, self.geometry) if self.is_complex() else self

    @property
    def imag(self) -> Self:
        """The imaginary part of a complex Circulant; RuntimeError if it is real, as in torch."""
        return self._from(self.values.imag, self.geometry)

    def complex(self) -> Self:
        """As complex, with complex64 for half precision; itself if complex."""
        if self.is_complex():
            return self
        return self.to(torch.promote_types(self.dtype, torch.complex64))

    def conj(self) -> Self:
        """The complex conjugate; itself if real."""
        if not self.is_complex():
            return self
        # Not torch's lazy conjugate, which vmap of forward mode does not support.
        return self._from(self.values.conj_physical(), self.geometry)

    def sum(
        self,
        dim: int | Sequence[int] | None = None,
        keepdim: bool = False,
        *,
        dtype: torch.dtype | None = None,
    ) -> Self | Tensor:
        """Sums over rows, columns, heads, batch, or all.

        Args:
            dim: -1 sums each row, ``(B, heads, N)``; -2 each column, ``(B, heads, N)``; (-2, -1)
                both, ``(B, heads)``. 0 (batch), 1 (heads) and (0, 1) give a Circulant, which keeps
                the dim with size 1. None sums everything into a 0-d tensor.
            keepdim: Whether sums over rows and columns keep the dim with size 1.
            dtype: The dtype of the sum; by default that of the entries.

        Returns:
            A tensor, or a Circulant for sums over batch and heads.

        Raises:
            ValueError: If ``dim`` is another.

        Example:
            >>> A = Circulant(3, (2, 4, 6))
            >>> A.sum(-1).shape, A.sum(1).shape, A.sum()
            (torch.Size([2, 4, 6]), torch.Size([2, 1, 6, 6]), tensor(144.))

        References:
            ``Base.sum`` in CirculantAttention.jl, ``src/array.jl``.
        """
        if dtype is not None:
            check_dtype("dtype", dtype)
        if dim is None:
            return self.values.sum(dtype=dtype)
        dims = algebra.normalized_sum_dims(dim)
        if dims[-1] < 2:
            return self._from(self.values.sum(dims, keepdim=True, dtype=dtype), self.geometry)
        return algebra.sum_entries(self.values, self.geometry, dims, keepdim, dtype)

    def mean(
        self,
        dim: int | Sequence[int] | None = None,
        keepdim: bool = False,
        *,
        dtype: torch.dtype | None = None,
    ) -> Self | Tensor:
        """The :meth:`sum` divided by the number of entries, which counts the zeros between them."""
        result = self.dtype if dtype is None else dtype
        total: Any = self.sum(dim, keepdim, dtype=sum_dtype(result))
        dims = (0, 1, 2, 3) if dim is None else algebra.normalized_sum_dims(dim)
        mean: Self | Tensor = (total / algebra.count(self.shape, dims)).to(result)
        return mean

    def diagonal(self, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
        """The entries (i, i) of rows and columns, ``(B, heads, N)``; has no other diagonals."""
        algebra.check_diagonal(offset, dim1, dim2)
        return algebra.diagonal(self.values, self.geometry)

    def to_scipy(self, *, batch: int = 0, head: int = 0) -> Any:
        """A copy of one matrix for SciPy, without gradient.

        Args:
            batch: The batch.
            head: The head.

        Returns:
            A ``scipy.sparse.csr_array`` of shape ``(N, N)`` with the entries of :attr:`data`.

        Raises:
            ImportError: If SciPy is not installed.
            TypeError: If ``batch`` or ``head`` is not an int, or the entries are in half precision.
            ValueError: If ``batch`` or ``head`` is out of range.

        Example:
            >>> A = Circulant(3, (1, 2, 6))
            >>> A.to_scipy(head=1).sum(axis=1).tolist()
            [3.0, 3.0, 3.0, 3.0, 3.0, 3.0]
        """
        check_matrix(self.shape, head, batch)
        return export.to_scipy(self.values[batch, head], self.geometry)

    def softmax(self, dim: int = -1) -> Self:
        """The softmax of each row over its stored entries; ``dim`` is -1."""
        algebra.check_softmax(self.dtype, dim)
        return self._from(algebra.softmax(self.values, self.geometry), self.geometry)

    def repeat(self, *repeats: int | Sequence[int]) -> Self:
        """Batch and heads repeated: ``A.repeat(b, h, 1, 1)`` or ``A.repeat(b, h)``."""
        values = algebra.repeat(self.values, algebra.unpacked(repeats))
        return self._from(values, self.geometry)

    def expand(self, *shape: int | Sequence[int]) -> Self:
        """Batch and heads of size 1 expanded without a copy; -1 keeps a size."""
        values = algebra.expand(self.values, self.geometry, algebra.unpacked(shape))
        return self._from(values, self.geometry)

    def reshape(self, *shape: int | Sequence[int]) -> Self:
        """Regroups batch and heads.

        Args:
            *shape: ``A.reshape(B, heads, N, N)``, also as one sequence; one of B and heads may be
                -1. ``A.reshape(-1, N, N)`` is short for ``A.reshape(-1, 1, N, N)``.

        Returns:
            A Circulant with the same entries in the same order.

        Raises:
            TypeError: If an argument is not an int.
            ValueError: If rows or columns would change, or batch times heads would.

        Example:
            >>> Circulant(3, (2, 4, 6)).reshape(8, 1, 6, 6).shape
            torch.Size([8, 1, 6, 6])
        """
        values = algebra.reshape(self.values, self.geometry, algebra.unpacked(shape))
        return self._from(values, self.geometry)
