"""The exchange of halos against indexing the whole tensor, and its adjoint."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from attention_checks import mesh_of
from torch import Tensor
from torch.autograd import forward_ad
from torch.testing import assert_close

from circulant_attention import Window
from circulant_attention.distributed import ShardedGrid, extend_halos, gather_halos, messages
from circulant_attention.distributed.halos import _extend_op, _gather_op
from circulant_attention.distributed.shards import make_plan

# Beside float64; one of them for each grid.
DTYPES = [
    *(torch.complex64, torch.bfloat16, torch.float32, torch.float16),
    *(torch.complex128, torch.int32, torch.bool),
]


def random_sizes(pixels: int, ranks: int, seed: int) -> tuple[int, ...]:
    """Sizes of shards, the same on every rank; some are 0."""
    generator = torch.Generator().manual_seed(seed)
    cuts = torch.randint(0, pixels + 1, (ranks - 1,), generator=generator).sort().values.tolist()
    return tuple(b - a for a, b in zip([0, *cuts], [*cuts, pixels], strict=True))


def problems() -> list[tuple[Window, ShardedGrid]]:
    """Windows and grids that are cut along their only dim."""
    world = dist.get_world_size()
    group = mesh_of((world,)).get_group()
    found = []
    for seed, (pixels, before, after, dilation) in enumerate(
        [
            (13, 2, 3, 1),
            (4 * world, 4, 1, 1),
            (max(world, 5), 2, 2, 1),
            (2 * world + 1, world, 0, 1),
            (17, 2, 1, 3),
            (3, 0, 2, 1),
        ]
    ):
        for boundary in ("circular", "truncated"):
            window = Window(((before, after),), dilation=dilation, boundary=boundary)
            if boundary == "circular" and dilation * (before + after) >= pixels:
                continue
            for sizes in (None, {0: random_sizes(pixels, world, seed)}):
                found.append((window, ShardedGrid((pixels,), {0: group}, sizes)))
    return found


def expected_pixels(window: Window, grid: ShardedGrid) -> Tensor:
    """The pixels of the extended shard, in plain ints."""
    (own,), (n,) = grid.slices, grid.spatial_size
    if own.start == own.stop or grid.dims[0] is None:
        return torch.arange(own.start, own.stop)
    ((before, after),), dilation = window.size, window.dilation
    pixels = range(own.start - dilation * before, own.stop + dilation * after)
    if window.boundary == "circular":
        return torch.tensor([pixel % n for pixel in pixels])
    return torch.tensor([pixel for pixel in pixels if 0 <= pixel < n])


def random(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(shape, dtype=torch.promote_types(dtype, torch.float32)).to(dtype)
    return torch.randint(0, 100, shape).to(dtype)


def exchange_of_halos() -> None:
    for i, (window, grid) in enumerate(problems()):
        pixels, (own,) = expected_pixels(window, grid), grid.slices
        for dtype in (torch.float64, DTYPES[i % len(DTYPES)]):
            torch.manual_seed(3)
            whole = [random((2, channels, *grid.spatial_size), dtype) for channels in (1, 3)]
            shards = [x[..., own] for x in whole]
            if dtype.is_complex:
                # Lazy conjugates are sent as what they mean.
                whole[1], shards[1] = whole[1].conj(), shards[1].conj()
            extended = extend_halos(*shards, W=window, grid=grid)
            for x, found in zip(whole, extended, strict=True):
                assert torch.equal(found, x.index_select(2, pixels)), (window, grid, dtype)
            if not (dtype.is_floating_point or dtype.is_complex):
                continue
            torch.manual_seed(dist.get_rank())
            y = [random(tuple(x.shape), dtype) for x in extended]
            gathered = gather_halos(*y, W=window, grid=grid)
            again = gather_halos(*y, W=window, grid=grid)
            assert all(map(torch.equal, gathered, again)), "other bits in the second run"
            if dtype == torch.float64:
                check_adjoint(shards, extended, y, gathered)
                check_derivatives(shards, y, window, grid)


def dot(xs: Any, ys: Any) -> Tensor:
    return torch.stack([torch.vdot(x.flatten(), y.flatten()) for x, y in zip(xs, ys, strict=True)])


def check_adjoint(xs: Any, extended: Any, ys: Any, gathered: Any) -> None:
    """<E x, y> = <x, E* y>, summed over all ranks."""
    both = torch.stack([dot(extended, ys), dot(xs, gathered)])
    dist.all_reduce(both)
    assert_close(both[0], both[1], rtol=1e-12, atol=1e-12)


def check_derivatives(xs: Any, ys: Any, window: Window, grid: ShardedGrid) -> None:
    """Reverse mode twice, and forward mode, which need no more than the maps themselves."""
    leaves = [x.clone().requires_grad_() for x in xs]
    extended = extend_halos(*leaves, W=window, grid=grid)
    cubes = sum((x**3 * y).sum() for x, y in zip(extended, ys, strict=True))
    first = torch.autograd.grad(cubes, leaves, create_graph=True)
    weights = [3 * x.detach() ** 2 * y for x, y in zip(extended, ys, strict=True)]
    for own, wanted in zip(first, gather_halos(*weights, W=window, grid=grid), strict=True):
        assert_close(own.detach(), wanted)
    second = torch.autograd.grad(sum((x**2).sum() for x in first), leaves)
    tangents = extend_halos(*(2 * x.detach() for x in first), W=window, grid=grid)
    weights = [6 * x.detach() * y * t for x, y, t in zip(extended, ys, tangents, strict=True)]
    for own, wanted in zip(second, gather_halos(*weights, W=window, grid=grid), strict=True):
        assert_close(own, wanted)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(x, 2 * x) for x in xs]
        for own, x in zip(extend_halos(*duals, W=window, grid=grid), extended, strict=True):
            assert_close(forward_ad.unpack_dual(own).tangent, 2 * x.detach())
        duals = [forward_ad.make_dual(y, 2 * y) for y in ys]
        wanted = gather_halos(*ys, W=window, grid=grid)
        for own, x in zip(gather_halos(*duals, W=window, grid=grid), wanted, strict=True):
            assert_close(forward_ad.unpack_dual(own).tangent, 2 * x)
    # torch.func takes the cotangents from functions of their own.
    for function, inputs, cotangents, adjoint in (
        (extend_halos, xs, ys, gather_halos),
        (gather_halos, ys, xs, extend_halos),
    ):
        _, pull_back = torch.func.vjp(partial(function, W=window, grid=grid), *inputs)
        wanted = adjoint(*cotangents, W=window, grid=grid)
        assert all(map(torch.equal, pull_back(tuple(cotangents)), wanted))


def one_message_per_pair() -> None:
    """Two tensors to two neighbours, or to the only one, which is both."""
    world = dist.get_world_size()
    n = 6 * world
    grid = ShardedGrid((n,), {0: mesh_of((world,)).get_group()})
    before = messages.Sent.messages, messages.Sent.bytes
    xs = torch.randn(2, 1, 3, 6)
    extended = extend_halos(*xs, W=5, grid=grid)
    sent = messages.Sent.messages - before[0], messages.Sent.bytes - before[1]
    neighbours = {1: 0, 2: 1, 4: 2}[world]
    # Two tensors of 3 channels, two pixels to each side, 4 bytes each.
    assert sent == (neighbours, 0 if world == 1 else 2 * 3 * 4 * 4)
    gather_halos(*extended, W=5, grid=grid)
    assert messages.Sent.messages - before[0] == 2 * neighbours


def ops_are_registered_right() -> None:
    """Schema, fake tensors and autograd of the ops, by torch's own checks; on one process."""
    if dist.get_world_size() > 1:
        return
    group = mesh_of((1,)).get_group().group_name
    for op, pixels in ((_extend_op, 5), (_gather_op, make_plan(0, (5,), 2, 1, True).extended)):
        xs = [torch.randn(2, channels, pixels, requires_grad=True) for channels in (1, 2)]
        torch.library.opcheck(op, (xs, 2, [5], 0, 2, 1, True, group))
