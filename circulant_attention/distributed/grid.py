"""A grid that is cut into shards, and the halos of a window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from circulant_attention.checks import is_int, positive_ints
from circulant_attention.distributed import halos, overlap
from circulant_attention.distributed.shards import chunk_sizes, make_plan
from circulant_attention.geometry import Geometry
from circulant_attention.ops.windows import CIRCULAR, TRUNCATED, VALID
from circulant_attention.window import WindowDim

# Of the queries. Strips of a few rows or columns cost more than as many queries in one piece.
_LEAST_INTERIOR = 0.5
_OVERLAPS = [False]


def set_overlap(enabled: bool) -> None:
    """Whether attention computes the interior of a shard while its halos travel; not by default.

    It costs processor time, since the strips around the interior are computed by themselves; the
    interior is at least half of the shard. It pays where messages travel beside the computation and
    take long. Between processes of one machine they do not: `benchmarks/results/distributed.md` has
    both. Results have the same bits; gradients of k and v are summed in another order.

    Args:
        enabled: Whether to do it from now on, in this process; the others may differ.

    Example:
        >>> from circulant_attention.distributed import set_overlap
        >>> set_overlap(True)
        >>> set_overlap(False)
    """
    _OVERLAPS[0] = bool(enabled)


@dataclass(frozen=True)
class ShardedDim:
    """One spatial dim that is cut into intervals.

    Attributes:
        sizes: The pixels of each rank of the group.
        rank: This process's rank in the group.
        group: The name of the process group.
    """

    sizes: tuple[int, ...]
    rank: int
    group: str

    @property
    def size(self) -> int:
        """The pixels of this rank."""
        return self.sizes[self.rank]

    @property
    def start(self) -> int:
        """The first pixel of this rank."""
        return sum(self.sizes[: self.rank])


@dataclass(frozen=True, init=False)
class ShardedGrid:
    """How a grid is cut into one shard per process.

    Each spatial dim is whole on every process or is cut into intervals over the ranks of a process
    group, in their order. The processes of a grid with several cut dims form a mesh.

    Args:
        spatial_size: The sizes of the 1, 2 or 3 spatial dims of the whole grid.
        groups: The process group of each spatial dim that is cut, such as
            ``{0: mesh.get_group("rows"), 1: mesh.get_group("columns")}``.
        sizes: For a cut dim, the pixels of each rank, which may be 0; as ``torch.chunk`` when left
            out. Equal on every rank.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a dim does not exist, or sizes do not add up.

    Example:
        >>> from circulant_attention.distributed import ShardedGrid
        >>> grid = ShardedGrid((512, 512), {})  # one process: nothing is cut
        >>> grid.local_size, grid.slices
        ((512, 512), (slice(0, 512, None), slice(0, 512, None)))
    """

    spatial_size: tuple[int, ...]
    dims: tuple[ShardedDim | None, ...]

    def __init__(
        self,
        spatial_size: Sequence[int],
        groups: Mapping[int, dist.ProcessGroup],
        sizes: Mapping[int, Sequence[int]] | None = None,
    ) -> None:
        whole = positive_ints("spatial_size", spatial_size)
        given = dict(sizes or {})
        dims: list[ShardedDim | None] = [None] * len(whole)
        for dim, group in groups.items():
            if not is_int(dim) or not 0 <= dim < len(whole):
                raise ValueError(
                    f"expected spatial dims from 0 to {len(whole) - 1} in groups, got {dim}"
                )
            if not isinstance(group, dist.ProcessGroup):
                raise TypeError(
                    f"expected groups[{dim}] to be a process group, got {type(group).__name__}"
                )
            own = tuple(given.pop(dim, ()) or chunk_sizes(whole[dim], group.size()))
            if len(own) != group.size() or sum(own) != whole[dim] or min(own) < 0:
                raise ValueError(
                    f"expected sizes[{dim}] to hold the pixels of each of {group.size()} ranks, "
                    f"{whole[dim]} in all, got {own}"
                )
            if len(own) > 1:
                dims[dim] = ShardedDim(own, group.rank(), group.group_name)
        if given:
            raise ValueError(f"expected sizes of dims that have a group, got {sorted(given)}")
        object.__setattr__(self, "spatial_size", whole)
        object.__setattr__(self, "dims", tuple(dims))

    @classmethod
    def _from(
        cls, spatial_size: tuple[int, ...], dims: tuple[ShardedDim | None, ...]
    ) -> ShardedGrid:
        grid = cls.__new__(cls)
        object.__setattr__(grid, "spatial_size", spatial_size)
        object.__setattr__(grid, "dims", dims)
        return grid

    @property
    def local_size(self) -> tuple[int, ...]:
        """The spatial size of this process's shard."""
        pairs = zip(self.spatial_size, self.dims, strict=True)
        return tuple(n if dim is None else dim.size for n, dim in pairs)

    @property
    def slices(self) -> tuple[slice, ...]:
        """This process's part of the whole grid, which is ``x[(..., *grid.slices)]``."""
        starts = [0 if dim is None else dim.start for dim in self.dims]
        pairs = zip(starts, self.local_size, strict=True)
        return tuple(slice(start, start + size) for start, size in pairs)

    @property
    def empty(self) -> bool:
        """Whether this process has no pixel."""
        return 0 in self.local_size


