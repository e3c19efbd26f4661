"""Attention in plain PyTorch by tiles: the strongest formulation without a kernel of its own.

A tile of about 64 queries meets its halo of keys, all keys in a window of one of its queries, in
``torch.bmm``. Of this dense product, the windows are a band: in a strided view, offset (u, v) of
query (r, c) is at row r + u and column c + v of the halo.
"""

import itertools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cases import Case

# Pixels of a tile along each spatial dim, at most: 64 queries.
EDGES = {1: 64, 2: 8, 3: 4}


class Tiles:
    """The tiles of a grid, in chunks that fit in the cache: a group, or one row of its tiles.

    Symbols: T tiles of a chunk, t queries of a tile, h keys of a halo, K offsets of the window.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        edge = EDGES[len(case.spatial)]
        self.counts = [math.ceil(size / edge) for size in case.spatial]
        self.edges = [
            math.ceil(size / count) for size, count in zip(case.spatial, self.counts, strict=True)
        ]
        self.halos = [edge + case.window - 1 for edge in self.edges]
        # Behind the grid, if its size is no multiple of the edge.
        self.extra = [
            count * edge - size
            for count, edge, size in zip(self.counts, self.edges, case.spatial, strict=True)
        ]

    def queries(self, x: Tensor) -> list[Tensor]:
        """(G, C, *spatial) as chunks (*tiles, C, *edges)."""
        x = F.pad(x, [n for extra in reversed(self.extra) for n in (0, extra)])
        x = x.reshape(*x.shape[:2], *interleaved(self.counts, self.edges))
        d = len(self.counts)
        return self._chunks(x.permute(0, *range(2, 2 + 2 * d, 2), 1, *range(3, 3 + 2 * d, 2)))

    def keys(self, x: Tensor) -> tuple[Tensor, ...]:
        """(G, C, *spatial) as chunks (*tiles, C, *halos): circular padding, overlapping blocks."""
        radius = self.case.window // 2
        pad = [n for extra in reversed(self.extra) for n in (radius, radius + extra)]
        return Blocks.apply(F.pad(x, pad, mode="circular"), self)

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        """The overlapping blocks of the padded grid, as views."""
        for dim, (halo, edge) in enumerate(zip(self.halos, self.edges, strict=True), 2):
            x = x.unfold(dim, halo, edge)
        d = len(self.counts)
        return tuple(self._chunks(x.permute(0, *range(2, 2 + d), 1, *range(2 + d, 2 + 2 * d))))

    def matrices(self, x: Tensor) -> Tensor:
        """A chunk as (T, C, t) or (T, C, h)."""
        return x.flatten(-len(self.counts)).flatten(0, -3)

    def grid(self, chunks: list[Tensor]) -> Tensor:
        """Chunks (T, C, t) as (G, C, *spatial)."""
        x = torch.cat(chunks)
        d, channels = len(self.counts), x.shape[1]
        x = x.reshape(-1, *self.counts, channels, *self.edges)
        x = x.permute(0, 1 + d, *interleaved(range(1, 1 + d), range(2 + d, 2 + 2 * d)))
        sizes = [count * edge for count, edge in zip(self.counts, self.edges, strict=True)]
        x = x.reshape(-1, channels, *sizes)
        for dim, size in enumerate(self.case.spatial, 2):
            x = x.narrow(dim, 0, size)
        return x

    def band(self, products: Tensor) -> Tensor:
        """The windows in (T, t, h), a view (T, *edges, *windows) of a contiguous tensor."""
        h = math.prod(self.halos)
        offset_strides = [math.prod(self.halos[i + 1 :]) for i in range(len(self.halos))]
        # The next query is in the next row of the products, and so is its window in the halo.
        query_strides = [
            h * math.prod(self.edges[i + 1 :]) + offset_strides[i] for i in range(len(self.edges))
        ]
        return products.as_strided(
            (products.shape[0], *self.edges, *self.case.windows),
            (products.stride(0), *query_strides, *offset_strides),
        )

    def take(self, products: Tensor) -> Tensor:
        """(T, t, h) as (T, t, K)."""
        queries = math.prod(self.edges)
        return self.band(products.contiguous()).reshape(-1, queries, self.case.offsets)

    def put(self, values: Tensor) -> Tensor:
        """(T, t, K) as (T, t, h) with zeros elsewhere."""
        products = values.new_zeros(*values.shape[:2], math.prod(self.halos))
        band = self.band(products)
        band.copy_(values.reshape(band.shape))
        return products

    def _chunks(self, x: Tensor) -> list[Tensor]:
        """(G, *tiles, C, ...) by group and, if the grid has several dims, by rows of tiles."""
        groups = list(x.unbind())
        return groups if len(self.counts) == 1 else [row for x in groups for row in x.unbind()]


def interleaved(first: Any, second: Any) -> list[int]:
    return list(itertools.chain.from_iterable(zip(first, second, strict=True)))


class Blocks(torch.autograd.Function):
    """:meth:`Tiles.blocks`; the derivative adds block by block, faster than that of ``unfold``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tiles: Tiles) -> tuple[Tensor, ...]:
        ctx.tiles, ctx.shape = tiles, x.shape
        return tiles.blocks(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        sums = gradients[0].new_zeros(ctx.shape)
        for target, gradient in zip(ctx.tiles.blocks(sums), gradients, strict=True):
            for tile in itertools.product(*map(range, gradient.shape[: -1 - len(ctx.shape[2:])])):
                target[tile].add_(gradient[tile])
        return sums, None


class Take(torch.autograd.Function):
    """:meth:`Tiles.take`, and :meth:`Tiles.put` as its derivative."""

    @staticmethod
    def forward(ctx: Any, products: Tensor, tiles: Tiles) -> Tensor:
        ctx.tiles = tiles
        return tiles.take(products)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.tiles.put(gradient), None


class Put(torch.autograd.Function):
    """:meth:`Tiles.put`, and :meth:`Tiles.take` as its derivative."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, tiles: Tiles) -> Tensor:
        ctx.tiles = tiles
        return tiles.put(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.tiles.take(gradient), None


def weights(tiles: Tiles, queries: Tensor, keys: Tensor) -> Tensor:
    """The row softmax of the similarities of a chunk: (T, t, K)."""
    rows, columns = tiles.matrices(queries).mT, tiles.matrices(keys)
    if tiles.case.distance:
        # -|q - k|^2 / 2 = q k - |k|^2 / 2 - |q|^2 / 2; the last does not change the softmax.
        bias = columns.square().sum(1, keepdim=True) * -0.5
        products = torch.baddbmm(bias, rows, columns)
    else:
        products = torch.bmm(rows, columns)
    return Take.apply(products, tiles).softmax(-1)


def product(tiles: Tiles, matrix: Tensor, values: Tensor) -> Tensor:
    """The matrix of a chunk, (T, t, h), times its values: (T, C, t)."""
    return torch.bmm(tiles.matrices(values), matrix.mT)


def attention(tiles: Tiles, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of (G, C, *spatial), not scaled."""
    chunks = zip(tiles.queries(q), tiles.keys(k), tiles.keys(v), strict=True)
    return tiles.grid(
        [
            product(tiles, Put.apply(weights(tiles, queries, keys), tiles), values)
            for queries, keys, values in chunks
        ]
    )
