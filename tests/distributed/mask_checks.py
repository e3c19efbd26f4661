"""Key masks that lie as the features do, against whole ones."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from attention_checks import SIMILARITIES, Case, R, S, check_equal, make, mesh_of, truncated
from torch import Tensor
from torch.distributed.tensor import distribute_module, distribute_tensor

from circulant_attention import Circulant, circulant_mh_adjacency, circulant_mh_attention, mh
from circulant_attention.distributed import (
    DistributedCirculant,
    ShardedGrid,
    sharded_adjacency,
    sharded_attention,
)
from circulant_attention.geometry import make_geometry
from circulant_attention.nn import CirculantAttention2d

HEADS = 2
MIXED = truncated((3, 4), boundary=("circular", "truncated"))


def cases() -> list[tuple[Case, tuple[int, ...], list[Any]]]:
    """The case, the leading dims of the mask, and its placements."""
    world = dist.get_world_size()
    square = (2, world // 2) if world > 1 else (1, 1)
    return [
        (Case(square, (9, 8), MIXED, [S(2), S(3)]), (2,), [S(1), S(2)]),
        # The same for several heads and samples, on several ranks.
        (Case(square, (9, 8), (5, 3), [S(1), S(2)]), (1,), [R, S(1)]),
        (Case(square, (9, 8), (5, 3), [S(0), S(2)]), (1, 2), [R, S(2)]),
        (Case(square, (9, 8), MIXED, [S(1), S(3)]), (2, 2), [S(1), S(3)]),
        # Ranks without pixels, and ranks without samples.
        (Case((world,), (5,), 5, [S(2)]), (2, 1), [S(2)]),
        (Case((world,), (6,), 3, [S(0)]), (2,), [S(0)]),
    ]


def outputs_and_grads(
    case: Case, xs: list[Any], mask: Any, learns: bool
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    y, A = circulant_mh_attention(*xs, case.window, HEADS, key_mask=mask)
    B = circulant_mh_adjacency(SIMILARITIES[1], *xs[:2], case.window, HEADS, key_mask=mask)
    z = y + mh(A, xs[2]) + mh(B.mT, xs[2])
    inputs = [*xs, mask] if learns else xs
    return y, z, torch.autograd.grad((z**2).sum(), inputs)


def masks_of_modules() -> None:
    torch.manual_seed(1)
    mesh = mesh_of((dist.get_world_size(),))
    x, seen = torch.randn(2, 4, 9, 6), torch.rand(2, 9, 6) < 0.7
    module = CirculantAttention2d(4, HEADS, 5)
    expected = module(x, key_mask=seen)
    cut = distribute_tensor(x, mesh, [S(2)]), distribute_tensor(seen, mesh, [S(1)])
    found = distribute_module(module, mesh)(cut[0], key_mask=cut[1])
    check_equal(found, expected, 64, [S(2)])


def masks_of_dtensors() -> None:
    for case, leading, placements in cases():
        mesh = mesh_of(case.mesh)
        full, cut = make(case, torch.float64, 3)
        seen = torch.rand(*leading, *case.size) < 0.7
        # Around some pixel no key takes part.
        seen[..., :4] = False
        numbers = torch.randn(seen.shape, dtype=torch.float64).masked_fill(~seen, -torch.inf)
        for mask, learns in ((seen, False), (numbers, True)):
            own = distribute_tensor(mask, mesh, placements)
            if learns:
                mask.requires_grad_()
                own.requires_grad_()
            y, z, grads = outputs_and_grads(case, full, mask, learns)
            own_y, own_z, own_grads = outputs_and_grads(case, cut, own, learns)
            check_equal(own_y, y, 64, case.placements)
            check_equal(own_z, z, 256, case.placements)
            for mine, theirs in zip(own_grads, grads, strict=True):
                check_equal(mine, theirs, 4096)
            # A whole mask on every rank: the same bits.
            whole = mask.detach()
            check_equal(outputs_and_grads(case, cut, whole, False)[1], own_z.full_tensor())


def softmax_of_rows_without_keys() -> None:
    """Zeros, and gradients of zero, as of a matrix on one process."""
    mesh, grid = mesh_of((dist.get_world_size(),)), (9, 6)
    torch.manual_seed(1)
    for window in ((5, 3), MIXED):
        entries = make_geometry(window, grid).nnz_per_row
        rows = torch.randn(2, HEADS, *grid, entries, dtype=torch.float64)
        weights = torch.randn_like(rows)
        rows[:, 0, 2:5] = -torch.inf
        own = distribute_tensor(rows, mesh, [S(2)]).requires_grad_()
        rows.requires_grad_()
        A = Circulant(rows.flatten(2), window, grid)
        expected = A.softmax().values.reshape(rows.shape)
        assert not expected[:, 0, 2:5].any()
        found = DistributedCirculant(own, window).softmax().rows
        check_equal(found, expected, 64, [S(2)])
        cut = distribute_tensor(weights, mesh, [S(2)])
        (wanted,) = torch.autograd.grad((expected * weights).sum(), rows)
        (grad,) = torch.autograd.grad((found * cut).sum(), own)
        check_equal(grad, wanted, 64, [S(2)])


def terms_of_shards() -> None:
    """A scale, a bias and the shard of a mask, with shards that are not those of chunks."""
    world = dist.get_world_size()
    group = mesh_of((world,)).get_group()
    sizes = [7] if world == 1 else [6, *[2] * (world - 2), 0]
    grid = ShardedGrid((sum(sizes), 6), {0: group}, {0: sizes})
    torch.manual_seed(1)
    full = [torch.randn(2, 4, *grid.spatial_size, dtype=torch.float64) for _ in range(3)]
    for window, leading, boolean in ((MIXED, (2, 1), True), ((5, 3), (1, HEADS), False)):
        bias = torch.randn(HEADS, *make_geometry(window, grid.spatial_size).lengths).double()
        seen = torch.rand(*leading, *grid.spatial_size) < 0.7
        numbers = torch.randn(seen.shape, dtype=torch.float64).masked_fill(~seen, -torch.inf)
        mask = seen if boolean else numbers
        results = []
        for part in ((...,), (..., *grid.slices)):
            xs = [x[part].clone().requires_grad_() for x in full]
            own = {"bias": bias.clone().requires_grad_(), "key_mask": mask[part].clone()}
            inputs = [*xs, own["bias"]]
            if not boolean:
                inputs.append(own["key_mask"].requires_grad_())
            if len(part) == 1:
                y, _ = circulant_mh_attention(*xs, window, HEADS, scale=0.3, **own)
                A = circulant_mh_adjacency(SIMILARITIES[1], *xs[:2], window, HEADS, scale=2, **own)
                rows = A.values.reshape(2, HEADS, *grid.spatial_size, -1)
            else:
                y = sharded_attention(*xs, window, HEADS, grid=grid, scale=0.3, **own)
                rows = sharded_adjacency(
                    SIMILARITIES[1], *xs[:2], window, HEADS, grid=grid, scale=2, **own
                )
            loss = (y**2).sum() + (rows**3).sum()
            results.append((y, rows, *torch.autograd.grad(loss, inputs)))
        (y, rows, *grads), (own_y, own_rows, *own_grads) = results
        check_equal(own_y, y[(..., *grid.slices)], 64)
        check_equal(own_rows, rows[(..., *grid.slices, slice(None))], 64)
        # Of parameters each process has a summand.
        dist.all_reduce(own_grads[3], group=group)
        grads = [g if at == 3 else g[(..., *grid.slices)] for at, g in enumerate(grads)]
        for mine, theirs in zip(own_grads, grads, strict=True):
            check_equal(mine, theirs, 4096)
