"""Attention for grids and sets as modules of a network."""

from circulant_attention.nn.axial import AxialAttention, AxialPositionalEmbedding
from circulant_attention.nn.axial_transformer import AxialImageTransformer
from circulant_attention.nn.circulant import (
    CirculantAttention1d,
    CirculantAttention2d,
    CirculantAttention3d,
)
from circulant_attention.nn.circulant_transformer import CirculantTransformerBlock
from circulant_attention.nn.cosine import CosAttn1d, CosAttn2d, CosAttn3d, CosMHSA
from circulant_attention.nn.nonlocal_denoiser import NonlocalDenoiser
from circulant_attention.nn.pooling import FusedAttention
from circulant_attention.nn.self_attention import SelfAttention

__all__ = [
    "AxialAttention",
    "AxialImageTransformer",
    "AxialPositionalEmbedding",
    "CirculantAttention1d",
    "CirculantAttention2d",
    "CirculantAttention3d",
    "CirculantTransformerBlock",
    "CosAttn1d",
    "CosAttn2d",
    "CosAttn3d",
    "CosMHSA",
    "FusedAttention",
    "NonlocalDenoiser",
    "SelfAttention",
]
