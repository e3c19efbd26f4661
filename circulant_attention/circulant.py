"""The block-circulant sparse matrix as a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from circulant_attention import _features, arithmetic, indexing, reduction
from circulant_attention._construction import checked_values, ones
from circulant_attention._deferred import Deferred, TransposedValues
from circulant_attention.arithmetic import Number
from circulant_attention.geometry import Geometry, Window, make_geometry

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Circulant:
    r"""A batch of block-circulant sparse matrices: who attends to whom, and how much.

    Row i belongs to a query pixel, column j to a key pixel of a grid of N pixels. Row i has an
    entry for each of the K pixels of the window around pixel i, which wraps at the borders:

    .. math:: A_{ij} \ne 0 \Rightarrow j = (i + o) \bmod \text{size}, \quad o \in \text{window}.

    The entries of one row are stored together, by ascending column, as in the CSR format.

    There are three ways to make one, as in Julia:

    - ``Circulant(W, dims)``: all ones, with ``dims = (B, heads, *spatial)``;
    - ``Circulant(data, W, spatial_size)`` from a ``torch.sparse_csr`` tensor ``(B, heads, N, N)``
      (leading dims may be left out), whose pattern is checked;
    - ``Circulant(values, W, spatial_size)`` from its stored entries ``(B, heads, N * K)``.

    It behaves as a tensor of shape ``(B, heads, N, N)``: ``A + B``, ``c * A``, ``A @ x``,
    ``A.mT``, ``A.sum(dim)``, ``A[b, h]``, ``torch.softmax(A, -1)``, ``torch.cat([A, B], 1)``. What
    would make it dense is refused, but for :meth:`to_dense`. It is never changed by an operator;
    gradients flow through :attr:`values`.

    Args:
        data: The entries, or the window for a matrix of ones.
        W: The window (an odd int or one per spatial dim), or ``dims`` for a matrix of ones.
        spatial_size: The sizes of the 1, 2 or 3 spatial dims; absent for a matrix of ones.
        dtype: dtype of a matrix of ones; default float32.
        device: Device of a matrix of ones.

    Raises:
        TypeError: If an argument has the wrong type, or ``data`` an unsupported dtype.
        ValueError: If the window does not fit the grid, or ``data`` has not the shape or the
            pattern that the window and the grid claim.

    Example:
        >>> A = Circulant(3, (1, 1, 4, 5))
        >>> A.shape, A.nnz
        (torch.Size([1, 1, 20, 20]), 180)
        >>> A.sum(-1).unique()
        tensor([9.])

    References:
        ``Circulant`` in CirculantAttention.jl, ``src/array.jl``.
    """

    # NumPy scalars and arrays leave their operators to this class.
    __array_ufunc__ = None

    _source: Tensor | Deferred
    geometry: Geometry

    def __init__(
        self,
        data: Tensor | Window | Deferred,
        W: Window | Sequence[int],
        spatial_size: Sequence[int] | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        if isinstance(data, Deferred):
            assert spatial_size is not None
            self.geometry = make_geometry(W, spatial_size)
            self._source = data
        elif isinstance(data, Tensor):
            if spatial_size is None:
                raise TypeError("expected spatial_size after data and W, got none")
            if dtype is not None or device is not None:
                raise TypeError("dtype and device belong to data; use data.to(...)")
            self.geometry = make_geometry(W, spatial_size)
            self._source = checked_values(data, self.geometry)
        else:
            if spatial_size is not None:
                raise TypeError(f"expected data to be a tensor, got {type(data).__name__}")
            self.geometry, self._source = ones(data, W, dtype, device)

    # --- what it is ---

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

    def requires_grad_(self, requires_grad: bool = True) -> Circulant:
        """Asks for the gradient of :attr:`values`, in place."""
        self.values.requires_grad_(requires_grad)
        return self

    def is_complex(self) -> bool:
        """Whether the dtype is complex."""
        return self.dtype.is_complex

    def is_floating_point(self) -> bool:
        """Whether the dtype is a real floating dtype."""
        return self.dtype.is_floating_point

    # --- other forms of the same matrix ---

    def with_values(self, values: Tensor | Deferred) -> Circulant:
        """A Circulant of the same geometry."""
        return Circulant(values, self.window, self.spatial_size)

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

    def to(self, *args: Any, **kwargs: Any) -> Circulant:
        """To another dtype or device, as ``torch.Tensor.to``."""
        values = self.values.to(*args, **kwargs)
        _features.check_dtype("dtype", values.dtype)
        return self if values is self.values else self.with_values(values)

    def cpu(self) -> Circulant:
        """To the CPU."""
        return self.to("cpu")

    def cuda(self, device: torch.device | str | int = "cuda") -> Circulant:
        """To a CUDA device."""
        return self.to(device)

    def float(self) -> Circulant:
        """To float32."""
        return self.to(torch.float32)

    def double(self) -> Circulant:
        """To float64."""
        return self.to(torch.float64)

    def half(self) -> Circulant:
        """To float16."""
        return self.to(torch.float16)

    def bfloat16(self) -> Circulant:
        """To bfloat16."""
        return self.to(torch.bfloat16)

    def detach(self) -> Circulant:
        """The same entries without their history."""
        return self.with_values(self.values.detach())

    def clone(self) -> Circulant:
        """A copy with entries of its own; differentiable."""
        return self.with_values(self.values.clone())

    def copy(self) -> Circulant:
        """A copy with entries of its own; Julia's name for :meth:`clone`."""
        return self.clone()

    def similar(self) -> Circulant:
        """The same shape, dtype and device with entries not set (to be written in place)."""
        return self.with_values(
            torch.empty(self._source.shape, dtype=self.dtype, device=self.device)
        )

    @property
    def real(self) -> Circulant:
        """The real part; itself if real."""
        return self.with_values(self.values.real) if self.is_complex() else self

    @property
    def imag(self) -> Circulant:
        """The imaginary part of a complex Circulant."""
        return self.with_values(self.values.imag)

    def complex(self) -> Circulant:
        """As complex; itself if complex."""
        return self if self.is_complex() else self.to(self.dtype.to_complex())

    def conj(self) -> Circulant:
        """The complex conjugate; itself if real."""
        # Not torch's lazy conjugate, which vmap of forward mode cannot look through.
        return self.with_values(self.values.conj_physical()) if self.is_complex() else self

    @property
    def mT(self) -> Circulant:
        """The transposed matrices, of the same pattern since the window is symmetric.

        ``A.mT @ x`` computes the transposed map from the entries of ``A`` itself.
        """
        pending = self.pending_transpose()
        return self.with_values(
            TransposedValues(self.values, self.geometry) if pending is None else pending
        )

    def pending_transpose(self) -> Tensor | None:
        """The values that this is the transpose of, if its own were never looked at."""
        source = self._source
        if isinstance(source, TransposedValues) and source.pending:
            return source.parent
        return None

    @property
    def mH(self) -> Circulant:
        """The conjugate transposed matrices."""
        return self.conj().mT

    def adjoint(self) -> Circulant:
        """The same as :attr:`mH`."""
        return self.mH

    def transpose(self, dim0: int, dim1: int) -> Circulant:
        """Swaps rows and columns, the only dims of which that makes a Circulant."""
        if {dim0 % 4, dim1 % 4} != {2, 3}:
            raise ValueError(
                f"expected dims -2 and -1 (rows and columns) to be transposed, got {dim0}, {dim1}"
            )
        return self.mT

    def repeat(self, *repeats: int) -> Circulant:
        """Repeats along batch and heads: ``A.repeat(b, h, 1, 1)``, or ``A.repeat(b, h)``."""
        counts = (*repeats, 1, 1)[:4] if len(repeats) in (2, 4) else ()
        if len(counts) != 4 or any(n < 0 for n in counts) or counts[2:] != (1, 1):
            raise ValueError(
                f"expected repeats (batch, heads, 1, 1): rows and columns cannot repeat, "
                f"got {repeats}"
            )
        return self.with_values(self.values.repeat(*counts[:2], 1))

    def reshape(self, *shape: int) -> Circulant:
        """Regroups batch and heads: ``A.reshape(B, heads, N, N)``; one size may be -1.

        ``A.reshape(-1, N, N)`` is short for ``A.reshape(-1, 1, N, N)``.
        """
        n = self.geometry.pixels
        sizes = (shape[0], 1, *shape[1:]) if len(shape) == 3 else shape
        if len(sizes) != 4 or any(size not in (n, -1) for size in sizes[2:]):
            raise ValueError(
                f"expected shape (B, heads, {n}, {n}): rows and columns stay, got {shape}"
            )
        try:
            values = self.values.reshape(*sizes[:2], n * self.geometry.offsets)
        except RuntimeError as error:
            raise ValueError(
                f"expected batch and heads of product {self.shape[0] * self.shape[1]}, got {shape}"
            ) from error
        return self.with_values(values)

    def __getitem__(self, index: Any) -> Circulant | Tensor:
        """Batches and heads give a Circulant, rows, columns and entries dense tensors.

        ``A[b, h]``, ``A[1:]``, ``A[:, [0, 2]]`` are Circulants; they keep all four dims, an int
        leaving a dim of size 1. ``A[b, h, i, j]`` is an entry (zero outside the pattern),
        ``A[b, h, i]`` a dense row, ``A[..., j]`` dense columns, with the dims that torch would
        give.
        """
        lead, row, column = indexing.parse(index)
        values = self.with_values(indexing.take_lead(self.values, lead))
        if row == slice(None) and column == slice(None):
            return values
        return indexing.dense_block(values.rows, values.geometry, lead, row, column)

    # --- arithmetic ---

    def add(self, other: Circulant, *, alpha: Number = 1) -> Circulant:
        """``A + alpha * B`` on the stored entries; batch and heads of size 1 broadcast."""
        return arithmetic.add(self, other, alpha)

    def sub(self, other: Circulant, *, alpha: Number = 1) -> Circulant:
        """``A - alpha * B`` on the stored entries; batch and heads of size 1 broadcast."""
        return arithmetic.add(self, other, -alpha)

    def neg(self) -> Circulant:
        """``-A``."""
        return self.with_values(-self.values)

    def scale(self, m: Number | Tensor) -> Circulant:
        """``m * A`` on the stored entries, differentiable in both.

        Args:
            m: A number, a 0-d tensor, or a tensor ``(B or 1, heads or 1, 1, 1)``. Either side's
                batch and heads may be 1 and broadcast.

        Returns:
            The scaled Circulant.

        Raises:
            TypeError: If ``m`` is neither a number nor a tensor.
            ValueError: If its shape is another or its device is not that of ``A``.
        """
        return self.with_values(self.values * arithmetic.factor(self, m))

    def div(self, m: Number | Tensor) -> Circulant:
        """``A / m``; see :meth:`scale` for ``m``."""
        return self.with_values(self.values / arithmetic.factor(self, m))

    def dot(self, other: Circulant) -> Tensor:
        r"""The inner product :math:`\sum_{ij} \overline{A_{ij}} B_{ij}`, a 0-d tensor."""
        return arithmetic.dot(self, other)

    def sum(
        self, dim: int | Sequence[int] | None = None, keepdim: bool = False
    ) -> Circulant | Tensor:
        """Sums over rows, columns, heads, batch, or all.

        Args:
            dim: -1 sums each row, ``(B, heads, N)``; -2 each column, ``(B, heads, N)``; (-2, -1)
                both, ``(B, heads)``. 0 (batch), 1 (heads) and (0, 1) give a Circulant, which keeps
                the dim with size 1. None sums everything into a 0-d tensor.
            keepdim: Whether sums over rows and columns keep the dim with size 1.

        Returns:
            A tensor, or a Circulant for sums over batch and heads.

        Raises:
            ValueError: For other dims.
        """
        return reduction.sum_over(self, dim, keepdim)

    def softmax(self, dim: int = -1) -> Circulant:
        r"""The softmax of each row over its stored entries.

        .. math:: B_{ij} = \exp(A_{ij}) / \textstyle\sum_{k \in \text{row } i} \exp(A_{ik})

        Args:
            dim: -1, the only dim it exists for.

        Returns:
            A Circulant whose rows sum to one.

        Raises:
            ValueError: If ``dim`` is another.
            TypeError: If the entries are complex.
        """
        return arithmetic.softmax(self, dim)

    # --- the linear map ---

    def apply(self, x: Tensor) -> Tensor:
        """``A x`` on pixels, for every channel; the method behind ``A @ x``.

        Args:
            x: ``(B * heads, C, *spatial)``.

        Returns:
            A tensor of the shape of ``x``.
        """
        return arithmetic.apply(self, x)

    def __matmul__(self, x: Any) -> Tensor:
        return self.apply(x) if isinstance(x, Tensor) else NotImplemented

    def __add__(self, other: Any) -> Circulant:
        return self.add(other) if isinstance(other, Circulant) else NotImplemented

    def __sub__(self, other: Any) -> Circulant:
        return self.sub(other) if isinstance(other, Circulant) else NotImplemented

    def __neg__(self) -> Circulant:
        return self.neg()

    def __mul__(self, m: Any) -> Circulant:
        return self.scale(m) if isinstance(m, Number | Tensor) else NotImplemented

    __rmul__ = __mul__

    def __truediv__(self, m: Any) -> Circulant:
        return self.div(m) if isinstance(m, Number | Tensor) else NotImplemented

    def __eq__(self, other: object) -> bool:
        """Whether shape, window and every stored entry are equal."""
        if not isinstance(other, Circulant):
            return NotImplemented
        if not self.geometry.matches(other.geometry) or self.shape != other.shape:
            return False
        return bool((self.values == other.values).all())

    __hash__ = object.__hash__

    def __len__(self) -> int:
        return self.shape[0]

    def __reduce__(self) -> tuple[Any, ...]:
        # By its entries: how often the tensors of a pending transposition were changed is not kept.
        return Circulant, (self.values, self.window, self.spatial_size)

    def __repr__(self) -> str:
        from circulant_attention.display import summary

        return summary(self)

    def __str__(self) -> str:
        from circulant_attention.display import picture

        return picture(self)

    # --- pictures ---

    def _repr_html_(self) -> str:
        from circulant_attention.plotting import card

        return card(self)

    def spy(self, head: int = 0, batch: int = 0, ax: Axes | None = None) -> Axes:
        """Draws where the entries of one matrix are stored, and how large they are.

        A colour is the largest magnitude of the entries that fall on it; what is not stored stays
        blank.

        Args:
            head: The head.
            batch: The batch.
            ax: matplotlib axes to draw on; new ones when left out.

        Returns:
            The axes; ``ax.images[-1]`` is the picture, for a colour bar.

        Raises:
            ImportError: If matplotlib is not installed.
            TypeError: If ``head`` or ``batch`` is not an int.
            ValueError: If ``head`` or ``batch`` is out of range.

        Example:
            >>> Circulant(3, (1, 2, 4, 5)).spy(head=1).get_title()
            'A[0, 1]'
        """
        from circulant_attention.plotting import spy

        return spy(self, head, batch, ax)

    def window_image(
        self, pixel: int | Sequence[int], head: int = 0, batch: int = 0, ax: Axes | None = None
    ) -> Axes:
        """Draws what one pixel attends to: its row of one matrix, laid out on the grid.

        Complex entries are shown by their magnitude. A signal is drawn as bars, a volume by the
        slice ``pixel[0]`` of its first dim. Outside of the window the picture is transparent, so
        that it can lie over the image that the matrix was made from.

        Args:
            pixel: The query pixel: its number, or its position, one int per spatial dim.
            head: The head.
            batch: The batch.
            ax: matplotlib axes to draw on; new ones when left out.

        Returns:
            The axes; for images and volumes ``ax.images[-1]`` is the picture.

        Raises:
            ImportError: If matplotlib is not installed.
            TypeError: If ``pixel``, ``head`` or ``batch`` has the wrong type.
            ValueError: If ``pixel``, ``head`` or ``batch`` is out of range.

        Example:
            >>> Circulant(3, (1, 1, 4, 5)).window_image((0, 2)).get_title()
            'A[0, 0], row of pixel 0, 2'
        """
        from circulant_attention.plotting import window_image

        return window_image(self, pixel, head, batch, ax)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Torch's functions on Circulants; those that would make one dense are refused."""
        from circulant_attention._torch_functions import call

        return call(func, args, kwargs or {})
