"""The same attention by every method of PyTorch, and the three linear maps of this package.

Each entry is a function that takes a :class:`~benchmarks.cases.Case`, prepares everything that does
not need q, k and v (index tensors, masks, compilation), and returns a function
``(q, k, v) -> result`` on tensors ``(batch, channels, *spatial)``. Only :func:`circulant` and the
three maps are the package; of the others, some take its index tensors. All know the dot product,
:func:`circulant` and :func:`tiles` also the distance.
"""

import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import tiled
from benchmarks.cases import Case

if TYPE_CHECKING:
    from circulant_attention.similarity import AbstractSimilarity

Run = Callable[[Tensor, Tensor, Tensor], Tensor]


def circulant(case: Case) -> Run:
    """This package."""
    from circulant_attention import circulant_attention, circulant_mh_attention

    similarity = simfun(case)

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if case.heads == 1:
            return circulant_attention(similarity, q, k, v, case.window)[0]
        return circulant_mh_attention(similarity, q, k, v, case.window, case.heads)[0]

    return run


def torch_sparse(case: Case) -> Run:
    """``torch.sparse``: ``sampled_addmm``, softmax of the CSR values, CSR times dense.

    Loops over groups: on a CPU, ``torch.sparse.sampled_addmm`` takes no batch.
    """
    n, k_ = case.pixels, case.offsets
    rows = torch.arange(0, n * k_ + 1, k_, dtype=torch.int32)
    columns = neighbours(case).to(torch.int32).flatten()

    def matrix(values: Tensor) -> Tensor:
        return torch.sparse_csr_tensor(rows, columns, values, (n, n), check_invariants=False)

    pattern = matrix(torch.zeros(n * k_))

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        outputs = []
        for q_g, k_g, v_g in zip(*(flat_groups(case, x) for x in (q, k, v)), strict=True):
            scores = torch.sparse.sampled_addmm(pattern, q_g.mT, k_g, beta=0.0, alpha=case.scale)
            weights = scores.values().view(n, k_).softmax(-1).view(-1)
            outputs.append((matrix(weights) @ v_g.mT).mT)
        return torch.stack(outputs).view(q.shape)

    return run


