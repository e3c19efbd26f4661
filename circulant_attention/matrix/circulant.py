"""The block-circulant sparse matrix as a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from circulant_attention.geometry import WindowLike, make_geometry
from circulant_attention.matrix import algebra, display, export, hints, indexing, plotting, storage
from circulant_attention.matrix.elementwise import Elementwise
from circulant_attention.matrix.lazy import TransposedValues, transpose_source
from circulant_attention.window import Window

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TORCH_FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {}
"""What each function of torch does with a Circulant; filled by ``torch_functions.py``."""

# Methods of Tensor with a wrapper, which torch.compile passes as another object of that name.
_WRAPPED = frozenset({"__rdiv__", "__rpow__", "__rsub__"})

_TRANSPOSITIONS = {(i, j) for i in (-2, 2) for j in (-1, 3)}
_TRANSPOSITIONS |= {(j, i) for i, j in _TRANSPOSITIONS}


class Circulant(Elementwise):
    r"""A batch of block-circulant sparse matrices: who attends to whom, and how much.

    Row i belongs to a query pixel, column j to a key pixel of a grid of N pixels. Row i has an
    entry for each of the K pixels of the window around pixel i, which wraps at the borders:

    .. math:: A_{ij} \ne 0 \Rightarrow j = (i + o) \bmod \text{size}, \quad o \in \text{window}.

    The entries of one row are stored together, by ascending column, as in the CSR format. A
    :class:`Window` may be truncated at the borders instead, even, one-sided or dilated; where it
    leaves the grid, the values hold zeros.

    There are three ways to make one, as in Julia:

    - ``Circulant(W, dims)``: all ones, with ``dims = (B, heads, *spatial)``;
    - ``Circulant(data, W, spatial_size)`` from a ``torch.sparse_csr`` tensor ``(B, heads, N, N)``
      (leading dims may be left out) or a CSR matrix of SciPy, whose pattern is checked;
    - ``Circulant(values, W, spatial_size)`` from its stored entries ``(B, heads, N * K)``.

    It behaves as a tensor of shape ``(B, heads, N, N)``: ``A + B``, ``A * B``, ``c * A``,
    ``A.abs()``, ``A @ x``, ``A.mT``, ``A.sum(dim)``, ``A[b, h]``, ``torch.softmax(A, -1)``,
    ``torch.cat([A, B], 1)``. Operations that would densify it raise an error that says what to use;
    :meth:`to_dense` does it. No operator changes a Circulant in place; gradients flow through
    :attr:`values`.

    Args:
        data: The entries, sparse ``(B, heads, N, N)`` or dense ``(B, heads, N * K)``; or the window
            for a matrix of ones.
        W: The window (an odd int, one per spatial dim, or a :class:`Window`), or ``dims`` for a
            matrix of ones.
        spatial_size: The sizes of the 1, 2 or 3 spatial dims; absent for a matrix of ones.
        dtype: dtype of a matrix of ones; default float32.
        device: Device of a matrix of ones.

    Raises:
        TypeError: If an argument has the wrong type, or ``data`` an unsupported dtype.
        ValueError: If the window does not fit the grid, or ``data`` does not match ``W`` and
            ``spatial_size``.

    Example:
        >>> A = Circulant(3, (1, 1, 4, 5))
        >>> A.shape, A.nnz
        (torch.Size([1, 1, 20, 20]), 180)
        >>> A.sum(-1).unique()
        tensor([9.])

    References:
        ``Circulant`` in CirculantAttention.jl, ``src/array.jl``.
    """

    def __init__(
        self,
        data: Tensor | WindowLike | Any,
        W: WindowLike | Sequence[int],
        spatial_size: Sequence[int] | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        if export.is_scipy(data):
            data = export.from_scipy(data)
        if isinstance(data, Tensor):
            if spatial_size is None:
                raise TypeError("expected spatial_size after data and W, got none")
            if dtype is not None or device is not None:
                raise TypeError("dtype and device belong to data; use data.to(...)")
            self.geometry = make_geometry(W, spatial_size)
            self._source = storage.checked_values(data, self.geometry)
        else:
            if spatial_size is not None:
                raise TypeError(f"expected data to be a tensor, got {type(data).__name__}")
            self.geometry, self._source = storage.ones(data, W, dtype, device)

    def with_values(self, values: Tensor) -> Circulant:
        """A Circulant of the same grid and window over other ``values (B, heads, N * K)``.

        Raises:
            TypeError: If ``values`` is not a tensor of a supported dtype.
            ValueError: If its shape does not fit the grid and the window.

        Example:
            >>> A = Circulant(3, (1, 1, 6))
            >>> A.with_values(A.values.exp()).sum(-1).unique()
            tensor([8.1548])
        """
        if not isinstance(values, Tensor):
            raise TypeError(f"expected values to be a tensor, got {type(values).__name__}")
        return self._from(storage.checked_values(values, self.geometry), self.geometry)

    @property
    def window(self) -> tuple[int, ...] | Window:
        """The odd window length of each spatial dim, or the :class:`Window` if it is another."""
        return self.geometry.window

    @property
    def spatial_size(self) -> tuple[int, ...]:
        """The sizes of the spatial dims."""
        return self.geometry.spatial_size

    def dot(self, other: Circulant) -> Tensor:
        r"""The inner product :math:`\sum_{ij} \overline{A_{ij}} B_{ij}` of all batches and heads.

        Raises:
            TypeError: If ``other`` is not a Circulant.
            ValueError: If shapes, windows or devices differ.

        References:
            ``LinearAlgebra.dot`` in CirculantAttention.jl, ``src/array.jl``.
        """
        values = self._values_with(other)
        if self.shape != other.shape:
            raise ValueError(
                f"expected a Circulant of shape {tuple(self.shape)}, got {tuple(other.shape)}"
            )
        return algebra.dot(*values)

    # --- the linear map ---

    def apply(self, x: Tensor) -> Tensor:
        r""":math:`y_i = \sum_j A_{ij} x_j` on pixels, for every channel; also ``A @ x``.

        Args:
            x: ``(B * heads, C, *spatial)``, real or complex.

        Returns:
            A tensor of the shape of ``x``.

        Raises:
            TypeError: If ``x`` is not a tensor of a supported dtype.
            ValueError: If its grid, batch size or device do not fit.

        References:
            ``circulant_attention(A, x)`` in CirculantAttention.jl, ``src/attention.jl``.
        """
        algebra.check_applicable(self._source, self.geometry, x)
        parent = transpose_source(self._source)
        if parent is None:
            return algebra.apply(self.values, self.geometry, x, transposed=False)
        return algebra.apply(parent, self.geometry.transposed(), x, transposed=True)

    @property
    def mT(self) -> Circulant:
        """The transposed matrices, :math:`(A^T)_{ij} = A_{ji}`, with the mirrored window.

        ``A.mT @ x`` computes the transposed map from the entries of ``A``; every other use permutes
        the entries.
        """
        parent = transpose_source(self._source)
        source = TransposedValues(self.values, self.geometry) if parent is None else parent
        return self._from(source, self.geometry.transposed())

    def pending_transpose(self) -> Tensor | None:
        """The values ``(B, heads, N * K)`` of A if this is ``A.mT`` with entries not computed."""
        return transpose_source(self._source)

    @property
    def mH(self) -> Circulant:
        """The conjugate transposed matrices; the same as :attr:`mT` if real."""
        return self.conj().mT

    def adjoint(self) -> Circulant:
        """The same as :attr:`mH`."""
        return self.mH

    def transpose(self, dim0: int, dim1: int) -> Circulant:
        """The same as :attr:`mT`, for rows and columns (-2 and -1); ValueError for other dims."""
        if (dim0, dim1) not in _TRANSPOSITIONS:
            raise ValueError(
                f"expected dims -2 and -1 (rows and columns) to be transposed, got {dim0}, {dim1}"
            )
        return self.mT

    def __getitem__(self, index: Any) -> Circulant | Tensor:
        """Batches and heads give a Circulant, rows, columns and entries dense tensors.

        ``A[b, h]``, ``A[1:]``, ``A[:, [0, 2]]`` are Circulants of four dims; an int leaves size 1.
        ``A[b, h, i, j]`` is an entry (zero outside the pattern), ``A[b, h, i]`` a dense row,
        ``A[..., j]`` dense columns, with the dims that torch would give. Lists pair up:
        ``A[0, 0, [1, 2], [3, 4]]`` has two entries. Rows of a lazy A are computed alone.

        Raises:
            IndexError: If an index is out of range, there are more than four, or lists differ in
                length.
            TypeError: If one is neither an int, a slice, nor a list or 1-d tensor of ints.

        Example:
            >>> A = Circulant(3, (2, 4, 6))
            >>> A[0, 1:3].shape, A[0, 0, 2].tolist()
            (torch.Size([1, 2, 6, 6]), [0.0, 1.0, 1.0, 1.0, 0.0, 0.0])

        References:
            ``Base.getindex`` in CirculantAttention.jl, ``src/array.jl``.
        """
        indices = indexing.parse(index, self.shape, self.device)
        if indexing.keeps_rows(indices):
            return self._from(indexing.take_matrices(self.values, indices), self.geometry)
        return indexing.dense_block(self._source, self.geometry, indices)

    # --- operators ---

    def __matmul__(self, x: Any) -> Tensor:
        """``A @ x``: A applied to features ``(B * heads, C, *spatial)``; see :meth:`apply`."""
        if isinstance(x, Circulant):
            self.__rmatmul__(x)
        return self.apply(x) if isinstance(x, Tensor) else NotImplemented

    def __rmatmul__(self, x: Any) -> NoReturn:
        if isinstance(x, Circulant):
            raise TypeError(
                "the product of two Circulants has a larger window: apply one after the other, "
                "A @ (B @ x)"
            )
        raise TypeError(
            f"expected A @ x of a Circulant and a tensor, got {type(x).__name__} @ Circulant; "
            f"the transposed map is A.mT @ x"
        )

    def __eq__(self, other: object) -> bool:
        """``A == B``: whether shape, window and every stored entry are equal."""
        if not isinstance(other, Circulant):
            return NotImplemented
        if not self.geometry.matches(other.geometry) or self.shape != other.shape:
            return False
        return bool((self.values == other.values).all())

    __hash__ = object.__hash__

    def __len__(self) -> int:
        return self.shape[0]

    if not TYPE_CHECKING:  # a checker would take every attribute for one that there is

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(hints.missing_attribute(type(self), name))

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("a Circulant stays sparse: use A.to_dense().numpy() for a dense array")

    def __reduce__(self) -> tuple[Any, ...]:
        # By its entries: lazy values depend on version counters, which are not kept.
        return Circulant, (self.values, self.window, self.spatial_size)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Functions of torch on Circulants; those that would densify one raise TypeError."""
        # A compiler may name a function of torch after its wrapper.
        name = getattr(getattr(func, "__wrapped__", func), "__name__", str(func))
        implementation = TORCH_FUNCTIONS.get(getattr(Tensor, name) if name in _WRAPPED else func)
        if implementation is None:
            raise TypeError(
                f"torch's {name} is not defined for a Circulant, which stays sparse: "
                f"{hints.hint(name)}"
            )
        return implementation(*args, **(kwargs or {}))

    # --- pictures ---

    def __repr__(self) -> str:
        return display.summary(self)

    def __str__(self) -> str:
        return display.picture(self)

    def _repr_html_(self) -> str:
        return display.card(self)

    def spy(self, head: int = 0, batch: int = 0, ax: Axes | None = None) -> Axes:
        """Draws where the entries of one matrix are stored, and how large they are.

        A colour is the largest magnitude of the entries that fall on a cell of the picture; cells
        without a stored entry stay blank. Of a matrix of more than 2**22 entries 512 rows are read,
        as the title says; cells with entries in other rows only are gray. Of a lazy A no more than
        that is computed. ``ax``: matplotlib axes; new ones by default, and returned.

        Raises:
            ImportError: If matplotlib is not installed.
            TypeError: If ``head`` or ``batch`` is not an int.
            ValueError: If ``head`` or ``batch`` is out of range.
        """
        return plotting.spy(self._source, self.geometry, head, batch, ax)

    def window_image(
        self, pixel: int | Sequence[int], head: int = 0, batch: int = 0, ax: Axes | None = None
    ) -> Axes:
        """Draws what one pixel attends to: its row of one matrix, laid out on the grid.

        Complex entries are shown by their magnitude. A signal is drawn as bars, a volume by the
        slice ``pixel[0]`` of its first dim. Outside of the window the picture is transparent, so
        that it can lie over the image that the matrix comes from. Of a lazy A only this row is
        computed.

        Args:
            pixel: The query pixel: its number, or its position, one int per spatial dim.
            head: The head.
            batch: The batch.
            ax: matplotlib axes to draw on; new ones by default.

        Returns:
            The axes; for images and volumes ``ax.images[-1]`` is the picture.

        Raises:
            ImportError: If matplotlib is not installed.
            TypeError: If ``pixel``, ``head`` or ``batch`` has the wrong type.
            ValueError: If ``pixel``, ``head`` or ``batch`` is out of range.
        """
        return plotting.window_image(self._source, self.geometry, pixel, head, batch, ax)


def check_circulant(name: str, a: object) -> Circulant:
    """The argument, if it is a Circulant; else raises TypeError."""
    if not isinstance(a, Circulant):
        raise TypeError(f"expected {name} to be a Circulant, got {type(a).__name__}")
    return a
