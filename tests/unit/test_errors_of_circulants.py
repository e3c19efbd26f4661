"""Bad input of Circulants: their construction, operators and methods."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bad_input import DTYPES, SIZE, check_error, good_A, good_x

from circulant_attention import (
    Circulant,
    cat,
    dot,
    mh,
    scale,
    softmax,
)

# --- construction ---

CONSTRUCTIONS = [
    (
        lambda d: Circulant(3, (2, 1)),
        ValueError,
        "expected dims (B, heads, *spatial), got (2, 1)",
    ),
    (lambda d: Circulant(3, 5), ValueError, "expected dims (B, heads, *spatial), got 5"),
    (
        lambda d: Circulant(3, (1, 1, 5.0)),
        ValueError,
        "expected dims (B, heads, *spatial), got (1, 1, 5.0)",
    ),
    (
        lambda d: Circulant(3, (-1, 1, 5)),
        ValueError,
        "expected dims (B, heads, *spatial), got (-1, 1, 5)",
    ),
    (
        lambda d: Circulant(1, (1, 1, 5, 0)),
        ValueError,
        "expected every spatial size to be at least 1, got 5 x 0",
    ),
    (
        lambda d: Circulant(1, (1, 1, 2, 2, 2, 2)),
        ValueError,
        "expected 1 to 3 spatial dims, got 4",
    ),
    (
        lambda d: Circulant(3, (1, 1, 5), dtype=torch.int64),
        TypeError,
        f"expected dtype to be one of {DTYPES}, got torch.int64",
    ),
    (
        lambda d: Circulant(3, (1, 1, 5), (5,)),
        TypeError,
        "expected data to be a tensor, got int",
    ),
    (
        lambda d: Circulant([1.0], 3, (5,)),
        TypeError,
        "expected data to be a tensor, got list",
    ),
    (
        lambda d: Circulant(good_A(d), 3, SIZE),
        TypeError,
        "expected data to be a tensor, got Circulant",
    ),
    (
        lambda d: Circulant(torch.ones(1, 1, 180, device=d), 3),
        TypeError,
        "expected spatial_size after data and W, got none",
    ),
    (
        lambda d: Circulant(torch.ones(1, 1, 180, device=d), 3, SIZE, dtype=torch.float32),
        TypeError,
        "dtype and device belong to data",
    ),
    (
        lambda d: Circulant(torch.ones(1, 1, 180, device=d), 3, SIZE, device=d),
        TypeError,
        "dtype and device belong to data",
    ),
    (
        lambda d: Circulant(torch.ones(1, 1, 180, device=d), 3, 20),
        TypeError,
        "expected spatial_size to hold one int per dim, got int",
    ),
    (
        lambda d: Circulant(torch.ones(1, 1, 180, device=d), 3, (5.0, 4)),
        TypeError,
        "expected spatial_size to hold ints, got (5.0, 4)",
    ),
    (
        lambda d: Circulant(torch.ones(1, 1, 180, device=d), 3, ()),
        ValueError,
        "expected 1 to 3 spatial dims, got 0",
    ),
    (
        lambda d: Circulant(torch.ones(1, 1, 179, device=d), 3, SIZE),
        ValueError,
        "expected values of shape (B, heads, 180) for spatial size (5, 4) and window (3, 3), "
        "got (1, 1, 179)",
    ),
    (
        lambda d: Circulant(torch.ones(1, 180, device=d), 3, SIZE),
        ValueError,
        "expected values of shape (B, heads, 180) for spatial size (5, 4) and window (3, 3), "
        "got (1, 180)",
    ),
    (
        lambda d: Circulant(torch.ones(1, 1, 20, 20, device=d), 3, SIZE),
        ValueError,
        "got (1, 1, 20, 20)",
    ),
    (
        lambda d: Circulant(torch.ones(1, 1, 180, device=d, dtype=torch.int32), 3, SIZE),
        TypeError,
        f"expected data to be one of {DTYPES}, got torch.int32",
    ),
    (
        lambda d: Circulant(good_A(d).to_dense()[0, 0].to_sparse(), 3, SIZE),
        TypeError,
        "expected data in layout torch.sparse_csr, got torch.sparse_coo",
    ),
    (
        lambda d: Circulant(good_A(d).to_dense()[0, 0].to_sparse_csc(), 3, SIZE),
        TypeError,
        "expected data in layout torch.sparse_csr, got torch.sparse_csc",
    ),
    (
        lambda d: Circulant(good_A(d).data, 3, (4, 4)),
        ValueError,
        "expected data of shape (B, heads, 16, 16) for spatial size (4, 4), got (2, 3, 20, 20)",
    ),
]


@pytest.mark.parametrize(("make", "error", "message"), CONSTRUCTIONS, ids=range(len(CONSTRUCTIONS)))
def test_construction(make, error, message, device):
    check_error(lambda: make(device), error, message)


def test_sparse_data_with_too_many_batch_dims(device):
    A = good_A(device)
    data = torch.sparse_csr_tensor(
        A.crow_indices().expand(2, -1, -1, -1),
        A.col_indices().expand(2, -1, -1, -1),
        A.values.expand(2, -1, -1, -1),
        (2, 2, 3, 20, 20),
        check_invariants=False,
    )
    check_error(
        lambda: Circulant(data, 3, SIZE),
        ValueError,
        "expected data of shape (B, heads, 20, 20) for spatial size (5, 4), got (2, 2, 3, 20, 20)",
    )


def _csr(crow, col, device, size=5):
    values = torch.ones(len(col), device=device)
    crow, col = (torch.tensor(index, device=device) for index in (crow, col))
    return torch.sparse_csr_tensor(crow, col, values, (size, size), check_invariants=False)


CIRCLE = [0, 1, 4, 0, 1, 2, 1, 2, 3, 2, 3, 4, 0, 3, 4]
PATTERNS = {
    "another-grid": lambda d: (good_A(d).data, 3, (4, 5), "columns"),
    "another-window": lambda d: (good_A(d).data, (3, 1), SIZE, "row pointers"),
    "clamped-at-the-border": lambda d: (
        _csr([0, 3, 6, 9, 12, 15], [0, 1, 2, *CIRCLE[3:12], 2, 3, 4], d),
        3,
        (5,),
        "columns",
    ),
    "columns-not-ascending": lambda d: (
        _csr([0, 3, 6, 9, 12, 15], [4, 0, 1, *CIRCLE[3:]], d),
        3,
        (5,),
        "columns",
    ),
    "rows-of-unequal-length": lambda d: (
        _csr([0, 2, 6, 9, 12, 15], CIRCLE, d),
        3,
        (5,),
        "row pointers",
    ),
    "an-entry-missing": lambda d: (
        _csr([0, 3, 6, 9, 12, 14], CIRCLE[:-1], d),
        3,
        (5,),
        "row pointers",
    ),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_data_whose_pattern_is_not_the_circulant_one(name, device):
    data, window, size, part = PATTERNS[name](device)
    check_error(
        lambda: Circulant(data, window, size),
        ValueError,
        f"data's pattern is not the circulant one of spatial size {size} and window",
    )
    check_error(lambda: Circulant(data, window, size), ValueError, f"got other {part}")


def test_only_one_wrong_slice_of_the_data(device):
    A = good_A(device)
    columns = A.col_indices().clone()
    columns[1, 2, :3] = columns[1, 2, :3].flip(0)
    data = torch.sparse_csr_tensor(
        A.crow_indices(), columns, A.values, A.shape, check_invariants=False
    )
    check_error(lambda: Circulant(data, 3, SIZE), ValueError, "got other columns")


# --- operators, methods and functions ---

METHODS = [
    # Sums.
    *(
        (
            lambda A, dim=dim: A.sum(dim),
            ValueError,
            "expected dim to be -1 (each row), -2 (each column), (-2, -1), 0 (batch), 1 (heads), "
            f"(0, 1) or None, got {dim}",
        )
        for dim in (4, -5, (0, -1), (1, 2), (0, 1, 2, 3), (-1, -1), (), "rows", 1.0)
    ),
    # Softmax.
    *(
        (
            lambda A, dim=dim: softmax(A, dim),
            ValueError,
            f"expected softmax over dim -1 (each row), got dim {dim}",
        )
        for dim in (-2, 2, 0, None)
    ),
    (lambda A: torch.softmax(A, -2), ValueError, "over dim -1 (each row), got dim -2"),
    (lambda A: torch.nn.functional.softmax(A, dim=0), ValueError, "(each row), got dim 0"),
    (
        lambda A: A.complex().softmax(),
        TypeError,
        "expected real entries for softmax, got torch.complex128",
    ),
    # Regrouping.
    *(
        (
            lambda A, shape=shape: A.reshape(*shape),
            ValueError,
            f"expected shape (B, heads, 20, 20): rows and columns stay, got {shape}",
        )
        for shape in ((2, 3, 10, 40), (2, 3, 20), (6, 20), (2, 3, 400), (1, 2, 3, 20, 20), ())
    ),
    *(
        (
            lambda A, shape=shape: A.reshape(*shape),
            ValueError,
            f"expected batch and heads of product 6, got {shape}",
        )
        for shape in ((2, 2, 20, 20), (-1, -1, 20, 20), (4, -1, 20, 20), (5, 20, 20))
    ),
    *(
        (
            lambda A, counts=counts: A.repeat(*counts),
            ValueError,
            "expected repeats (batch, heads, 1, 1): rows and columns cannot repeat, "
            f"got {counts}",
        )
        for counts in ((2, 1, 2, 1), (1, 1, 1, 2), (2,), (1, 2, 1), (-1, 1, 1, 1), ())
    ),
    *(
        (
            lambda A, dims=dims: A.transpose(*dims),
            ValueError,
            "expected dims -2 and -1 (rows and columns) to be transposed, "
            f"got {dims[0]}, {dims[1]}",
        )
        for dims in ((0, 1), (1, 2), (-1, -1), (0, -1))
    ),
    (
        lambda A: cat(A, A, dim=2),
        ValueError,
        "expected dim 0 (batch) or 1 (heads) to concatenate, got 2",
    ),
    (lambda A: torch.cat([A, A], -1), ValueError, "to concatenate, got -1"),
    (lambda A: cat(), ValueError, "expected at least one Circulant to concatenate, got none"),
    (
        lambda A: cat(A, A[:1], dim=1),
        ValueError,
        "expected Circulants of one spatial size, window and batch size to concatenate",
    ),
    (
        lambda A: cat(A, A[:, :1], dim=0),
        ValueError,
        "expected Circulants of one spatial size, window and number of heads to concatenate",
    ),
    (
        lambda A: cat(A, Circulant((3, 1), (2, 3, 5, 4)), dim=0),
        ValueError,
        "expected Circulants of one spatial size, window",
    ),
    (lambda A: cat(A, A.to("meta")), ValueError, "got one on meta"),
    # Scaling.
    *(
        (
            lambda A, shape=shape: torch.ones(shape, device=A.device) * A,
            ValueError,
            "expected a scale of shape (B or 1, heads or 1, 1, 1) for a Circulant with "
            f"(B, heads) = (2, 3), got {shape}",
        )
        for shape in ((2, 3), (2, 3, 1), (3, 2, 1, 1), (2, 3, 20, 1), (2, 3, 20, 20), (1,))
    ),
    (lambda A: A / torch.ones(4, 1, 1, 1), ValueError, "(B, heads) = (2, 3), got (4, 1, 1, 1)"),
    (
        lambda A: A * torch.ones(2, 3, 1, 1, device="meta"),
        ValueError,
        "got one on meta",
    ),
    (
        lambda A: scale("2", A),
        TypeError,
        "expected a number or a tensor to scale with, got str",
    ),
    (
        lambda A: A.div(None),
        TypeError,
        "expected a number or a tensor to scale with, got NoneType",
    ),
    (
        lambda A: scale(A, A),
        TypeError,
        "expected a number or a tensor to scale with, got Circulant",
    ),
    # Two Circulants.
    *(
        (
            lambda A, combine=combine: combine(A, Circulant((3, 1), (2, 3, 5, 4))),
            ValueError,
            "expected a Circulant of spatial size (5, 4) and window (3, 3), "
            "got (5, 4) and (3, 1)",
        )
        for combine in (Circulant.__add__, Circulant.__sub__, dot, torch.allclose)
    ),
    (
        lambda A: A + Circulant(3, (2, 3, 4, 5)),
        ValueError,
        "expected a Circulant of spatial size (5, 4) and window (3, 3), got (4, 5) and (3, 3)",
    ),
    (
        lambda A: A + Circulant(3, (4, 3, 5, 4)),
        ValueError,
        "expected a Circulant with batch size 2 or 1, got 4",
    ),
    (
        lambda A: A - Circulant(3, (2, 2, 5, 4)),
        ValueError,
        "expected a Circulant with number of heads 3 or 1, got 2",
    ),
    (
        lambda A: dot(A, A[:1]),
        ValueError,
        "expected a Circulant of shape (2, 3, 20, 20), got (1, 3, 20, 20)",
    ),
    (lambda A: A + A.to("meta"), ValueError, "got one on meta"),
    *(
        (
            lambda A, combine=combine: combine(A, A.values),
            TypeError,
            "expected a Circulant, got Tensor",
        )
        for combine in (Circulant.add, Circulant.sub, Circulant.dot)
    ),
    (lambda A: torch.add(A, 1), TypeError, "expected two Circulants for addition, got a int"),
    (
        lambda A: torch.sub(A.values, A),
        TypeError,
        "expected two Circulants for subtraction, got a Tensor",
    ),
    (
        lambda A: torch.vdot(A, A.values),
        TypeError,
        "expected two Circulants for the inner product, got a Tensor",
    ),
    (
        lambda A: torch.equal(A, A.values),
        TypeError,
        "expected two Circulants for equal, got a Tensor",
    ),
    (
        lambda A: torch.mul(A, A),
        TypeError,
        "the product of two Circulants has another window: it is not defined",
    ),
    (
        lambda A: torch.div(A.values, A),
        TypeError,
        "division by a Circulant is not defined: most of its entries are zero",
    ),
    (
        lambda A: torch.matmul(A.values, A),
        TypeError,
        "expected A @ x of a Circulant and a tensor, got Tensor @ Circulant; "
        "the transposed map is A.mT @ x",
    ),
    # dtypes.
    (
        lambda A: A.to(torch.int32),
        TypeError,
        f"expected dtype to be one of {DTYPES}, got torch.int32",
    ),
    (
        lambda A: torch.zeros_like(A, dtype=torch.bool),
        TypeError,
        f"expected data to be one of {DTYPES}, got torch.bool",
    ),
    # Indices.
    (lambda A: A.size(4), IndexError, "expected dim from -4 to 3, got 4"),
    (lambda A: A.size(0.0), TypeError, "expected dim to be an int, got float"),
    (lambda A: A[2], IndexError, "batch index 2 is out of range for size 2"),
    (lambda A: A[0, -4], IndexError, "head index -4 is out of range for size 3"),
    (lambda A: A[0, 0, 20], IndexError, "row index 20 is out of range for size 20"),
    (lambda A: A[0, 0, 1, -21], IndexError, "column index -21 is out of range for size 20"),
    (lambda A: A[0, 0, :, 20], IndexError, "column index 20 is out of range for size 20"),
    (
        lambda A: A[0, 0, 0, 0, 0],
        IndexError,
        "expected at most 4 indices for a Circulant, got 5",
    ),
    (
        lambda A: A[..., 0, ...],
        IndexError,
        "expected at most one ellipsis in the index of a Circulant",
    ),
    *(
        (
            lambda A, entry=entry: A[0, entry],
            TypeError,
            "expected the head index to be an int, a slice, or a list or 1-d tensor of ints, "
            f"got {entry!r}",
        )
        for entry in (
            "a",
            0.5,
            None,
            True,
            [True, False, True],
            [0.5],
            torch.tensor(True),
            torch.tensor([0.5]),
            torch.tensor([[0]]),
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "error", "message"), METHODS, ids=[message[-40:] for _, _, message in METHODS]
)
def test_methods(call, error, message, device):
    A = good_A(device)
    before = A.clone()
    check_error(lambda: call(A), error, message)
    assert A == before


OPERATORS = {
    "x + A": lambda A, x: x + A,
    "A + x": lambda A, x: A + x,
    "A - x": lambda A, x: A - x,
    "1 + A": lambda A, x: 1 + A,
    "A - 1": lambda A, x: A - 1,
    "A * A": lambda A, x: A * A,
    "A * 'a'": lambda A, x: A * "a",
    "A / A": lambda A, x: A / A,
    "1 / A": lambda A, x: 1 / A,
    "x / A": lambda A, x: x / A,
    "x @ A": lambda A, x: x @ A,
    "A @ A": lambda A, x: A @ A,
    "A @ 1": lambda A, x: A @ 1,
    "A @ mh @ 1": lambda A, x: A @ mh @ 1,
    "x @ mh": lambda A, x: x @ mh,
    "mh @ x": lambda A, x: mh @ x,
    "A ** 2": lambda A, x: A**2,
    "abs(A)": lambda A, x: abs(A),
    "A @ array": lambda A, x: A @ np.ones((20, 1)),
    "array @ A": lambda A, x: np.ones((1, 20)) @ A,
    "array * A": lambda A, x: np.ones((2, 3, 1, 1)) * A,
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_that_are_not_defined(name, device):
    with pytest.raises(TypeError):
        OPERATORS[name](good_A(device), good_x(device, 6, 2))
