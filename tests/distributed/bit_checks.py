"""Attention and its matrix in the bits of one process, for windows of many batches of key rows."""

from __future__ import annotations

import torch
import torch.distributed as dist
from attention_checks import SIMILARITIES, Case, R, S, mesh_of, name_of, truncated
from torch.distributed.tensor import distribute_tensor

from circulant_attention import (
    Window,
    circulant_mh_adjacency,
    circulant_mh_attention,
    mh,
    softmax,
)
from circulant_attention.geometry import make_geometry

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64)
HEADS = 2


def cases() -> list[Case]:
    """The first rows of shards, and their places in blocks of four rows, are of every kind."""
    world = dist.get_world_size()
    square = (2, world // 2) if world > 1 else (1, 1)
    return [
        Case((world,), (301,), 281, [S(2)]),
        Case((world,), (41, 37), (35, 35), [S(2)]),
        Case(square, (38, 43), (35, 31), [S(2), S(3)]),
        Case(square, (38, 43), truncated((13, 33), boundary=("truncated", "circular")), [S(3), R]),
        Case(square, (31, 26), Window((9, 12), dilation=(3, 2)), [S(2), S(3)]),
        Case(square, (11, 14, 13), (7, 9, 11), [S(2), S(4)]),
        Case(square, (13, 11, 10), (9, 5, 9), [S(3), S(2)]),
        # One pixel of a dim without a window: the sums are those of a grid of columns.
        Case((world,), (15, 6, world), (9, 5, 1), [S(4)]),
        Case((world,), (33, world), (31, 1), [S(3)]),
    ]


def the_bits_of_one_process() -> None:
    for number, case in enumerate(cases()):
        for at, dtype in enumerate(DTYPES):
            # Each case with two dtypes, all of them over the cases.
            if (number + at) % len(DTYPES) < 2:
                for with_terms in (False, True):
                    name = f"{name_of(case)}, {dtype}, terms: {with_terms}"
                    try:
                        _check(case, dtype, SIMILARITIES[(number + at) % 2], with_terms)
                    except Exception as error:
                        raise AssertionError(name) from error


def _check(case: Case, dtype: torch.dtype, simfun: object, with_terms: bool) -> None:
    mesh = mesh_of(case.mesh)
    torch.manual_seed(2)
    full = [torch.randn(1, 2 * HEADS, *case.size).to(dtype) for _ in range(3)]
    cut = [distribute_tensor(x, mesh, case.placements) for x in full]
    options: dict[str, object] = {}
    if with_terms:
        lengths = make_geometry(case.window, case.size).lengths
        mask = torch.rand(HEADS, *case.size) < 0.8
        options = {"scale": 0.4, "bias": torch.randn(HEADS, *lengths), "key_mask": mask[None]}
    results = []
    for q, k, v in (full, cut):
        y, A = circulant_mh_attention(simfun, q, k, v, case.window, HEADS, **options)
        B = circulant_mh_adjacency(simfun, q, k, case.window, HEADS, **options)
        results.append((y, mh(B, v), A, B, softmax(B)))
    (y, z, *matrices), (own_y, own_z, *own_matrices) = results
    assert torch.equal(own_y.full_tensor(), y)
    assert torch.equal(own_z.full_tensor(), z)
    for own, expected in zip(own_matrices, matrices, strict=True):
        values = expected.values
        # Inputs are small: no weight is below the least normal number of the sums.
        assert not ((values != 0) & (values.double().abs() < 2**-126)).any()
        assert torch.equal(own.full().values, values)
