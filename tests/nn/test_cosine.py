"""Cosine attention against the sum over all pairs of pixels."""

import itertools
import math

import pytest
import torch
from gradients import outputs_and_gradients
from peak_memory import PeakMemory
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from circulant_attention.nn import CosAttn1d, CosAttn2d, CosAttn3d, CosMHSA

CLASSES = {1: CosAttn1d, 2: CosAttn2d, 3: CosAttn3d}
# Sums of at most 1e4 positive products in another order, in float64.
EXACT = {"rtol": 1e4 * 2**-53, "atol": 1e-14}


def dense(q, k, v, heads, M, eps=1e-5):
    """The formula over all pairs of pixels, with the cosine of the distance itself."""
    C = q.shape[1]
    grid, key_grid = q.shape[2:], k.shape[2:]
    q, k, v = (x.double().flatten(2).movedim(1, -1) for x in (q, k, v))  # (B, pixels, channels)
    q, k = ((x / C**0.25).relu() + eps for x in (q, k))
    here = torch.tensor(list(itertools.product(*map(range, grid))), dtype=torch.double)
    there = torch.tensor(list(itertools.product(*map(range, key_grid))), dtype=torch.double)
    distance = here[:, None, :] - there[None, :, :]
    near = torch.cos(math.pi / 2 * distance / torch.tensor(M)).prod(-1).to(q.device)
    outs = []
    groups = zip(*(x.chunk(heads, dim=-1) for x in (q, k, v)), strict=True)
    for q_head, k_head, v_head in groups:
        similarity = torch.einsum("bpc,brc->bpr", q_head, k_head) * near
        outs.append(similarity / similarity.sum(-1, keepdim=True) @ v_head)
    return torch.cat(outs, -1).movedim(-1, 1).unflatten(-1, grid)


