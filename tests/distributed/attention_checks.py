"""Attention of DTensors against the same functions of whole tensors."""

from __future__ import annotations

import operator
from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.testing import assert_close

from circulant_attention import (
    DistanceSimilarity,
    DotSimilarity,
    Window,
    circulant_adjacency,
    circulant_attention,
    circulant_mh_adjacency,
    circulant_mh_attention,
    circulant_similarity,
    mh,
    softmax,
)
from circulant_attention.distributed import DistributedCirculant, messages, set_overlap
from circulant_attention.geometry import make_geometry

R, S = Replicate(), Shard
SIMILARITIES = (DotSimilarity(), DistanceSimilarity())


class Case(NamedTuple):
    mesh: tuple[int, ...]
    size: tuple[int, ...]
    window: Any
    placements: list[Any]
    heads: int = 1


def truncated(size: Any, dilation: int = 1, boundary: Any = "truncated") -> Window:
    return Window(size, dilation=dilation, boundary=boundary)


CASES = {
    1: [
        Case((1,), (9,), 5, [S(2)]),
        Case((1,), (8, 6), 3, [S(2)], 2),
        Case((1, 1), (8, 6), truncated(3), [S(2), S(3)], 2),
    ],
    2: [
        Case((2,), (12,), 5, [S(2)]),
        Case((2,), (13,), 5, [S(2)]),
        # Halos that come back to the rank itself.
        Case((2,), (8,), 7, [S(2)]),
        Case((2,), (7,), 7, [S(2)]),
        Case((2,), (10, 7), (5, 3), [S(2)], 2),
        Case((2,), (6, 9), (3, 5), [S(3)], 2),
        Case((2,), (6, 9), (3, 5), [S(0)], 2),
        Case((2,), (6, 9), (3, 5), [S(1)], 2),
        Case((2,), (6, 9), (3, 5), [R], 2),
        # No halo.
        Case((2,), (6, 9), (1, 5), [S(2)], 2),
        Case((2,), (5, 6, 7), (3, 5, 3), [S(2)], 2),
        Case((2,), (11,), Window(((3, 1),)), [S(2)]),
        Case((2,), (13, 5), Window((3, 2), dilation=(3, 1)), [S(2)], 2),
        Case((2,), (11,), truncated(5), [S(2)]),
        Case((2,), (9, 6), truncated((5, 3), boundary=("truncated", "circular")), [S(2)], 2),
    ],
    4: [
        # Halos that reach two ranks.
        Case((4,), (13,), 9, [S(2)]),
        Case((4,), (4,), 3, [S(2)]),
        # Without pixels on the last rank.
        Case((4,), (5,), 5, [S(2)]),
        Case((4,), (9,), 9, [S(2)]),
        Case((4,), (5, 8), (5, 3), [S(2)], 2),
        Case((4,), (5, 6), truncated((5, 3)), [S(2)], 2),
        Case((4,), (17,), truncated(((4, 1),), dilation=2), [S(2)]),
        Case((4,), (14,), Window(((2, 1),), dilation=3), [S(2)]),
        Case((2, 2), (12, 10), 5, [S(2), S(3)], 2),
        Case((2, 2), (11, 9), (7, 3), [S(3), S(2)], 2),
        Case((2, 2), (11, 9), (7, 3), [S(0), S(2)], 2),
        Case((2, 2), (11, 9), (7, 3), [S(2), S(1)], 2),
        Case((2, 2), (11, 9), (7, 3), [S(2), R], 2),
        Case(
            (2, 2), (9, 8), truncated((3, 4), boundary=("circular", "truncated")), [S(2), S(3)], 2
        ),
        Case((2, 2), (9, 8), truncated((3, 5), 2), [S(2), S(3)], 2),
        Case((2, 2), (7, 9, 5), (3, 5, 3), [S(2), S(4)], 2),
        Case((2, 2), (4, 5, 6), (3, 5, 5), [S(3), S(2)]),
    ],
}

_MESHES: dict[tuple[int, ...], DeviceMesh] = {}


