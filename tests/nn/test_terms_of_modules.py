"""Relative bias, masks, dropout and bandwidths by noise level of the circulant layers."""

from functools import partial

import pytest
import score_oracle
import torch
from gradients import outputs_and_gradients
from torch import nn
from torch.testing import assert_close
from windows import CIRCULAR, TRUNCATED, Dim, sizes, window

from circulant_attention import DistanceSimilarity
from circulant_attention.nn import (
    CirculantAttention1d,
    CirculantAttention2d,
    CirculantAttention3d,
    CirculantTransformerBlock,
)

CLASSES = {1: CirculantAttention1d, 2: CirculantAttention2d, 3: CirculantAttention3d}
GRIDS = {
    "sequence": (Dim(9, 2, 2, 1, CIRCULAR),),
    "image": (Dim(5, 1, 1, 1, CIRCULAR), Dim(6, 2, 2, 1, CIRCULAR)),
    "volume": (Dim(3, 1, 1, 1, CIRCULAR), Dim(3, 0, 0, 1, CIRCULAR), Dim(4, 1, 1, 1, CIRCULAR)),
    "causal": (Dim(7, 2, 0, 1, TRUNCATED),),
    "globe": (Dim(4, 2, 1, 1, TRUNCATED), Dim(6, 1, 1, 2, CIRCULAR)),
}
# Sums of at most 1e3 products of numbers of order 1 in another order, in float64.
EXACT = {"rtol": 1e-10, "atol": 1e-12}
B, C, HEADS = 2, 6, 3


def projected(layer, x):
    def one(name, x):
        convolution = getattr(layer, f"to_{name}")
        y = torch.einsum("oc,bc...->bo...", convolution.weight.flatten(1), x)
        return y + convolution.bias.view(-1, *(1,) * (x.dim() - 2))

    return one, *(one(name, x) for name in "qkv")


