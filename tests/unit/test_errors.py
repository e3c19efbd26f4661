"""Bad calls: the type of each error, and what its message names. No error changes its arguments."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from inputs import features, matrix

import circulant_attention as ca
from circulant_attention import Circulant, DotSimilarity
from circulant_attention.ops import primitives

SIZE = (5, 4)
DTYPES = "one of float16, bfloat16, float32, float64, complex64, complex128"
# A device without memory, which every torch has. It stands for any other device.
OTHER = "meta"


class OtherSimilarity(ca.AbstractSimilarity):
    """A similarity that the library does not have."""

    kind = 0


def F(batch: int = 2, channels: int = 6, size: tuple[int, ...] = SIZE, **options: Any) -> Any:
    """Good features, for 2 or 3 heads."""
    return features(batch, channels, size, options.pop("device", "cpu"), **options)


def csr(crow: list[int], col: list[int]) -> torch.Tensor:
    """A sparse 5 x 5 matrix of ones."""
    index = map(torch.tensor, (crow, col))
    return torch.sparse_csr_tensor(*index, torch.ones(len(col)), (5, 5), check_invariants=False)


def names() -> dict[str, Any]:
    """What the calls of the tables below refer to: good arguments, and makers of others."""
    A = matrix(SIZE, 3, "cpu")
    return {
        **vars(ca),
        "np": np,
        "torch": torch,
        "softmax_f": torch.nn.functional.softmax,
        "F": F,
        "D": DotSimilarity(),
        "A": A,  # 2 batches of 3 heads
        "A1": matrix(SIZE, 3, "cpu", heads=1),
        "narrow": Circulant((3, 1), (2, 3, *SIZE)),
        "even": Circulant(ca.Window(4), (2, 3, *SIZE)),
        "ends": Circulant(ca.Window(3, boundary="truncated"), (2, 3, *SIZE)),
        "x": F(),
        "u": F(6, 2),  # a good x for A
        "y": F(6, 2),
        "other": F(device=OTHER),
        "OtherSimilarity": OtherSimilarity,
        "csr": csr,
        "v180": torch.ones(1, 1, 180),
        "rows5": [0, 3, 6, 9, 12, 15],
        "circle": [0, 1, 4, 0, 1, 2, 1, 2, 3, 2, 3, 4, 0, 3, 4],
        "one_row_turned": turned_in_one_slice(A),
    }


def turned_in_one_slice(A: Circulant) -> torch.Tensor:
    """``A.data`` with the columns of one row of one head in another order."""
    columns = A.col_indices().clone()
    columns[1, 2, :3] = columns[1, 2, :3].flip(0)
    index = A.crow_indices(), columns
    return torch.sparse_csr_tensor(*index, A.values, A.shape, check_invariants=False)


Row = tuple[str, type[Exception], str]


def each(
    calls: list[str], table: list[tuple[str, type[Exception], str]], **words: str
) -> list[Row]:
    """Every call with every bad argument in the place of ``*``."""
    return [
        (call.replace("*", bad), error, message.format(**words))
        for call in calls
        for bad, error, message in table
    ]


# --- the window, the similarity, the heads ---

WINDOWS = [
    ("4", ValueError, "W odd and positive in every dim got 4"),
    ("0", ValueError, "W odd and positive in every dim got 0"),
    ("-3", ValueError, "W odd and positive in every dim got -3"),
    ("(3, 2)", ValueError, "W odd and positive in every dim got (3, 2)"),
    ("5", ValueError, "W not be larger than the grid got 5 for spatial dim 1 of size 4 5 x 4"),
    ("(7, 3)", ValueError, "W grid got 7 for spatial dim 0 of size 5"),
    ("(3, 3, 3)", ValueError, "W one entry per spatial dim expected 2 got 3"),
    ("(3,)", ValueError, "W one entry per spatial dim expected 2 got 1"),
    ("()", ValueError, "W one entry per spatial dim expected 2 got 0"),
    ("3.0", TypeError, "W odd int or one odd int per spatial dim got float"),
    ("'3'", TypeError, "W odd int or one odd int per spatial dim got str"),
    ("None", TypeError, "W odd int or one odd int per spatial dim got NoneType"),
    ("True", TypeError, "W odd int or one odd int per spatial dim got bool"),
    ("(3, 3.0)", TypeError, "W ints got (3, 3.0)"),
    ("(3, True)", TypeError, "W ints got (3, True)"),
    ("b'33'", TypeError, "W odd int or one odd int per spatial dim got bytes"),
    ("Window((3, 3, 3))", ValueError, "W one size per spatial dim expected 2, got 3"),
    ("Window(3, dilation=(1,))", ValueError, "W one dilation per spatial dim expected 2, got 1"),
    (
        "Window(3, boundary=['circular'])",
        ValueError,
        "W one boundary per spatial dim expected 2, got 1",
    ),
    (
        "Window(6, boundary=('circular', 'truncated'))",
        ValueError,
        "circular window W not span more than the grid, got Window(6, boundary= with a span of 6 "
        "for spatial dim 0 of size 5 (spatial size 5 x 4",
    ),
    ("Window(3, dilation=(1, 2))", ValueError, "span of 5 for spatial dim 1 of size 4"),
    ("Window((3, (0, 4)))", ValueError, "span of 5 for spatial dim 1 of size 4"),
]
# Arguments of Window.
WINDOW = [
    ("2.5", TypeError, "size of a window int or one int or pair per spatial dim, got 2.5"),
    ("'3'", TypeError, "size of a window int per spatial dim, got '3'"),
    ("(3, None)", TypeError, "size of a window int or pair, got (3, None)"),
    ("None", TypeError, "size of a window int or one int or pair per spatial dim, got None"),
    ("b'33'", TypeError, "size of a window int or one int or pair per spatial dim, got b'33'"),
    ("(True, 3)", TypeError, "size of a window int or one int or pair, got (True, 3)"),
    ("('ab', 3)", TypeError, "size of a window int or one int or pair, got ('ab', 3)"),
    ("Window(3)", TypeError, "size of a window int or one int or pair, got Window(3)"),
    ("np.ones(2)", TypeError, "size of a window int or one int or pair, got array([1., 1.])"),
    ("np.float32(3)", TypeError, "size of a window int or one int or pair, got 3.0"),
    ("()", ValueError, "size of a window 1 to 3 entries, one per spatial dim, got ()"),
    ("4 * (3,)", ValueError, "size of a window 1 to 3 entries, got (3, 3, 3, 3)"),
    ("(0, 3)", ValueError, "size of a window from 1 to 2**30, got (0, 3)"),
    ("-3", ValueError, "size of a window from 1 to 2**30, got -3"),
    ("(2**31, 3)", ValueError, "size of a window from 1 to 2**30, got (2147483648, 3)"),
    ("((3,),)", TypeError, "pair of ints (before, after) in size, got (3,)"),
    ("((None, 1), 3)", TypeError, "pair of ints (before, after) in size, got (None, 1)"),
    ("(b'ab', 3)", TypeError, "size of a window int or one int or pair, got (b'ab', 3)"),
    ("((1, 2, 3),)", TypeError, "pair of ints (before, after) in size, got (1, 2, 3)"),
    ("((1, 0.5),)", TypeError, "pair of ints (before, after) in size, got (1, 0.5)"),
    ("((-1, 3), 3)", ValueError, "at least 0 in size window holds the pixel itself, got (-1, 3)"),
    ("((2, -1), 3)", ValueError, "at least 0 in size window holds the pixel itself, got (2, -1)"),
    ("((2**31, 0),)", ValueError, "at most 2**30 in size, got (2147483648, 0)"),
    ("((0, 2**31),)", ValueError, "at most 2**30 in size, got (0, 2147483648)"),
    ("3, dilation=0", ValueError, "dilation of a window from 1 to 2**30, got 0"),
    ("3, dilation=(1, -2)", ValueError, "dilation of a window from 1 to 2**30, got (1, -2)"),
    ("3, dilation='2'", TypeError, "dilation int or one int per spatial dim, got '2'"),
    ("3, dilation=1.0", TypeError, "dilation int or one int per spatial dim, got 1.0"),
    ("3, dilation=True", TypeError, "dilation int or one int per spatial dim, got True"),
    ("3, dilation=None", TypeError, "dilation int or one int per spatial dim, got None"),
    ("3, dilation=b'ab'", TypeError, "dilation int or one int per spatial dim, got b'ab'"),
    ("3, dilation=((1, 2), 3)", TypeError, "dilation one int per spatial dim, got ((1, 2), 3)"),
    ("3, dilation=4 * [1]", ValueError, "dilation 1 to 3 entries, got [1, 1, 1, 1]"),
    ("3, boundary='reflect'", ValueError, "boundary 'circular' or 'truncated', got 'reflect'"),
    (
        "3, boundary=('truncated', 'zeros')",
        ValueError,
        "boundary 'circular' or 'truncated', got ('truncated', 'zeros')",
    ),
    ("3, boundary=0", TypeError, "boundary string or one per spatial dim, got 0"),
    ("3, boundary=None", TypeError, "boundary string or one per spatial dim, got None"),
    ("3, boundary=b'circular'", TypeError, "boundary string per spatial dim, got b'circular'"),
    ("3, boundary=('truncated', 1)", TypeError, "boundary string or one, got ('truncated', 1)"),
    ("3, boundary='Truncated'", ValueError, "boundary 'circular' or 'truncated', got 'Truncated'"),
    ("3, boundary=()", ValueError, "boundary of a window 1 to 3 entries, got ()"),
    ("3, boundary=4 * ('truncated',)", ValueError, "boundary of a window 1 to 3 entries, got"),
    (
        "(3, 3), dilation=(1, 2, 3)",
        ValueError,
        "one entry per spatial dim, got size of 2, dilation of 3",
    ),
    (
        "3, dilation=(1, 2), boundary=['circular']",
        ValueError,
        "one entry per spatial dim, got dilation of 2, boundary of 1",
    ),
]
TAKE_A_WINDOW = [
    "Circulant(*, (2, 1, 5, 4))",
    "Circulant(v180, *, (5, 4))",
    "Circulant(A.data, *, (5, 4))",
    "circulant(*, x)",
    "circulant_similarity(D, x, x, *)",
    "circulant_adjacency(D, x, x, *)",
    "circulant_mh_adjacency(D, x, x, *, 2)",
    "circulant_attention(x, x, x, *)",
    "circulant_mh_attention(x, x, x, *, 2)",
]
SIMILARITIES = [
    ("DotSimilarity", TypeError, "simfun DotSimilarity() or DistanceSimilarity() parentheses got"),
    ("'dot'", TypeError, "simfun DotSimilarity() or DistanceSimilarity() got str"),
    ("None", TypeError, "simfun DotSimilarity() or DistanceSimilarity() got NoneType"),
    ("OtherSimilarity()", TypeError, "DotSimilarity() DistanceSimilarity() OtherSimilarity"),
]
TAKE_A_SIMILARITY = [
    "circulant_similarity(*, x, x, 3)",
    "circulant_similarity_(A1, *, x, x)",
    "circulant_adjacency(*, x, x, 3)",
    "circulant_adjacency_(A1, *, x, x)",
    "circulant_mh_adjacency(*, x, x, 3, 2)",
    "circulant_attention(*, x, x, x, 3)",
    "circulant_attention(x, x, x, 3, simfun=*)",
    "circulant_mh_attention(*, x, x, x, 3, 2)",
]
HEADS = [
    ("4", ValueError, "channels of {x} divisible by nheads 4 got 6"),
    ("0", ValueError, "nheads at least 1 got 0"),
    ("-1", ValueError, "nheads at least 1 got -1"),
    ("2.0", TypeError, "nheads int got float"),
    ("True", TypeError, "nheads int got bool"),
    ("None", TypeError, "nheads int got NoneType"),
]
SETTINGS = [
    *each(TAKE_A_WINDOW, WINDOWS),
    *each(["Window(*)"], WINDOW),
    *each(TAKE_A_SIMILARITY, SIMILARITIES),
    *each(["circulant_mh_attention(x, x, x, 3, *)"], HEADS, x="q"),
    *each(["circulant_mh_adjacency(D, x, x, 3, *)"], HEADS, x="x"),
    (
        "circulant_mh_attention(F(2, 4), F(2, 4), x, 3, 4)",
        ValueError,
        "channels of v divisible by nheads 4 got 6",
    ),
]

# --- features ---

NO_FEATURES = [
    ("x.int()", TypeError, f"{{x}} {DTYPES} got torch.int32"),
    ("[1.0]", TypeError, "{x} tensor got list"),
    ("np.zeros((2, 6, 5, 4))", TypeError, "{x} tensor got ndarray"),
    ("x.to_sparse()", TypeError, "{x} dense tensor got layout torch.sparse_coo"),
]
NO_IMAGES = [
    (
        "x[:, :, 0, 0]",
        ValueError,
        "{x} shape (B, C, *spatial) 1 to 3 spatial dims got shape (2, 6)",
    ),
    ("F(2, 6, (3,) * 4)", ValueError, "{x} 1 to 3 spatial dims got shape (2, 6, 3, 3, 3, 3)"),
    ("x[:, :0]", ValueError, "{x} have channels got shape (2, 0, 5, 4)"),
]
# The second of a pair, beside good features.
NO_PAIRS = [
    ("F(3)", ValueError, "{y} batch size of {x} 2 got 3"),
    ("F(2, 6, (4, 5))", ValueError, "{y} spatial size of {x} (5, 4) got (4, 5)"),
    ("F(2, 6, (20,))", ValueError, "{y} spatial size of {x} (5, 4) got (20,)"),
    ("other", ValueError, "{y} on the device of {x} cpu got meta"),
]
OTHER_CHANNELS = [("F(2, 4)", ValueError, "{y} channels of {x} 6 got 4")]
# Two features to compare, the second in the place of the star.
OF_PAIRS = {
    "circulant_similarity(D, x, *, 3)": ("x", "y"),
    "circulant_adjacency(D, x, *, 3)": ("x", "y"),
    "circulant_mh_adjacency(D, x, *, 3, 2)": ("x", "y"),
    "circulant_similarity_(A1, D, x, *)": ("x", "y"),
    "circulant_adjacency_(A1, D, x, *)": ("x", "y"),
    "circulant_attention(x, *, x, 3)": ("q", "k"),
    "circulant_mh_attention(x, *, x, 3, 2)": ("q", "k"),
    "circulant_attention(x, x, *, 3)": ("q", "v"),
    "circulant_mh_attention(x, x, *, 3, 2)": ("q", "v"),
}
APPLIED = [
    "circulant_attention(A, *)",
    "circulant_transposed_attention(A, *)",
    "A.apply(*)",
    "circulant_attention_(y, A, *)",
    "circulant_transposed_attention_(y, A, *)",
]
APPLIED_BY_HEADS = [
    "circulant_mh_attention(A, *)",
    "circulant_mh_transposed_attention(A, *)",
    "mh(A, *)",
]
FEATURES = [
    *(
        row
        for call, (first, second) in OF_PAIRS.items()
        for row in (
            *each([call], [*NO_FEATURES, *NO_IMAGES], x=second),
            *each(
                [call], [*NO_PAIRS, *([] if second == "v" else OTHER_CHANNELS)], x=first, y=second
            ),
            *each([call.replace("x, *", "*, x")], [] if second == "v" else NO_FEATURES, x=first),
        )
    ),
    *each(["circulant(3, *)"], [*NO_FEATURES, *NO_IMAGES], x="x"),
    *each([*APPLIED, *APPLIED_BY_HEADS], [*NO_FEATURES, *NO_IMAGES], x="x"),
    *each([*APPLIED, *APPLIED_BY_HEADS], [("A", TypeError, "x tensor got Circulant")]),
    *each(
        APPLIED[:3],
        [
            ("F(6, 2, (4, 5))", ValueError, "x spatial size of A (5, 4) got (4, 5)"),
            ("F(6, 2, (20,))", ValueError, "x spatial size of A (5, 4) got (20,)"),
            ("x", ValueError, "x batch size of A times its heads 6 got 2"),
            ("F(6, 2, device='meta')", ValueError, "x on the device of A cpu got meta"),
        ],
    ),
    *each(
        [*APPLIED_BY_HEADS, "A @ mh @ *"],
        [
            ("F(2, 6, (4, 5))", ValueError, "x spatial size of A (5, 4) got (4, 5)"),
            ("F(3)", ValueError, "x batch size of A 2 got 3"),
            ("F(2, 4)", ValueError, "channels of x divisible by A.shape[1] 3 got 4"),
            ("other", ValueError, "x on the device of A cpu got meta"),
        ],
    ),
]

# --- the forms of a call ---

NO_CIRCULANTS = {
    "A": """circulant_attention(A=x, x=x); circulant_mh_attention(A=x, x=x)
        circulant_transposed_attention(x, x); circulant_mh_transposed_attention(x, x); mh(x, x)
        circulant_attention_(x, x, x); circulant_transposed_attention_(x, x, x)
        circulant_similarity_(x, D, x, x); circulant_adjacency_(x, D, x, x); softmax(x)
        softmax_(A, x); kernel_length(x); spatial_size(x); spatial_dims(x); similar(x)
        scale(2, x); dot(x, A)""",
    "B": "softmax_(x); dot(A, x)",
    "every argument of cat": "cat(A, x)",
}
# Arguments of circulant_attention, what was wanted, what was given.
FORMS = [
    ("", "q, k, v, W{}", ""),
    ("x, x, x", "q, k, v, W{}", "Tensor, Tensor, Tensor"),
    ("x, A", "q, k, v, W{}", "Tensor, Circulant"),
    ("D, x, x, x", "simfun, q, k, v, W{}", "DotSimilarity, Tensor, Tensor, Tensor"),
    ("A", "A, x", "Circulant"),
    ("A, x, 3", "A, x", "Circulant, Tensor, int"),
    ("A=A, q=x", "A, x", "A=..., q=..."),
    ("A, A=A", "A, x", "Circulant, A=..."),
    ("x, x, x, window=3", "q, k, v, W{}", "Tensor, Tensor, Tensor, window=..."),
    ("x, x, q=x, k=x", "q, k, v, W{}", "Tensor, Tensor, q=..., k=..."),
]
CALLS = [
    *(
        (call.strip(), TypeError, f"{name} to be a Circulant got Tensor")
        for name, calls in NO_CIRCULANTS.items()
        for call in re.split(r"[;\n]", calls)
    ),
    ("circulant_similarity_(D, A1, x, x)", TypeError, "A to be a Circulant got DotSimilarity"),
    ("circulant_adjacency_(D, A1, x, x)", TypeError, "A to be a Circulant got DotSimilarity"),
    ("scale(A, 2)", TypeError, "A to be a Circulant got int"),
    ("mh(x, A)", TypeError, "x to be a tensor got Circulant"),
    *(
        (f"{f}({arguments})", TypeError, f"expected {f}({wanted.format(heads)}), got {f}({given})")
        for f, heads in (("circulant_attention", ""), ("circulant_mh_attention", ", nheads"))
        for arguments, wanted, given in FORMS
    ),
]

# --- functions in `_` ---

INTO_A = [
    (
        "A1, D, F(2, 6, (4, 5)), F(2, 6, (4, 5))",
        ValueError,
        "x spatial size of A (5, 4) got (4, 5)",
    ),
    ("A1, D, F(3), F(3)", ValueError, "x batch size of A times its heads 2 got 3"),
    ("A1, D, x, F(2, 2)", ValueError, "y channels of x 6 got 2"),
    ("A1, D, other, other", ValueError, "x on the device of A"),
    ("A1, D, x.int(), x.int()", TypeError, "x one of"),
    ("A1.complex(), D, x, x", TypeError, "A real entries got torch.complex128"),
    ("A1, DistanceSimilarity, x, x", TypeError, "simfun to be"),
]
INTO_Y = [
    ("F(6, 3), A, u", ValueError, "y channels of x 2 got 3"),
    ("F(5, 2), A, u", ValueError, "y batch size of x 6 got 5"),
    ("F(6, 2, (4, 5)), A, u", ValueError, "y spatial size of x (5, 4) got (4, 5)"),
    ("F(6, 2, device='meta'), A, u", ValueError, "y on the device of x"),
    ("y.int(), A, u", TypeError, "y one of"),
    ("[0.0], A, u", TypeError, "y tensor got list"),
    ("F(6, 2, (4, 5)), A, F(6, 2, (4, 5))", ValueError, "x spatial size of A (5, 4) got (4, 5)"),
    ("x, A, x", ValueError, "x batch size of A times its heads 6 got 2"),
    ("y, A, u.cdouble()", TypeError, "y of a complex dtype to hold the result got torch.float64"),
    ("y, A.complex(), u", TypeError, "y of a complex dtype to hold the result got torch.float64"),
]
IN_PLACE = [
    *each(["circulant_similarity_(*)", "circulant_adjacency_(*)"], INTO_A),
    *each(["circulant_attention_(*)", "circulant_transposed_attention_(*)"], INTO_Y),
    (
        "softmax_(A, A[:1])",
        ValueError,
        "B shape and window of A (1, 3, 20, 20) and (3, 3) got (2, 3, 20, 20) and (3, 3)",
    ),
    (
        "softmax_(A, narrow)",
        ValueError,
        "B shape and window of A (2, 3, 20, 20) and (3, 1) got (2, 3, 20, 20) and (3, 3)",
    ),
    ("softmax_(A, A.to('meta'))", ValueError, "B on the device of A meta"),
    ("softmax_(A, A.complex())", TypeError, "real entries for softmax"),
    ("softmax_(A.complex(), A)", TypeError, "B real entries got torch.complex128"),
]

# --- construction ---

OTHER_PATTERNS = {
    "columns": """Circulant(A.data, 3, (4, 5)); Circulant(one_row_turned, 3, (5, 4))
        Circulant(csr(rows5, [0, 1, 2, *circle[3:12], 2, 3, 4]), 3, (5,))
        Circulant(csr(rows5, [4, 0, 1, *circle[3:]]), 3, (5,))""",
    "row pointers": """Circulant(A.data, (3, 1), (5, 4))
        Circulant(csr([0, 2, 6, 9, 12, 15], circle), 3, (5,))
        Circulant(csr([0, 3, 6, 9, 12, 14], circle[:-1]), 3, (5,))""",
}
CONSTRUCTION = [
    ("Circulant(3, (2, 1))", ValueError, "dims (B, heads, *spatial) got (2, 1)"),
    ("Circulant(3, 5)", ValueError, "dims (B, heads, *spatial) got 5"),
    ("Circulant(3, (True, True, 6))", ValueError, "dims (B, heads, *spatial) got (True, True, 6)"),
    ("Circulant(3, (1, 1, 5.0))", ValueError, "dims (B, heads, *spatial) got (1, 1, 5.0)"),
    ("Circulant(3, (-1, 1, 5))", ValueError, "dims (B, heads, *spatial) got (-1, 1, 5)"),
    ("Circulant(1, (1, 1, 5, 0))", ValueError, "spatial size at least 1 got 5 x 0"),
    ("Circulant(1, (1, 1, 2, 2, 2, 2))", ValueError, "1 to 3 spatial dims got 4"),
    ("Circulant(3, (1, 1, 5), dtype=torch.int64)", TypeError, f"dtype {DTYPES} got torch.int64"),
    ("Circulant(3, (1, 1, 5), (5,))", TypeError, "data to be a tensor got int"),
    ("Circulant([1.0], 3, (5,))", TypeError, "data to be a tensor got list"),
    ("Circulant(A, 3, (5, 4))", TypeError, "data to be a tensor got Circulant"),
    ("Circulant(v180, 3)", TypeError, "spatial_size after data and W got none"),
    (
        "Circulant(v180, 3, (5, 4), dtype=torch.float32)",
        TypeError,
        "dtype and device belong to data",
    ),
    ("Circulant(v180, 3, (5, 4), device='cpu')", TypeError, "dtype and device belong to data"),
    ("Circulant(v180, 3, 20)", TypeError, "spatial_size one int per dim got int"),
    ("Circulant(v180, 3, (5.0, 4))", TypeError, "spatial_size ints got (5.0, 4)"),
    ("Circulant(v180, 3, ())", ValueError, "1 to 3 spatial dims got 0"),
    (
        "Circulant(v180[..., 1:], 3, (5, 4))",
        ValueError,
        "values of shape (B, heads, 180) spatial size (5, 4) window (3, 3) got (1, 1, 179)",
    ),
    ("Circulant(v180[0], 3, (5, 4))", ValueError, "values of shape (B, heads, 180) got (1, 180)"),
    ("Circulant(torch.ones(1, 1, 20, 20), 3, (5, 4))", ValueError, "got (1, 1, 20, 20)"),
    ("Circulant(v180.int(), 3, (5, 4))", TypeError, f"data {DTYPES} got torch.int32"),
    (
        "Circulant(A.to_dense()[0, 0].to_sparse(), 3, (5, 4))",
        TypeError,
        "data layout torch.sparse_csr got torch.sparse_coo",
    ),
    (
        "Circulant(A.to_dense()[0, 0].to_sparse_csc(), 3, (5, 4))",
        TypeError,
        "data layout torch.sparse_csr got torch.sparse_csc",
    ),
    (
        "Circulant(A.data, 3, (4, 4))",
        ValueError,
        "data of shape (B, heads, 16, 16) spatial size (4, 4) got (2, 3, 20, 20)",
    ),
    (
        "Circulant(torch.ones(2, 2, 3, 5, 5).to_sparse_csr(), 5, (5,))",
        ValueError,
        "data of shape (B, heads, 5, 5) spatial size (5,) got (2, 2, 3, 5, 5)",
    ),
    *(
        (call.strip(), ValueError, f"data pattern circulant spatial size and window got {part}")
        for part, calls in OTHER_PATTERNS.items()
        for call in re.split(r"[;\n]", calls)
    ),
]

# --- operators and methods ---


def every(call: str, error: type[Exception], words: str, bad: str) -> list[Row]:
    """A call with each bad argument in the place of ``*``, in its message as well."""
    given = bad.split("; ")
    return [(call.replace("*", one, 1), error, words.replace("*", one)) for one in given]


ONE_GEOMETRY = "spatial size (5, 4) and window (3, 3) got"
METHODS = [
    *every(
        *("A.sum(*)", ValueError, "dim -1 -2 (-2, -1) 0 1 (0, 1) None got *"),
        "4; -5; (0, -1); (1, 2); (0, 1, 2, 3); (-1, -1); (); 1.0",
    ),
    ("A.sum('rows')", ValueError, "dim -1 -2 None got rows"),
    ("A.sum(-1, dtype=torch.int64)", TypeError, f"dtype {DTYPES} got torch.int64"),
    *every("softmax(A, *)", ValueError, "softmax dim -1 (each row) got dim *", "-2; 2; 0; None"),
    ("torch.softmax(A, -2)", ValueError, "dim -1 (each row) got dim -2"),
    ("softmax_f(A, dim=0)", ValueError, "dim -1 (each row) got dim 0"),
    ("A.complex().softmax()", TypeError, "real entries for softmax got torch.complex128"),
    *every(
        *("A.reshape(*)", ValueError, "shape (B, heads, 20, 20) rows and columns got *"),
        "(2, 3, 10, 40); (2, 3, 20); (6, 20); (2, 3, 400); (1, 2, 3, 20, 20); ()",
    ),
    *every(
        *("A.reshape(*)", ValueError, "batch and heads of product 6 got *"),
        "(2, 2, 20, 20); (-1, -1, 20, 20); (4, -1, 20, 20); (5, 20, 20)",
    ),
    ("A.reshape(2.0, 3, 20, 20)", TypeError, "expected ints got (2.0, 3, 20, 20)"),
    *every(
        *("A.repeat(*)", ValueError, "repeats (batch, heads, 1, 1) got *"),
        "(2, 1, 2, 1); (1, 1, 1, 2); (2,); (1, 2, 1); (-1, 1, 1, 1); ()",
    ),
    *every(
        *("A.expand(*)", ValueError, "shape (B, heads, 20, 20), with another got *"),
        "(4, 3, 20, 20); (2, 3, 40, 20); (3, 20, 20); (2, -2, 20, 20)",
    ),
    ("A.expand(2.0, 3, 20, 20)", TypeError, "expected ints"),
    *every(
        *("A.transpose(*)", ValueError, "dims -2 and -1 (rows and columns) got *"),
        "0, 1; 1, 2; -1, -1; 0, -1; 7, 6",
    ),
    *every(
        *("*", ValueError, "expected offset 0 and dims -2 and -1"),
        "A.diagonal(1); torch.diagonal(A); A.diagonal(0, 2, 2)",
    ),
    ("cat(A, A, dim=2)", ValueError, "dim 0 (batch) or 1 (heads) got 2"),
    ("torch.cat([A, A], -1)", ValueError, "dim 0 (batch) or 1 (heads) got -1"),
    ("cat()", ValueError, "at least one Circulant got none"),
    ("cat(A, A[:1], dim=1)", ValueError, "one spatial size, window and batch size"),
    ("cat(A, A[:, :1], dim=0)", ValueError, "one spatial size, window and number of heads"),
    ("cat(A, narrow, dim=0)", ValueError, "Circulants of one spatial size, window"),
    ("cat(A, A.to('meta'))", ValueError, "cpu got one on meta"),
    *every(
        *("torch.ones(*) * A", ValueError),
        "scale of shape (B or 1, heads or 1, 1, 1) (B, heads) = (2, 3) got *",
        "(2, 3); (2, 3, 1); (3, 2, 1, 1); (2, 3, 20, 1); (2, 3, 20, 20)",
    ),
    ("A / torch.ones(4, 1, 1, 1)", ValueError, "(B, heads) = (2, 3) got (4, 1, 1, 1)"),
    ("A * torch.ones(2, 3, 1, 1, device='meta')", ValueError, "scale on cpu got one on meta"),
    ("scale('2', A)", TypeError, "number or a tensor to scale with got str"),
    ("A.div(None)", TypeError, "number or a tensor to scale with got NoneType"),
    ("scale(A, A)", TypeError, "number or a tensor to scale with got Circulant"),
    *every(
        *("*", ValueError, f"{ONE_GEOMETRY} (5, 4) and (3, 1)"),
        "A + narrow; A - narrow; dot(A, narrow); torch.allclose(A, narrow)",
    ),
    *every(
        *("*", ValueError, f"{ONE_GEOMETRY} (5, 4) and Window(3, boundary='truncated')"),
        "A + ends; A - 2 * ends; A * ends; dot(A, ends); torch.lerp(A, ends, 0.5); "
        "torch.maximum(A, ends)",
    ),
    *every(
        *("*", ValueError, "window Window(4) got (5, 4) and Window(((1, 2), (1, 2)))"),
        "even + even.mT; even * even.mT; torch.lerp(even, even.mT, 0.5)",
    ),
    ("cat(A, ends, dim=0)", ValueError, "Circulants of one spatial size, window"),
    ("cat(even, even.mT, dim=1)", ValueError, "Circulants of one spatial size, window"),
    (
        "circulant_attention(x, x, x, (5, 3), bias=torch.ones(1, 3, 5))",
        ValueError,
        "bias shape (heads or 1, *window) = (1, 5, 3), got (1, 3, 5)",
    ),
    ("softmax_(A, ends)", ValueError, "shape and window of A Window(3, boundary='truncated') got"),
    ("Circulant(A.data, Window(3, boundary='truncated'), (5, 4))", ValueError, "data pattern"),
    ("Circulant(ends.data, 3, (5, 4))", ValueError, "data"),
    ("A + Circulant(3, (2, 3, 4, 5))", ValueError, f"{ONE_GEOMETRY} (4, 5) and (3, 3)"),
    ("A + Circulant(3, (4, 3, 5, 4))", ValueError, "batch size 2 or 1 got 4"),
    ("A - Circulant(3, (2, 2, 5, 4))", ValueError, "number of heads 3 or 1 got 2"),
    ("dot(A, A[:1])", ValueError, "shape (2, 3, 20, 20) got (1, 3, 20, 20)"),
    ("A + A.to('meta')", ValueError, "Circulant on cpu got one on meta"),
    *every("A.*(A.values)", TypeError, "a Circulant got Tensor", "add; sub; dot"),
    ("torch.add(A, 1)", TypeError, "two Circulants for addition got a int"),
    ("torch.sub(A.values, A)", TypeError, "two Circulants for subtraction got a Tensor"),
    ("torch.vdot(A, A.values)", TypeError, "two Circulants for the inner product got a Tensor"),
    ("torch.equal(A, A.values)", TypeError, "two Circulants for equal got a Tensor"),
    *every(
        *("*", TypeError, "division by a Circulant not defined zero"),
        "torch.div(A.values, A); 1 / A; u / A",
    ),
    *every(
        *("*", TypeError, "A @ x Circulant and a tensor got Tensor @ Circulant A.mT @ x"),
        "torch.matmul(A.values, A); u @ A",
    ),
    ("np.asarray(A)", TypeError, "Circulant A.to_dense().numpy() dense"),
    *every(
        *("*", TypeError, ""),
        "A - u; A * 'a'; A @ 1; A @ mh @ 1; u @ mh; mh @ u; A @ np.ones((20, 1)); "
        "np.ones((1, 20)) @ A; np.ones((2, 3, 1, 1)) * A",
    ),
    ("A.to(torch.int32)", TypeError, f"dtype {DTYPES} got torch.int32"),
    ("torch.zeros_like(A, dtype=torch.bool)", TypeError, f"{DTYPES} got torch.bool"),
    ("A.spy(3)", ValueError, "head from 0 to 2 got 3"),
    ("A.spy(0, -1)", ValueError, "batch from 0 to 1 got -1"),
    ("A.spy('a')", TypeError, "head int got str"),
    ("A.window_image(20)", ValueError, "pixel from 0 to 19 got 20"),
    *every("A.window_image(*)", ValueError, "grid of size (5, 4), got *", "(5, 0); (1,)"),
    *every("A.window_image(*)", TypeError, "one int per spatial dim, got *", "1.5; (1, 0.5)"),
    ("A.window_image(0, batch=2)", ValueError, "batch from 0 to 1 got 2"),
    ("A.size(4)", IndexError, "dim from -4 to 3 got 4"),
    ("A.size(0.0)", TypeError, "dim int got float"),
    ("A[2]", IndexError, "batch index 2 size 2"),
    ("A[0, -4]", IndexError, "head index -4 size 3"),
    ("A[0, 3]", IndexError, "head index 3 is out of range for size 3"),
    ("A[0, 0, 20]", IndexError, "row index 20 size 20"),
    ("A[0, 0, [1, 20]]", IndexError, "row index 20 is out of range for size 20"),
    ("A[0, 0, 1, -21]", IndexError, "column index -21 size 20"),
    ("A[0, 0, :, 20]", IndexError, "column index 20 size 20"),
    ("A[torch.tensor([True])]", IndexError, "expected the batch mask to have 2 entries, got 1"),
    ("A[0, 0, [1, 2], [1, 2, 3]]", IndexError, "index lists of one length got [2, 3]"),
    ("A[0, 0, 0, 0, 0]", IndexError, "at most 4 indices got 5"),
    ("A[..., 0, ...]", IndexError, "at most one ellipsis"),
    *every(
        *("A[0, *]", TypeError, "head index int, a slice list or 1-d tensor of ints got *"),
        "'a'; 0.5; None; True; [True, False, True]; [0.5]",
    ),
    *every(
        *("A[0, torch.*]", TypeError, "head index int, a slice list or 1-d tensor of ints got *"),
        "tensor(True); tensor([0.5000]); tensor([[0]])",
    ),
]


# --- scale, bias, mask of keys, dropout ---

NO_SCALES = [
    ("'2'", TypeError, "scale to be a number got str"),
    ("torch.ones(())", TypeError, "scale to be a number got Tensor"),
    ("1j", TypeError, "scale to be a real number got 1j"),
    ("float('inf')", ValueError, "scale to be finite got inf"),
    ("float('nan')", ValueError, "scale to be finite got nan"),
]
NO_DROPOUT = [
    ("None", TypeError, "dropout_p to be a number got NoneType"),
    ("1.5", ValueError, "dropout_p probability in [0, 1] got 1.5"),
    ("-0.1", ValueError, "dropout_p probability in [0, 1] got -0.1"),
    ("float('nan')", ValueError, "dropout_p probability in [0, 1] got nan"),
]
NO_BIASES = [
    ("1.0", TypeError, "bias to be a tensor got float"),
    ("torch.ones(1, 3, 3).to_sparse()", TypeError, "bias dense tensor layout torch.sparse_coo"),
    ("torch.ones(1, 3, 3).int()", TypeError, "bias of a real floating dtype got torch.int32"),
    ("torch.ones(1, 3, 3).cfloat()", TypeError, "bias real floating dtype got torch.complex64"),
    ("torch.ones(3, 3)", ValueError, "bias shape (heads or 1, *window) = ({h}, 3, 3), got (3, 3)"),
    ("torch.ones(1, 9)", ValueError, "bias shape ({h}, 3, 3) got (1, 9)"),
    ("torch.ones(4, 3, 3)", ValueError, "bias shape ({h}, 3, 3) got (4, 3, 3)"),
    ("torch.ones(1, 3, 5)", ValueError, "bias shape ({h}, 3, 3) got (1, 3, 5)"),
    ("torch.ones(())", ValueError, "bias shape ({h}, 3, 3) got ()"),
    ("torch.ones(1, 3, 3, device='meta')", ValueError, "bias on cpu got bias on meta"),
]
NO_MASKS = [
    ("[True]", TypeError, "key_mask to be a tensor got list"),
    ("x[:, 0].to_sparse()", TypeError, "key_mask dense tensor layout torch.sparse_coo"),
    ("x[:, 0].int()", TypeError, "key_mask dtype bool or a real floating dtype torch.int32"),
    ("x[:, 0].cfloat()", TypeError, "key_mask dtype bool or a real floating dtype complex64"),
    ("x[0, 0] > 0", ValueError, "key_mask shape (2 or 1, 5, 4) (2 or 1, {h}, 5, 4), got (5, 4)"),
    ("F(3)[:, 0] > 0", ValueError, "key_mask (B or 1, *spatial) got (3, 5, 4)"),
    ("F(2, 4) > 0", ValueError, "key_mask (B or 1, heads or 1, *spatial) got (2, 4, 5, 4)"),
    ("x[:, 0].flatten(1) > 0", ValueError, "key_mask (2 or 1, 5, 4) got (2, 20)"),
    ("F(2, 6, (4, 5))[:, 0] > 0", ValueError, "key_mask (2 or 1, 5, 4) got (2, 4, 5)"),
    ("x[None, :, 0] > 0", ValueError, "key_mask got (1, 2, 5, 4)"),
    ("other[:, 0] > 0", ValueError, "key_mask on cpu got key_mask on meta"),
]
OPTIONS = {"scale": NO_SCALES, "bias": NO_BIASES, "key_mask": NO_MASKS, "dropout_p": NO_DROPOUT}
TAKE_OPTIONS = {
    "circulant_attention(x, x, x, 3, {})": "1",
    "circulant_mh_attention(D, x, x, x, 3, 3, {})": "3 or 1",
    "circulant_adjacency(D, x, x, 3, {})": "1",
    "circulant_mh_adjacency(D, x, x, 3, 3, {})": "3 or 1",
}
SCORES = [
    *(
        (call.format(f"{option}={bad}"), error, words.format(h=heads))
        for call, heads in TAKE_OPTIONS.items()
        for option, table in OPTIONS.items()
        for bad, error, words in table
    ),
    *each(["A.add_bias(*)"], NO_BIASES, h="3 or 1"),
    *each(["A.mask_keys(*)"], NO_MASKS, h="3 or 1"),
    *(
        (f"{f}(A, {x}, {option})", TypeError, f"expected {f}(A, x), got {name}=...")
        for f, x in (("circulant_attention", "u"), ("circulant_mh_attention", "x"))
        for name, option in {
            "scale": "scale=1.0",
            "bias": "bias=torch.ones(1, 3, 3)",
            "key_mask": "key_mask=x[:, 0] > 0",
            "dropout_p": "dropout_p=0.5",
        }.items()
    ),
]


TABLE = [*SCORES, *SETTINGS, *FEATURES, *CALLS, *IN_PLACE, *CONSTRUCTION, *METHODS]


def says(message: str, words: str) -> bool:
    """Whether the words are in the message in their order, each by itself."""
    pattern = ".*".join(rf"(?<!\w){re.escape(word.rstrip(','))}(?!\w)" for word in words.split())
    return re.search(pattern, message, re.DOTALL) is not None


def tensors(arguments: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors with memory among some arguments, also those of Circulants."""
    found = {n: a.values if isinstance(a, Circulant) else a for n, a in arguments.items()}
    found = {n: x for n, x in found.items() if isinstance(x, torch.Tensor)}
    return {n: x for n, x in found.items() if x.device.type == "cpu" and x.layout == torch.strided}