def flex_attention(case: Case) -> Run:
    """FlexAttention, compiled, with a circular mask: skips blocks outside of the window."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    radius = case.window // 2
    strides = [1]
    for size in reversed(case.spatial[1:]):
        strides.insert(0, strides[0] * size)

    def inside(_batch: Tensor, _head: Tensor, row: Tensor, column: Tensor) -> Tensor:
        within = torch.ones_like(row, dtype=torch.bool)
        for size, stride in zip(case.spatial, strides, strict=True):
            offset = column // stride % size - row // stride % size
            within = within & ((offset + radius + size) % size < case.window)
        return within

    # Compiled too: otherwise it makes the dense mask of all pairs of pixels.
    make_mask = torch.compile(create_block_mask)
    device = torch.get_default_device()
    mask = make_mask(inside, None, None, case.pixels, case.pixels, device=device)
    compiled = torch.compile(flex_attention)

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q_r, k_r, v_r = (flat_groups(case, x).mT.unsqueeze(1) for x in (q, k, v))
        y = compiled(q_r, k_r, v_r, block_mask=mask, scale=case.scale)
        return y.squeeze(1).mT.reshape(q.shape)

    return run


def tiles(case: Case) -> Run:
    """``torch.bmm`` of tiles of queries and their halos, the windows as a strided view."""
    parts = tiled.Tiles(case)

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q_g, k_g, v_g = groups(case, q, k, v)
        root = math.sqrt(case.scale)
        return tiled.attention(parts, q_g * root, k_g * root, v_g).reshape(q.shape)

    return run


def roll(case: Case) -> Run:
    """``torch.roll``, one offset of the window at a time."""
    radius = case.window // 2
    dims = tuple(range(2, 2 + len(case.spatial)))
    offsets = list(itertools.product(range(-radius, radius + 1), repeat=len(dims)))

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q_g, k_g, v_g = groups(case, q, k, v)
        shifts = [tuple(-o for o in offset) for offset in offsets]
        scores = torch.stack([(q_g * k_g.roll(shift, dims)).sum(1) for shift in shifts], -1)
        weights = (case.scale * scores).softmax(-1).unsqueeze(1)
        y = torch.zeros_like(v_g)
        for index, shift in enumerate(shifts):
            y = y + weights[..., index] * v_g.roll(shift, dims)
        return y.view(q.shape)

    return run


def unfold(case: Case) -> Run:
    """Circular padding, ``Tensor.unfold`` in every spatial dim, ``einsum`` over the patches."""
    radius = case.window // 2
    d = len(case.spatial)
    pixels, offsets = "xyz"[:d], "uvw"[:d]

    def patches(x: Tensor) -> Tensor:
        x = F.pad(x.reshape(case.group_shape), [radius] * (2 * d), mode="circular")
        for dim in range(2, 2 + d):
            x = x.unfold(dim, case.window, 1)
        return x

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q_g = q.reshape(case.group_shape) * case.scale
        scores = torch.einsum(
            f"bc{pixels},bc{pixels}{offsets}->b{pixels}{offsets}", q_g, patches(k)
        )
        weights = scores.flatten(-d).softmax(-1).view_as(scores)
        y = torch.einsum(f"b{pixels}{offsets},bc{pixels}{offsets}->bc{pixels}", weights, patches(v))
        return y.reshape(q.shape)

    return run


def dense_sdpa(case: Case) -> Run:
    """Dense ``scaled_dot_product_attention``, masked to the window."""
    mask = torch.zeros(case.pixels, case.pixels, dtype=torch.bool)
    mask.scatter_(1, neighbours(case), True)

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q_r, k_r, v_r = (flat_groups(case, x).mT.unsqueeze(1) for x in (q, k, v))
        y = F.scaled_dot_product_attention(q_r, k_r, v_r, attn_mask=mask, scale=case.scale)
        return y.squeeze(1).mT.reshape(q.shape)

    return run


def similarity(case: Case) -> Run:
    """``S_ij = q_i . k_j`` inside the window."""
    from circulant_attention.ops import primitives as ops

    return lambda q, k, v: ops.similarity(*groups(case, q, k), case.windows, ops.SimilarityKind.DOT)


def apply(case: Case) -> Run:
    """``y_i = sum_j A_ij v_j``."""
    from circulant_attention.ops import primitives as ops

    values = random_values(case)
    return lambda q, k, v: ops.apply(values, *groups(case, v), case.windows)


def apply_transposed(case: Case) -> Run:
    """``y_j = sum_i A_ij v_i``."""
    from circulant_attention.ops import primitives as ops

    values = random_values(case)
    return lambda q, k, v: ops.apply_transposed(values, *groups(case, v), case.windows)


ATTENTIONS: dict[str, Callable[[Case], Run]] = {
    "circulant_attention": circulant,
    "torch.sparse": torch_sparse,
    "FlexAttention": flex_attention,
    "tiles + bmm": tiles,
    "roll": roll,
    "pad + unfold": unfold,
    "dense SDPA": dense_sdpa,
}


OPERATIONS: dict[str, Callable[[Case], Run]] = {
    "similarity": similarity,
    "apply": apply,
    "apply_transposed": apply_transposed,
}


def simfun(case: Case) -> "AbstractSimilarity":
    """The similarity of a case, as an argument of this package."""
    from circulant_attention import DistanceSimilarity, DotSimilarity

    return DistanceSimilarity() if case.distance else DotSimilarity()


def random_values(case: Case) -> Tensor:
    """Stored entries of one matrix per group: ``(groups, pixels, offsets)``."""
    return torch.rand(case.batch * case.heads, case.pixels, case.offsets)


def groups(case: Case, *tensors: Tensor) -> list[Tensor]:
    """``(batch, channels, *spatial)`` as ``(groups, channels of a head, *spatial)``."""
    return [x.reshape(case.group_shape) for x in tensors]


def flat_groups(case: Case, x: Tensor) -> Tensor:
    """``(batch, channels, *spatial)`` as ``(groups, channels of a head, pixels)``."""
    return x.reshape(case.group_shape).flatten(2)


def neighbours(case: Case) -> Tensor:
    """The pixels in the window around each pixel, ascending: ``(pixels, offsets)``, int64."""
    from circulant_attention import Circulant

    columns = Circulant(case.window, (1, 1, *case.spatial)).col_indices()
    return columns.long().reshape(case.pixels, case.offsets)
