"""Attention with a bias of offsets and a mask of keys, by torch's dense attention in float64."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from windows import CIRCULAR, Dims, mask, sizes


def offset_table(dims: Dims) -> Tensor:
    """The key of each query at each offset ``(N, K)``, offsets row-major; -1 for an absent one."""
    rows = []
    for query in product(*(range(dim.size) for dim in dims)):
        row = []
        for offset in product(*(range(-dim.before, dim.after + 1) for dim in dims)):
            number = 0
            for dim, i, o in zip(dims, query, offset, strict=True):
                key = i + dim.dilation * o
                if dim.boundary == CIRCULAR:
                    key %= dim.size
                inside = 0 <= key < dim.size
                number = number * dim.size + key if number >= 0 and inside else -1
            row.append(number)
        rows.append(row)
    return torch.tensor(rows)


def dense_bias(bias: Tensor, dims: Dims) -> Tensor:
    """A bias ``(H, *window)`` as ``(H, N, N)``, minus infinity outside of the window."""
    keys = offset_table(dims).to(bias.device)
    row, offset = (keys >= 0).nonzero(as_tuple=True)
    dense = bias.new_full((bias.shape[0], len(keys), len(keys)), -torch.inf)
    return dense.index_put(
        (torch.arange(len(bias), device=bias.device)[:, None], row, keys[row, offset]),
        bias.flatten(1)[:, offset],
    )


def key_numbers(key_mask: Tensor, dims: Dims) -> Tensor:
    """A mask as numbers ``(B, heads, N)`` that are added; either of the first two may be 1."""
    count = len(dims)
    if key_mask.dtype == torch.bool:
        key_mask = torch.zeros(key_mask.shape, dtype=torch.float64, device=key_mask.device).where(
            key_mask, -torch.inf
        )
    flat = key_mask.flatten(-count)
    return flat.unsqueeze(1) if flat.dim() == 2 else flat


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dims: Dims,
    heads: int,
    *,
    distance: bool = False,
    scale: float | None = None,
    bias: Tensor | None = None,
    key_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """``y (B, C_v, *spatial)`` and the dense weights ``(B, heads, N, N)``."""

    def split(x: Tensor) -> Tensor:
        return x.flatten(2).unflatten(1, (heads, -1)).mT

    q, k, v = split(q), split(k), split(v)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    added = torch.zeros((), dtype=torch.float64, device=q.device)
    added = added.where(mask(dims).to(q.device), -torch.inf)
    if bias is not None:
        added = dense_bias(bias, dims)
    if key_mask is not None:
        added = added + key_numbers(key_mask, dims).unsqueeze(-2)
    if distance:
        # -|q - k|^2 / 2 = q . k - |q|^2 / 2 - |k|^2 / 2, and a softmax has no use for |q|^2.
        added = added - scale / 2 * k.square().sum(-1).unsqueeze(-2)
    added = added.expand(*q.shape[:2], *added.shape[-2:])
    # The weights are what attention makes of the identity.
    identity = torch.eye(k.shape[2], dtype=v.dtype, device=v.device).expand(*v.shape[:2], -1, -1)
    with sdpa_kernel(SDPBackend.MATH):
        y = scaled_dot_product_attention(q, k, v, added, scale=scale)
        weights = scaled_dot_product_attention(q, k, identity, added, scale=scale)
    return y.mT.flatten(1, 2).unflatten(2, sizes(dims)), weights
