"""The adjacency as one op: its gradients, and what it keeps in memory."""

from __future__ import annotations

import pytest
import reference
import torch
from inputs import features, similarities
from rounding import eps
from torch import Tensor

from circulant_attention.ops.adjacency import adjacency
from circulant_attention.ops.primitives import SimilarityKind

KINDS = {"dot": SimilarityKind.DOT, "distance": SimilarityKind.DISTANCE}
SIZE, WINDOW, SCALE = (6, 7), (5, 3), 0.7


@similarities
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_gradients_of_half_precision(name: str, dtype: torch.dtype, device: str) -> None:
    """The only roundings to half are those of the weights and of the results.

    The gradient of the scores, P (g - sum P g), changes with the rounding of P by 2 eps at most, of
    P (|g| + sum P |g|). The distance multiplies it by differences of pixels: so features far from
    zero lose no more, although rounded weights do not sum to one.
    """
    offset = 0.0 if name == "dot" else 16.0
    x, y = (
        (offset + features(2, 3, SIZE, device, torch.float32)).to(dtype).requires_grad_()
        for _ in "xy"
    )
    weights = adjacency(x, y, list(WINDOW), KINDS[name], SCALE)
    grad = torch.randn_like(weights)
    found = torch.autograd.grad(weights, (x, y), grad)

    wide_x, wide_y = (z.detach().double().requires_grad_() for z in (x, y))
    near = reference.mask(SIZE, WINDOW).to(device)
    dense = torch.zeros(2, *near.shape, dtype=torch.float64, device=device)
    dense[:, near] = grad.double().flatten(1)
    matrix = reference.adjacency(name, SCALE**0.5 * wide_x, SCALE**0.5 * wide_y, WINDOW)
    expected = torch.autograd.grad(matrix, (wide_x, wide_y), dense)

    matrix = matrix.detach()
    size = matrix * (dense.abs() + (matrix * dense.abs()).sum(-1, keepdim=True))
    columns = [z.detach().flatten(2) for z in (wide_x, wide_y)]
    apart = (columns[0][..., None] - columns[1][:, :, None]).abs()
    for place, (one, two) in enumerate(zip(found, expected, strict=True)):
        other = columns[1 - place].abs()
        if name == "distance":
            factor = apart
        else:
            factor = other[:, :, None] if place == 0 else other[..., None]
        magnitude = SCALE * size[:, None] * factor.expand_as(apart)
        magnitude = magnitude.sum(-1 if place == 0 else -2).view_as(two)
        # Sums in float32 of up to K terms as large as the features.
        sums = 64 * eps(torch.float32) * SCALE * size.sum(-1 - place).max() * other.max()
        bound = 2 * eps(dtype) * magnitude + eps(dtype) * two.abs() + sums
        assert one.dtype == dtype
        assert ((one.double() - two).abs() <= bound).all()


def test_the_scores_are_not_in_memory(device: str) -> None:
    """No op but one makes a tensor of the size of the matrix."""
    made: list[tuple[str, int]] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            made.append((str(func), out.numel()))
            return out

    x: Tensor = features(2, 4, (9, 8), device, torch.float16)
    with Watch():
        weights = adjacency(x, x, [5, 5], SimilarityKind.DISTANCE, SCALE)
    assert [count for _, count in made if count >= weights.numel()] == [weights.numel()]
