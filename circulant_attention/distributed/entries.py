"""The entries of a matrix on many processes: arithmetic and sums, each process with its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from circulant_attention import checks
from circulant_attention.distributed import local
from circulant_attention.distributed.grid import Halos
from circulant_attention.distributed.placements import Placed
from circulant_attention.distributed.weights import ShardWeights
from circulant_attention.geometry import Geometry
from circulant_attention.matrix import algebra
from circulant_attention.ops import dtypes
from circulant_attention.ops.precision import sum_dtype
from circulant_attention.ops.softmax import softmax_or_zeros
from circulant_attention.window import Window

if TYPE_CHECKING:
    from typing_extensions import Self


class Entries:
    """Mixin with what a distributed matrix does on each process without halos, and its sums.

    Attributes:
        _source: The entries ``(G, n, K)`` of this process's rows, in the order of the native ops.
        _placed: How the rows lie on the mesh.
        _halos: The grid and the window.
        _batch_shape: ``(B, heads)``.
        _transposed: Whether this is the transposed of the matrix with these rows.
    """

    _source: Tensor | ShardWeights
    _placed: Placed
    _halos: Halos
    _batch_shape: tuple[int, int]
    _transposed: bool

    @classmethod
    def _from(
        cls,
        source: Tensor | ShardWeights,
        placed: Placed,
        halos: Halos,
        batch_shape: tuple[int, int],
        transposed: bool = False,
    ) -> Self:
        """From entries ``(G, n, K)`` of the shard, in the order of the native ops."""
        result = cls.__new__(cls)
        result._source, result._placed, result._halos = source, placed, halos
        result._batch_shape, result._transposed = batch_shape, transposed
        return result

    def _with(self, values: Tensor) -> Self:
        return self._from(values, self._placed, self._halos, self._batch_shape, self._transposed)

    @property
    def _values(self) -> Tensor:
        """The entries of the shard, not of the transposed matrix."""
        return self._source if isinstance(self._source, Tensor) else self._source.get()

    @property
    def _geometry(self) -> Geometry:
        return self._halos.geometry

    @property
    def shape(self) -> torch.Size:
        """``(B, heads, N, N)`` of the whole matrix."""
        n = self._geometry.pixels
        return torch.Size((*self._batch_shape, n, n))

    @property
    def window(self) -> tuple[int, ...] | Window:
        """The odd window length of each spatial dim, or the Window if it is another."""
        return (self._geometry.transposed() if self._transposed else self._geometry).window

    @property
    def spatial_size(self) -> tuple[int, ...]:
        """The sizes of the spatial dims of the whole grid."""
        return self._geometry.spatial_size

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the entries."""
        return self._source.dtype

    @property
    def device(self) -> torch.device:
        """The device of this process's entries."""
        return self._source.device

    @property
    def requires_grad(self) -> bool:
        """Whether the entries require a gradient."""
        return self._source.requires_grad

    @property
    def device_mesh(self) -> DeviceMesh:
        """The mesh."""
        return self._placed.mesh

    @property
    def placements(self) -> tuple[Any, ...]:
        """How the rows lie on the mesh, one placement per mesh dim."""
        return self._placed.placements

    def _check_not_transposed(self, what: str) -> None:
        if self._transposed:
            raise TypeError(
                f"A.mT has no {what}: the entries of its rows are on other processes; use "
                f"A.full().mT, or A.mT @ x"
            )

    def softmax(self, dim: int = -1) -> Self:
        """The softmax of each row over its stored entries.

        Args:
            dim: -1, the only dim it exists for.

        Returns:
            A matrix whose rows sum to one. A row in which every stored entry is minus infinity
            gives zeros.

        Raises:
            TypeError: If the entries are complex, or this is a transposed matrix.
            ValueError: If ``dim`` is not -1.
        """
        algebra.check_softmax(self.dtype, dim)
        self._check_not_transposed("softmax")
        values = self._values
        if not values.numel():
            return self._with(values + values.sum())
        halos = self._halos
        present = halos.presence(values.device)
        if present is not None:
            values = values.masked_fill(~present, -torch.inf)
        # Sums in the order of one process.
        return self._with(halos.to_offsets(softmax_or_zeros(halos.to_columns(values))))

    def __add__(self, other: Any) -> Self:
        if not isinstance(other, Entries):
            return NotImplemented
        return self._with(self._values + self._entries_like_own(other))

    def __sub__(self, other: Any) -> Self:
        if not isinstance(other, Entries):
            return NotImplemented
        return self._with(self._values - self._entries_like_own(other))

    def _entries_like_own(self, other: Any) -> Tensor:
        """The entries of ``other``; raises unless it lies on the processes as this matrix does."""
        if not isinstance(other, Entries):
            raise TypeError(f"expected another DistributedCirculant, got {type(other).__name__}")
        for name, own, theirs in (
            ("shape", tuple(self.shape), tuple(other.shape)),
            ("spatial size", self.spatial_size, other.spatial_size),
            ("window", self.window, other.window),
            ("device mesh", self.device_mesh, other.device_mesh),
            ("placements", self.placements, other.placements),
            ("orientation (A or A.mT)", self._transposed, other._transposed),
        ):
            if own != theirs:
                raise ValueError(f"expected a matrix with {name} {own}, got {theirs}")
        return other._values

    def __mul__(self, m: Any) -> Self:
        """``A * B`` of each stored entry, or ``A * m`` with a number or a 0-d tensor."""
        if isinstance(m, Entries):
            return self._with(self._values * self._entries_like_own(m))
        return self._with(self._values * self._scalar(m))

    __rmul__ = __mul__

    def __truediv__(self, m: Any) -> Self:
        if isinstance(m, Entries):
            return NotImplemented
        return self._with(self._values / self._scalar(m))

    def __neg__(self) -> Self:
        return self._with(-self._values)

    def _scalar(self, m: Any) -> Any:
        """A number, or a 0-d tensor on this rank, whose gradient is summed over the ranks."""
        if not isinstance(m, Tensor):
            return algebra.number("the scale", m)
        if m.dim() != 0:
            raise ValueError(
                f"expected a number or a 0-d tensor to scale with, got shape {tuple(m.shape)}: use "
                f"A.with_rows(A.rows * m) with a DTensor m"
            )
        return self._placed.parameter("scale", m)

    def sum(self, dim: int | Sequence[int] | None = None) -> DTensor:
        """Sums over rows, columns or all.

        Args:
            dim: -1 sums each row and -2 each column, ``(B, heads, *spatial)`` with the placements
                of A; (-2, -1) both, ``(B, heads)``. None sums everything into a 0-d tensor.

        Returns:
            A DTensor; where summands are on several ranks, its placement is Partial, which
            ``full_tensor()`` sums.

        Raises:
            ValueError: If ``dim`` is another.
        """
        return self._sums(dim, lambda sums, _: sums)

    def _sums(
        self, dim: int | Sequence[int] | None, finish: Callable[[Tensor, tuple[int, ...]], Tensor]
    ) -> DTensor:
        """Sums over ``dim``; ``finish`` is a linear function of them and of the summed dims."""
        values, placed, grid = self._values, self._placed, self._placed.grid
        if dim is None:
            return placed.wrap_sums(finish(values.sum(), (0, 1, 2, 3)), ())
        dims = algebra.normalized_sum_dims(dim)
        if dims[-1] < 2:
            raise ValueError(f"expected dim to be -1, -2, (-2, -1) or None, got {dim}")
        heads = self._batch_shape[1] // placed.parts
        if dims == (2, 3):
            sums = values.sum((1, 2)).reshape(placed.batch, heads)
            return placed.wrap_sums(finish(sums, dims), self._batch_shape)
        if (dims == (3,)) != self._transposed:
            sums = values.sum(-1)
        else:
            ones = torch.ones(
                *(values.shape[0], 1, *grid.local_size),
                dtype=dtypes.real_dtype(values.dtype),
                device=values.device,
            )
            sums = local.apply(values, ones, self._halos, transposed=True)
        sums = sums.reshape(placed.batch, heads, *grid.local_size)
        return placed.wrap(finish(sums, dims), (*self._batch_shape, *self.spatial_size))

    def mean(
        self, dim: int | Sequence[int] | None = None, *, dtype: torch.dtype | None = None
    ) -> DTensor:
        """The :meth:`sum` divided by the number of entries, which counts the zeros between them.

        Args:
            dim: As for :meth:`sum`.
            dtype: The dtype of the mean; by default that of the entries.

        Returns:
            A DTensor, as :meth:`sum` gives it.

        Raises:
            TypeError: If ``dtype`` is not a dtype of entries.
            ValueError: If ``dim`` is another.
        """
        result = self.dtype if dtype is None else dtype
        wide = self.to(sum_dtype(result))
        return wide._sums(
            dim, lambda sums, dims: (sums / algebra.count(self.shape, dims)).to(result)
        )

    def dot(self, other: Self) -> DTensor:
        r"""The inner product :math:`\sum_{ij} \overline{A_{ij}} B_{ij}`.

        Args:
            other: B, which lies on the mesh as this matrix does.

        Returns:
            A 0-d DTensor, whose shards are summands where the matrices are sharded.

        Raises:
            TypeError: If ``other`` is not a DistributedCirculant.
            ValueError: If shapes, windows, meshes or placements differ.
        """
        return self._placed.wrap_sums(algebra.dot(self._values, self._entries_like_own(other)), ())

    def to(self, dtype: torch.dtype) -> Self:
        """The matrix in another dtype.

        Args:
            dtype: float16, bfloat16, float32, float64, complex64 or complex128.

        Returns:
            A matrix on the same mesh.

        Raises:
            TypeError: If the dtype is another.
        """
        checks.check_dtype("dtype", dtype)
        return self._with(self._values.to(dtype))

    def detach(self) -> Self:
        """The matrix without its graph."""
        return self._with(self._values.detach())