def by_hand(layer, x, dims, key_mask, bandwidths=None):
    one, q, k, v = projected(layer, x)
    settings: dict = {"bias": layer.relative_bias, "key_mask": key_mask}
    if bandwidths is not None:
        shape = (B, C, *(1,) * len(dims))
        units = bandwidths.repeat_interleave(C // HEADS, 1).reshape(shape)
        settings |= {"distance": True, "scale": 1.0}
        q, k = q / units, k / units
    y, A = score_oracle.attention(q, k, v, dims, HEADS, **settings)
    return one("out", y), A


def made(dims, **settings):
    layer = CLASSES[len(dims)](C, HEADS, window(dims), dtype=torch.double, **settings)
    for name, parameter in layer.named_parameters():
        if "bias" in name or "bandwidth" in name:
            nn.init.normal_(parameter, std=0.5)
    return layer


@pytest.mark.parametrize("grid", GRIDS)
def test_relative_bias_and_mask(grid):
    dims = GRIDS[grid]
    layer = made(dims, relative_bias=True)
    lengths = tuple(dim.before + dim.after + 1 for dim in dims)
    assert layer.relative_bias.shape == (HEADS, *lengths)
    x = torch.randn(B, C, *sizes(dims), dtype=torch.double)
    seen = torch.rand(B, *sizes(dims)) > 0.4
    parameters = list(layer.parameters())
    found = outputs_and_gradients(lambda x: layer(x, key_mask=seen), x, parameters=parameters)
    wanted = outputs_and_gradients(
        lambda x: by_hand(layer, x, dims, seen)[0], x, parameters=parameters
    )
    assert_close(found, wanted, **EXACT)
    y, A = layer(x, need_weights=True, key_mask=seen)
    assert_close(y, found[0], rtol=0, atol=0)
    _, dense = by_hand(layer, x, dims, seen)
    assert_close(A.to_dense(), dense, **EXACT)
    _, mean = layer(x, need_weights=True, average_attn_weights=True, key_mask=seen)
    assert_close(mean.to_dense(), dense.mean(1, keepdim=True), **EXACT)


@pytest.mark.parametrize("degree", [0, 1, 3])
@pytest.mark.parametrize("form", ["number", "batch", "features"])
def test_bandwidths_of_the_noise_level(form, degree):
    dims = GRIDS["image"]
    layer = made(
        dims, similarity=DistanceSimilarity(), learn_bandwidth=True, bandwidth_degree=degree
    )
    x = torch.randn(B, C, *sizes(dims), dtype=torch.double)
    levels = torch.tensor([0.2, 0.2] if form == "number" else [0.1, 0.7], dtype=torch.double)
    sigma = {"number": 0.2, "batch": levels, "features": levels.view(-1, 1, 1, 1)}[form]
    seen = torch.ones(B, *sizes(dims), dtype=torch.bool)

    def hand(x):
        logarithm = layer.log_bandwidth.expand(B, HEADS)
        for n in range(degree):
            logarithm = logarithm + layer.noise_bandwidth[n] * levels[:, None] ** (n + 1)
        return by_hand(layer, x, dims, seen, logarithm.exp())[0]

    def attend(x):
        return layer(x, sigma=sigma if degree else None)

    parameters = list(layer.parameters())
    found = outputs_and_gradients(attend, x, parameters=parameters)
    assert_close(found, outputs_and_gradients(hand, x, parameters=parameters), **EXACT)


def test_new_parameters_change_nothing_at_first():
    """State dicts of layers without them load, and give the same results with them."""
    x = torch.randn(B, C, 5, 6, dtype=torch.double)
    distance = {"similarity": DistanceSimilarity(), "learn_bandwidth": True, "dtype": x.dtype}
    plain = CirculantTransformerBlock(C, HEADS, 3, **distance)
    assert not {"relative_bias", "noise_bandwidth"} & {
        name.rpartition(".")[2] for name in plain.state_dict()
    }
    block = CirculantTransformerBlock(
        C, HEADS, 3, relative_bias=True, bandwidth_degree=2, attention_dropout=0.5, **distance
    )
    loaded = block.load_state_dict(plain.state_dict(), strict=False)
    assert loaded.missing_keys == ["attention.noise_bandwidth", "attention.relative_bias"]
    assert not loaded.unexpected_keys
    block.eval()
    assert_close(block(x, sigma=0.3), plain(x), **EXACT)


def test_the_block_passes_everything_on():
    torch.manual_seed(0)
    block = CirculantTransformerBlock(
        C, HEADS, 3, similarity=DistanceSimilarity(), learn_bandwidth=True, bandwidth_degree=1,
        relative_bias=True, attention_dropout=0.5, dtype=torch.double,
    )  # fmt: skip
    for parameter in block.attention.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(B, C, 5, 6, dtype=torch.double)
    terms = {"key_mask": torch.rand(B, 5, 6) > 0.4, "sigma": 0.3}
    for mode in (block.eval(), block.train()):
        torch.manual_seed(1)
        y, A = mode(x, need_weights=True, average_attn_weights=True, **terms)
        torch.manual_seed(1)
        attended, C_ = block.attention(block.norm1(x), need_weights=True, **terms)
        z = x + attended
        assert_close(y, z + block.mlp(block.norm2(z)), **EXACT)
        assert_close(A.to_dense(), C_.to_dense().mean(1, keepdim=True), **EXACT)
        assert A.shape == (B, 1, 30, 30)


def test_dropout_of_the_adjacency_in_training_only():
    layer = CirculantAttention2d(C, HEADS, 3, attention_dropout=0.5, dtype=torch.double)
    x = torch.randn(B, C, 12, 12, dtype=torch.double)
    whole, plain = layer.eval()(x, need_weights=True)
    y, A = layer.train()(x, need_weights=True)
    kept = A.values != 0
    assert 0.45 < kept.double().mean() < 0.55  # 7776 draws: 0.5 within 8 standard deviations
    assert_close(A.values[kept], 2 * plain.values[kept])
    assert not torch.equal(y, whole)
    assert_close(layer.eval()(x), whole, rtol=0, atol=0)


def test_trains_in_native_code_on_images_of_any_size():
    torch._dynamo.reset()
    layer = CirculantAttention2d(8, 2, 3, relative_bias=True, dtype=torch.double)
    nn.init.normal_(layer.relative_bias)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True)
    parameters = list(layer.parameters())
    for size in (5, 6), (7, 9):
        x = torch.randn(2, 8, *size, dtype=torch.double)
        seen = torch.rand(2, *size) > 0.3
        found, wanted = (
            outputs_and_gradients(partial(f, key_mask=seen), x, parameters=parameters)
            for f in (compiled, layer)
        )
        assert_close(found, wanted, **EXACT)