def mesh_of(shape: tuple[int, ...]) -> DeviceMesh:
    """The mesh, one for all checks: each new one makes process groups."""
    if shape not in _MESHES:
        _MESHES[shape] = init_device_mesh("cpu", shape)
    return _MESHES[shape]


def name_of(case: Case) -> str:
    return f"{case.mesh} {case.size} {case.window} {case.placements} {case.heads} heads"


def whole(x: Any) -> Tensor:
    return x.full_tensor() if isinstance(x, DTensor) else x


def check_equal(found: Any, expected: Tensor, roundings: float = 0, placements: Any = None) -> None:
    """Equal in bits, or up to a number of roundings of the largest element."""
    if placements is not None:
        assert isinstance(found, DTensor)
        assert tuple(found.placements) == tuple(placements)
    found = whole(found)
    assert found.dtype == expected.dtype
    largest = float(expected.detach().abs().max()) if expected.numel() else 0
    atol = roundings * torch.finfo(expected.dtype).eps * largest
    assert_close(found, expected, rtol=0, atol=atol)


def make(case: Case, dtype: torch.dtype, count: int = 4) -> tuple[list[Tensor], list[DTensor]]:
    """Whole tensors and the same as DTensors, which require gradients."""
    mesh = mesh_of(case.mesh)
    torch.manual_seed(1)
    full = [torch.randn(2, 4, *case.size, dtype=dtype) for _ in range(count)]
    cut = [distribute_tensor(x, mesh, case.placements).requires_grad_() for x in full]
    return [x.requires_grad_() for x in full], cut


def check_case(case: Case, dtype: torch.dtype, simfun: Any) -> None:
    full, cut = make(case, dtype)
    W, heads, placements = case.window, case.heads, case.placements

    def outputs(q: Any, k: Any, v: Any, w: Any) -> dict[str, Any]:
        if heads == 1:
            y, A = circulant_attention(simfun, q, k, v, W)
            apply: Callable[..., Any] = operator.matmul
            B = circulant_adjacency(simfun, q, k, W)
            S = circulant_similarity(simfun, q, k, W)
            assert S.shape == A.shape
        else:
            y, A = circulant_mh_attention(simfun, q, k, v, W, heads)
            apply = mh
            B = circulant_mh_adjacency(simfun, q, k, W, heads)
            S = A
        C = 0.5 * (A + B) - A / 3 + A * B
        return {
            "y": y,
            "A": A,
            "B": B,
            "S": S,
            "Av": apply(A, v),
            "Atw": apply(A.mT, w),
            "AtAv": apply(C.mT, apply(A, v)),
            "softmax": softmax(C) if heads == 1 else torch.softmax(C, -1),
            "rows": C.sum(-1),
            "columns": C.sum(-2),
            "columns of mT": A.mT.sum(-1),
            "matrices": C.sum((-2, -1)),
            "sum": C.sum(),
            "means of rows": C.mean(-1),
            "means of columns": C.mean(-2),
            "means": torch.mean(C, (-2, -1)),
            "mean": C.mean(),
            "dot": A.dot(C),
        }

    expected, found = outputs(*full), outputs(*cut)
    # Sums over the window of a row have one order: the same bits.
    for name in ("y", "Av"):
        check_equal(found[name], expected[name], 0, placements)
    for name in ("A", "B", "S", "softmax"):
        check_equal(found[name].full().values, expected[name].values)
        assert found[name].shape == expected[name].shape
    for name in ("Atw", "AtAv"):
        check_equal(found[name], expected[name], 64, placements)
    for name in ("rows", "columns", "columns of mT", "means of rows", "means of columns"):
        shape = expected[name].shape
        check_equal(whole(found[name]).reshape(shape), expected[name], 64)
    terms = full[0].shape[2:].numel()
    for name in ("matrices", "sum", "means", "mean", "dot"):
        check_equal(found[name], expected[name], 16 * terms)

    def weighted(outputs: dict[str, Any], dy: Any) -> Any:
        total = 0
        for name in ("y", "Av", "Atw", "AtAv"):
            part = outputs[name] * dy.conj()
            total = total + (part.real if part.is_complex() else part).sum()
        total = total + (outputs["rows"] ** 2).sum() + (outputs["columns"] ** 2).sum()
        total = total + (outputs["means of columns"] ** 2).sum() + outputs["mean"].real
        return total + outputs["dot"].real + (outputs["softmax"].sum(-1) ** 3).sum()

    dy = torch.randn_like(full[0])
    grads = torch.autograd.grad(weighted(expected, dy), full)
    dy = distribute_tensor(dy, mesh_of(case.mesh), placements)
    own = torch.autograd.grad(weighted(found, dy), cut)
    for mine, theirs in zip(own, grads, strict=True):
        check_equal(mine, theirs, 4096, placements)


