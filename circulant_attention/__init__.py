"""Attention on grids with borders that wrap or end, and its block-circulant matrix as a value."""

from circulant_attention.attention import (
    circulant_attention,
    circulant_mh_adjacency,
    circulant_mh_attention,
)
from circulant_attention.matrix import Circulant
from circulant_attention.matrix.application import (
    circulant_attention_,
    circulant_mh_transposed_attention,
    circulant_transposed_attention,
    circulant_transposed_attention_,
    mh,
)
from circulant_attention.matrix.functions import (
    cat,
    circulant,
    dot,
    kernel_length,
    scale,
    similar,
    spatial_dims,
    spatial_size,
)
from circulant_attention.similarity import (
    AbstractSimilarity,
    DistanceSimilarity,
    DotSimilarity,
    circulant_adjacency,
    circulant_adjacency_,
    circulant_similarity,
    circulant_similarity_,
    softmax,
    softmax_,
)
from circulant_attention.window import Window

__version__ = "0.1.0"

__all__ = [
    "AbstractSimilarity",
    "Circulant",
    "DistanceSimilarity",
    "DotSimilarity",
    "Window",
    "cat",
    "circulant",
    "circulant_adjacency",
    "circulant_adjacency_",
    "circulant_attention",
    "circulant_attention_",
    "circulant_mh_adjacency",
    "circulant_mh_attention",
    "circulant_mh_transposed_attention",
    "circulant_similarity",
    "circulant_similarity_",
    "circulant_transposed_attention",
    "circulant_transposed_attention_",
    "dot",
    "kernel_length",
    "mh",
    "scale",
    "similar",
    "softmax",
    "softmax_",
    "spatial_dims",
    "spatial_size",
]
