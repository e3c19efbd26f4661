"""Dropout of A: one mask for every mesh and every placement, on all ranks that hold an entry."""

from __future__ import annotations

import copy

import torch
import torch.distributed as dist
from attention_checks import R, S, check_equal, mesh_of, truncated
from torch import Tensor
from torch.distributed.tensor import distribute_module, distribute_tensor
from torch.utils.checkpoint import checkpoint

from circulant_attention import (
    Circulant,
    DotSimilarity,
    circulant_mh_adjacency,
    circulant_mh_attention,
    mh,
)
from circulant_attention.nn import CirculantAttention2d

BATCH, HEADS, SIZE, P = 2, 2, (9, 8), 0.3
LAYOUTS = {
    1: [((1,), [S(2)]), ((1, 1), [R, S(3)])],
    2: [((2,), [S(2)]), ((2,), [S(1)]), ((2,), [S(0)]), ((2,), [R]), ((2,), [S(3)])],
    4: [((2, 2), [S(2), S(3)]), ((2, 2), [S(0), S(2)]), ((2, 2), [S(1), R]), ((4,), [S(2)])],
}


def _mask(rows: int, entries: int, seed: int) -> Tensor:
    """Which entries stay, from the definition in Python's ints."""
    wide, narrow = 2**64 - 1, 2**32 - 1
    kept = torch.empty(rows, entries, dtype=torch.bool)
    for row in range(rows):
        z = ((row + 1) * 0x9E3779B97F4A7C15 + seed) & wide
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & wide
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & wide
        z ^= z >> 31
        for slot in range(entries):
            x = (z + slot * 0x9E3779B1) & narrow
            x = ((x ^ (x >> 16)) * 0x7FEB352D & narrow) ^ (z >> 32)
            x = (x ^ (x >> 15)) * 0x846CA68B & narrow
            kept[row, slot] = ((x ^ (x >> 16)) & (2**31 - 1)) >= round(P * 2**31)
    return kept


def dropout_of_dtensors() -> None:
    for W in (5, truncated((3, 4), boundary=("circular", "truncated"))):
        torch.manual_seed(3)
        q, k, v, dy = torch.randn(4, BATCH, 4, *SIZE, dtype=torch.float64)
        torch.manual_seed(7)
        seed = int(torch.randint(2**62, ()))
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        plain = circulant_mh_adjacency(DotSimilarity(), *leaves[:2], W, HEADS, scale=0.5)
        entries = plain.values.shape[-1] // (SIZE[0] * SIZE[1])
        kept = _mask(BATCH * HEADS * SIZE[0] * SIZE[1], entries, seed)
        # A standard deviation of the frequency is below 0.01.
        assert abs(kept.double().mean() - (1 - P)) < 0.05
        values = plain.values * kept.reshape(plain.values.shape) / (1 - P)
        expected = Circulant(values, W, SIZE)
        y = mh(expected, leaves[2])
        grads = torch.autograd.grad((y * dy).sum(), leaves)
        for shape, placements in LAYOUTS[dist.get_world_size()]:
            mesh = mesh_of(shape)
            cut = [distribute_tensor(x, mesh, placements).requires_grad_() for x in (q, k, v)]
            torch.manual_seed(7)
            own, A = circulant_mh_attention(*cut, W, HEADS, scale=0.5, dropout_p=P)
            check_equal(own, y, 16, placements)
            check_equal(A.full().values, values, 4)
            own_dy = distribute_tensor(dy, mesh, placements)
            for mine, theirs in zip(
                torch.autograd.grad((own * own_dy).sum(), cut), grads, strict=True
            ):
                check_equal(mine, theirs, 256, placements)
            torch.manual_seed(7)
            B = circulant_mh_adjacency(DotSimilarity(), *cut[:2], W, HEADS, scale=0.5, dropout_p=P)
            check_equal(B.full().values, A.full().values)


def seeds_of_ranks_may_differ() -> None:
    """Ranks that hold the same entries drop the same; the next mask is another one."""
    world = dist.get_world_size()
    mesh = mesh_of((world,))
    x = distribute_tensor(torch.randn(1, 4, *SIZE), mesh, [R])
    torch.manual_seed(dist.get_rank())
    first, second = (circulant_mh_attention(x, x, x, 3, 2, dropout_p=0.5)[1] for _ in range(2))
    for A in (first, second):
        mine = A.rows.to_local().contiguous()
        other = mine.clone()
        dist.broadcast(other, world - 1)
        assert torch.equal(mine, other)
    assert not torch.equal(first.full().values, second.full().values)
    nothing, A = circulant_mh_attention(x, x, x, 3, 2, dropout_p=1.0)
    assert not nothing.full_tensor().any() and not A.full().values.any()


def dropout_in_modules() -> None:
    """In training, also checkpointed: the second run draws the same mask."""
    world = dist.get_world_size()
    mesh = mesh_of((world,))
    torch.manual_seed(5)
    module = CirculantAttention2d(4, 2, 3, attention_dropout=0.5)
    module = distribute_module(copy.deepcopy(module), mesh)
    x = distribute_tensor(torch.randn(1, 4, 8, 6), mesh, [S(2)]).requires_grad_()
    results = []
    for run in (module, lambda x: checkpoint(module, x, use_reentrant=False)):
        torch.manual_seed(6)
        y = run(x)
        (grad,) = torch.autograd.grad((y**2).sum(), x)
        results.append((y, grad))
    for one, two in zip(*results, strict=True):
        assert torch.equal(one.full_tensor(), two.full_tensor())
    assert not torch.equal(module(x).full_tensor(), results[0][0].full_tensor())
    module.eval()
    assert torch.equal(module(x).full_tensor(), module(x).full_tensor())
