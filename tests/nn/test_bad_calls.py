"""Bad arguments of modules: each error names the argument, what was expected and what came."""

import pytest
import torch

from circulant_attention import DistanceSimilarity
from circulant_attention.nn import (
    AxialAttention,
    AxialImageTransformer,
    AxialPositionalEmbedding,
    CirculantAttention1d,
    CirculantAttention2d,
    CirculantAttention3d,
    CirculantTransformerBlock,
    CosAttn1d,
    CosAttn2d,
    CosMHSA,
    FusedAttention,
    NonlocalDenoiser,
    SelfAttention,
)

layer = CirculantAttention2d(4, 2, (3, 5))
x5 = torch.zeros(1, 4, 5, 5)
image, some = torch.zeros(2, 3, 4, 5), torch.zeros(2, 6, 3)
VALUE_ERRORS = {
    "axial-heads": (lambda: AxialAttention(10, heads=4), "dim to be divisible by heads=4, got 10"),
    "axial-heads-zero": (lambda: SelfAttention(8, 0), "heads to be at least 1, got 0"),
    "axial-dropout": (lambda: SelfAttention(8, 2, dropout=1.0), "dropout to be .* got 1.0"),
    "axial-batch-as-channels": (lambda: AxialAttention(8, dim_index=0), "dim_index to name .* 0"),
    "axial-index-out-of-range": (lambda: AxialAttention(8, dim_index=4), "dim_index to name .* 4"),
    "axial-no-axes": (lambda: AxialAttention(8, num_dimensions=0), "num_dimensions to be at least"),
    "axial-empty-embedding": (lambda: AxialPositionalEmbedding(8, ()), "shape to hold"),
    "axial-zero-embedding": (lambda: AxialPositionalEmbedding(8, (4, 0)), r"shape\[1\] to be at"),
    "axial-odd-reversible": (
        lambda: AxialImageTransformer(3, 1, heads=1),
        "dim to be even .* got 3",
    ),
    "axial-depth": (lambda: AxialImageTransformer(8, 0), "depth to be at least 1"),
    "axial-embedding-rank": (
        lambda: AxialImageTransformer(8, 1, axial_pos_emb_shape=(4,)),
        r"axial_pos_emb_shape to be \(height, width\), got \(4,\)",
    ),
    "axial-rank": (
        lambda: AxialAttention(8)(torch.zeros(2, 8, 4)),
        r"x to have 4 dims .* \(2, 8, 4\)",
    ),
    "axial-channels": (
        lambda: AxialAttention(8)(torch.zeros(2, 8, 4, 4)),
        "x to have dim=8 channels in dim 3, got 4",
    ),
    "axial-embedding-too-small": (
        lambda: AxialPositionalEmbedding(8, (4, 5))(torch.zeros(1, 8, 4, 6)),
        r"at most shape=\(4, 5\), the embedding's, got \(4, 6\)",
    ),
    "axial-transformer-rank": (
        lambda: AxialImageTransformer(8, 1)(torch.zeros(8, 4, 4)),
        "x to have 4 dims",
    ),
    "axial-sequence": (
        lambda: SelfAttention(8, 2)(torch.zeros(1, 4, 8), torch.zeros(2, 4, 8)),
        r"kv to have shape .* got \(2, 4, 8\)",
    ),
    "axial-mask-shape": (
        lambda: AxialAttention(8)(torch.zeros(1, 4, 5, 8), torch.ones(1, 4, 4).bool()),
        r"mask to have shape \(B, \*grid\) = \(1, 4, 5\), got \(1, 4, 4\)",
    ),
    "axial-mask-empty": (
        lambda: AxialImageTransformer(8, 1)(
            torch.zeros(2, 8, 4, 5), torch.tensor([True, False])[:, None, None].expand(2, 4, 5)
        ),
        r"mask leaves nothing in sample\(s\) 1 of 2",
    ),
    "axial-mask-without-keys": (
        lambda: SelfAttention(8, 2)(torch.zeros(1, 4, 8), mask=torch.zeros(1, 4).bool()),
        r"mask leaves nothing in sample\(s\) 0 of 1",
    ),
    "circulant-heads": (
        lambda: CirculantAttention2d(10, 4, 3),
        "channels.*divisible by heads=4, got 10",
    ),
    "circulant-even": (lambda: CirculantAttention2d(4, 2, (3, 4)), r"window\[1\] to be odd, got 4"),
    "circulant-window-rank": (
        lambda: CirculantAttention3d(4, 2, (3, 3)),
        "window to be an int or 3 ints",
    ),
    "circulant-window-negative": (
        lambda: CirculantAttention1d(4, 2, -3),
        "window to be at least 1, got -3",
    ),
    "circulant-bandwidth": (
        lambda: CirculantAttention1d(4, 2, 3, similarity=DistanceSimilarity(), bandwidth=0.0),
        "bandwidth .* positive and finite, got 0.0",
    ),
    "circulant-bandwidth-of-dot": (
        lambda: CirculantAttention1d(4, 2, 3, bandwidth=1.0),
        r"bandwidth and learn_bandwidth need .* got DotSimilarity\(\)",
    ),
    "circulant-dropout": (lambda: CirculantAttention1d(4, 2, 3, dropout=1.0), "dropout"),
    "circulant-dims": (
        lambda: CirculantTransformerBlock(4, 2, 3, 4),
        "spatial_dims to be 1, 2 or 3, got 4",
    ),
    "circulant-mlp": (lambda: CirculantTransformerBlock(4, 2, 3, mlp_ratio=0), "mlp_ratio"),
    "circulant-rank": (
        lambda: layer(torch.zeros(4, 5, 5)),
        r"x of shape \(B, 4, \*spatial\).*\(4, 5, 5\)",
    ),
    "circulant-channels": (
        lambda: layer(torch.zeros(1, 3, 5, 5)),
        r"x of shape .* got \(1, 3, 5, 5\)",
    ),
    "circulant-window-too-large": (
        lambda: layer(torch.zeros(1, 4, 5, 4)),
        r"grid of at least the window \(3, 5\), got \(5, 4\)",
    ),
    "circulant-sigma": (lambda: NonlocalDenoiser(-1.0), "sigma to be zero or more, got -1.0"),
    "circulant-no-sigma": (
        lambda: NonlocalDenoiser()(torch.zeros(1, 32, 32)),
        "expected sigma, .* got None",
    ),
    "circulant-denoiser-window": (lambda: NonlocalDenoiser(window=4), "window to be odd, got 4"),
    "circulant-denoiser-bandwidth": (
        lambda: NonlocalDenoiser(bandwidth=0.0),
        "bandwidth to be positive",
    ),
    "circulant-denoiser-memory": (
        lambda: NonlocalDenoiser(memory=0),
        "memory to be at least 1, got 0",
    ),
    "circulant-denoiser-grid": (
        lambda: NonlocalDenoiser(1.0)(torch.zeros(1, 9, 32)),
        "window not larger than the image of 9 x 32 pixels, got 21",
    ),
    "circulant-block-rank": (
        lambda: CirculantTransformerBlock(4, 2, 3)(torch.zeros(4, 5, 5)),
        "x of shape",
    ),
    "cosine-small-M": (
        lambda: CosAttn2d(16, 8, 16),
        r"M to be larger .* M=\(16, 16\) for N=\(16, 16\)",
    ),
    "cosine-small-M-in-one-dim": (lambda: CosAttn2d((3, 9), 1, (8, 9)), "M to be larger"),
    "cosine-rank-of-N": (
        lambda: CosAttn2d((3, 4, 5)),
        r"N to be an int or 2 ints, got \(3, 4, 5\)",
    ),
    "cosine-empty-grid": (lambda: CosAttn1d(0), "N to be at least 1, got 0"),
    "cosine-empty-dim": (lambda: CosAttn2d((4, 0)), r"N\[1\] to be at least 1, got 0"),
    "cosine-heads": (lambda: CosAttn2d(4, 0), "n_head to be at least 1"),
    "cosine-eps": (lambda: CosAttn2d(4, eps=0.0), "eps to be positive, got 0.0"),
    "cosine-layer-heads": (
        lambda: CosMHSA(3, 8, 4),
        "external_dim to be divisible by heads=3, got 8",
    ),
    "cosine-layer-channels": (lambda: CosMHSA(1, 1, 4), "external_dim to be at least 2"),
    "cosine-layer-size": (lambda: CosMHSA(1, 2, (1, 2, 3, 4)), "size to be an int or 1 to 3 ints"),
    "cosine-layer-dropout": (lambda: CosMHSA(1, 2, 3, dropout=-0.1), "dropout to be a probability"),
    "cosine-rank": (
        lambda: CosAttn2d(5)(x5[0], x5, x5),
        r"q to have shape \(B, C, height, width\) .* got \(4, 5, 5\)",
    ),
    "cosine-batch": (
        lambda: CosAttn2d(5, 4)(x5, x5.repeat(2, 1, 1, 1), x5),
        "k to have shape .* B=1",
    ),
    "cosine-channels": (
        lambda: CosAttn2d(5, 3)(x5, x5, x5),
        "the number of channels of q to be divisible by heads=3, got 4",
    ),
    "cosine-keys": (
        lambda: CosAttn2d(5, 2)(x5, x5[:, :2], x5),
        "k to have the channels of q, 4, got 2",
    ),
    "cosine-values": (
        lambda: CosAttn2d(5, 2)(x5, x5, x5[..., :3]),
        r"v to have the grid of k.*\(5, 3\)",
    ),
    "cosine-grid": (lambda: CosAttn2d(4, 2)(x5, x5, x5), r"q to have a grid of at most N=\(4, 4\)"),
    "cosine-layer-grid": (lambda: CosMHSA(2, 4, 4)(x5), r"x to have shape \(B, 4, \*grid\)"),
    "cosine-layer-rank": (lambda: CosMHSA(2, 4, 4)(x5[0]), r"x to have shape \(B, 4, \*grid\)"),
    "pooling-empty-collection": (lambda: FusedAttention()([]), "x to hold at least one tensor"),
    "pooling-no-inputs": (
        lambda: FusedAttention()(some[:, :0]),
        "x to hold at least one input, got L=0",
    ),
    "pooling-unequal": (
        lambda: FusedAttention()([some[0], some[0, :3]]),
        r"x\[1\] to have the shape \(B, \*shape\) of x\[0\], \(6, 3\), got \(3, 3\)",
    ),
    "pooling-collection-rank": (
        lambda: FusedAttention()(some[0]),
        r"x to have shape \(B, L, \*shape\)",
    ),
    "pooling-image-rank": (
        lambda: FusedAttention(window=2)(some[0]),
        r"x to have shape \(B, C, \*spatial\)",
    ),
    "pooling-window-too-large": (
        lambda: FusedAttention(window=5)(image),
        r"window not to be larger than the grid \(4, 5\) that f_Q gives, got \(5, 5\)",
    ),
    "pooling-window-rank": (
        lambda: FusedAttention(window=(2, 2, 2))(image),
        "window to be an int or one int per",
    ),
    "pooling-window-zero": (lambda: FusedAttention(window=0), "window to be at least 1, got 0"),
    "pooling-stride-zero": (
        lambda: FusedAttention(window=2, stride=(1, 0)),
        r"stride\[1\] to be at",
    ),
    "pooling-stride-alone": (lambda: FusedAttention(stride=2), "stride needs a window"),
    "pooling-mask-shape": (
        lambda: FusedAttention()(some, torch.ones(2, 5).bool()),
        r"mask to have shape \(B, L\) = \(2, 6\), got \(2, 5\)",
    ),
    "pooling-patch-mask-shape": (
        lambda: FusedAttention(window=2)(image, torch.ones(2, 5).bool()),
        r"mask to have shape \(B, L\) = \(2, 4\), got \(2, 5\)",
    ),
    "pooling-empty-mask": (
        lambda: FusedAttention()(some, torch.zeros(2, 6).bool()),
        r"mask leaves nothing in sample\(s\) 0, 1 of 2",
    ),
    "pooling-keys": (
        lambda: FusedAttention(f_K=lambda x: x[:, :2])(some),
        r"f_K to give .* L x u = \(6, 3\), got \(6, 2\)",
    ),
    "pooling-values": (
        lambda: FusedAttention(f_V=lambda x: x[..., :2], window=2)(image),
        "f_V to give as many columns as f_K, 4, got 2",
    ),
    "pooling-not-a-batch": (
        lambda: FusedAttention(f_Q=lambda x: x[:3])(some),
        r"f_Q to map a batch of B \* L = 12 inputs to as many",
    ),
    "pooling-norm": (
        lambda: FusedAttention(norm=lambda S: S[0])(some),
        r"norm to keep the shape \(2, 6, 6\)",
    ),
    "pooling-fuse": (
        lambda: FusedAttention(fuse=lambda P: P)(some),
        r"fuse to give \(B, L\) = \(2, 6\)",
    ),
}
TYPE_ERRORS = {
    "axial-1": (lambda: SelfAttention(8, 2.0), "heads to be an int, got float"),
    "axial-2": (
        lambda: AxialPositionalEmbedding(8, 4),
        "expected shape to be a sequence of ints, got int",
    ),
    "axial-3": (
        lambda: AxialImageTransformer(8, 1, axial_pos_emb_shape=4),
        "axial_pos_emb_shape to be a sequence of ints, got int",
    ),
    "axial-4": (
        lambda: AxialAttention(8)(torch.zeros(1, 4, 5, 8), torch.ones(1, 4, 5)),
        r"mask to be a bool tensor .* torch.float32",
    ),
    "circulant-1": (
        lambda: CirculantAttention2d(4, 2, 3, similarity=DistanceSimilarity),
        r"simfun to be DotSimilarity.* add parentheses",
    ),
    "circulant-2": (lambda: CirculantAttention2d(4, 2.0, 3), "heads"),
    "circulant-3": (
        lambda: CirculantAttention2d(4, 2, 3.0),
        "window to be an int or 2 ints, got float",
    ),
    "cosine-1": (lambda: CosAttn2d(4, 2.0), "n_head to be an int, got float"),
    "cosine-2": (lambda: CosAttn2d(4.0), "expected N to be an int or 2 ints, got float"),
    "cosine-3": (lambda: CosAttn2d(4, 2, (8.0, 8)), r"expected M\[0\] to be an int, got float"),
    "cosine-4": (
        lambda: CosMHSA(2, 4, 5.0),
        "expected size to be an int or 1 to 3 ints, got float",
    ),
    "pooling-1": (lambda: FusedAttention(3), "f_Q to be callable or None, got int"),
    "pooling-2": (lambda: FusedAttention()(some, torch.ones(2, 6)), "mask to be a bool tensor"),
    "pooling-3": (lambda: FusedAttention()([some[0], 1.0]), r"x\[1\] to be a tensor, got float"),
    "pooling-4": (
        lambda: FusedAttention(window=2)([image]),
        "x to be a tensor to be cut into patches, got list",
    ),
    "pooling-5": (lambda: FusedAttention(window=(2.0, 2)), r"window\[0\] to be an int, got float"),
    "pooling-6": (
        lambda: FusedAttention(window=2.0),
        "window to be an int or a sequence of ints, got float",
    ),
}


@pytest.mark.parametrize("name", VALUE_ERRORS)
def test_value_error(name):
    call, message = VALUE_ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", TYPE_ERRORS)
def test_type_error(name):
    call, message = TYPE_ERRORS[name]
    with pytest.raises(TypeError, match=message):
        call()