class Halos:
    """What the window of a geometry needs beside a shard, and the window of the shard itself.

    A dim that is cut gets a halo as long as the window reaches, from the ranks that own it, and the
    native ops take it as a valid one. Where a truncated window leaves the whole grid, the halo ends
    with the grid: there the window of the shard is truncated, on queries padded to the grid of the
    keys.

    Args:
        grid: The grid.
        geometry: The geometry of the whole grid.
    """

    def __init__(self, grid: ShardedGrid, geometry: Geometry) -> None:
        self.grid = grid
        self.geometry = geometry
        self.extensions: list[tuple[Any, ...]] = []
        """The settings of :func:`halos.extend` for each dim that gets a halo."""
        # Zeros around the queries, in the order of F.pad: last dim first.
        self._padding = [0, 0] * len(grid.dims)
        parts: list[tuple[int, int, int, int]] = []
        for at, (cut, dim) in enumerate(zip(grid.dims, geometry.dims, strict=True)):
            boundary = CIRCULAR if dim.circular else TRUNCATED
            if cut is not None and dim.length == 1:
                # Without a halo; for sums in the order of the whole grid, see csrc/cpu/tensors.h.
                boundary = VALID
            elif cut is not None:
                before, after = dim.dilation * dim.before, dim.dilation * dim.after
                self.extensions.append(
                    (at + 2, list(cut.sizes), cut.rank, before, after, dim.circular, cut.group)
                )
                ends = cut.start - before, cut.start + cut.size + after
                if dim.circular or (ends[0] >= 0 and ends[1] <= grid.spatial_size[at]):
                    boundary = VALID
                elif cut.size:
                    # As many as the halo has pixels.
                    reach = min(before, cut.start), min(after, sum(cut.sizes[cut.rank + 1 :]))
                    last = len(grid.dims) - 1 - at
                    self._padding[2 * last : 2 * last + 2] = reach
            parts.append((*dim[:3], boundary))
        plain = geometry.general is None and all(part[3] == CIRCULAR for part in parts)
        self.window = geometry.lengths if plain else tuple(x for part in parts for x in part)
        """The window of the shard, as the native ops take it."""
        self.overlaps = (
            _OVERLAPS[0]
            and bool(self.extensions)
            and not any(self._padding)
            and overlap.interior(self.extensions) >= _LEAST_INTERIOR
        )
        """Whether the interior is computed while the halos travel."""

    @property
    def extended_size(self) -> tuple[int, ...]:
        """The spatial size of a shard with its halos."""
        sizes = list(self.grid.local_size)
        for dim, *settings, _ in self.extensions:
            own, rank, before, after, circular = settings
            sizes[dim - 2] = make_plan(rank, tuple(own), before, after, circular).extended
        return tuple(sizes)

    def of_whole(self, x: Tensor) -> Tensor:
        """The extended shard of ``x (P, H, *spatial)``, which every rank has; sends nothing."""
        for at, (own, size) in enumerate(
            zip(self.grid.slices, self.grid.spatial_size, strict=True), 2
        ):
            first, last = own.start, own.stop
            for dim, _, _, before, after, circular, _ in self.extensions:
                if dim == at and last > first:
                    first, last = first - before, last + after
                    if not circular:
                        first, last = max(first, 0), min(last, size)
            x = x.index_select(at, torch.arange(first, last, device=x.device).remainder(size))
        return x

    def extend(self, *xs: Tensor) -> tuple[Tensor, ...]:
        """Shards ``(G, C, *local)`` with their halos, all of one dtype.

        Dim after dim, with the halos of the dims before: so the corners come along, in two messages
        per dim that is cut.
        """
        for settings in self.extensions:
            xs = halos.extend(xs, settings)
        return xs

    def gather(self, *xs: Tensor) -> tuple[Tensor, ...]:
        """The adjoint of :meth:`extend`: what is in the halos is added to its owners' pixels."""
        for settings in reversed(self.extensions):
            xs = halos.gather(xs, settings)
        return xs

    def pad(self, x: Tensor) -> Tensor:
        """Features ``(G, C, *local)`` of the queries on the grid that the native ops want."""
        return F.pad(x, self._padding) if any(self._padding) else x

    def pad_rows(self, values: Tensor) -> Tensor:
        """Values ``(G, n, K)`` of the queries, for the same grid."""
        if not any(self._padding):
            return values
        grid = _unflatten(values, 1, self.grid.local_size)
        return F.pad(grid, [0, 0, *self._padding]).flatten(1, -2)

    def crop(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`pad`."""
        for at, size in enumerate(self.grid.local_size):
            front = self._padding[2 * (len(self.grid.dims) - 1 - at)]
            if size != x.shape[at + 2]:
                x = x.narrow(at + 2, front, size)
        return x

    def crop_rows(self, values: Tensor) -> Tensor:
        """The inverse of :meth:`pad_rows`."""
        if not any(self._padding):
            return values
        pairs = zip(self._padding[-2::-2], self._padding[-1::-2], self.grid.local_size, strict=True)
        padded = [front + size + behind for front, behind, size in pairs]
        values = _unflatten(values, 1, padded).movedim(-1, 1)
        return self.crop(values).movedim(1, -1).flatten(1, -2)

    def presence(self, device: torch.device) -> Tensor | None:
        """Whether each slot ``(n, K)`` of the shard's rows has an entry; None if all have."""
        if not self.geometry.truncated:
            return None
        present = torch.ones(1, 1, dtype=torch.bool, device=device)
        pairs = zip(self.grid.slices, self.grid.spatial_size, self.geometry.dims, strict=True)
        for own, size, dim in pairs:
            there = _neighbours(own, dim, device)
            there = (there >= 0) & (there < size) | dim.circular
            present = (present[:, None, :, None] & there[None, :, None, :]).flatten(0, 1).flatten(1)
        return present

    def to_columns(self, values: Tensor) -> Tensor:
        """Values ``(G, n, K)`` of the shard in the order of the columns of the whole matrix.

        Along a dim that is cut they are in the order of the offsets, as the native ops give them.
        At the ends of a circle, the order of the columns is another.
        """
        return self._reordered(values, inverse=False)

    def to_offsets(self, values: Tensor) -> Tensor:
        """The inverse of :meth:`to_columns`."""
        return self._reordered(values, inverse=True)

    def _reordered(self, values: Tensor, *, inverse: bool) -> Tensor:
        local, lengths = self.grid.local_size, self.geometry.lengths
        split = None
        pairs = zip(self.grid.dims, self.geometry.dims, self.grid.spatial_size, strict=True)
        for at, (cut, dim, size) in enumerate(pairs):
            if cut is None or not dim.circular or dim.length == 1 or not values.numel():
                continue
            reach = dim.dilation * dim.before, dim.dilation * dim.after
            if cut.start >= reach[0] and cut.start + cut.size + reach[1] <= size:
                continue
            own = slice(cut.start, cut.start + cut.size)
            order = _neighbours(own, dim, values.device).remainder(size).argsort(-1)
            order = order.argsort(-1) if inverse else order
            if split is None:
                split = _unflatten(_unflatten(values, 2, lengths), 1, local)
            shape = [1] * split.dim()
            shape[1 + at], shape[1 + len(local) + at] = order.shape
            split = torch.take_along_dim(split, order.reshape(shape), 1 + len(local) + at)
        return values if split is None else split.flatten(1, len(local)).flatten(2)


def _unflatten(x: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """``dim`` split into several, also of a tensor without elements."""
    return x.reshape(*x.shape[:dim], *sizes, *x.shape[dim + 1 :])


def _neighbours(own: slice, dim: WindowDim, device: torch.device) -> Tensor:
    """The neighbours ``(n, w)`` of pixels by offset, beyond the ends of the grid too."""
    pixels = torch.arange(own.start, own.stop, device=device)
    offsets = torch.arange(-dim.before, dim.after + 1, device=device)
    return pixels[:, None] + dim.dilation * offsets