def attention_of_dtensors() -> None:
    for i, case in enumerate(CASES[dist.get_world_size()]):
        runs = [(torch.float64, SIMILARITIES[i % 2])]
        if i % 5 == 0:
            runs.append((torch.float32 if i % 2 else torch.complex128, SIMILARITIES[1 - i % 2]))
        for dtype, simfun in runs:
            try:
                check_case(case, dtype, simfun)
            except Exception as error:
                raise AssertionError(f"{name_of(case)}, {dtype}, {simfun}") from error


def overlapped() -> None:
    """The interior while the halos travel: y and dq in bits, in any order of derivatives."""
    world = dist.get_world_size()
    square = (2, world // 2) if world > 1 else (1, 1)
    cases = [
        Case((world,), (8 * world, 9), 3, [S(2)], 2),
        Case(square, (25, 31), (5, 3), [S(2), S(3)], 2),
        # Truncated: the ranks at the ends do not overlap, the others do.
        Case((world,), (12 * world,), truncated(5), [S(2)]),
        Case((world,), (12 * world,), Window(((3, 1),)), [S(2)]),
    ]
    for i, (case, with_terms) in enumerate(product(cases, (False, True))):
        (q, k, v, w), _ = make(case, torch.float64)
        mesh = mesh_of(case.mesh)
        lengths = make_geometry(case.window, case.size).lengths
        bias, mask = torch.randn(2, *lengths, dtype=torch.float64)[: case.heads], w[:, 0].detach()
        results = []
        for enabled in (False, True):
            set_overlap(enabled)
            try:
                before = messages.Sent.messages, messages.Sent.bytes
                xs = [
                    distribute_tensor(x.detach(), mesh, case.placements).requires_grad_()
                    for x in (q, k, v)
                ]
                dy = distribute_tensor(w.detach(), mesh, case.placements)
                options = {}
                if with_terms:
                    own_bias = distribute_tensor(bias, mesh, [R] * mesh.ndim).requires_grad_()
                    dims = [S(p.dim - 1) for p in case.placements]
                    own_mask = distribute_tensor(mask, mesh, dims).requires_grad_()
                    options = {"bias": own_bias, "key_mask": own_mask}
                arguments = SIMILARITIES[i % 2], *xs, case.window, case.heads
                y, A = circulant_mh_attention(*arguments, **options)
                xs += options.values()
                total = (y * dy).sum() + (A.sum(-2) ** 2).sum()
                plain = torch.autograd.grad(total, xs, retain_graph=True)
                again = torch.autograd.grad(total, xs, create_graph=True)
                second = torch.autograd.grad(sum((x**2).sum() for x in again), xs)
                sent = messages.Sent.messages - before[0], messages.Sent.bytes - before[1]
                results.append((sent, y, plain[0], *plain[1:], *again, *second))
            finally:
                set_overlap(False)
        (sent, y, dq, *grads), (sent_too, y_too, dq_too, *grads_too) = results
        assert sent == sent_too, "other messages"
        assert torch.equal(y.to_local(), y_too.to_local())
        assert torch.equal(dq.to_local(), dq_too.to_local())
        for own, other in zip(grads_too, grads, strict=True):
            check_equal(own, other.full_tensor(), 256)


def ranks_without_samples() -> None:
    """A batch of one over two ranks."""
    if dist.get_world_size() == 1:
        return
    square = (2, dist.get_world_size() // 2)
    x = torch.randn(1, 4, 9, 6, dtype=torch.float64)
    (expected,) = loss_gradient(x.clone().requires_grad_())
    cut = distribute_tensor(x, mesh_of(square), [S(0), S(2)]).requires_grad_()
    (found,) = loss_gradient(cut)
    check_equal(found, expected, 256, [S(0), S(2)])


def loss_gradient(x: Any) -> Any:
    y, A = circulant_mh_attention(x, x, x, 5, 2)
    loss = (y**2).sum() + (mh(A.mT, x) ** 2).sum()
    return torch.autograd.grad(loss, x)


def scale_bias_and_mask() -> None:
    """A bias whose gradient comes from every rank; masks of samples and heads on several ranks."""
    world = dist.get_world_size()
    square = (2, world // 2) if world > 1 else (1, 1)
    for placements, leading in (
        ([S(2), S(3)], (2,)),
        ([S(1), S(2)], (1, 2)),
        ([S(0), S(3)], (2, 2)),
    ):
        shape = square
        case = Case(
            shape, (9, 8), truncated((3, 4), boundary=("circular", "truncated")), placements
        )
        mesh, heads = mesh_of(shape), 2
        full, cut = make(case, torch.float64, 3)
        bias = torch.randn(heads, 3, 4, dtype=torch.float64)
        own = distribute_tensor(bias, mesh, [R, R]).requires_grad_()
        mask = torch.rand(*leading, *case.size) < 0.7
        # Around some pixel no key takes part.
        mask[..., :5, :] = False
        options = {"scale": 0.3, "key_mask": mask}
        results = []
        for xs, b in ((full, bias.requires_grad_()), (cut, own)):
            y, A = circulant_mh_attention(*xs, case.window, heads, bias=b, **options)
            B = circulant_mh_adjacency(
                SIMILARITIES[1], *xs[:2], case.window, heads, bias=b, **options
            )
            z = y + mh(A, xs[2]) + mh(B.mT, xs[2])
            results.append((y, z, torch.autograd.grad((z**2).sum(), [*xs, b])))
        (y, z, grads), (own_y, own_z, own_grads) = results
        check_equal(own_y, y, 0, placements)
        check_equal(own_z, z, 256, placements)
        for mine, theirs in zip(own_grads, grads, strict=True):
            check_equal(mine, theirs, 4096)


def means_of_halves() -> None:
    """The sums are larger than the largest float16."""
    world = dist.get_world_size()
    rows = torch.full((1, 1, 12, 10, 9), 600, dtype=torch.float16)
    A = DistributedCirculant(distribute_tensor(rows, mesh_of((world,)), [S(2)]), 3)
    B = A.full()
    for dim in (None, -1, -2, (-2, -1)):
        found = A.mean(dim)
        assert found.dtype == torch.float16
        expected = B.mean(dim)
        # Each rank rounds its summand.
        check_equal(whole(found).reshape(expected.shape), expected, 2)
    wanted = B.mean(-2, dtype=torch.float64)
    for found in (A.mean(-2, dtype=torch.float64), torch.mean(A, -2, dtype=torch.float64)):
        check_equal(whole(found).reshape(wanted.shape), wanted, 2)


def values_of_other_channels() -> None:
    case = Case((dist.get_world_size(),), (9, 6), (5, 3), [S(2)], 2)
    (q, k, _), cut = make(case, torch.float64, 3)
    v = torch.randn(2, 6, *case.size, dtype=torch.float64)
    expected, _ = circulant_mh_attention(q, k, v, case.window, case.heads)
    own = distribute_tensor(v, mesh_of(case.mesh), case.placements)
    found, A = circulant_mh_attention(*cut[:2], own, case.window, case.heads)
    check_equal(found, expected, 64, case.placements)
    check_equal(mh(A, own), expected, 64, case.placements)
