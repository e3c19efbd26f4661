"""Bad input of functions: the type of every error, and what its message names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bad_input import DTYPES, OTHER_DEVICE, SIZE, check_error, good_A, good_x

from circulant_attention import (
    Circulant,
    DotSimilarity,
    cat,
    circulant,
    circulant_adjacency,
    circulant_adjacency_,
    circulant_attention,
    circulant_attention_,
    circulant_mh_adjacency,
    circulant_mh_attention,
    circulant_mh_transposed_attention,
    circulant_similarity,
    circulant_similarity_,
    circulant_transposed_attention,
    circulant_transposed_attention_,
    dot,
    kernel_length,
    mh,
    scale,
    similar,
    softmax,
    softmax_,
    spatial_dims,
    spatial_size,
)

D = DotSimilarity()

# --- the window ---

WINDOWS = [
    (4, ValueError, "window W must be odd and positive in every dim, got 4"),
    (0, ValueError, "window W must be odd and positive in every dim, got 0"),
    (-3, ValueError, "window W must be odd and positive in every dim, got -3"),
    ((3, 2), ValueError, "window W must be odd and positive in every dim, got (3, 2)"),
    (
        5,
        ValueError,
        "window W must not be larger than the grid, got 5 for spatial dim 1 of size 4 "
        "(spatial size 5 x 4)",
    ),
    ((7, 3), ValueError, "got 7 for spatial dim 0 of size 5"),
    (
        (3, 3, 3),
        ValueError,
        "window W must have one entry per spatial dim: expected 2, got 3",
    ),
    ((3,), ValueError, "expected 2, got 1"),
    ((), ValueError, "expected 2, got 0"),
    (3.0, TypeError, "window W must be an odd int or one odd int per spatial dim, got float"),
    ("3", TypeError, "window W must be an odd int or one odd int per spatial dim, got str"),
    (None, TypeError, "window W must be an odd int or one odd int per spatial dim, got NoneType"),
    (True, TypeError, "window W must be an odd int or one odd int per spatial dim, got bool"),
    ((3, 3.0), TypeError, "window W must hold ints, got (3, 3.0)"),
    ((3, True), TypeError, "window W must hold ints, got (3, True)"),
]

WITH_A_WINDOW = {
    "Circulant-of-ones": lambda W, d: Circulant(W, (2, 1, *SIZE), device=d),
    "Circulant-of-values": lambda W, d: Circulant(torch.ones(1, 1, 180, device=d), W, SIZE),
    "Circulant-of-data": lambda W, d: Circulant(good_A(d).data, W, SIZE),
    "circulant": lambda W, d: circulant(W, good_x(d)),
    "similarity": lambda W, d: circulant_similarity(D, good_x(d), good_x(d), W),
    "adjacency": lambda W, d: circulant_adjacency(D, good_x(d), good_x(d), W),
    "mh_adjacency": lambda W, d: circulant_mh_adjacency(D, good_x(d), good_x(d), W, 2),
    "attention": lambda W, d: circulant_attention(good_x(d), good_x(d), good_x(d), W),
    "mh_attention": lambda W, d: circulant_mh_attention(good_x(d), good_x(d), good_x(d), W, 2),
}


@pytest.mark.parametrize("name", WITH_A_WINDOW)
@pytest.mark.parametrize(("window", "error", "message"), WINDOWS, ids=[repr(w[0]) for w in WINDOWS])
def test_window(name, window, error, message, device):
    check_error(lambda: WITH_A_WINDOW[name](window, device), error, message)


# --- features ---

# Pairs (first, second) that do not fit, and what is said of the second.
PAIRS = {
    "channels": (
        lambda d: (good_x(d), good_x(d, channels=4)),
        ValueError,
        "expected {second} with the channels of {first}, 6, got 4",
    ),
    "batch": (
        lambda d: (good_x(d), good_x(d, batch=3)),
        ValueError,
        "expected {second} with the batch size of {first}, 2, got 3",
    ),
    "grid": (
        lambda d: (good_x(d), good_x(d, size=(4, 5))),
        ValueError,
        "expected {second} with the spatial size of {first}, (5, 4), got (4, 5)",
    ),
    "dims": (
        lambda d: (good_x(d), good_x(d, size=(20,))),
        ValueError,
        "expected {second} with the spatial size of {first}, (5, 4), got (20,)",
    ),
    "device": (
        lambda d: (good_x(d), good_x(OTHER_DEVICE)),
        ValueError,
        "expected {second} on the device of {first}, ",
    ),
    "integers": (
        lambda d: (good_x(d), good_x(d).int()),
        TypeError,
        f"expected {{second}} to be one of {DTYPES}, got torch.int32",
    ),
    "list": (
        lambda d: (good_x(d), [1.0]),
        TypeError,
        "expected {second} to be a tensor, got list",
    ),
    "array": (
        lambda d: (good_x(d), np.zeros((2, 6, 5, 4))),
        TypeError,
        "expected {second} to be a tensor, got ndarray",
    ),
    "sparse": (
        lambda d: (good_x(d), good_x(d).to_sparse()),
        TypeError,
        "expected {second} to be a dense tensor, got layout torch.sparse_coo",
    ),
    "no-spatial-dims": (
        lambda d: (good_x(d), torch.zeros(2, 6, device=d)),
        ValueError,
        "expected {second} of shape (B, C, *spatial) with 1 to 3 spatial dims, got shape (2, 6)",
    ),
    "many-spatial-dims": (
        lambda d: (good_x(d), torch.zeros(2, 6, 3, 3, 3, 3, device=d)),
        ValueError,
        "expected {second} of shape (B, C, *spatial) with 1 to 3 spatial dims, "
        "got shape (2, 6, 3, 3, 3, 3)",
    ),
    "no-channels": (
        lambda d: (good_x(d), good_x(d, channels=0)),
        ValueError,
        "expected {second} to have channels, got shape (2, 0, 5, 4)",
    ),
}

OF_PAIRS = {
    "similarity": (("x", "y"), lambda x, y, d: circulant_similarity(D, x, y, 3)),
    "adjacency": (("x", "y"), lambda x, y, d: circulant_adjacency(D, x, y, 3)),
    "mh_adjacency": (("x", "y"), lambda x, y, d: circulant_mh_adjacency(D, x, y, 3, 2)),
    "attention": (("q", "k"), lambda q, k, d: circulant_attention(q, k, good_x(d), 3)),
    "mh_attention": (
        ("q", "k"),
        lambda q, k, d: circulant_mh_attention(q, k, good_x(d), 3, 2),
    ),
    "attention-values": (("q", "v"), lambda q, v, d: circulant_attention(q, q, v, 3)),
    "mh_attention-values": (
        ("q", "v"),
        lambda q, v, d: circulant_mh_attention(q, q, v, 3, 2),
    ),
    "similarity_": (
        ("x", "y"),
        lambda x, y, d: circulant_similarity_(good_A(d, heads=1), D, x, y),
    ),
    "adjacency_": (
        ("x", "y"),
        lambda x, y, d: circulant_adjacency_(good_A(d, heads=1), D, x, y),
    ),
}


@pytest.mark.parametrize("function", OF_PAIRS)
@pytest.mark.parametrize("case", PAIRS)
def test_pairs_of_features(function, case, device):
    (first, second), call = OF_PAIRS[function]
    make, error, message = PAIRS[case]
    if case == "channels" and second == "v":
        call(*make(device), device)  # the values' channels are their own
        return
    check_error(
        lambda: call(*make(device), device), error, message.format(first=first, second=second)
    )


@pytest.mark.parametrize("function", OF_PAIRS)
@pytest.mark.parametrize(
    "case", [case for case, (_, error, _) in PAIRS.items() if error is TypeError]
)
def test_the_first_of_a_pair(function, case, device):
    (first, _), call = OF_PAIRS[function]
    make, error, message = PAIRS[case]
    good, bad = make(device)
    check_error(lambda: call(bad, good, device), error, message.format(second=first))


@pytest.mark.parametrize(
    ("simfun", "given"),
    [
        (DotSimilarity, "expected simfun to be DotSimilarity() or DistanceSimilarity() "
         "(an instance: add parentheses), got DotSimilarity"),
        ("dot", "expected simfun to be DotSimilarity() or DistanceSimilarity(), got str"),
        (None, "expected simfun to be DotSimilarity() or DistanceSimilarity(), got NoneType"),
    ],
    ids=["class", "string", "none"],
)  # fmt: skip
def test_similarity_object(simfun, given, device):
    x = good_x(device)
    for call in (
        lambda: circulant_similarity(simfun, x, x, 3),
        lambda: circulant_similarity_(good_A(device, heads=1), simfun, x, x),
        lambda: circulant_adjacency(simfun, x, x, 3),
        lambda: circulant_adjacency_(good_A(device, heads=1), simfun, x, x),
        lambda: circulant_mh_adjacency(simfun, x, x, 3, 2),
        lambda: circulant_attention(simfun, x, x, x, 3),
        lambda: circulant_attention(x, x, x, 3, simfun=simfun),
        lambda: circulant_mh_attention(simfun, x, x, x, 3, 2),
    ):
        check_error(call, TypeError, given)


def test_features_of_a_matrix_of_ones(device):
    check_error(lambda: circulant(3, [1.0]), TypeError, "expected x to be a tensor, got list")
    check_error(
        lambda: circulant(3, torch.zeros(1, 1, 5, dtype=torch.int64, device=device)),
        TypeError,
        f"expected x to be one of {DTYPES}, got torch.int64",
    )
    check_error(
        lambda: circulant(3, torch.zeros(5, 4, device=device)),
        ValueError,
        "expected x of shape (B, C, *spatial)",
    )


def test_nothing_is_computed_before_an_error(device, monkeypatch):
    """The last argument that is checked is bad, and still no native op runs."""
    from circulant_attention.ops import primitives as ops

    def refuse(*_):
        raise AssertionError("computed before the arguments were checked")

    for name in ("similarity", "apply", "apply_transposed", "transpose"):
        monkeypatch.setattr(ops, name, refuse)
    x, A = good_x(device), good_A(device)
    for call in (
        lambda: circulant_attention(x, x, x, 4),
        lambda: circulant_attention(x, x, good_x(device, batch=3), 3),
        lambda: circulant_mh_attention(x, x, good_x(device, channels=5), 3, 2),
        lambda: circulant_mh_adjacency(D, x, x, 3, 5),
        lambda: circulant_adjacency(D, x, x, 7),
        lambda: mh(A, good_x(device, channels=4)),
        lambda: A.mT @ x,
        lambda: circulant_transposed_attention(A, x),
        lambda: circulant_similarity_(good_A(device), D, x, x),
        lambda: circulant_attention_(x, A, good_x(device, 6, 2)),
        lambda: A[0, 0, :, 20],
        lambda: cat(A.mT, A[:1]),
        lambda: A.mT.sum((0, -1)),
        lambda: A.mT + good_A(device, heads=2),
    ):
        with pytest.raises((ValueError, IndexError)):
            call()


# --- heads ---

HEADS = [
    (4, ValueError, "expected the channels of {} to be divisible by nheads=4, got 6"),
    (0, ValueError, "expected nheads to be at least 1, got 0"),
    (-1, ValueError, "expected nheads to be at least 1, got -1"),
    (2.0, TypeError, "expected nheads to be an int, got float"),
    (True, TypeError, "expected nheads to be an int, got bool"),
    (None, TypeError, "expected nheads to be an int, got NoneType"),
]


@pytest.mark.parametrize(("heads", "error", "message"), HEADS, ids=[repr(h[0]) for h in HEADS])
def test_number_of_heads(heads, error, message, device):
    x = good_x(device)
    call = lambda: circulant_mh_attention(x, x, x, 3, heads)  # noqa: E731
    check_error(call, error, message.format("q"))
    call = lambda: circulant_mh_adjacency(D, x, x, 3, heads)  # noqa: E731
    check_error(call, error, message.format("x"))


def test_heads_must_divide_the_channels_of_the_values_too(device):
    x = good_x(device, channels=4)
    check_error(
        lambda: circulant_mh_attention(x, x, good_x(device), 3, 4),
        ValueError,
        "expected the channels of v to be divisible by nheads=4, got 6",
    )


# --- a ready matrix applied ---

APPLIED = {
    "circulant_attention": circulant_attention,
    "transposed": circulant_transposed_attention,
    "method": lambda A, x: A.apply(x),
    "into-y": lambda A, x: circulant_attention_(torch.zeros(6, 2, *SIZE), A, x),
    "mT-into-y": lambda A, x: circulant_transposed_attention_(torch.zeros(6, 2, *SIZE), A, x),
}
APPLIED_BY_HEADS = {
    "circulant_mh_attention": circulant_mh_attention,
    "transposed": circulant_mh_transposed_attention,
    "mh": mh,
    "operator": lambda A, x: A @ mh @ x,
}


@pytest.mark.parametrize("name", ["circulant_attention", "transposed", "method"])
def test_features_of_another_grid_or_batch(name, device):
    A, apply = good_A(device), APPLIED[name]
    for x, message in (
        (
            good_x(device, 6, 2, (4, 5)),
            "expected x with the spatial size of A, (5, 4), got (4, 5)",
        ),
        (
            good_x(device, 6, 2, (20,)),
            "expected x with the spatial size of A, (5, 4), got (20,)",
        ),
        (
            good_x(device, 2, 6),
            "expected x with the batch size of A times its heads, 6, got 2",
        ),
        (good_x(OTHER_DEVICE, 6, 2), f"expected x on the device of A, {A.device}, got meta"),
    ):
        check_error(lambda x=x: apply(A, x), ValueError, message)


@pytest.mark.parametrize("name", APPLIED_BY_HEADS)
def test_features_of_another_grid_batch_or_channels_by_heads(name, device):
    A, apply = good_A(device), APPLIED_BY_HEADS[name]
    for x, message in (
        (
            good_x(device, 2, 6, (4, 5)),
            "expected x with the spatial size of A, (5, 4), got (4, 5)",
        ),
        (good_x(device, 3, 6), "expected x with the batch size of A, 2, got 3"),
        (
            good_x(device, 2, 4),
            "expected the channels of x to be divisible by A.shape[1]=3, got 4",
        ),
        (good_x(OTHER_DEVICE), f"expected x on the device of A, {A.device}, got meta"),
    ):
        check_error(lambda x=x: apply(A, x), ValueError, message)


@pytest.mark.parametrize(
    "apply",
    [*APPLIED.values(), *list(APPLIED_BY_HEADS.values())[:3]],
    ids=[*APPLIED, *list(APPLIED_BY_HEADS)[:3]],
)
def test_what_is_no_features(apply, device):
    A = good_A(device)
    for x, message in (
        (good_x(device, 6, 2).int(), f"expected x to be one of {DTYPES}, got torch.int32"),
        ("x", "expected x to be a tensor, got str"),
        (A, "expected x to be a tensor, got Circulant"),
        (good_x(device, 6, 2).to_sparse(), "expected x to be a dense tensor"),
    ):
        check_error(lambda x=x: apply(A, x), TypeError, message)
    check_error(lambda: apply(A, good_x(device)[:, :0]), ValueError, "expected x to have channels")


def test_what_is_no_circulant(device):
    x = good_x(device)
    for call, name in (
        (lambda: circulant_attention(A=x, x=x), "A"),
        (lambda: circulant_mh_attention(A=x, x=x), "A"),
        (lambda: circulant_transposed_attention(x, x), "A"),
        (lambda: circulant_mh_transposed_attention(x, x), "A"),
        (lambda: mh(x, x), "A"),
        (lambda: circulant_attention_(x, x, x), "A"),
        (lambda: circulant_transposed_attention_(x, x, x), "A"),
        (lambda: circulant_similarity_(x, D, x, x), "A"),
        (lambda: circulant_adjacency_(x, D, x, x), "A"),
        (lambda: softmax(x), "A"),
        (lambda: softmax_(x), "B"),
        (lambda: softmax_(good_A(device), x), "A"),
        (lambda: kernel_length(x), "A"),
        (lambda: spatial_size(x), "A"),
        (lambda: spatial_dims(x), "A"),
        (lambda: similar(x), "A"),
        (lambda: scale(2, x), "A"),
        (lambda: dot(x, good_A(device)), "A"),
        (lambda: dot(good_A(device), x), "B"),
        (lambda: cat(good_A(device), x), "every argument of cat"),
    ):
        check_error(call, TypeError, f"expected {name} to be a Circulant, got Tensor")


def test_arguments_in_the_wrong_order(device):
    A, x = good_A(device, heads=1), good_x(device)
    for write in (circulant_similarity_, circulant_adjacency_):
        check_error(
            lambda write=write: write(D, A, x, x),
            TypeError,
            "expected A to be a Circulant, got DotSimilarity",
        )
    check_error(lambda: scale(A, 2), TypeError, "expected A to be a Circulant, got int")
    check_error(lambda: mh(x, A), TypeError, "expected x to be a tensor, got Circulant")


def test_calls_of_none_of_the_forms(device):
    x, A = good_x(device), good_A(device, heads=1)
    for call, wanted, given in (
        (lambda f: f(), "q, k, v, W", ""),
        (lambda f: f(x, x, x), "q, k, v, W", "Tensor, Tensor, Tensor"),
        (lambda f: f(x, A), "q, k, v, W", "Tensor, Circulant"),
        (lambda f: f(D, x, x, x), "simfun, q, k, v, W", "DotSimilarity, Tensor, Tensor, Tensor"),
        (lambda f: f(A), "A, x", "Circulant"),
        (lambda f: f(A, x, 3), "A, x", "Circulant, Tensor, int"),
        (lambda f: f(A=A, q=x), "A, x", "A=..., q=..."),
        (lambda f: f(A, A=A), "A, x", "Circulant, A=..."),
        (lambda f: f(x, x, x, window=3), "q, k, v, W", "Tensor, Tensor, Tensor, window=..."),
        (lambda f: f(x, x, q=x, k=x), "q, k, v, W", "Tensor, Tensor, q=..., k=..."),
    ):
        for function, heads in ((circulant_attention, ""), (circulant_mh_attention, ", nheads")):
            name = function.__name__
            names = wanted if wanted == "A, x" else wanted + heads
            check_error(
                lambda call=call, function=function: call(function),
                TypeError,
                f"expected {name}({names}), got {name}({given})",
            )
