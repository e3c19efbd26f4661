"""The modules with DTensors: outputs and gradients of one process, on any placements."""

from __future__ import annotations

import copy

import torch
import torch.distributed as dist
from attention_checks import R, S, check_equal, mesh_of
from torch import nn
from torch.distributed.tensor import DTensor, distribute_module, distribute_tensor
from torch.testing import assert_close

from circulant_attention import DistanceSimilarity
from circulant_attention.nn import (
    CirculantAttention1d,
    CirculantAttention2d,
    CirculantAttention3d,
    CirculantTransformerBlock,
)
from circulant_attention.nn.norms import ChannelStdNorm
from circulant_attention.nn.pointwise import pointwise_conv


def modules() -> list[tuple[nn.Module, tuple[int, ...]]]:
    distance = DistanceSimilarity()
    return [
        (CirculantAttention2d(8, 4, (5, 3)), (9, 7)),
        (CirculantTransformerBlock(8, 4, 5, similarity=distance, learn_bandwidth=True), (9, 10)),
        (CirculantAttention1d(8, 2, 5, similarity=distance), (11,)),
        (CirculantAttention3d(8, 2, (1, 3, 3), bias=False), (3, 5, 6)),
        (ChannelStdNorm((8, 1, 1), correction=1, eps=1e-3, names=("a", "b")), (9, 7)),
        (pointwise_conv(2, 8, 6), (5, 7)),
    ]


PLACEMENTS = {
    1: [((1,), [S(2)])],
    2: [((2,), [S(2)]), ((2,), [S(1)]), ((2,), [S(0)])],
    4: [((2, 2), [S(0), S(2)]), ((2, 2), [S(1), S(2)]), ((2, 2), [S(2), S(3)])],
}


def modules_of_dtensors() -> None:
    for at, (shape, placements) in enumerate(PLACEMENTS[dist.get_world_size()]):
        # With four processes, every second module for each placement.
        chosen = modules()[at % 2 :: 2] if dist.get_world_size() == 4 else modules()
        for module, size in chosen:
            if any(placement.dim >= 2 + len(size) for placement in placements):
                continue
            # Torch itself refuses the gradient of this norm over channels that are sharded.
            if isinstance(module, ChannelStdNorm) and S(1) in placements:
                continue
            try:
                check_module(module.double(), size, shape, placements)
            except Exception as error:
                raise AssertionError(f"{type(module).__name__} {shape} {placements}") from error


def check_module(module: nn.Module, size: tuple[int, ...], shape: tuple, placements: list) -> None:
    mesh = mesh_of(shape)
    for parameter in module.parameters():
        dist.broadcast(parameter.data, 0)
    x = torch.randn(3, 8, *size, dtype=torch.double, requires_grad=True)
    y = module(x)
    weights = torch.randn_like(y)
    (y * weights).sum().backward()
    copied = distribute_module(copy.deepcopy(module), mesh)
    copied.zero_grad()
    own = distribute_tensor(x.detach(), mesh, placements).requires_grad_()
    found = copied(own)
    check_equal(found, y, 256, placements)
    (found * distribute_tensor(weights, mesh, found.placements)).sum().backward()
    assert_close(own.grad.full_tensor(), x.grad, rtol=0, atol=1e-12 * float(x.grad.abs().max()))
    for (name, parameter), other in zip(
        module.named_parameters(), copied.parameters(), strict=True
    ):
        assert isinstance(other.grad, DTensor), name
        scale = float(parameter.grad.abs().max())
        # A gradient that cancels is as exact as its terms, which are of order one.
        atol = 1e-12 * max(scale, 1)
        assert_close(other.grad.full_tensor(), parameter.grad, rtol=0, atol=atol, msg=name)


def tensor_parallel() -> None:
    """Heads on different ranks: sharded weights, and no channel of x twice."""
    if dist.get_world_size() != 2:
        return
    mesh = mesh_of((2,))
    module = CirculantAttention2d(8, 4, (5, 3)).double()
    for parameter in module.parameters():
        dist.broadcast(parameter.data, 0)
    x = torch.randn(2, 8, 7, 6, dtype=torch.double, requires_grad=True)
    y = module(x)
    y.square().sum().backward()

    def cut(name: str, part: nn.Module, mesh: object) -> None:
        if name.startswith("to_"):
            dim = 1 if name == "to_out" else 0
            for key, parameter in list(part.named_parameters()):
                placement = R if key == "bias" and dim else S(dim)
                part.register_parameter(
                    key, nn.Parameter(distribute_tensor(parameter.detach(), mesh, [placement]))
                )

    copied = distribute_module(copy.deepcopy(module), mesh, cut)
    own = distribute_tensor(x.detach(), mesh, [R]).requires_grad_()
    found = copied(own)
    check_equal(found, y, 256, [R])
    found.square().sum().backward()
    largest = max(float(parameter.grad.abs().max()) for parameter in module.parameters())
    for parameter, other in zip(module.parameters(), copied.parameters(), strict=True):
        # Of the largest: the gradient of the bias of the keys is zero.
        grad = other.grad.full_tensor()
        assert_close(grad, parameter.grad, rtol=0, atol=1e-12 * largest)
    # Each rank has the part of its heads.
    check_equal(own.grad, x.grad, 4096)


def plain_parameters_are_refused() -> None:
    module = CirculantAttention2d(8, 4, 3)
    x = distribute_tensor(torch.randn(1, 8, 5, 6), mesh_of((dist.get_world_size(),)), [S(2)])
    try:
        module(x)
    except TypeError as error:
        assert "distribute_module(module" in str(error)
    else:
        raise AssertionError("accepted parameters that are not DTensors")
