"""A Circulant on many processes, each with the rows of its pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NoReturn

from torch import Tensor
from torch.distributed.tensor import DTensor

from circulant_attention import checks
from circulant_attention.distributed import local
from circulant_attention.distributed.entries import Entries
from circulant_attention.distributed.grid import Halos
from circulant_attention.distributed.placements import Placed, check_dtensor, placed
from circulant_attention.geometry import WindowLike, make_geometry
from circulant_attention.matrix.application import join_heads, split_heads
from circulant_attention.matrix.circulant import Circulant
from circulant_attention.ops.autocast import cast_for_autocast

TORCH_FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {}
"""What each function of torch does with one; filled by ``torch_functions.py``."""


class DistributedCirculant(Entries):
    r"""A batch of block-circulant matrices on the processes of a mesh, each with its pixels' rows.

    Functions of this package return it for DTensors. Its rows lie as the features do: where q is
    sharded over the batch, the channels or a spatial dim, the rows are sharded over the batch, the
    heads or that dim.

    ``A @ x``, ``A.mT @ x``, ``torch.softmax(A, -1)``, ``A + B``, ``A - B``, ``A * B``, ``c * A``,
    ``A.sum(dim)``, ``A.mean(dim)``, ``A.dot(B)`` are those of a
    :class:`~circulant_attention.Circulant`. Products and gradients send halos, so every process
    takes part in them; ``print(A)`` and ``A.rows`` send nothing. :meth:`full` gives every process
    the whole matrix.

    Args:
        rows: The entries, a DTensor ``(B, heads, *spatial, K)``: those of a row by ascending column
            of the whole matrix, as in a Circulant. It may be sharded over all dims but the last.
        W: The window: an odd int, one per spatial dim, or a :class:`~circulant_attention.Window`.

    Raises:
        TypeError: If ``rows`` is not a DTensor.
        ValueError: If its placements are none of a sharded grid, or the window does not fit.

    Example:
        >>> from circulant_attention.distributed import DistributedCirculant
        >>> def smoothed(A: DistributedCirculant, x: torch.Tensor) -> torch.Tensor:
        ...     return A.mT @ (A @ x)
    """

    def __init__(self, rows: DTensor, W: WindowLike) -> None:
        check_dtensor("rows", rows)
        checks.check_dtype("rows", rows.dtype)
        geometry = make_geometry(W, rows.shape[2:-1])
        if rows.shape[-1] != geometry.nnz_per_row:
            raise ValueError(
                f"expected rows of shape (B, heads, *spatial, {geometry.nnz_per_row}) for window "
                f"{geometry.window}, got {tuple(rows.shape)}"
            )
        self._placed = placed("rows", rows, rows.dim() - 3)
        self._halos = Halos(self._placed.grid, geometry)
        self._batch_shape = rows.shape[0], rows.shape[1]
        self._transposed = False
        shard = rows.to_local()
        values = shard.reshape(prod(shard.shape[:2]), prod(shard.shape[2:-1]), shard.shape[-1])
        self._source = self._halos.to_offsets(values)

    # --- what it is ---

    @property
    def rows(self) -> DTensor:
        """The entries, a DTensor ``(B, heads, *spatial, K)`` by ascending column; sends nothing.

        They do not depend on the placements: redistribute them, or save and load them with
        ``torch.distributed.checkpoint``, and make a matrix of them again.

        Raises:
            TypeError: If this is a transposed matrix: its rows are on other processes.
        """
        self._check_not_transposed("rows")
        geometry, grid = self._geometry, self._placed.grid
        values = self._halos.to_columns(self._values)
        heads = self._batch_shape[1] // self._placed.parts
        sizes = *grid.local_size, geometry.nnz_per_row
        shard = values.reshape(self._placed.batch, heads, *sizes)
        shape = (*self._batch_shape, *geometry.spatial_size, geometry.nnz_per_row)
        return self._placed.wrap(shard, shape)

    def with_rows(self, rows: DTensor) -> DistributedCirculant:
        """A matrix of the same window with other rows, such as ``A.with_rows(A.rows.relu())``.

        Args:
            rows: A DTensor ``(B, heads, *spatial, K)``.

        Returns:
            A matrix that lies on the mesh as ``rows`` do.

        Raises:
            TypeError: If ``rows`` is not a DTensor.
            ValueError: If its shape does not fit the window, or its placements are none of a grid.
        """
        return DistributedCirculant(rows, self._geometry.window)

    def full(self) -> Circulant:
        """The whole matrix on every process, a Circulant. Every process takes part."""
        if self._transposed:
            return self.mT.full().mT
        rows = self.rows.full_tensor()
        values = rows.reshape(*self._batch_shape, self._geometry.nnz)
        return Circulant._from(values, self._geometry)

    # --- the linear map ---

    def apply(self, x: Tensor) -> DTensor:
        r""":math:`y_i = \sum_j A_{ij} x_j` on pixels, for every channel; also ``A @ x``.

        Args:
            x: ``(B * heads, C, *spatial)`` with the placements of A; for several heads that are, or
                whose batch is, sharded, use ``mh(A, x)``.

        Returns:
            A DTensor of the shape of ``x``.

        Raises:
            TypeError: If ``x`` is not a DTensor of a supported dtype.
            ValueError: If its grid, batch size, mesh or placements do not fit.
        """
        batch, heads = self._batch_shape
        of_x = self._check_features(x, batch * heads)
        cut = heads > 1 and (self._placed.parts > 1 or self._placed.batch != batch)
        if cut:
            raise ValueError(
                "expected x with one batch dim for B and heads of A, which are sharded: use "
                "mh(A, x) with x of shape (B, heads * C, *spatial)"
            )
        y = self._product(of_x.local("x", x, x.shape[1]))
        return of_x.wrap(y, x.shape)

    def mh_apply(self, x: Tensor) -> DTensor:
        """Head h of A applied to channel group h of ``x``; also ``mh(A, x)``.

        Args:
            x: ``(B, C, *spatial)`` with the placements of A and C divisible by the heads of A.

        Returns:
            A DTensor of the shape of ``x``.

        Raises:
            TypeError: If ``x`` is not a DTensor of a supported dtype.
            ValueError: If its grid, batch size, heads, mesh or placements do not fit.
        """
        of_x = self._check_features(x, self._batch_shape[0])
        checks.check_heads("the channels of x", x.shape[1], self._batch_shape[1], "A.shape[1]")
        heads = self._placed.heads(self._batch_shape[1])
        shard = of_x.local("x", x, x.shape[1] // self._placed.parts)
        y = join_heads(self._product(split_heads(shard, heads)), heads)
        return of_x.wrap(y, x.shape)

    def _check_features(self, x: Any, batch: int) -> Placed:
        check_dtensor("x", x)
        checks.check_features("x", x)
        if x.device_mesh != self.device_mesh or x.placements != self.placements:
            raise ValueError(
                f"expected x with the mesh and the placements of A, {self.device_mesh} and "
                f"{self.placements}, got {x.device_mesh} and {x.placements}: use "
                f"x.redistribute(A.device_mesh, A.placements)"
            )
        if tuple(x.shape[2:]) != self.spatial_size:
            raise ValueError(
                f"expected x with the spatial size of A, {self.spatial_size}, got "
                f"{tuple(x.shape[2:])}"
            )
        if x.shape[0] != batch:
            raise ValueError(f"expected x with batch size {batch}, got {x.shape[0]}")
        return placed("x", x, len(self.spatial_size))

    def _product(self, x: Tensor) -> Tensor:
        values, x = cast_for_autocast(self._values, x)
        return local.apply(values, x, self._halos, transposed=self._transposed)

    @property
    def mT(self) -> DistributedCirculant:
        """The transposed matrices, for products, sums and :meth:`full`."""
        return self._from(
            self._source, self._placed, self._halos, self._batch_shape, not self._transposed
        )

    def __matmul__(self, x: Any) -> DTensor:
        """``A @ x``; see :meth:`apply`."""
        return self.apply(x) if isinstance(x, Tensor) else NotImplemented

    # --- what it is not ---

    def __repr__(self) -> str:
        transposed = ", transposed" if self._transposed else ""
        return (
            f"DistributedCirculant({str(self.dtype).removeprefix('torch.')}, window {self.window}, "
            f"spatial-size {self.spatial_size}, shape {tuple(self.shape)}, placements "
            f"{self.placements} on a mesh of {tuple(self.device_mesh.shape)}{transposed})"
        )

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            hint = f": use A.full().{name}" if hasattr(Circulant, name) else ""
            raise AttributeError(f"a DistributedCirculant has no attribute {name!r}{hint}")

    def __getitem__(self, index: Any) -> NoReturn:
        raise TypeError(
            "a DistributedCirculant has no entries to index, which are on many processes: use "
            "A.full()[...] or A.rows"
        )

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Functions of torch on distributed matrices; others raise TypeError."""
        implementation = TORCH_FUNCTIONS.get(func)
        if implementation is None:
            name = getattr(func, "__name__", str(func))
            raise TypeError(
                f"torch's {name} is not defined for a DistributedCirculant: use A.full(), or "
                f"A.with_rows(...) for functions of each entry"
            )
        return implementation(*args, **(kwargs or {}))
