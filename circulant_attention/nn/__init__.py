"""Attention for grids and sets as modules of a network."""

from circulant_attention.nn.axial import AxialAttention, AxialPositionalEmbedding
from circulant_attention.nn.axial_transformer import AxialImageTransformer
from circulant_attention.nn.self_attention import SelfAttention

__all__ = [
    "AxialAttention",
    "AxialImageTransformer",
    "AxialPositionalEmbedding",
    "SelfAttention",
]
