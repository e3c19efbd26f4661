"""The grid and its window: their checks, and the sparsity pattern as CSR index tensors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from circulant_attention.checks import MAX_SPATIAL_DIMS, is_int, is_sequence
from circulant_attention.window import Window, WindowDim, dims_of, window_of_dims

WindowLike = int | Sequence[int] | Window
"""A Window, or an odd number of pixels: one int for all spatial dims, or one per spatial dim."""


@dataclass(frozen=True)
class Geometry:
    """The pattern of a Circulant: a grid, and a window around each pixel.

    Pixels are numbered row-major over ``spatial_size``. The neighbours of a pixel are at the K
    offsets of the window, modulo the size in a circular dim. In a truncated dim those outside of
    the grid are absent. A row has K slots: in a circular dim by ascending column, in a truncated
    one by ascending offset, with zeros for absent neighbours.

    The constructor checks nothing: :func:`make_geometry` does.

    Attributes:
        spatial_size: The sizes of the 1, 2 or 3 spatial dims.
        lengths: The number of offsets of each spatial dim.
        general: The window along each dim; None if all are odd and circular, without dilation.
    """

    spatial_size: tuple[int, ...]
    lengths: tuple[int, ...]
    general: tuple[WindowDim, ...] | None = None

    @property
    def dims(self) -> tuple[WindowDim, ...]:
        """The window along each dim."""
        if self.general is not None:
            return self.general
        return tuple(WindowDim(w // 2, w // 2, 1, True) for w in self.lengths)

    @property
    def window(self) -> tuple[int, ...] | Window:
        """The odd lengths of a circular window without dilation, or the Window."""
        return self.lengths if self.general is None else window_of_dims(self.general)

    @property
    def op_window(self) -> tuple[int, ...]:
        """The window as the native ops take it."""
        if self.general is None:
            return self.lengths
        return tuple(int(x) for d in self.general for x in (*d[:3], not d.circular))

    @property
    def truncated(self) -> bool:
        """Whether some entries are absent, or could be."""
        return self.general is not None and not all(dim.circular for dim in self.general)

    def transposed(self) -> Geometry:
        """The geometry of the transposed matrix, with the mirrored window."""
        if self.general is None or all(dim.before == dim.after for dim in self.general):
            return self
        return Geometry(self.spatial_size, self.lengths, tuple(d.mirrored() for d in self.general))

    @property
    def pixels(self) -> int:
        """N, the number of pixels: rows and columns of the matrix."""
        return prod(self.spatial_size)

    @property
    def nnz_per_row(self) -> int:
        """K, the number of stored entries in every row: the offsets of the window."""
        return prod(self.lengths)

    @property
    def nnz(self) -> int:
        """N * K, the slots of one matrix: its stored entries, and zeros for absent ones."""
        return prod(self.spatial_size) * prod(self.lengths)

    @property
    def present(self) -> int:
        """The number of entries of one matrix, without absent ones."""
        if not self.truncated:
            return self.nnz
        counts = [
            n * dim.length
            if dim.circular
            else n + sum(_present(n, dim.dilation, reach) for reach in (dim.before, dim.after))
            for n, dim in zip(self.spatial_size, self.dims, strict=True)
        ]
        return prod(counts)

    def matches(self, other: Geometry) -> bool:
        """Equality, also for the symbolic sizes of a compiler (``==`` of tuples fails on them)."""
        if self is other:
            return True
        if self.lengths != other.lengths or self.general != other.general:
            return False
        if len(self.spatial_size) != len(other.spatial_size):
            return False
        for own, theirs in zip(self.spatial_size, other.spatial_size, strict=True):
            if own != theirs:
                return False
        return True

    def crow_indices(self, device: torch.device | str = "cpu") -> Tensor:
        """The row pointers ``(N + 1,)`` of the pattern in CSR form; cached."""
        return _pattern(self, torch.device(device))[0]

    def col_indices(self, device: torch.device | str = "cpu") -> Tensor:
        """The columns of the pattern in CSR form, ascending within each row, without absent ones.

        int32, or int64 once ``N * K`` reaches ``2**31``; cached.
        """
        return _pattern(self, torch.device(device))[1]

    def slots(self, device: torch.device | str = "cpu") -> Tensor | None:
        """Where the entries of the CSR form are among the ``N * K`` slots; None for all of them."""
        return _pattern(self, torch.device(device))[2] if self.truncated else None

    def presence(self, device: torch.device | str = "cpu") -> Tensor | None:
        """Whether each slot ``(N, K)`` has an entry; None if all have; cached."""
        return _cached(_new_presence, self, torch.device(device))[0] if self.truncated else None


def _present(size: int, dilation: int, reach: int) -> int:
    """The entries of a truncated dim at offsets from 1 to ``reach``, ``dilation`` apart."""
    # n pixels have n - d o neighbours at offset o, and none from offset n / d on.
    offsets = min(reach, (size - 1) // dilation)
    return offsets * size - dilation * (offsets * (offsets + 1) // 2)


_New = Callable[[Geometry, torch.device], tuple[Tensor, ...]]

_CACHE: OrderedDict[tuple[_New, Geometry, torch.device], tuple[Tensor, ...]] = OrderedDict()
_CACHED_PATTERNS = 64


def _pattern(geometry: Geometry, device: torch.device) -> tuple[Tensor, ...]:
    """Row pointers and columns; of a truncated window also the slots of the entries."""
    return _cached(_new_pattern, geometry, device)


def _cached(new: _New, geometry: Geometry, device: torch.device) -> tuple[Tensor, ...]:
    """What ``new`` returns, from the cache where that is right."""
    # A tracer must record how its index tensors come about, and its fake tensors must not leave it.
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0:
        return new(geometry, device)
    key = new, geometry, device
    found = _CACHE.pop(key, None)
    # Torch counts changes in place: a tensor that a user has written to is not shared any further.
    if found is None or any(x._version for x in found):
        with torch.inference_mode(False):
            found = new(geometry, device)
    _CACHE[key] = found
    if len(_CACHE) > _CACHED_PATTERNS:
        _CACHE.popitem(last=False)
    return found


def _new_presence(geometry: Geometry, device: torch.device) -> tuple[Tensor, ...]:
    """Whether each slot ``(N, K)`` has an entry."""
    present = torch.ones(1, 1, dtype=torch.bool, device=device)
    for size, dim in zip(geometry.spatial_size, geometry.dims, strict=True):
        _, there = neighbours(torch.arange(size, device=device), size, dim)
        present = (present[:, None, :, None] & there[None, :, None, :]).flatten(0, 1).flatten(1)
    return (present,)


def _new_pattern(geometry: Geometry, device: torch.device) -> tuple[Tensor, ...]:
    """The index tensors."""
    dtype = torch.int32 if geometry.nnz < 2**31 else torch.int64
    columns = torch.zeros(1, 1, dtype=dtype, device=device)
    for size, dim in zip(geometry.spatial_size, geometry.dims, strict=True):
        near, _ = neighbours(torch.arange(size, dtype=dtype, device=device), size, dim)
        # Rows and columns of a grid are Kronecker products of its dims, so ascending columns
        # per dim give ascending columns over all.
        columns = (columns[:, None, :, None] * size + near[None, :, None, :]).flatten(0, 1)
        columns = columns.flatten(1)
    if geometry.truncated:
        (present,) = _new_presence(geometry, device)
        crow = torch.zeros(geometry.pixels + 1, dtype=dtype, device=device)
        crow[1:] = present.sum(1).cumsum(0)
        slots = present.flatten().nonzero().flatten()
        return crow, columns.flatten()[slots], slots
    crow = torch.arange(0, geometry.nnz + 1, geometry.nnz_per_row, dtype=dtype, device=device)
    return crow, columns.flatten()


def neighbours(pixels: Tensor, size: int, dim: WindowDim) -> tuple[Tensor, Tensor]:
    """The neighbours ``(*, w)`` of pixels along one dim, in the order of the slots.

    Returns:
        The neighbours, and whether each is present. Where one is absent, it is the pixel itself.
    """
    offset = torch.arange(-dim.before, dim.after + 1, dtype=pixels.dtype, device=pixels.device)
    found = pixels[..., None] + offset * dim.dilation
    if dim.circular:
        found = found.remainder(size).sort(-1).values
        return found, torch.ones_like(found, dtype=torch.bool)
    there = (found >= 0) & (found < size)
    return found.where(there, pixels[..., None]), there


def offset_numbers(pixels: Tensor, size: int, dim: WindowDim) -> Tensor:
    """The numbers ``(*, w)`` of the offsets along one dim, in the order of the slots."""
    offset = torch.arange(dim.length, device=pixels.device)
    if not dim.circular:
        return offset.expand(*pixels.shape, dim.length)
    found = pixels[..., None] + (offset - dim.before) * dim.dilation
    return found.remainder(size).argsort(-1)


def make_geometry(window: WindowLike, spatial_size: Sequence[int]) -> Geometry:
    """The geometry of a grid and a window, once both are checked.

    Args:
        window: A Window, an odd int, or one odd int per spatial dim; where it is circular, not
            larger than the grid.
        spatial_size: The sizes of the 1, 2 or 3 spatial dims.

    Returns:
        The geometry.

    Raises:
        TypeError: If ``window`` is not a Window, an int or a sequence of ints, or ``spatial_size``
            not a sequence of ints.
        ValueError: If the window is even, not positive, larger than a spatial size or of the wrong
            length, or if the grid does not have 1 to 3 dims of at least one pixel.
    """
    sizes = _checked_sizes(spatial_size)
    if isinstance(window, Window):
        return _general_geometry(window, sizes)
    widths = _widths(window, len(sizes))
    for dim, (width, size) in enumerate(zip(widths, sizes, strict=True)):
        if width < 1 or width % 2 == 0:
            raise ValueError(f"window W must be odd and positive in every dim, got {window}")
        if width > size:
            raise ValueError(
                f"window W must not be larger than the grid, got {width} "
                f"for spatial dim {dim} of size {size} (spatial size {_show(sizes)})"
            )
    return Geometry(sizes, widths)


def _general_geometry(window: Window, sizes: tuple[int, ...]) -> Geometry:
    dims = dims_of(window, len(sizes))
    for at, (dim, size) in enumerate(zip(dims, sizes, strict=True)):
        if dim.circular and dim.span > size:
            raise ValueError(
                f"a circular window W must not span more than the grid, got {window} with a span "
                f"of {dim.span} for spatial dim {at} of size {size} (spatial size {_show(sizes)})"
            )
    lengths = tuple(dim.length for dim in dims)
    plain = all(dim.circular and dim.dilation == 1 and dim.before == dim.after for dim in dims)
    return Geometry(sizes, lengths, None if plain else dims)


def _checked_sizes(spatial_size: Sequence[int]) -> tuple[int, ...]:
    if not is_sequence(spatial_size):
        raise TypeError(
            f"expected spatial_size to hold one int per dim, got {type(spatial_size).__name__}"
        )
    sizes = tuple(spatial_size)
    for size in sizes:
        if type(size) is not int and not is_int(size):
            if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
                raise TypeError(
                    "torch.jit.trace cannot trace the sizes of a grid: use torch.compile or "
                    "torch.export"
                )
            raise TypeError(f"expected spatial_size to hold ints, got {sizes}")
    sizes = tuple(size if isinstance(size, int | torch.SymInt) else int(size) for size in sizes)
    if not 1 <= len(sizes) <= MAX_SPATIAL_DIMS:
        raise ValueError(f"expected 1 to {MAX_SPATIAL_DIMS} spatial dims, got {len(sizes)}")
    for size in sizes:
        if size < 1:
            raise ValueError(f"expected every spatial size to be at least 1, got {_show(sizes)}")
    return sizes


def _widths(window: int | Sequence[int], dims: int) -> tuple[int, ...]:
    """The window length of each of ``dims`` spatial dims."""
    if is_int(window):
        return (int(window),) * dims
    if not is_sequence(window):
        raise TypeError(
            f"window W must be a Window, an odd int or one odd int per spatial dim, "
            f"got {type(window).__name__}"
        )
    widths = tuple(window)
    if not all(is_int(width) for width in widths):
        raise TypeError(f"window W must hold ints, got {window}")
    if len(widths) != dims:
        raise ValueError(
            f"window W must have one entry per spatial dim: expected {dims}, got {len(widths)}"
        )
    return tuple(int(width) for width in widths)


def _show(sizes: Sequence[int]) -> str:
    return " x ".join(str(size) for size in sizes)
