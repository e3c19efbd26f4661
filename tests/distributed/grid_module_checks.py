"""Modules that see whole axes, grids or sets, with DTensors: results of one process."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from attention_checks import R, S, check_equal, mesh_of
from torch import nn
from torch.distributed.tensor import DTensor, distribute_module, distribute_tensor
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from circulant_attention.denoising import attention_window, nonlocal_means, patches
from circulant_attention.nn import (
    AxialAttention,
    AxialImageTransformer,
    AxialPositionalEmbedding,
    CosAttn1d,
    CosAttn2d,
    CosAttn3d,
    CosMHSA,
    FusedAttention,
    NonlocalDenoiser,
)


class Case(NamedTuple):
    """A module, the shapes of its inputs, its placements, and its arguments that are no tensors."""

    module: nn.Module
    shapes: list[tuple[int, ...]]
    mesh: tuple[int, ...]
    placements: list[Any]
    options: dict[str, Any] = {}  # noqa: RUF012


def _layouts(spatial: int, *, channels: bool = False) -> list[tuple[tuple[int, ...], list[Any]]]:
    """The meshes of this world, and placements over the batch and the last ``spatial`` dims."""
    world = dist.get_world_size()
    if world == 1:
        return [((1,), [S(2)]), ((1, 1), [R, S(0)])]
    if world == 2:
        found = [((2,), [S(dim)]) for dim in range(2, 2 + spatial)]
        return [*found, ((2,), [S(0)]), ((2,), [R]), *([((2,), [S(1)])] if channels else [])]
    found = [((4,), [S(2)]), ((2, 2), [S(2), S(0)]), ((2, 2), [R, S(2)])]
    if spatial > 1:
        found += [((2, 2), [S(2), S(3)]), ((2, 2), [S(3), S(2)])]
    return [*found, *([((2, 2), [S(1), S(2)])] if channels else [])]


def check(case: Case) -> None:
    """Output, and gradients of inputs and parameters, against the module with whole tensors."""
    mesh = mesh_of(case.mesh)
    torch.manual_seed(4)
    xs = [torch.randn(*shape, dtype=torch.double, requires_grad=True) for shape in case.shapes]
    module = case.module.double()
    for parameter in module.parameters():
        dist.broadcast(parameter.data, 0)
    y = module(*xs, **case.options)
    dy = torch.randn_like(y)
    (y * dy).sum().backward()
    copied = distribute_module(copy.deepcopy(module), mesh)
    copied.zero_grad()
    own = [distribute_tensor(x.detach(), mesh, case.placements).requires_grad_() for x in xs]
    found = copied(*own, **case.options)
    check_equal(found, y, 512)
    (found * distribute_tensor(dy, mesh, found.placements)).sum().backward()
    for mine, theirs in zip(own, xs, strict=True):
        assert tuple(mine.grad.placements) == tuple(case.placements)
        largest = float(theirs.grad.abs().max())
        assert_close(mine.grad.full_tensor(), theirs.grad, rtol=0, atol=1e-11 * largest)
    for (name, parameter), other in zip(
        module.named_parameters(), copied.parameters(), strict=True
    ):
        assert isinstance(other.grad, DTensor), name
        atol = 1e-11 * max(1.0, float(parameter.grad.abs().max()))
        assert_close(other.grad.full_tensor(), parameter.grad, rtol=0, atol=atol, msg=name)


def check_all(cases: list[Case]) -> None:
    for case in cases:
        name = f"{type(case.module).__name__} {case.shapes} {case.mesh} {case.placements}"
        try:
            check(case)
        except Exception as error:
            raise AssertionError(name) from error


def cosine_attention() -> None:
    cases = []
    for mesh, placements in _layouts(2, channels=True):
        # Queries and keys on two grids.
        grids = [(2, 4, 7, 6), (2, 4, 9, 5), (2, 8, 9, 5)]
        cases.append(Case(CosAttn2d((9, 8), 2, 12), grids, mesh, placements))
    mesh, placements = _layouts(1)[0]
    cases.append(Case(CosAttn1d(12, 2, 16), [(2, 4, 5)] * 3, mesh, placements))
    cases.append(Case(CosAttn3d((4, 5, 3), 2, 8), [(1, 4, 4, 5, 3)] * 3, mesh, placements))
    for mesh, placements in _layouts(2):
        cases.append(Case(CosMHSA(2, 8, (9, 8), dropout=0.0), [(2, 8, 9, 7)], mesh, placements))
    check_all(cases)


def axial_attention() -> None:
    torch.manual_seed(9)
    cases = []
    for number, (mesh, placements) in enumerate(_layouts(2)):
        mask = torch.rand(3, 7, 9) < 0.7
        mask[:, 2] = False
        options = {"mask": mask} if number % 2 else {}
        module = AxialAttention(4, heads=2, dim_index=1, sum_axial_out=number % 3 > 0)
        cases.append(Case(module, [(3, 4, 7, 9)], mesh, placements, options))
        embedding = AxialPositionalEmbedding(4, (8, 9))
        cases.append(Case(embedding, [(3, 4, 7, 9)], mesh, placements))
    world = dist.get_world_size()
    # Channels last; one axis and one sample: nothing to exchange it for, and ranks without pixels.
    cases.append(Case(AxialAttention(4, 3, 2), [(2, 3, 5, 4, 4)], (world,), [S(1)]))
    cases.append(Case(AxialAttention(4, 1, 2), [(1, 5, 4)], (world,), [S(1)]))
    check_all(cases)


def fused_attention() -> None:
    world = dist.get_world_size()
    square = (2, world // 2) if world > 1 else (1, 1)
    torch.manual_seed(9)
    cases = []
    for inputs in (5, 9):
        mask = torch.rand(2, inputs) < 0.6
        mask[:, 1] = True
        for mesh, placements in (((world,), [S(1)]), (square, [S(0), S(1)]), (square, [R, S(1)])):
            shape = (2, inputs, 3)
            for options in ({}, {"mask": mask}):
                module = FusedAttention(nn.Linear(3, 4), nn.Linear(3, 4), g_V=nn.Linear(3, 2))
                cases.append(Case(module, [shape], mesh, placements, options))
        identity = FusedAttention(f_V=torch.tanh, flatten=True, scale=0.3)
        cases.append(Case(identity, [(2, inputs, 3, 2)], (world,), [S(1)]))
    # Over the batch everything works.
    patches = FusedAttention(nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), window=2, norm=torch.sigmoid)
    cases.append(Case(patches, [(3, 3, 6, 4)], (world,), [S(0)]))
    check_all(cases)
    x = distribute_tensor(torch.randn(2, 7, 3), mesh_of((world,)), [S(1)])
    whole = FusedAttention()(x.full_tensor(), need_weights=True)
    for mine, theirs in zip(FusedAttention()(x, need_weights=True), whole, strict=True):
        assert_close(mine.full_tensor(), theirs)


def axial_transformer_over_the_batch() -> None:
    world = dist.get_world_size()
    for reversible in (False, True):
        module = AxialImageTransformer(4, 1, 2, reversible=reversible, axial_pos_emb_shape=(8, 8))
        mask = torch.ones(3, 5, 6, dtype=torch.bool)
        mask[..., 4:] = False
        check(Case(module, [(3, 4, 5, 6)], (world,), [S(0)], {"mask": mask}))


def denoising() -> None:
    """Windows and patches over the borders of shards, in tiles too; gradients also of sigma."""
    torch.manual_seed(9)
    cases = [
        {"window": 5, "patch": 3},
        {"window": 5, "patch": 3, "tile": (4, 3), "boundary": "truncated"},
        {"window": 7, "patch": 5, "boundary": ("truncated", "circular")},
        {"window": 9, "patch": 9},
    ]
    layouts = _layouts(2)
    for number, options in enumerate(cases):
        for mesh_shape, placements in layouts if number < 3 else layouts[:1]:
            mesh = mesh_of(mesh_shape)
            complex_image = number == 2
            dtype = torch.complex128 if complex_image else torch.float64
            image = torch.randn(2, 2, 13, 11, dtype=dtype, requires_grad=True)
            dist.broadcast(torch.view_as_real(image.data) if complex_image else image.data, 0)
            sigma = torch.tensor([0.7, 0.0], dtype=torch.float64, requires_grad=True)
            y = nonlocal_means(image, sigma, **options)
            expected = torch.autograd.grad(y.abs().square().sum(), (image, sigma))
            own = distribute_tensor(image.detach(), mesh, placements).requires_grad_()
            own_sigma = distribute_tensor(sigma.detach(), mesh, [R] * mesh.ndim).requires_grad_()
            found = nonlocal_means(own, own_sigma, **options)
            check_equal(found, y, 64, placements)
            grads = torch.autograd.grad(found.abs().square().sum(), (own, own_sigma))
            for mine, theirs in zip(grads, expected, strict=True):
                atol = 1e-11 * max(1.0, float(theirs.abs().max()))
                assert_close(mine.full_tensor(), theirs, rtol=0, atol=atol)
    mesh = mesh_of((dist.get_world_size(),))
    module = NonlocalDenoiser(sigma=0.4, window=5, patch=3, memory=9000)
    image = torch.randn(1, 14, 10)
    own = distribute_tensor(image, mesh, [S(1)])
    check_equal(module(own), module(image), 64, [S(1)])
    assert torch.equal(nonlocal_means(own, 0.0, window=3, patch=3).full_tensor(), image)


def dropout_in_modules_on_shards() -> None:
    """Equal on ranks with equal values, another one on each shard, equal when checkpointed."""
    world = dist.get_world_size()
    mesh = mesh_of((world,))
    torch.manual_seed(11)
    module = distribute_module(AxialAttention(8, heads=2, dim_index=1, dropout=0.5), mesh)
    one = torch.randn(1, 8, 6, 5)
    torch.manual_seed(dist.get_rank())
    mine = module(distribute_tensor(one, mesh, [R])).to_local().contiguous()
    other = mine.clone()
    dist.broadcast(other, world - 1)
    assert torch.equal(mine, other)
    same = distribute_tensor(one.repeat(world, 1, 1, 1), mesh, [S(0)])
    torch.manual_seed(11)
    samples = module(same).full_tensor()
    for sample in samples[1:]:
        assert not torch.equal(sample, samples[0])
    x = distribute_tensor(torch.randn(2, 8, 6, 5), mesh, [S(2)]).requires_grad_()
    grads = []
    for run in (module, lambda x: checkpoint(module, x, use_reentrant=False)):
        torch.manual_seed(12)
        grads.append(torch.autograd.grad((run(x) ** 2).sum(), x)[0].full_tensor())
    assert torch.equal(*grads)
    module.eval()
    assert torch.equal(module(x).full_tensor(), module(x).full_tensor())


def what_modules_refuse() -> None:
    """On every rank at once, with what to do."""
    world = dist.get_world_size()
    mesh = mesh_of((world,))
    x = distribute_tensor(torch.randn(4, 8, 6, 6), mesh, [S(2)])
    plain = AxialAttention(8, heads=2, dim_index=1)
    sigma = torch.tensor(0.3, requires_grad=True)
    calls: list[tuple[Any, type, str]] = [
        (lambda: plain(x), TypeError, "use torch.distributed.tensor.distribute_module"),
        (lambda: nonlocal_means(x, sigma, window=3, patch=3), TypeError, "use distribute_tensor"),
        (lambda: patches(x, 3), TypeError, "patches does not take DTensors: use"),
        (lambda: attention_window(x, 0.1, (0, 0)), TypeError, "does not take DTensors: use"),
        (
            lambda: nonlocal_means(x, 0.1, window=7, patch=3),
            ValueError,
            "expected window not larger",
        ),
    ]
    if world > 1:
        channels = distribute_tensor(torch.randn(4, 8, 6, 6), mesh, [S(1)])
        inputs = distribute_tensor(torch.randn(4, 8, 6), mesh, [S(1)])
        calls += [
            (lambda: plain(channels), ValueError, "use x.redistribute"),
            (lambda: AxialImageTransformer(8, 1)(x), ValueError, "use x.redistribute"),
            (lambda: FusedAttention(window=2)(x), ValueError, "use x.redistribute"),
            (lambda: FusedAttention(norm=torch.exp)(inputs), ValueError, "use x.redistribute"),
            (
                lambda: nonlocal_means(channels, 0.1, window=3, patch=3),
                ValueError,
                "use image.redistribute",
            ),
            (lambda: CosAttn2d(6, 1, 8)(*3 * [channels]), ValueError, "nheads to be divisible"),
        ]
    for call, kind, text in calls:
        try:
            call()
        except kind as error:
            assert text in str(error), f"{error} does not say {text}"
        else:
            raise AssertionError(f"accepted, expected {kind.__name__} with {text}")
