"""The adjacency as one op: its gradients, and what it keeps in memory."""

from __future__ import annotations

import math

import pytest
import reference
import torch
from inputs import features, similarities
from rounding import eps
from torch import Tensor

from circulant_attention.ops.adjacency import adjacency
from circulant_attention.ops.primitives import SimilarityKind

KINDS = {"dot": SimilarityKind.DOT, "distance": SimilarityKind.DISTANCE}
SIZE, WINDOW = (6, 7), (5, 3)


@similarities
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_gradients_of_half_precision(name: str, dtype: torch.dtype, device: str) -> None:
    """The only roundings to half are those of the weights and of the results.

    Rounded weights P change the gradient of the scores, P (g - sum P g), by half an eps of
    P (|g| + sum P |g|). The distance multiplies it by differences of pixels: so features far from
    zero lose no more, although the rows of rounded weights do not sum to one.
    """
    scale, factor, offset = 0.7, 1.0, 0.0
    if name == "distance":
        # Differences of a few spacings.
        scale, factor, offset = 0.05, 4.0, 1.0 / eps(dtype)
    x, y = ((offset + factor * features(2, 3, SIZE, device, torch.float32)).to(dtype) for _ in "xy")
    x, y = x.requires_grad_(), y.requires_grad_()
    weights = adjacency(x, y, list(WINDOW), KINDS[name], scale)
    grad = 4 + torch.randn_like(weights)
    found = torch.autograd.grad(weights, (x, y), grad)

    wide = [z.detach().double().requires_grad_() for z in (x, y)]
    near = reference.mask(SIZE, WINDOW).to(device)
    dense = torch.zeros(2, *near.shape, dtype=torch.float64, device=device)
    dense[:, near] = grad.double().flatten(1)
    matrix = reference.adjacency(name, *(scale**0.5 * z for z in wide), WINDOW)
    expected = torch.autograd.grad(matrix, wide, dense)

    matrix = matrix.detach()
    scores = matrix * (dense.abs() + (matrix * dense.abs()).sum(-1, keepdim=True))
    rows, columns = (z.detach().flatten(2) for z in wide)
    apart = (rows[..., None] - columns[:, :, None]).abs()
    others = (columns[:, :, None].abs(), rows[..., None].abs())
    for at, (one, two, other) in enumerate(zip(found, expected, others, strict=True)):
        per_entry = scores[:, None] * (apart if name == "distance" else other)
        magnitude = scale * per_entry.sum(-1 - at).view_as(two)
        # Sums of K terms in float32, which has the features themselves.
        terms = (math.prod(WINDOW) + 8) * eps(torch.float32)
        sums = terms * scale * (scores[:, None] * other).sum(-1 - at).view_as(two)
        # 0.6, for rounded results and the products of two roundings.
        bound = 0.6 * eps(dtype) * (magnitude + two.abs()) + sums
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
        weights = adjacency(x, x, [5, 5], SimilarityKind.DISTANCE, 0.7)
    assert [count for _, count in made if count >= weights.numel()] == [weights.numel()]
