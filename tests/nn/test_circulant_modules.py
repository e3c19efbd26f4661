"""The circulant layers against dense attention with a mask."""

import math

import numpy as np
import pytest
import reference
import torch
from gradients import outputs_and_gradients
from peak_memory import PeakMemory
from torch import nn
from torch.testing import assert_close
from windows import CIRCULAR, TRUNCATED, Dim, mask
from windows import window as window_of

from circulant_attention import Circulant, DistanceSimilarity, DotSimilarity
from circulant_attention.denoising import nonlocal_means
from circulant_attention.geometry import make_geometry
from circulant_attention.nn import (
    CirculantAttention1d,
    CirculantAttention2d,
    CirculantAttention3d,
    CirculantTransformerBlock,
    NonlocalDenoiser,
)
from circulant_attention.nn.pointwise import pointwise_conv

CLASSES = {1: CirculantAttention1d, 2: CirculantAttention2d, 3: CirculantAttention3d}
KINDS = {
    window_of(dims): dims
    for dims in [
        (Dim(9, 3, 0, 2, TRUNCATED),),
        (Dim(4, 2, 1, 1, TRUNCATED), Dim(6, 1, 1, 2, CIRCULAR)),
    ]
}
GRIDS = {
    "sequence": ((9,), 5),
    "image": ((5, 4), (3, 3)),
    "window-per-dim": ((4, 6), (1, 5)),
    "volume": ((3, 4, 3), (3, 1, 3)),
    **{f"{W}": (tuple(dim.size for dim in dims), W) for W, dims in KINDS.items()},
}
# Sums of at most 1e3 products of numbers of order 1 in another order, in float64.
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def one_pixel_convolution(convolution, x):
    y = torch.einsum("oc,bc...->bo...", convolution.weight.flatten(1), x)
    bias = convolution.bias
    return y if bias is None else y + bias.view(-1, *(1 for _ in x.shape[2:]))


def attention_by_hand(layer, x, bandwidths=None):
    """The layer's formula with all pairs of pixels; the bandwidths are those of the distance."""
    q, k, v = (one_pixel_convolution(getattr(layer, f"to_{name}"), x) for name in "qkv")
    e = layer.channels // layer.heads
    q, k, v = (z.flatten(2).unflatten(1, (layer.heads, e)).mT for z in (q, k, v))
    if bandwidths is None:
        scores = q @ k.mT / math.sqrt(e)
    else:
        distance = (q.unsqueeze(3) - k.unsqueeze(2)).square().sum(-1)
        scores = -distance / (2 * bandwidths.view(-1, 1, 1) ** 2)
    if layer.window in KINDS:
        near = mask(KINDS[layer.window]).to(x.device)
    else:
        near = reference.mask(tuple(x.shape[2:]), layer.window).to(x.device)
    A = scores.masked_fill(~near, -torch.inf).softmax(-1)
    y = (A @ v).mT.flatten(1, 2).unflatten(2, x.shape[2:])
    return one_pixel_convolution(layer.to_out, y), A


DISTANCE = {"heads": 3, "similarity": DistanceSimilarity()}
SETTINGS = {
    "dot": {"heads": 3},
    "one-head": {"heads": 1},
    "no-bias": {"heads": 3, "bias": False},
    "distance": DISTANCE,
    "bandwidth": {**DISTANCE, "bandwidth": 0.7},
    "learned": {**DISTANCE, "learn_bandwidth": True},
    "learned-bandwidth": {**DISTANCE, "bandwidth": 0.7, "learn_bandwidth": True},
}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("grid", GRIDS)
def test_attention_by_hand(grid, settings, device):
    (size, window), settings = GRIDS[grid], SETTINGS[settings]
    kwargs = {**settings, "device": device, "dtype": torch.double}
    layer = CLASSES[len(size)](6, window=window, **kwargs)
    bandwidths = None
    if "similarity" in settings:
        value = settings.get("bandwidth", 2**0.25)
        bandwidths = torch.full((3,), value, dtype=torch.double, device=device)
    if "learn_bandwidth" in settings:
        assert_close(layer.log_bandwidth.exp(), bandwidths)
        nn.init.normal_(layer.log_bandwidth)
        bandwidths = layer.log_bandwidth.exp()
    parameters = list(layer.parameters())
    assert len(parameters) == 8 - 4 * ("bias" in settings) + ("learn_bandwidth" in settings)
    x = torch.randn(2, 6, *size, dtype=torch.double, device=device)
    found = outputs_and_gradients(layer, x, parameters=parameters)
    by_hand = outputs_and_gradients(
        lambda x: attention_by_hand(layer, x, bandwidths)[0], x, parameters=parameters
    )
    assert_close(found, by_hand, **EXACT)


def test_the_adjacency_is_there_when_asked_for(device):
    layer = CirculantAttention2d(4, 2, 3, device=device, dtype=torch.double)
    x = torch.randn(2, 4, 5, 6, dtype=torch.double, device=device)
    y, A = layer(x, need_weights=True)
    expected, dense = attention_by_hand(layer, x)
    assert isinstance(A, Circulant) and A.shape == (2, 2, 30, 30)
    assert_close((y, A.to_dense()), (expected, dense), **EXACT)
    assert_close(layer(x), y, rtol=0, atol=0)


