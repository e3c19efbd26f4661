"""The block-circulant sparse matrix as a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from circulant_attention.geometry import Window, make_geometry
from circulant_attention.matrix import algebra as arithmetic
from circulant_attention.matrix import reduction
from circulant_attention.matrix.algebra import Number
from circulant_attention.matrix.arrangement import Arrangement
from circulant_attention.matrix.construction import checked_values, ones
from circulant_attention.matrix.lazy import Deferred

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Circulant(Arrangement):
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
        data: The entries, sparse ``(B, heads, N, N)`` or dense ``(B, heads, N * K)``; or the window
            for a matrix of ones.
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

    def with_values(self, values: Tensor | Deferred) -> Circulant:
        """A Circulant of the same grid and window with other entries.

        Args:
            values: The stored entries ``(B, heads, N * K)``, in CSR order; batch and heads may be
                others than before.

        Returns:
            A Circulant over the memory of ``values``.

        Raises:
            TypeError: If ``values`` has an unsupported dtype.
            ValueError: If its shape does not fit the grid and the window.

        Example:
            >>> A = Circulant(3, (1, 1, 6))
            >>> A.with_values(A.values.exp()).sum(-1).unique()
            tensor([8.1548])
        """
        return Circulant(values, self.window, self.spatial_size)

    # --- arithmetic ---

    def add(self, other: Circulant, *, alpha: Number = 1) -> Circulant:
        """``A + alpha * B`` on the stored entries; batch and heads of size 1 broadcast.

        Args:
            other: B, a Circulant of the same grid and window.
            alpha: A number.

        Returns:
            A Circulant.

        Raises:
            TypeError: If ``other`` is not a Circulant, or ``alpha`` not a number.
            ValueError: If grid, window, batch, heads or device do not match.

        Example:
            >>> A = Circulant(3, (1, 1, 6))
            >>> A.add(A, alpha=2) == 3 * A, A + A == 2 * A
            (True, True)

        References:
            ``Base.:+`` in CirculantAttention.jl, ``src/array.jl``.
        """
        return arithmetic.add(self, other, alpha)

    def sub(self, other: Circulant, *, alpha: Number = 1) -> Circulant:
        """``A - alpha * B`` on the stored entries; batch and heads of size 1 broadcast.

        Args:
            other: B, a Circulant of the same grid and window.
            alpha: A number.

        Returns:
            A Circulant.

        Raises:
            TypeError: If ``other`` is not a Circulant, or ``alpha`` not a number.
            ValueError: If grid, window, batch, heads or device do not match.

        Example:
            >>> A = Circulant(3, (1, 1, 6))
            >>> (A - A).sum()
            tensor(0.)

        References:
            ``Base.:-`` in CirculantAttention.jl, ``src/array.jl``.
        """
        return arithmetic.add(self, other, -alpha)

    def neg(self) -> Circulant:
        """``-A``.

        Example:
            >>> A = Circulant(3, (1, 1, 6))
            >>> A.neg() == -A
            True

        References:
            ``Base.:-`` in CirculantAttention.jl, ``src/array.jl``.
        """
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

        Example:
            >>> A = Circulant(3, (2, 1, 6))
            >>> A.scale(torch.rand(2, 4, 1, 1)).shape  # a factor for each batch and head
            torch.Size([2, 4, 6, 6])

        References:
            ``scale`` in CirculantAttention.jl, ``src/array.jl``.
        """
        return self.with_values(self.values * arithmetic.factor(self, m))

    def div(self, m: Number | Tensor) -> Circulant:
        """``A / m`` on the stored entries, differentiable in both.

        Args:
            m: As for :meth:`scale`: a number, or a tensor 0-d or ``(B or 1, heads or 1, 1, 1)``.

        Returns:
            The divided Circulant.

        Raises:
            TypeError: If ``m`` is neither a number nor a tensor.
            ValueError: If its shape is another or its device is not that of ``A``.

        Example:
            >>> A = Circulant(3, (1, 1, 6))
            >>> (A / 3).sum(-1).unique()
            tensor([1.])
        """
        return self.with_values(self.values / arithmetic.factor(self, m))

    def dot(self, other: Circulant) -> Tensor:
        r"""The inner product :math:`\sum_{ij} \overline{A_{ij}} B_{ij}` of all batches and heads.

        Args:
            other: B, a Circulant of the same shape and window.

        Returns:
            A 0-d tensor.

        Raises:
            TypeError: If ``other`` is not a Circulant.
            ValueError: If shapes, windows or devices differ.

        Example:
            >>> A = Circulant(3, (1, 1, 6))
            >>> A.dot(2 * A)
            tensor(36.)

        References:
            ``LinearAlgebra.dot`` in CirculantAttention.jl, ``src/array.jl``.
        """
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
            ValueError: If ``dim`` is another.

        Example:
            >>> A = Circulant(3, (2, 4, 6))
            >>> A.sum(-1).shape, A.sum(1).shape, A.sum()
            (torch.Size([2, 4, 6]), torch.Size([2, 1, 6, 6]), tensor(144.))

        References:
            ``Base.sum`` in CirculantAttention.jl, ``src/array.jl``.
        """
        return reduction.sum_over(self, dim, keepdim)

    def softmax(self, dim: int = -1) -> Circulant:
        r"""The softmax of each row over its stored entries.

        .. math:: B_{ij} = \exp(A_{ij}) / \textstyle\sum_{k \in \text{row } i} \exp(A_{ik})

        Args:
            dim: -1 (or 3), the only dim it exists for.

        Returns:
            A Circulant whose rows sum to one.

        Raises:
            ValueError: If ``dim`` is another.
            TypeError: If the entries are complex.

        Example:
            >>> Circulant(3, (1, 1, 6)).softmax().values.unique()
            tensor([0.3333])

        References:
            ``NNlib.softmax`` in CirculantAttention.jl, ``src/similarity.jl``.
        """
        return arithmetic.softmax(self, dim)

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

        Example:
            >>> Circulant(3, (1, 1, 5)).apply(torch.tensor([[[1.0, 0, 0, 0, 0]]]))
            tensor([[[1., 1., 0., 0., 1.]]])

        References:
            ``circulant_attention(A, x)`` in CirculantAttention.jl, ``src/attention.jl``.
        """
        return arithmetic.apply(self, x)

    def __matmul__(self, x: Any) -> Tensor:
        """``A @ x``: A applied to features ``(B * heads, C, *spatial)``; see :meth:`apply`.

        Example:
            >>> A = Circulant(3, (1, 1, 5))
            >>> (A @ torch.ones(1, 2, 5)).unique()
            tensor([3.])

        References:
            ``⊗`` in CirculantAttention.jl, ``src/attention.jl``.
        """
        return self.apply(x) if isinstance(x, Tensor) else NotImplemented

    def __add__(self, other: Any) -> Circulant:
        return self.add(other) if isinstance(other, Circulant) else NotImplemented

    def __sub__(self, other: Any) -> Circulant:
        return self.sub(other) if isinstance(other, Circulant) else NotImplemented

    def __neg__(self) -> Circulant:
        return self.neg()

    def __mul__(self, m: Any) -> Circulant:
        if isinstance(m, Circulant):
            raise TypeError("the product of two Circulants has another window: it is not defined")
        return self.scale(m)

    __rmul__ = __mul__

    def __truediv__(self, m: Any) -> Circulant:
        if isinstance(m, Circulant):
            raise TypeError("division by a Circulant is not defined: most of its entries are zero")
        return self.div(m)

    def __rtruediv__(self, other: Any) -> NoReturn:
        raise TypeError("division by a Circulant is not defined: most of its entries are zero")

    def __rmatmul__(self, x: Any) -> NoReturn:
        raise TypeError(
            f"expected A @ x of a Circulant and a tensor, got {type(x).__name__} @ Circulant; "
            f"the transposed map is A.mT @ x"
        )

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("a Circulant stays sparse: use A.to_dense().numpy() for a dense array")

    def __eq__(self, other: object) -> bool:
        """``A == B``: whether shape, window and every stored entry are equal.

        Example:
            >>> A = Circulant(3, (1, 1, 6))
            >>> A == A.clone(), A == 2 * A
            (True, False)

        References:
            ``Base.:(==)`` in CirculantAttention.jl, ``src/array.jl``.
        """
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
        from circulant_attention.matrix.display import summary

        return summary(self)

    def __str__(self) -> str:
        from circulant_attention.matrix.display import picture

        return picture(self)

    # --- pictures ---

    def _repr_html_(self) -> str:
        from circulant_attention.matrix.plotting import card

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
        from circulant_attention.matrix.plotting import spy

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
        from circulant_attention.matrix.plotting import window_image

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
        from circulant_attention.matrix.torch_functions import call

        return call(func, args, kwargs or {})
