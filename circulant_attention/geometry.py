"""The grid and its window: their checks, and the sparsity pattern as CSR index tensors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from circulant_attention.checks import MAX_SPATIAL_DIMS, is_int

Window = int | Sequence[int]
"""An odd number of pixels: one int for all spatial dims, or one per spatial dim."""


@dataclass(frozen=True)
class Geometry:
    """The pattern of a Circulant: a grid, and a window that wraps at its borders.

    Pixels are numbered row-major over ``spatial_size``. The neighbours of a pixel are
    ``(pixel + offset) mod size`` in each dim, for the K offsets of the window.

    The constructor checks nothing: :func:`make_geometry` does.

    Attributes:
        spatial_size: The sizes of the 1, 2 or 3 spatial dims.
        window: The odd window length of each spatial dim.
    """

    spatial_size: tuple[int, ...]
    window: tuple[int, ...]

    @property
    def pixels(self) -> int:
        """N, the number of pixels: rows and columns of the matrix."""
        return prod(self.spatial_size)

    @property
    def nnz_per_row(self) -> int:
        """K, the number of stored entries in every row: the offsets of the window."""
        return prod(self.window)

    @property
    def nnz(self) -> int:
        """N * K, the number of stored entries of one matrix."""
        return prod(self.spatial_size) * prod(self.window)

    def matches(self, other: Geometry) -> bool:
        """Equality, also for the symbolic sizes of a compiler (``==`` of tuples fails on them)."""
        if self is other:
            return True
        if self.window != other.window or len(self.spatial_size) != len(other.spatial_size):
            return False
        for own, theirs in zip(self.spatial_size, other.spatial_size, strict=True):
            if own != theirs:
                return False
        return True

    def crow_indices(self, device: torch.device | str = "cpu") -> Tensor:
        """The row pointers ``(N + 1,)`` of the pattern in CSR form; cached."""
        return _pattern(self, torch.device(device))[0]

    def col_indices(self, device: torch.device | str = "cpu") -> Tensor:
        """The columns ``(N * K,)`` of the pattern in CSR form, ascending within each row.

        int32, or int64 once ``N * K`` reaches ``2**31``; cached.
        """
        return _pattern(self, torch.device(device))[1]


_CACHE: OrderedDict[tuple[Geometry, torch.device], tuple[Tensor, Tensor]] = OrderedDict()
_CACHED_PATTERNS = 64


def _pattern(geometry: Geometry, device: torch.device) -> tuple[Tensor, Tensor]:
    """The row pointers and the columns, from the cache where that is right."""
    # A tracer must record how its index tensors come about, and its fake tensors must not leave it.
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0:
        return _new_pattern(geometry, device)
    key = geometry, device
    found = _CACHE.pop(key, None)
    # Torch counts changes in place: a tensor that a user has written to is not shared any further.
    if found is None or found[0]._version or found[1]._version:
        with torch.inference_mode(False):
            found = _new_pattern(geometry, device)
    _CACHE[key] = found
    if len(_CACHE) > _CACHED_PATTERNS:
        _CACHE.popitem(last=False)
    return found


def _new_pattern(geometry: Geometry, device: torch.device) -> tuple[Tensor, Tensor]:
    """The row pointers and the columns."""
    dtype = torch.int32 if geometry.nnz < 2**31 else torch.int64
    columns = torch.zeros(1, 1, dtype=dtype, device=device)
    for size, width in zip(geometry.spatial_size, geometry.window, strict=True):
        near = neighbours(size, width, dtype, device)
        # Rows and columns of a grid are Kronecker products of its dims, so ascending columns
        # per dim give ascending columns over all.
        columns = (columns[:, None, :, None] * size + near[None, :, None, :]).flatten(0, 1)
        columns = columns.flatten(1)
    crow = torch.arange(0, geometry.nnz + 1, geometry.nnz_per_row, dtype=dtype, device=device)
    return crow, columns.flatten()


def neighbours(size: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The neighbours ``(size, width)`` of each point of a circle, ascending in each row."""
    centre = torch.arange(size, dtype=dtype, device=device)
    offset = torch.arange(-(width // 2), width // 2 + 1, dtype=dtype, device=device)
    return (centre[:, None] + offset).remainder(size).sort(dim=1).values


def make_geometry(window: Window, spatial_size: Sequence[int]) -> Geometry:
    """The geometry of a grid and a window, once both are checked.

    Args:
        window: An odd int, or one odd int per spatial dim, none larger than the grid.
        spatial_size: The sizes of the 1, 2 or 3 spatial dims.

    Returns:
        The geometry.

    Raises:
        TypeError: If ``window`` is not an int or a sequence of ints, or ``spatial_size`` not a
            sequence of ints.
        ValueError: If the window is even, not positive, larger than a spatial size or of the wrong
            length, or if the grid does not have 1 to 3 dims of at least one pixel.
    """
    sizes = _checked_sizes(spatial_size)
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


def _checked_sizes(spatial_size: Sequence[int]) -> tuple[int, ...]:
    # tuple includes torch.Size; the test of the abstract class is slow.
    if not isinstance(spatial_size, tuple | list) and (
        not isinstance(spatial_size, Sequence) or isinstance(spatial_size, str)
    ):
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


def _widths(window: Window, dims: int) -> tuple[int, ...]:
    """The window length of each of ``dims`` spatial dims."""
    if is_int(window):
        return (int(window),) * dims
    if not isinstance(window, Sequence) or isinstance(window, str):
        raise TypeError(
            f"window W must be an odd int or one odd int per spatial dim, "
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