@pytest.mark.parametrize("similarity", [DotSimilarity(), DistanceSimilarity()], ids=repr)
def test_training_keeps_no_adjacency(similarity):
    """A window of 15 x 15 has 225 entries for each of 8 channels, in 2 heads."""
    peaks = []
    for window in (3, 15):
        block = CirculantTransformerBlock(8, 2, window, similarity=similarity)
        x = torch.randn(1, 8, 32, 32, requires_grad=True)
        with PeakMemory() as memory:
            block(x).sum().backward()
        peaks.append(memory.peak)
    assert peaks[1] == peaks[0] < 2 * 225 * 32 * 32 * 4


@pytest.mark.parametrize("grid", GRIDS)
def test_block_by_hand(grid, device):
    size, window = GRIDS[grid]
    block = CirculantTransformerBlock(
        4, 2, window, len(size), mlp_ratio=3, device=device, dtype=torch.double
    )
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)

    def normed(norm, x):
        centred = x - x.mean(1, keepdim=True)
        x = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        shape = (-1, *(1 for _ in size))
        return x * norm.weight.view(shape) + norm.bias.view(shape)

    def expected(x):
        z = x + attention_by_hand(block.attention, normed(block.norm1, x))[0]
        hidden = one_pixel_convolution(block.mlp[0], normed(block.norm2, z))
        hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
        return z + one_pixel_convolution(block.mlp[2], hidden)

    x = torch.randn(2, 4, *size, dtype=torch.double, device=device)
    parameters = list(block.parameters())
    found = outputs_and_gradients(block, x, parameters=parameters)
    # Layer norms of four channels divide by standard deviations that may be small.
    assert_close(
        found, outputs_and_gradients(expected, x, parameters=parameters), rtol=1e-8, atol=1e-10
    )
    y, A = block(x, need_weights=True)
    assert_close(y, found[0], rtol=0, atol=0)
    assert A.geometry == make_geometry(block.attention.window, size)


def test_dropout_is_on_the_results_in_training_only(device):
    layer = CirculantAttention2d(8, 2, 3, dropout=0.5, device=device)
    x = torch.randn(2, 8, 9, 9, device=device)
    whole = layer.eval()(x)
    dropped = layer.train()(x)
    kept = dropped != 0
    assert 0.4 < kept.float().mean() < 0.6  # 1296 draws: 0.5 within 7 standard deviations
    assert_close(dropped[kept], 2 * whole[kept])


@pytest.mark.parametrize("similarity", [DotSimilarity(), DistanceSimilarity()], ids=repr)
def test_trains_in_native_code_on_images_of_any_size(similarity):
    """Inductor fails on heads that are views of a convolution of symbolic size."""
    block = CirculantTransformerBlock(8, 2, 3, similarity=similarity, dtype=torch.double)
    compiled = torch.compile(block, fullgraph=True, dynamic=True)
    parameters = list(block.parameters())
    for size in (5, 6), (7, 9):
        x = torch.randn(2, 8, *size, dtype=torch.double)
        found = outputs_and_gradients(compiled, x, parameters=parameters)
        assert_close(found, outputs_and_gradients(block, x, parameters=parameters), **EXACT)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_convolutions_of_one_pixel_are_those_of_torch(bias, dims, device):
    """Their class, their names in a state dict, their initial draw and their result."""
    torch_class = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    torch.manual_seed(0)
    theirs = torch_class(3, 5, 1, bias=bias, dtype=torch.double, device=device)
    torch.manual_seed(0)
    ours = pointwise_conv(dims, 3, 5, bias=bias, dtype=torch.double, device=device)
    assert isinstance(ours, torch_class)
    assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)
    x = torch.randn(2, *range(4, 4 + dims), 3, dtype=torch.double, device=device).movedim(-1, 1)
    found = outputs_and_gradients(ours, x, parameters=ours.parameters())
    assert_close(found, outputs_and_gradients(theirs, x, parameters=theirs.parameters()), **EXACT)


# Non-local means


@pytest.mark.parametrize("boundary", ["circular", "truncated"])
def test_denoiser_is_nonlocal_means(boundary, device):
    image = torch.rand(2, 3, 12, 10, dtype=torch.double, device=device)
    settings = {"window": 5, "patch": 3, "bandwidth": 0.9, "boundary": boundary}
    expected = nonlocal_means(image, 0.2, **settings)
    module = NonlocalDenoiser(0.2, **settings)
    assert not list(module.parameters()) and not module.state_dict()
    assert_close(module(image), expected, **EXACT)
    assert_close(module(image[0]), expected[0], **EXACT)
    assert_close(NonlocalDenoiser(**settings)(image, 0.2), expected, **EXACT)
    other = nonlocal_means(image, 0.4, **settings)
    assert_close(module(image, sigma=0.4), other, **EXACT)
    assert (other - expected).abs().max() > 0.01


def test_denoiser_keeps_to_its_memory(device):
    """The same image in tiles, as the calls of `progress` tell, and at once."""
    image = torch.rand(1, 1, 24, 20, dtype=torch.double, device=device)
    done = []
    tiled = NonlocalDenoiser(0.2, window=5, patch=3, memory=20_000)
    y = tiled(image, progress=lambda i, n: done.append((i, n)))
    assert len(done) > 1 and done[-1] == (len(done), len(done))
    done.clear()
    whole = NonlocalDenoiser(0.2, window=5, patch=3, memory=None)
    assert_close(whole(image, progress=lambda i, n: done.append((i, n))), y, **EXACT)
    assert done == [(1, 1)]


def test_integers_of_numpy_are_integers():
    layer = CirculantAttention2d(np.int64(4), np.int64(2), np.int64(3))
    assert layer.window == (3, 3) and layer(torch.zeros(1, 4, 5, 5)).shape == (1, 4, 5, 5)