@pytest.mark.parametrize(("call", "error", "words"), TABLE, ids=[row[0] for row in TABLE])
def test_bad_calls(call, error, words):
    """Exactly this type of error, with these words; the arguments are as before."""
    arguments = names()
    before = {name: x.clone() for name, x in tensors(arguments).items()}
    with pytest.raises(error) as caught:
        eval(call, arguments)
    assert caught.type is error
    assert says(str(caught.value), words), str(caught.value)
    for name, x in tensors(arguments).items():
        assert x._version == 0
        assert torch.equal(x, before[name])


def test_every_call_is_in_the_table_once():
    calls = [call for call, _, _ in TABLE]
    assert len(calls) == len(set(calls))


LAST_CHECKED = """circulant_attention(x, x, x, 4); circulant_attention(x, x, F(3), 3)
    circulant_mh_attention(x, x, F(2, 5), 3, 2); circulant_mh_adjacency(D, x, x, 3, 5)
    circulant_adjacency(D, x, x, 7); circulant_attention(x, x, x, 3, dropout_p=2)
    mh(A, F(2, 4)); A.mT @ x; circulant_transposed_attention(A, x)
    circulant_similarity_(A, D, x, x); circulant_attention_(x, A, u); A[0, 0, :, 20]
    circulant_attention(x, x, x, Window(3, dilation=2)); even.mT + even; cat(even.mT, even)
    cat(A.mT, A[:1]); A.mT.sum((0, -1)); A.mT + Circulant(3, (2, 2, 5, 4))"""


@pytest.mark.parametrize("call", re.split(r";\s*|\n\s*", LAST_CHECKED))
def test_nothing_is_computed_before_an_error(call, monkeypatch):
    """The argument that is checked last is bad, and still no native op runs."""

    def refuse(*_):
        raise AssertionError("computed before the arguments were checked")

    for name in ("similarity", "apply", "apply_transposed", "transpose"):
        monkeypatch.setattr(primitives, name, refuse)
    with pytest.raises((ValueError, IndexError)):
        eval(call, names())
