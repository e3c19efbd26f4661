"""Bad arguments of modules: each error names the argument, what was expected and what came."""

import re

import pytest
import torch

from circulant_attention import DistanceSimilarity, Window, nn

NAMES = {
    **{name: getattr(nn, name) for name in nn.__all__},
    "DistanceSimilarity": DistanceSimilarity,
    "globe": Window(5, dilation=(1, 2), boundary=("truncated", "circular")),
    "zeros": torch.zeros,
    "ones": torch.ones,
    "layer": nn.CirculantAttention2d(4, 2, (3, 5)),
    "noisy": nn.CirculantAttention2d(
        4, 2, 3, similarity=DistanceSimilarity(), learn_bandwidth=True, bandwidth_degree=1
    ),
    "x5": torch.zeros(1, 4, 5, 5),
    "image": torch.zeros(2, 3, 4, 5),
    "some": torch.zeros(2, 6, 3),
    "second_is_empty": torch.ones(2, 4, 5).bool() & torch.tensor([True, False])[:, None, None],
}
# Any text may take the place of "..." in a message.
VALUE_ERRORS = [
    ("AxialAttention(10, heads=4)", "dim to be divisible by heads=4, got 10"),
    ("SelfAttention(8, 0)", "heads to be at least 1, got 0"),
    ("SelfAttention(8, 2, dropout=1.0)", "dropout to be ... got 1.0"),
    ("AxialAttention(8, dim_index=0)", "dim_index to name ... 0"),
    ("AxialAttention(8, dim_index=4)", "dim_index to name ... 4"),
    ("AxialAttention(8, num_dimensions=0)", "num_dimensions to be at least"),
    ("AxialPositionalEmbedding(8, ())", "shape to hold"),
    ("AxialPositionalEmbedding(8, (4, 0))", "shape[1] to be at"),
    ("AxialImageTransformer(3, 1, heads=1)", "dim to be even ... got 3"),
    ("AxialImageTransformer(8, 0)", "depth to be at least 1"),
    (
        "AxialImageTransformer(8, 1, axial_pos_emb_shape=(4,))",
        "axial_pos_emb_shape to be (height, width), got (4,)",
    ),
    ("AxialAttention(8)(zeros(2, 8, 4))", "x to have 4 dims ... (2, 8, 4)"),
    ("AxialAttention(8)(zeros(2, 8, 4, 4))", "x to have dim=8 channels in dim 3, got 4"),
    (
        "AxialPositionalEmbedding(8, (4, 5))(zeros(1, 8, 4, 6))",
        "at most shape=(4, 5), the embedding's, got (4, 6)",
    ),
    ("AxialImageTransformer(8, 1)(zeros(8, 4, 4))", "x to have 4 dims"),
    ("SelfAttention(8, 2)(zeros(1, 4, 8), zeros(2, 4, 8))", "kv to have shape ... got (2, 4, 8)"),
    (
        "AxialAttention(8)(zeros(1, 4, 5, 8), ones(1, 4, 4).bool())",
        "mask to have shape (B, *grid) = (1, 4, 5), got (1, 4, 4)",
    ),
    (
        "AxialImageTransformer(8, 1)(zeros(2, 8, 4, 5), second_is_empty)",
        "mask leaves nothing in sample(s) 1 of 2",
    ),
    (
        "SelfAttention(8, 2)(zeros(1, 4, 8), mask=zeros(1, 4).bool())",
        "mask leaves nothing in sample(s) 0 of 1",
    ),
    ("CirculantAttention2d(10, 4, 3)", "channels...divisible by heads=4, got 10"),
    ("CirculantAttention2d(4, 2, (3, 4))", "window[1] to be odd, got 4"),
    ("CirculantAttention3d(4, 2, (3, 3))", "window to be an int or 3 ints"),
    ("CirculantAttention1d(4, 2, -3)", "window to be at least 1, got -3"),
    (
        "CirculantAttention1d(4, 2, 3, similarity=DistanceSimilarity(), bandwidth=0.0)",
        "bandwidth ... positive and finite, got 0.0",
    ),
    (
        "CirculantAttention1d(4, 2, 3, similarity=DistanceSimilarity(), bandwidth=float('inf'))",
        "bandwidth ... positive and finite, got inf",
    ),
    (
        "CirculantAttention1d(4, 2, 3, bandwidth=1.0)",
        "bandwidth and learn_bandwidth need ... got DotSimilarity()",
    ),
    ("CirculantAttention1d(4, 2, 3, dropout=1.0)", "dropout"),
    ("CirculantAttention1d(4, 2, 3, attention_dropout=1.0)", "attention_dropout ... got 1.0"),
    (
        "CirculantAttention1d(4, 2, 3, bandwidth_degree=1)",
        "bandwidth_degree=1 needs learn_bandwidth=True, got False",
    ),
    (
        "CirculantAttention1d(4, 2, 3, bandwidth_degree=-1)",
        "bandwidth_degree to be at least 0, got -1",
    ),
    ("layer(x5, sigma=0.1)", "sigma needs a layer with bandwidth_degree"),
    ("noisy(x5)", "expected sigma, the noise level, for bandwidth_degree=1, got None"),
    ("noisy(x5, sigma=ones(3))", "sigma to be ... shape (B,) or (B, 1, *1) with B = 1, got (3,)"),
    (
        "layer(x5, key_mask=ones(1, 5, 4))",
        "key_mask of shape ... = (1, 5, 5) or ... = (1, 2 or 1, 5, 5), got (1, 5, 4)",
    ),
    (
        "CirculantTransformerBlock(4, 2, 3)(x5, key_mask=ones(1, 3, 5, 5))",
        "key_mask of shape ... got (1, 3, 5, 5)",
    ),
    ("CirculantTransformerBlock(4, 2, 3, 4)", "spatial_dims to be 1, 2 or 3, got 4"),
    ("CirculantTransformerBlock(4, 2, 3, mlp_ratio=0)", "mlp_ratio"),
    ("layer(zeros(4, 5, 5))", "x of shape (B, 4, *spatial)...(4, 5, 5)"),
    ("layer(zeros(1, 3, 5, 5))", "x of shape ... got (1, 3, 5, 5)"),
    (
        "layer(zeros(1, 4, 5, 4))",
        "grid of at least (3, 5), the span of the circular window (3, 5), got (5, 4)",
    ),
    (
        "CirculantAttention2d(4, 2, globe)(zeros(1, 4, 1, 8))",
        "grid of at least (1, 9), the span of the circular window Window(5, dilation=(1, 2), "
        "boundary=('truncated', 'circular')), got (1, 8)",
    ),
    ("CirculantAttention1d(4, 2, globe)", "one dilation per spatial dim: expected 1, got 2"),
    ("CirculantTransformerBlock(4, 2, globe, 3)", "one dilation per spatial dim: expected 3"),
    ("NonlocalDenoiser(-1.0)", "sigma to be zero or more, got -1.0"),
    ("NonlocalDenoiser()(zeros(1, 32, 32))", "expected sigma, ... got None"),
    ("NonlocalDenoiser(window=4)", "window to be odd, got 4"),
    ("NonlocalDenoiser(bandwidth=0.0)", "bandwidth to be positive"),
    (
        "NonlocalDenoiser(boundary='reflect')",
        "boundary to be 'circular' or 'truncated', or two of them, got 'reflect'",
    ),
    ("NonlocalDenoiser(memory=0)", "memory to be at least 1, got 0"),
    (
        "NonlocalDenoiser(1.0)(zeros(1, 9, 32))",
        "window not larger than the image of 9 x 32 pixels, got 21",
    ),
    ("CirculantTransformerBlock(4, 2, 3)(zeros(4, 5, 5))", "x of shape"),
    ("CosAttn2d(16, 8, 16)", "M to be larger ... M=(16, 16) for N=(16, 16)"),
    ("CosAttn2d((3, 9), 1, (8, 9))", "M to be larger"),
    ("CosAttn2d((3, 4, 5))", "N to be an int or 2 ints, got (3, 4, 5)"),
    ("CosAttn1d(0)", "N to be at least 1, got 0"),
    ("CosAttn2d((4, 0))", "N[1] to be at least 1, got 0"),
    ("CosAttn2d(4, 0)", "n_head to be at least 1"),
    ("CosAttn2d(4, eps=0.0)", "eps to be positive, got 0.0"),
    ("CosMHSA(3, 8, 4)", "external_dim to be divisible by heads=3, got 8"),
    ("CosMHSA(1, 1, 4)", "external_dim to be at least 2"),
    ("CosMHSA(1, 2, (1, 2, 3, 4))", "size to be an int or 1 to 3 ints"),
    ("CosMHSA(1, 2, 3, dropout=-0.1)", "dropout to be a probability"),
    ("CosAttn2d(5)(x5[0], x5, x5)", "q to have shape (B, C, height, width) ... got (4, 5, 5)"),
    ("CosAttn2d(5, 4)(x5, x5.repeat(2, 1, 1, 1), x5)", "k to have shape ... B=1"),
    (
        "CosAttn2d(5, 3)(x5, x5, x5)",
        "the number of channels of q to be divisible by heads=3, got 4",
    ),
    ("CosAttn2d(5, 2)(x5, x5[:, :2], x5)", "k to have the channels of q, 4, got 2"),
    ("CosAttn2d(5, 2)(x5, x5, x5[..., :3])", "v to have the grid of k...(5, 3)"),
    ("CosAttn2d(4, 2)(x5, x5, x5)", "q to have a grid of at most N=(4, 4)"),
    ("CosMHSA(2, 4, 4)(x5)", "x to have shape (B, 4, *grid)"),
    ("CosMHSA(2, 4, 4)(x5[0])", "x to have shape (B, 4, *grid)"),
    ("FusedAttention()([])", "x to hold at least one tensor"),
    ("FusedAttention()(some[:, :0])", "x to hold at least one input, got L=0"),
    (
        "FusedAttention()([some[0], some[0, :3]])",
        "x[1] to have the shape (B, *shape) of x[0], (6, 3), got (3, 3)",
    ),
    ("FusedAttention()(some[0])", "x to have shape (B, L, *shape)"),
    ("FusedAttention(window=2)(some[0])", "x to have shape (B, C, *spatial)"),
    (
        "FusedAttention(window=5)(image)",
        "window not to be larger than the grid (4, 5) that f_Q gives, got (5, 5)",
    ),
    ("FusedAttention(window=(2, 2, 2))(image)", "window to be an int or one int per"),
    ("FusedAttention(window=0)", "window to be at least 1, got 0"),
    ("FusedAttention(window=2, stride=(1, 0))", "stride[1] to be at"),
    ("FusedAttention(stride=2)", "stride needs a window"),
    ("FusedAttention()(some, ones(2, 5).bool())", "mask to have shape (B, L) = (2, 6), got (2, 5)"),
    (
        "FusedAttention(window=2)(image, ones(2, 5).bool())",
        "mask to have shape (B, L) = (2, 4), got (2, 5)",
    ),
    ("FusedAttention()(some, zeros(2, 6).bool())", "mask leaves nothing in sample(s) 0, 1 of 2"),
    ("FusedAttention(f_K=lambda x: x[:, :2])(some)", "f_K to give ... L x u = (6, 3), got (6, 2)"),
    (
        "FusedAttention(f_V=lambda x: x[..., :2], window=2)(image)",
        "f_V to give as many columns as f_K, 4, got 2",
    ),
    (
        "FusedAttention(f_Q=lambda x: x[:3])(some)",
        "f_Q to map a batch of B * L = 12 inputs to as many",
    ),
    ("FusedAttention(norm=lambda S: S[0])(some)", "norm to keep the shape (2, 6, 6)"),
    ("FusedAttention(fuse=lambda P: P)(some)", "fuse to give (B, L) = (2, 6)"),
]
TYPE_ERRORS = [
    ("SelfAttention(8, 2.0)", "heads to be an int, got float"),
    (
        "CirculantAttention1d(4, 2, 3, bandwidth_degree=0.5)",
        "bandwidth_degree to be an int, got float",
    ),
    ("AxialPositionalEmbedding(8, 4)", "expected shape to be a sequence of ints, got int"),
    (
        "AxialImageTransformer(8, 1, axial_pos_emb_shape=4)",
        "axial_pos_emb_shape to be a sequence of ints, got int",
    ),
    (
        "AxialAttention(8)(zeros(1, 4, 5, 8), ones(1, 4, 5))",
        "mask to be a bool tensor ... torch.float32",
    ),
    (
        "CirculantAttention2d(4, 2, 3, similarity=DistanceSimilarity)",
        "simfun to be DotSimilarity... add parentheses",
    ),
    ("CirculantAttention2d(4, 2.0, 3)", "heads"),
    (
        "CirculantAttention2d(4, 2, 3.0)",
        "window to be a Window, an odd int or 2 odd ints, got float",
    ),
    ("CosAttn2d(4, 2.0)", "n_head to be an int, got float"),
    ("CosAttn2d(4.0)", "expected N to be an int or 2 ints, got float"),
    ("CosAttn2d(4, 2, (8.0, 8))", "expected M[0] to be an int, got float"),
    ("CosMHSA(2, 4, 5.0)", "expected size to be an int or 1 to 3 ints, got float"),
    ("FusedAttention(3)", "f_Q to be callable or None, got int"),
    ("FusedAttention()(some, ones(2, 6))", "mask to be a bool tensor"),
    ("FusedAttention()([some[0], 1.0])", "x[1] to be a tensor, got float"),
    ("FusedAttention(window=2)([image])", "x to be a tensor to be cut into patches, got list"),
    ("FusedAttention(window=(2.0, 2))", "window[0] to be an int, got float"),
    ("FusedAttention(window=2.0)", "window to be an int or a sequence of ints, got float"),
]


def row(error, call, message):
    return pytest.param(call, error, message, id=call)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        *(row(ValueError, *each) for each in VALUE_ERRORS),
        *(row(TypeError, *each) for each in TYPE_ERRORS),
    ],
)
def test_bad_calls(call, error, message):
    with pytest.raises(error, match=re.escape(message).replace(r"\.\.\.", ".*")):
        eval(call, dict(NAMES))
