"""Windows from their definition, in plain ints: which key is at each offset of each query."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from circulant_attention import Window

CIRCULAR, TRUNCATED, VALID = range(3)


class Dim(NamedTuple):
    """One dim of a problem; ``boundary`` as the native ops number it."""

    size: int
    before: int
    after: int
    dilation: int
    boundary: int

    @property
    def reach(self) -> int:
        return self.dilation * (self.before + self.after)

    @property
    def keys(self) -> int:
        return self.size + self.reach if self.boundary == VALID else self.size

    def slots(self, i: int) -> list[int | None]:
        """The keys of query i in the order of the values; None for an absent one."""
        first = 0 if self.boundary == VALID else -self.before
        keys = [i + self.dilation * (first + o) for o in range(self.before + self.after + 1)]
        if self.boundary == CIRCULAR:
            return sorted(j % self.size for j in keys)
        return [j if 0 <= j < self.keys else None for j in keys]

    def mirrored(self) -> Dim:
        return self._replace(before=self.after, after=self.before)


KINDS = {
    "causal": (Dim(7, 2, 0, 1, TRUNCATED),),
    "one-sided circle": (Dim(7, 3, 0, 2, CIRCULAR),),
    "even": (Dim(6, 2, 1, 1, TRUNCATED), Dim(5, 2, 1, 1, CIRCULAR)),
    "dilated": (Dim(5, 1, 1, 2, CIRCULAR), Dim(6, 1, 1, 2, TRUNCATED)),
    "larger": (Dim(3, 4, 5, 1, TRUNCATED), Dim(4, 1, 1, 1, CIRCULAR)),
    "globe": (Dim(4, 1, 1, 1, TRUNCATED), Dim(6, 2, 2, 1, CIRCULAR)),
    "3d": (Dim(3, 1, 0, 1, CIRCULAR), Dim(2, 0, 0, 1, CIRCULAR), Dim(4, 1, 1, 2, TRUNCATED)),
}


Dims = tuple[Dim, ...]


def native(dims: Dims) -> list[int]:
    """The window as the native ops take it."""
    return [x for dim in dims for x in dim[1:]]


def window(dims: Dims) -> Window:
    """The same as a Window, which has no valid dims."""
    return Window(
        [(dim.before, dim.after) for dim in dims],
        dilation=[dim.dilation for dim in dims],
        boundary=[("circular", "truncated")[dim.boundary] for dim in dims],
    )


def sizes(dims: Dims) -> list[int]:
    return [dim.size for dim in dims]


def key_sizes(dims: Dims) -> list[int]:
    return [dim.keys for dim in dims]


def table(dims: Dims) -> Tensor:
    """The key in each slot ``(N, K)``, -1 for an absent one."""
    rows = []
    for query in product(*(range(dim.size) for dim in dims)):
        row = []
        for keys in product(*(dim.slots(i) for dim, i in zip(dims, query, strict=True))):
            number = 0
            for dim, key in zip(dims, keys, strict=True):
                number = -1 if key is None or number < 0 else number * dim.keys + key
            row.append(number)
        rows.append(row)
    return torch.tensor(rows)


def dense(values: Tensor, dims: Dims) -> Tensor:
    """The dense matrices ``(*, N, M)`` of values ``(*, N, K)``; differentiable."""
    keys = table(dims)
    row, slot = (keys >= 0).nonzero(as_tuple=True)
    count = torch.Size(key_sizes(dims)).numel()
    result = values.new_zeros(*values.shape[:-1], count)
    result[..., row, keys[row, slot]] = values[..., row, slot]
    return result


def mask(dims: Dims) -> Tensor:
    """Whether query i sees key j, ``(N, M)``."""
    keys = table(dims)
    return dense(torch.ones(keys.shape), dims) > 0


@st.composite
def windows(
    draw: st.DrawFn, *, boundaries: tuple[int, ...] = (CIRCULAR, TRUNCATED), most: int = 400
) -> Dims:
    """Grids of up to ``most`` pixels with any window, also larger than the grid."""
    count = draw(st.integers(1, 3))
    dims: list[Dim] = []
    for at in range(count):
        left = most // torch.Size([dim.size for dim in dims]).numel()
        size = draw(st.integers(1, max(1, left if at == count - 1 else round(left**0.5))))
        boundary = draw(st.sampled_from(boundaries))
        dilation = draw(st.integers(1, 3))
        if boundary != VALID and draw(st.booleans()):
            # Up to classes of one pixel; the keys of a valid dim would become many.
            dilation = draw(st.integers(1, size + 1))
        longest = (size - 1) // dilation if boundary == CIRCULAR else size + 2
        length = draw(st.integers(0, min(longest, 12 if count == 1 else 6)))
        before = draw(st.integers(0, length))
        dims.append(Dim(size, before, length - before, dilation, boundary))
    return tuple(dims)