# Grids of q, and of k and v if that is another one; N is the largest extent of both.
CASES = {
    "square": (16, 4, 8, (6, 6)),
    "wide": ((5, 11), 2, 4, (3, 8)),
    "barely-larger": ((5, 8), 3, 6, (4, 7)),
    "sequence": (12, 2, 6, (11,)),
    "volume": ((4, 9, 6), 2, 4, (3, 4, 5)),
    "one-head": (6, 1, 3, (5, 4)),
    "one-pixel": (2, 2, 4, (1, 1)),
    "keys-from-another-grid": ((10, 8), 2, 4, (5, 7), (9, 3)),
    "smaller-grid": ((10, 8), 2, 4, (5, 2), (4, 3), (9, 7)),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_the_sum_over_all_pairs(case, device):
    M, heads, channels, grid, *others = CASES[case]
    key_grid = others[0] if others else grid
    N = others[1] if others[1:] else tuple(map(max, grid, key_grid))
    q = torch.randn(2, channels, *grid, dtype=torch.double, device=device)
    k = torch.randn(2, channels, *key_grid, dtype=torch.double, device=device)
    v = torch.randn(2, 2 * channels, *key_grid, dtype=torch.double, device=device)
    module = CLASSES[len(grid)](N, heads, M, dtype=torch.double, device=device)
    scales = [M] * len(grid) if isinstance(M, int) else M
    found = outputs_and_gradients(module, q, k, v)
    expected = outputs_and_gradients(lambda *x: dense(*x, heads, scales), q, k, v)
    assert_close(found, expected, **EXACT)


def test_by_hand(device):
    """Two pixels, one channel, M = 3: the cosine of one step is cos 30 degrees."""
    module = CosAttn1d(2, 1, 3, dtype=torch.double, device=device)
    pixels = [[[2.0, -1.0]]], [[[1.0, 3.0]]], [[[1.0, 0.0]]]
    q, k, v = torch.tensor(pixels, dtype=torch.double, device=device)
    one, three, step = 1 + 1e-5, 3 + 1e-5, 3**0.5 / 2
    expected = [[[one / (one + step * three), step * one / (step * one + three)]]]
    expected = torch.tensor(expected, dtype=torch.double, device=device)
    assert_close(module(q, k, v), expected, **EXACT)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_linear_time_and_memory(training):
    """Four times the pixels: at most four times the operations and the bytes."""
    flops, peaks = [], []
    for n in (16, 32, 64):
        module = CosAttn2d(n, 2, n + 2)
        q, k, v = torch.randn(3, 1, 8, n, n, requires_grad=training)
        with FlopCounterMode(display=False) as counted, PeakMemory() as memory:
            y = module(q, k, v)
            if training:
                y.sum().backward()
        flops.append(counted.get_total_flops())
        peaks.append(memory.peak)
    assert flops[1] == 4 * flops[0] and flops[2] == 4 * flops[1]
    assert peaks[1] <= 4 * peaks[0] and peaks[2] <= 4 * peaks[1]
    # All pairs of the largest grid would take 64 MiB.
    assert peaks[2] < 64 * 2**20 / 8


def layer_by_hand(layer, x, heads):
    """CosMHSA in eval mode by its formula."""

    def project(convolution, x):
        y = torch.einsum("oc,bc...->bo...", convolution.weight.flatten(1), x)
        bias = convolution.bias
        return y if bias is None else y + bias.view(-1, *(1 for _ in x.shape[2:]))

    q, k, v = (project(getattr(layer, f"linear_{name}"), x) for name in "qkv")
    M = [size + 2 for size in layer.cos_att.N]
    y = x + project(layer.linear_merge, dense(q, k, v, heads, M))
    mean = y.mean(1, keepdim=True)
    std = ((y - mean) ** 2).sum(1, keepdim=True).div(x.shape[1] - 1).sqrt()
    return layer.norm.weight * (y - mean) / (std + 1e-6) + layer.norm.bias


@pytest.mark.parametrize("grid", [(9,), (5, 6), (3, 2, 4)], ids=["1d", "2d", "3d"])
@pytest.mark.parametrize("heads", [1, 2, 3])
def test_layer_by_hand(grid, heads, device):
    layer = CosMHSA(heads, 6, grid, dtype=torch.double, device=device).eval()
    nn.init.normal_(layer.norm.weight)
    nn.init.normal_(layer.norm.bias)
    x = torch.randn(2, 6, *grid, dtype=torch.double, device=device)
    found = outputs_and_gradients(layer, x)
    # The deviation is divided by the std of six channels: roundings grow by its inverse.
    assert_close(
        found,
        outputs_and_gradients(lambda x: layer_by_hand(layer, x, heads), x),
        rtol=1e-9,
        atol=1e-11,
    )


def test_layer_has_the_names_of_the_original():
    """Names and shapes of a checkpoint of CosAttention2d, for a square of 5 x 5 and 8 channels."""
    shapes = {name: tuple(value.shape) for name, value in CosMHSA(8, 8, 5).state_dict().items()}
    assert shapes == {
        "linear_v.weight": (8, 8, 1, 1),
        "linear_k.weight": (8, 8, 1, 1),
        "linear_q.weight": (8, 8, 1, 1),
        "linear_merge.weight": (8, 8, 1, 1),
        "linear_merge.bias": (8,),
        "cos_att.attn_coef": (4, 5, 5),
        "norm.weight": (8, 1, 1),
        "norm.bias": (8, 1, 1),
    }
    table = CosAttn2d(3, 1, 4, dtype=torch.double).attn_coef
    c, s = math.cos(math.pi / 8), math.sin(math.pi / 8)
    assert_close(table[:, 1, 0], torch.tensor([c, 0, s, 0], dtype=torch.double), **EXACT)
    assert_close(table[:, 0, 1], torch.tensor([c, s, 0, 0], dtype=torch.double), **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_low_precision(dtype, device):
    """Half precision is computed in float32: 70000 pixels would overflow float16's sums."""
    n = 280
    module = CosAttn2d(n, 1, n + 1, device=device)
    q, k, v = (1 + torch.rand(3, 1, 2, n, n, device=device)).to(dtype)
    y = module(q, k, v)
    assert y.dtype == dtype
    exact = CosAttn2d(n, 1, n + 1, dtype=torch.double, device=device)
    expected = exact(q.double(), k.double(), v.double())
    # Sums of n^2 positive products in float32, where errors of blocked sums grow as the root of
    # the number of terms, and one rounding of the result.
    eps = torch.finfo(torch.float32).eps * n + torch.finfo(dtype).eps
    assert_close(y.double(), expected, rtol=eps, atol=0)


def test_equal_channels_have_finite_gradients(device):
    layer = CosMHSA(1, 2, 2, dtype=torch.double, device=device)
    with torch.no_grad():
        layer.linear_merge.weight.zero_()
        layer.linear_merge.bias.zero_()
    x = torch.ones(1, 2, 2, 2, dtype=torch.double, device=device, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.isfinite().all()


def test_compiles_to_native_code(device):
    module = CosAttn1d(7, 2, 9, dtype=torch.double, device=device)
    q, k, v = torch.randn(3, 2, 4, 7, dtype=torch.double, device=device)
    compiled = torch.compile(module, fullgraph=True)
    assert_close(compiled(q, k, v), module(q, k, v), **EXACT)
