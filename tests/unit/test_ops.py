"""The registration of every native op: schema, fake, autograd, compilation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from circulant_attention.ops import primitives as ops

GRIDS = [((7,), (3,)), ((5, 6), (3, 5)), ((3, 4, 3), (3, 1, 3))]
WINDOW_IDS = ["1d", "2d", "3d"]


def arguments(
    name: str, spatial: tuple[int, ...], window: tuple[int, ...], groups: int, device: str
) -> tuple[object, ...]:
    """Inputs of the op ``name`` that require gradients."""
    n = int(torch.tensor(spatial).prod())
    k = int(torch.tensor(window).prod())

    def features() -> Tensor:
        return torch.randn(
            groups, 2, *spatial, dtype=torch.double, device=device, requires_grad=True
        )

    values = torch.randn(groups, n, k, dtype=torch.double, device=device, requires_grad=True)
    if name == "similarity":
        return features(), features(), list(window), int(ops.SimilarityKind.DOT)
    if name == "adjacency":
        return features(), features(), list(window), int(ops.SimilarityKind.DOT), 0.7
    if name == "transpose":
        return values, list(spatial), list(window)
    return values, features(), list(window)


def native(name: str) -> Callable[..., Tensor]:
    return getattr(torch.ops.circulant_attention, name).default


NAMES = ["similarity", "adjacency", "apply", "apply_transposed", "transpose"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("grid", GRIDS, ids=WINDOW_IDS)
def test_opcheck(name: str, grid: tuple[tuple[int, ...], tuple[int, ...]], device: str) -> None:
    torch.library.opcheck(native(name), arguments(name, *grid, groups=2, device=device))


def strided(x: object) -> object:
    """An argument as an expanded view of transposed memory, if it is a tensor."""
    if not isinstance(x, Tensor):
        return x
    return x.detach().transpose(-1, -2).contiguous().transpose(-1, -2)[:1].expand_as(x)


@pytest.mark.parametrize("name", NAMES)
def test_opcheck_of_other_inputs(name: str, device: str) -> None:
    """The fake must promise contiguous outputs whatever the strides of the inputs."""
    torch.library.opcheck(native(name), arguments(name, *GRIDS[1], groups=0, device=device))
    args = arguments(name, *GRIDS[1], groups=2, device=device)
    torch.library.opcheck(native(name), tuple(map(strided, args)))
    if name in ("similarity", "adjacency"):
        distance = (*args[:3], int(ops.SimilarityKind.DISTANCE), *args[4:])
        torch.library.opcheck(native(name), distance)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_there_for_the_bare_op(name: str, device: str) -> None:
    """An op without registered derivatives would return them unasked for, or not at all."""
    args = arguments(name, *GRIDS[1], groups=2, device=device)
    wanted = [x for x in args if isinstance(x, Tensor)]
    out = native(name)(*args)
    for gradient in torch.autograd.grad(out.pow(2).sum(), wanted):
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_bitwise_repeatable(name: str, device: str) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        args = arguments(name, (16, 16), (5, 7), groups=2, device=device)
        wanted = [x for x in args if isinstance(x, Tensor)]
        first, second = (
            torch.autograd.grad(native(name)(*args).pow(2).sum(), wanted) for _ in range(2)
        )
    finally:
        torch.use_deterministic_algorithms(False)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
