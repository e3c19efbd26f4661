"""What the functions in ``_`` refuse, and that they have written nothing then."""

from __future__ import annotations

import pytest
import torch
from bad_input import check_error, good_A, good_x
from torch.testing import assert_close

from circulant_attention import (
    Circulant,
    DistanceSimilarity,
    DotSimilarity,
    circulant_adjacency_,
    circulant_attention_,
    circulant_similarity_,
    circulant_transposed_attention_,
    softmax_,
)

D = DotSimilarity()


def _into(device, **kwargs):
    return good_A(device, **{"heads": 1, **kwargs})


INTO_A = {
    "grid": (
        lambda d: (_into(d), D, good_x(d, size=(4, 5)), good_x(d, size=(4, 5))),
        ValueError,
        "expected x with the spatial size of A, (5, 4), got (4, 5)",
    ),
    "batch": (
        lambda d: (_into(d), D, good_x(d, 3), good_x(d, 3)),
        ValueError,
        "expected x with the batch size of A times its heads, 2, got 3",
    ),
    "pair": (
        lambda d: (_into(d), D, good_x(d), good_x(d, channels=2)),
        ValueError,
        "expected y with the channels of x, 6, got 2",
    ),
    "device": (
        lambda d: (_into(d), D, good_x("meta"), good_x("meta")),
        ValueError,
        "expected x on the device of A",
    ),
    "dtype": (
        lambda d: (_into(d), D, good_x(d).int(), good_x(d).int()),
        TypeError,
        "expected x to be one of",
    ),
    "complex": (
        lambda d: (_into(d, dtype=torch.complex64), D, good_x(d), good_x(d)),
        TypeError,
        "expected A with real entries, got torch.complex64",
    ),
    "simfun": (
        lambda d: (_into(d), DistanceSimilarity, good_x(d), good_x(d)),
        TypeError,
        "expected simfun to be",
    ),
}


@pytest.mark.parametrize("write", [circulant_similarity_, circulant_adjacency_])
@pytest.mark.parametrize("case", INTO_A)
def test_nothing_is_written_into_a_circulant(write, case, device):
    make, error, message = INTO_A[case]
    arguments = make(device)
    A = arguments[0]
    before = A.clone()
    check_error(lambda: write(*arguments), error, message)
    assert A == before
    assert A.values._version == 0


INTO_B = {
    "shape": (
        lambda A: (A, A[:1]),
        ValueError,
        "expected B with the shape and window of A, (1, 3, 20, 20) and (3, 3), "
        "got (2, 3, 20, 20) and (3, 3)",
    ),
    "window": (
        lambda A: (A, Circulant((3, 1), (2, 3, 5, 4), device=A.device)),
        ValueError,
        "expected B with the shape and window of A, (2, 3, 20, 20) and (3, 1), "
        "got (2, 3, 20, 20) and (3, 3)",
    ),
    "device": (lambda A: (A, A.to("meta")), ValueError, "expected B on the device of A, meta"),
    "complex-source": (lambda A: (A, A.complex()), TypeError, "expected real entries for softmax"),
    "complex": (
        lambda A: (A.complex(), A),
        TypeError,
        "expected B with real entries, got torch.complex128",
    ),
}


@pytest.mark.parametrize("case", INTO_B)
def test_nothing_is_written_by_softmax(case, device):
    make, error, message = INTO_B[case]
    B, A = make(good_A(device))
    before = B.clone()
    check_error(lambda: softmax_(B, A), error, message)
    assert B == before


INTO_Y = {
    "y-shape": (
        lambda d: (good_x(d, 6, 3), good_A(d), good_x(d, 6, 2)),
        ValueError,
        "expected y with the channels of x, 2, got 3",
    ),
    "y-batch": (
        lambda d: (good_x(d, 5, 2), good_A(d), good_x(d, 6, 2)),
        ValueError,
        "expected y with the batch size of x, 6, got 5",
    ),
    "y-grid": (
        lambda d: (good_x(d, 6, 2, (4, 5)), good_A(d), good_x(d, 6, 2)),
        ValueError,
        "expected y with the spatial size of x, (5, 4), got (4, 5)",
    ),
    "y-device": (
        lambda d: (good_x("meta", 6, 2), good_A(d), good_x(d, 6, 2)),
        ValueError,
        "expected y on the device of x",
    ),
    "y-integers": (
        lambda d: (good_x(d, 6, 2).int(), good_A(d), good_x(d, 6, 2)),
        TypeError,
        "expected y to be one of",
    ),
    "y-list": (
        lambda d: ([0.0], good_A(d), good_x(d, 6, 2)),
        TypeError,
        "expected y to be a tensor, got list",
    ),
    "y-real": (
        lambda d: (good_x(d, 6, 2), good_A(d), good_x(d, 6, 2, dtype=torch.complex128)),
        TypeError,
        "expected y of a complex dtype to hold the result, got torch.float64",
    ),
    "y-real-for-A": (
        lambda d: (good_x(d, 6, 2), good_A(d).complex(), good_x(d, 6, 2)),
        TypeError,
        "expected y of a complex dtype to hold the result, got torch.float64",
    ),
    "grid": (
        lambda d: (good_x(d, 6, 2, (4, 5)), good_A(d), good_x(d, 6, 2, (4, 5))),
        ValueError,
        "expected x with the spatial size of A, (5, 4), got (4, 5)",
    ),
    "batch": (
        lambda d: (good_x(d), good_A(d), good_x(d)),
        ValueError,
        "expected x with the batch size of A times its heads, 6, got 2",
    ),
    "dtype": (
        lambda d: (good_x(d, 6, 2), good_A(d), good_x(d, 6, 2).int()),
        TypeError,
        "expected x to be one of",
    ),
}


@pytest.mark.parametrize("write", [circulant_attention_, circulant_transposed_attention_])
@pytest.mark.parametrize("case", INTO_Y)
def test_nothing_is_written_into_features(write, case, device):
    make, error, message = INTO_Y[case]
    y, A, x = make(device)
    readable = isinstance(y, torch.Tensor) and y.device.type != "meta"
    before = y.clone() if readable else None
    check_error(lambda: write(y, A, x), error, message)
    if readable:
        assert_close(y, before, rtol=0, atol=0)
        assert y._version == 0
