"""The stored entries of a Circulant: what they are, and other forms of the same."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from circulant_attention import checks
from circulant_attention.checks import is_int
from circulant_attention.geometry import Geometry
from circulant_attention.matrix import indexing
from circulant_attention.matrix.lazy import Deferred

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
        """The stored entries ``(B, heads, N * K)``, in CSR order; they carry the gradient.

        Example:
            >>> Circulant(3, (1, 2, 6)).values.shape
            torch.Size([1, 2, 18])
        """
        source = self._source
        return source.get() if isinstance(source, Deferred) else source

    @property
    def rows(self) -> Tensor:
        """The stored entries row by row, ``(B, heads, N, K)``.

        Example:
            >>> Circulant(3, (1, 2, 6)).rows.shape
            torch.Size([1, 2, 6, 3])
        """
        return self.values.reshape(
            *self._source.shape[:2], self.geometry.pixels, self.geometry.offsets
        )

    @property
    def data(self) -> Tensor:
        """A ``torch.sparse_csr`` tensor ``(B, heads, N, N)`` over the same memory.

        Index tensors are shared by every batch and head. Differentiable once (torch has no second
        derivatives of sparse tensors, and does not compile them): use :attr:`values` for more.

        Example:
            >>> A = Circulant(3, (1, 2, 6))
            >>> A.data.layout, A.data.values().data_ptr() == A.values.data_ptr()
            (torch.sparse_csr, True)

        References:
            The field ``data`` of ``Circulant`` in CirculantAttention.jl, ``src/circulant.jl``.
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
        """The odd window length of each spatial dim.

        Example:
            >>> Circulant(3, (1, 1, 6, 5)).window
            (3, 3)

        References:
            ``kernel_length`` in CirculantAttention.jl, ``src/array.jl``.
        """
        return self.geometry.window

    @property
    def spatial_size(self) -> tuple[int, ...]:
        """The sizes of the spatial dims.

        Example:
            >>> Circulant(3, (1, 1, 6, 5)).spatial_size
            (6, 5)

        References:
            ``spatial_size`` in CirculantAttention.jl, ``src/array.jl``.
        """
        return self.geometry.spatial_size

    @property
    def shape(self) -> torch.Size:
        """``(B, heads, N, N)``.

        Example:
            >>> Circulant(3, (2, 4, 6, 5)).shape
            torch.Size([2, 4, 30, 30])
        """
        batch, heads, _ = self._source.shape
        return torch.Size((batch, heads, self.geometry.pixels, self.geometry.pixels))

    def size(self, dim: int | None = None) -> torch.Size | int:
        """The shape, or its entry ``dim``.

        Args:
            dim: -4 to 3, or None for all four sizes.

        Returns:
            A ``torch.Size``, or an int.

        Raises:
            TypeError: If ``dim`` is not an int.
            IndexError: If ``dim`` is another.

        Example:
            >>> Circulant(3, (2, 4, 6, 5)).size(1)
            4

        References:
            ``Base.size`` in CirculantAttention.jl, ``src/array.jl``.
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
        """Always 4, for batch, heads, rows and columns.

        Example:
            >>> Circulant(3, (1, 1, 6)).ndim
            4
        """
        return 4

    def dim(self) -> int:
        """Always 4, for batch, heads, rows and columns.

        Example:
            >>> Circulant(3, (1, 1, 6)).dim()
            4
        """
        return 4

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the stored entries.

        Example:
            >>> Circulant(3, (1, 1, 6)).dtype
            torch.float32
        """
        return self._source.dtype

    @property
    def device(self) -> torch.device:
        """Device of the stored entries.

        Example:
            >>> Circulant(3, (1, 1, 6)).device
            device(type='cpu')
        """
        return self._source.device

    @property
    def nnz(self) -> int:
        """The number of stored entries, over all batches and heads.

        Example:
            >>> Circulant(3, (2, 4, 6, 5)).nnz  # 2 * 4 matrices, 30 rows, 9 entries each
            2160
        """
        return self._source.shape.numel()

    @property
    def requires_grad(self) -> bool:
        """Whether the stored entries require a gradient.

        Example:
            >>> x = torch.randn(1, 4, 6, requires_grad=True)
            >>> circulant_adjacency(DotSimilarity(), x, x, 3).requires_grad
            True
        """
        return self._source.requires_grad

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Asks for the gradient of :attr:`values`, in place.

        Args:
            requires_grad: Whether the gradient is wanted.

        Returns:
            The Circulant itself.

        Example:
            >>> A = Circulant(3, (1, 1, 6)).requires_grad_()
            >>> A.sum().backward()
            >>> A.values.grad.shape
            torch.Size([1, 1, 18])
        """
        self.values.requires_grad_(requires_grad)
        return self

    def is_complex(self) -> bool:
        """Whether the dtype is complex.

        Example:
            >>> Circulant(3, (1, 1, 6)).is_complex()
            False
        """
        return self.dtype.is_complex

    def is_floating_point(self) -> bool:
        """Whether the dtype is a real floating dtype.

        Example:
            >>> Circulant(3, (1, 1, 6)).is_floating_point()
            True
        """
        return self.dtype.is_floating_point

    def to_dense(self) -> Tensor:
        """The dense ``(B, heads, N, N)`` tensor, differentiable; N squared entries per head.

        Example:
            >>> Circulant(3, (1, 1, 5)).to_dense()[0, 0]
            tensor([[1., 1., 0., 0., 1.],
                    [1., 1., 1., 0., 0.],
                    [0., 1., 1., 1., 0.],
                    [0., 0., 1., 1., 1.],
                    [1., 0., 0., 1., 1.]])
        """
        return indexing.dense_rows(self.rows, self.geometry, slice(None))

    def to_sparse_csr(self) -> Tensor:
        """The same as :attr:`data`.

        Example:
            >>> Circulant(3, (1, 2, 6)).to_sparse_csr().shape
            torch.Size([1, 2, 6, 6])
        """
        return self.data

    def crow_indices(self) -> Tensor:
        """Row pointers ``(B, heads, N + 1)``, shared by every batch and head (stride 0).

        Example:
            >>> Circulant(3, (1, 1, 5)).crow_indices()
            tensor([[[ 0,  3,  6,  9, 12, 15]]], dtype=torch.int32)
        """
        return self.geometry.crow_indices(self.device).expand(*self.shape[:2], -1)

    def col_indices(self) -> Tensor:
        """Columns ``(B, heads, N * K)``, shared by every batch and head (stride 0).

        They ascend within each row. int32, or int64 once N * K reaches ``2**31``.

        Example:
            >>> Circulant(3, (1, 1, 5)).col_indices()[0, 0, :6]  # of the first two rows
            tensor([0, 1, 4, 0, 1, 2], dtype=torch.int32)
        """
        return self.geometry.col_indices(self.device).expand(*self.shape[:2], -1)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """To another dtype or device, as ``torch.Tensor.to``.

        Args:
            *args: A dtype, a device, or both, as ``torch.Tensor.to`` takes them.
            **kwargs: The same by name, and its other options.

        Returns:
            A Circulant; itself if nothing changes.

        Raises:
            TypeError: If the dtype is none of float16, bfloat16, float32, float64, complex64 and
                complex128.
            RuntimeError: If torch knows no such device.

        Example:
            >>> Circulant(3, (1, 1, 6)).to(torch.float64).dtype
            torch.float64
        """
        values = self.values.to(*args, **kwargs)
        checks.check_dtype("dtype", values.dtype)
        return self if values is self.values else self.with_values(values)

    def cpu(self) -> Self:
        """To the CPU; itself if it is there.

        Example:
            >>> Circulant(3, (1, 1, 6)).cpu().device
            device(type='cpu')
        """
        return self.to("cpu")

    def cuda(self, device: torch.device | str | int = "cuda") -> Self:
        """To a CUDA device.

        Args:
            device: The device; the current one when left out.

        Returns:
            A Circulant; itself if it is there.

        Raises:
            RuntimeError: If torch finds no such device.
            AssertionError: If torch was built without CUDA.

        Example:
            >>> A = Circulant(3, (1, 1, 6))
            >>> if torch.cuda.is_available():
            ...     A = A.cuda()
        """
        return self.to(device)

    def float(self) -> Self:
        """To float32; itself if it is.

        Example:
            >>> Circulant(3, (1, 1, 6), dtype=torch.float64).float().dtype
            torch.float32
        """
        return self.to(torch.float32)

    def double(self) -> Self:
        """To float64; itself if it is.

        Example:
            >>> Circulant(3, (1, 1, 6)).double().dtype
            torch.float64
        """
        return self.to(torch.float64)

    def half(self) -> Self:
        """To float16; itself if it is.

        Example:
            >>> Circulant(3, (1, 1, 6)).half().dtype
            torch.float16
        """
        return self.to(torch.float16)

    def bfloat16(self) -> Self:
        """To bfloat16; itself if it is.

        Example:
            >>> Circulant(3, (1, 1, 6)).bfloat16().dtype
            torch.bfloat16
        """
        return self.to(torch.bfloat16)

    def detach(self) -> Self:
        """The same entries, in the same memory, without their history.

        Example:
            >>> Circulant(3, (1, 1, 6)).requires_grad_().detach().requires_grad
            False
        """
        return self.with_values(self.values.detach())

    def clone(self) -> Self:
        """A copy with entries of its own; differentiable.

        Example:
            >>> A = Circulant(3, (1, 1, 6))
            >>> A.clone() == A, A.clone().values.data_ptr() == A.values.data_ptr()
            (True, False)
        """
        return self.with_values(self.values.clone())

    def copy(self) -> Self:
        """A copy with entries of its own; Julia's name for :meth:`clone`.

        Example:
            >>> A = Circulant(3, (1, 1, 6))
            >>> A.copy() == A
            True

        References:
            ``Base.copy`` in CirculantAttention.jl, ``src/array.jl``.
        """
        return self.clone()

    def similar(self) -> Self:
        """The same shape, dtype and device with entries not set (to be written in place).

        Example:
            >>> Circulant(3, (1, 2, 6)).similar().shape
            torch.Size([1, 2, 6, 6])

        References:
            ``Base.similar`` in CirculantAttention.jl, ``src/array.jl``.
        """
        return self.with_values(
            torch.empty(self._source.shape, dtype=self.dtype, device=self.device)
        )

    @property
    def real(self) -> Self:
        """The real part; itself if real.

        Example:
            >>> A = Circulant(3, (1, 1, 6))
            >>> (A * (1 + 2j)).real == A
            True

        References:
            ``Base.real`` in CirculantAttention.jl, ``src/batchedmul.jl``.
        """
        return self.with_values(self.values.real) if self.is_complex() else self

    @property
    def imag(self) -> Self:
        """The imaginary part of a complex Circulant.

        Raises:
            RuntimeError: If it is real, as torch does.

        Example:
            >>> A = Circulant(3, (1, 1, 6))
            >>> (A * (1 + 2j)).imag == 2 * A
            True
        """
        return self.with_values(self.values.imag)

    def complex(self) -> Self:
        """As complex; itself if complex.

        Example:
            >>> Circulant(3, (1, 1, 6)).complex().dtype
            torch.complex64

        References:
            ``Base.complex`` in CirculantAttention.jl, ``src/batchedmul.jl``.
        """
        return self if self.is_complex() else self.to(self.dtype.to_complex())

    def conj(self) -> Self:
        """The complex conjugate; itself if real.

        Example:
            >>> A = Circulant(3, (1, 1, 6))
            >>> (A * 1j).conj() == A * -1j
            True
        """
        # Not torch's lazy conjugate, which vmap of forward mode cannot look through.
        return self.with_values(self.values.conj_physical()) if self.is_complex() else self
