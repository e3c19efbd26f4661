"""CirculantAttention.jl written out in NumPy, in Julia's own conventions.

Slow, plain and in float64 or complex128. It imports neither torch nor the package that it is
compared with.

Conventions: indices and pixel numbers start at one, arrays are column-major with the dims
``(*spatial, channels, batch)``, and a matrix has the dims ``(row, column, head, batch)``.
"""

from . import cotangents, network
from .array import (
    Circulant,
    add,
    cat,
    circulant,
    complex_,
    dot,
    equal,
    getindex,
    multiply,
    negate,
    ones,
    real,
    repeat,
    reshape,
    scale,
    subtract,
    sum_,
    to_dense,
)
from .attention import (
    circulant_adjoint_attention,
    circulant_attention,
    circulant_mh_adjacency,
    circulant_mh_attention,
    circulant_mh_transposed_attention,
    circulant_transposed_attention,
    splitheads,
)
from .pattern import (
    cartesian_circulant,
    cartesian_index,
    circulant_pattern,
    pixel_number,
    row_columns,
)
from .similarity import (
    DistanceSimilarity,
    DotSimilarity,
    circulant_adjacency,
    circulant_similarity,
    softmax,
)

__all__ = [
    "Circulant",
    "DistanceSimilarity",
    "DotSimilarity",
    "add",
    "cartesian_circulant",
    "cartesian_index",
    "cat",
    "circulant",
    "circulant_adjacency",
    "circulant_adjoint_attention",
    "circulant_attention",
    "circulant_mh_adjacency",
    "circulant_mh_attention",
    "circulant_mh_transposed_attention",
    "circulant_pattern",
    "circulant_similarity",
    "circulant_transposed_attention",
    "complex_",
    "cotangents",
    "dot",
    "equal",
    "getindex",
    "multiply",
    "negate",
    "network",
    "ones",
    "pixel_number",
    "real",
    "repeat",
    "reshape",
    "row_columns",
    "scale",
    "softmax",
    "splitheads",
    "subtract",
    "sum_",
    "to_dense",
]
