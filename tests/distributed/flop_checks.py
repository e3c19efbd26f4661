"""Flops of attention that overlaps with its messages, as torch's counter finds them."""

from __future__ import annotations

import torch
import torch.distributed as dist
from attention_checks import S, mesh_of
from torch.distributed.tensor import distribute_tensor
from torch.utils.flop_counter import FlopCounterMode

from circulant_attention import circulant_mh_attention
from circulant_attention.distributed import set_overlap

_ops = torch.ops.circulant_attention


def flops_with_and_without_overlap() -> None:
    """Those of a shard's queries, forward and backward."""
    world = dist.get_world_size()
    mesh = mesh_of((world,))
    rows, columns, heads, window = 12 * world, 6, 2, (5, 3)
    x = distribute_tensor(torch.randn(3, 4, rows, columns), mesh, [S(2)]).requires_grad_()
    v = distribute_tensor(torch.randn(3, 6, rows, columns), mesh, [S(2)]).requires_grad_()
    entries = 3 * heads * (rows // world) * columns * 5 * 3
    expected = 2 * entries * (2 + 3), 2 * entries * (3 * 2 + 2 * 3)
    for enabled in (False, True):
        set_overlap(enabled)
        try:
            with FlopCounterMode(display=False) as forward:
                y, _ = circulant_mh_attention(x, x, v, window, heads)
            with FlopCounterMode(display=False) as backward:
                y.sum().backward()
        finally:
            set_overlap(False)
        # One process sends nothing, and has nothing to overlap with.
        ops = (_ops.attention, _ops.attention_backward)
        if enabled and world > 1:
            ops = (_ops.attention_with_halos, _ops.attention_with_halos_backward)
        for counter, op, flops in zip((forward, backward), ops, expected, strict=True):
            assert counter.get_flop_counts()["Global"][op] == flops
            assert counter.get_total_flops() == flops
