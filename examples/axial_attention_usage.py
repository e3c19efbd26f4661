"""The examples of the README of the `axial_attention` package, with another import.

The fourth example convolves 512 x 512 pixels with 512 channels 48 times: allow a few minutes and
5 GB on a CPU.
"""

# ruff: noqa: E402, I001
# fmt: off

# %% An image
import torch
from circulant_attention.nn import AxialAttention

img = torch.randn(1, 3, 256, 256)

attn = AxialAttention(
    dim = 3,
    dim_index = 1,
    dim_heads = 32,
    heads = 1,
    num_dimensions = 2,
    sum_axial_out = True
)

out = attn(img)
assert out.shape == (1, 3, 256, 256)

# %% Latents with the channels last
import torch
from circulant_attention.nn import AxialAttention

img = torch.randn(1, 20, 20, 512)

attn = AxialAttention(
    dim = 512,
    dim_index = -1,
    heads = 8,
    num_dimensions = 2,
)

out = attn(img)
assert out.shape == (1, 20, 20, 512)

# %% A video
import torch
from circulant_attention.nn import AxialAttention

video = torch.randn(1, 5, 128, 256, 256)

attn = AxialAttention(
    dim = 128,
    dim_index = 2,
    heads = 8,
    num_dimensions = 3,
)

out = attn(video)
assert out.shape == (1, 5, 128, 256, 256)

# %% A reversible image transformer
import torch
from torch import nn
from circulant_attention.nn import AxialImageTransformer

conv1x1 = nn.Conv2d(3, 128, 1)

transformer = AxialImageTransformer(
    dim = 128,
    depth = 12,
    reversible = True
)

img = torch.randn(1, 3, 512, 512)

out = transformer(conv1x1(img))
assert out.shape == (1, 128, 512, 512)

# %% With positional embedding
import torch
from circulant_attention.nn import AxialAttention, AxialPositionalEmbedding

img = torch.randn(1, 512, 20, 20)

attn = AxialAttention(
    dim = 512,
    heads = 8,
    dim_index = 1
)

pos_emb = AxialPositionalEmbedding(
    dim = 512,
    shape = (20, 20)
)

img = pos_emb(img)
img = attn(img)
assert img.shape == (1, 512, 20, 20)
