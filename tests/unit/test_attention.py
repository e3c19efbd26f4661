"""Attention, and ready matrices applied, in every calling form."""

from __future__ import annotations

import pytest
import reference
import rounding
import torch
from inputs import (
    DTYPES,
    SIMILARITIES,
    dense,
    dtypes,
    exact,
    features,
    grids,
    matrix,
    similarities,
)
from rounding import check_attention
from same_bits import check_threads
from torch.testing import assert_close

from circulant_attention import (
    Circulant,
    DistanceSimilarity,
    DotSimilarity,
    circulant_adjacency,
    circulant_attention,
    circulant_mh_adjacency,
    circulant_mh_attention,
    circulant_mh_transposed_attention,
    circulant_similarity,
    circulant_transposed_attention,
    mh,
)

heads = pytest.mark.parametrize("heads", [1, 3])


@similarities
@grids
@heads
def test_attention(heads, name, size, window, device):
    q, k = features(2, 6, size, device), features(2, 6, size, device)
    v = features(2, 9, size, device)
    y, A = circulant_mh_attention(SIMILARITIES[name], q, k, v, window, heads)
    assert y.shape == v.shape
    assert A.shape == (2, heads, *reference.mask(size, size).shape)
    check_attention(name, q, k, v, window, y, A, heads=heads)


@similarities
@dtypes
@heads
def test_attention_of_every_dtype(heads, name, dtype, device):
    # Small numbers: the rounding of halves in the scores is small, too.
    q, k, v = (features(2, 6, (5, 4), device, dtype) / 4 for _ in range(3))
    y, A = circulant_mh_attention(SIMILARITIES[name], q, k, v, (3, 1), heads)
    assert y.dtype == dtype
    assert A.dtype == dtype.to_real()
    check_attention(name, q, k, v, (3, 1), y, A, heads=heads)


@pytest.mark.parametrize(
    ("queries", "keys", "averaged", "result"),
    [
        (torch.complex64, torch.complex64, torch.float32, torch.float32),
        (torch.float32, torch.float32, torch.complex64, torch.complex64),
        (torch.float16, torch.float16, torch.float32, torch.float32),
        (torch.float64, torch.float64, torch.float32, torch.float64),
        (torch.float64, torch.float64, torch.complex64, torch.complex128),
        (torch.float32, torch.float64, torch.float32, torch.float64),
        (torch.float64, torch.float32, torch.float32, torch.float64),
    ],
    ids=str,
)
def test_inputs_of_several_dtypes(queries, keys, averaged, result, device):
    q, k, v = (features(2, 6, (5, 4), device, dtype) for dtype in (queries, keys, averaged))
    y, A = circulant_attention(q, k, v, 3)
    assert A.dtype == A.values.dtype == torch.promote_types(queries, keys).to_real()
    assert y.dtype == result
    check_attention("dot", q, k, v, 3, y, A)


@similarities
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_scores_that_differ_much_within_a_window(name, dtype, device):
    """The softmax takes a few rows of keys at a time; here each has higher scores than before."""
    size, window = (20, 16), (15, 15)
    rise = torch.arange(20, dtype=dtype, device=device)[:, None].expand(size)
    q, k, v = (features(1, 2, size, device, dtype) for _ in range(3))
    y, A = circulant_attention(SIMILARITIES[name], q * 4, k + 4 * rise, v, window)
    check_attention(name, q * 4, k + 4 * rise, v, window, y, A)


@similarities
def test_queries_and_keys_are_scaled_by_the_fourth_root_of_their_channels(name, device):
    q, k, v = (features(2, 16, (5, 4), device) for _ in range(3))
    _, A = circulant_attention(SIMILARITIES[name], q, k, v, 3)
    assert_close(A.values, circulant_adjacency(SIMILARITIES[name], q / 2, k / 2, 3).values)


@pytest.mark.parametrize("heads", [(), (2,)], ids=["one head", "two heads"])
def test_every_calling_form_of_attention(heads, device):
    """With heads, their number comes last."""
    q, k, v = (features(2, 4, (5, 4), device) for _ in range(3))
    dot, distance = DotSimilarity(), DistanceSimilarity()
    attend = circulant_mh_attention if heads else circulant_attention
    nheads = {"nheads": heads[0]} if heads else {}
    expected = {simfun: attend(simfun, q, k, v, 3, *heads) for simfun in (dot, distance)}
    assert expected[dot][1] != expected[distance][1]
    forms = [
        (dot, attend(q, k, v, 3, *heads)),
        (dot, attend(q, k, v, W=3, **nheads)),
        (dot, attend(q, k=k, v=v, W=(3, 3), **nheads)),
        (dot, attend(q=q, k=k, v=v, W=[3, 3], **nheads)),
        (distance, attend(distance, q, k, v, W=3, **nheads)),
        (distance, attend(distance, q=q, k=k, v=v, W=3, **nheads)),
        (distance, attend(q, k, v, 3, *heads, simfun=distance)),
        (distance, attend(**nheads, W=3, v=v, k=k, q=q, simfun=distance)),
    ]
    for simfun, (y, A) in forms:
        assert A == expected[simfun][1]
        assert_close(y, expected[simfun][0], rtol=0, atol=0)


@grids
def test_a_ready_matrix_applied_in_every_calling_form(size, window, device):
    """To a batch per head, or to the heads of each batch."""
    A = matrix(size, window, device)
    x = features(6, 2, size, device)
    y = A @ x
    assert_close(y, reference.apply(dense(A).flatten(0, 1), x))
    by_heads = x.reshape(2, 6, *size)
    for form in (
        circulant_attention(A, x),
        circulant_attention(A, x=x),
        circulant_attention(A=A, x=x),
        circulant_attention(x=x, A=A),
        A.apply(x),
        torch.matmul(A, x),
        mh(A, by_heads),
        A @ mh @ by_heads,
        circulant_mh_attention(A, by_heads),
        circulant_mh_attention(A, x=by_heads),
        circulant_mh_attention(A=A, x=by_heads),
        circulant_mh_attention(x=by_heads, A=A),
    ):
        assert_close(form.reshape(x.shape), y, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("features_dtype", DTYPES, ids=str)
def test_a_ready_matrix_applied_to_any_dtype(dtype, features_dtype, device):
    A = matrix((5, 4), (3, 1), device, dtype=dtype)
    x = features(6, 2, (5, 4), device, features_dtype)
    y = A @ x
    assert y.dtype == torch.promote_types(dtype, features_dtype)
    D, X = exact(dense(A)).flatten(0, 1), exact(x)
    magnitude = reference.apply(D.abs(), X.abs())
    # A product of complex numbers adds two real ones.
    bound = rounding.of_sum(2 * 3, magnitude, y.dtype.to_real(), stored=3)
    assert_close(exact(y), exact(reference.apply(D, X)), rtol=0, atol=bound)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("apply", [circulant_attention, circulant_transposed_attention])
def test_halves_are_summed_in_float32(apply, dtype, device):
    # Every row is the sum of one large number and 512 ones; the dtype itself has no room for a one
    # beside the large number.
    total = {torch.float16: 4096, torch.bfloat16: 1024}[dtype]
    x = torch.ones(1, 1, 513, dtype=dtype, device=device)
    x[..., 0] = total - 512
    assert x[..., 0] + 1 == x[..., 0]
    y = apply(Circulant(513, (1, 1, 513), dtype=dtype, device=device), x)
    assert y.unique().tolist() == [total]


@similarities
@heads
def test_inputs_may_have_any_strides(heads, name, device):
    q = features(2, 3, (5, 4), device).to(memory_format=torch.channels_last)
    k = torch.randn(4, 10, 2, 3, dtype=torch.float64, device=device).permute(2, 3, 1, 0)[:, :, ::2]
    v = features(1, 6, (5, 4), device).expand(2, -1, -1, -1)
    y, A = circulant_mh_attention(SIMILARITIES[name], q, k, v, 3, heads)
    contiguous = (x.contiguous() for x in (q, k, v))
    wanted, B = circulant_mh_attention(SIMILARITIES[name], *contiguous, 3, heads)
    assert A == B
    assert_close(y, wanted, rtol=0, atol=0)


def test_a_ready_matrix_applied_to_features_of_any_strides(device):
    A = matrix((5, 4), 3, device)
    permuted = torch.randn(4, 10, 6, 3, dtype=torch.float64, device=device).permute(2, 3, 1, 0)
    expanded = features(1, 3, (5, 4), device).expand(6, -1, -1, -1)
    for x in (permuted[:, :, ::2], expanded):
        assert not x.is_contiguous()
        for B in (A, A.mT):
            assert_close(B @ x, B @ x.contiguous(), rtol=0, atol=0)


@similarities
@dtypes
@heads
def test_an_empty_batch(heads, name, dtype, device):
    x = features(0, 3, (5, 4), device, dtype).requires_grad_()
    y, A = circulant_mh_attention(SIMILARITIES[name], x, x, x, 3, heads)
    assert y.shape == x.shape
    assert y.dtype == dtype
    assert A.shape == (0, heads, 20, 20)
    assert circulant_mh_transposed_attention(A, x).shape == x.shape
    y.sum().abs().backward()
    assert x.grad.shape == x.shape


@similarities
def test_inputs_are_left_alone(name, device):
    inputs = [features(2, 3, (5, 4), device) for _ in range(3)]
    before = [x.clone() for x in inputs]
    circulant_adjacency(SIMILARITIES[name], *inputs[:2], 3)
    _, A = circulant_attention(SIMILARITIES[name], *inputs, 3)
    _ = A @ inputs[0]
    for x, wanted in zip(inputs, before, strict=True):
        assert_close(x, wanted, rtol=0, atol=0)


def test_the_number_of_threads_changes_no_bit(device):
    inputs = [features(6, 3, (17, 13), device, torch.float32) for _ in range(3)]

    def compute():
        q, k, v = (x.clone().requires_grad_() for x in inputs)
        y, A = circulant_attention(q.detach(), k.detach(), v.detach(), 5)
        B, C = (circulant_similarity(simfun, q, k, (7, 5)) for simfun in SIMILARITIES.values())
        ((B @ v).square().sum() + (C.mT @ v).sin().sum() + (C @ v).square().sum()).backward()
        matrices = [x.values.detach() for x in (A, B, C, C.mT)]
        return [y, *matrices, q.grad, k.grad, v.grad]

    check_threads(compute)


# Several heads: contiguous groups of channels, each for itself.


@similarities
def test_each_head_attends_for_itself_with_its_own_scale(name, device):
    q, k, v = (features(2, 8, (5, 4), device) for _ in range(3))
    y, A = circulant_mh_attention(SIMILARITIES[name], q, k, v, 3, 2)
    for head, channels in enumerate((slice(0, 4), slice(4, 8))):
        parts = (x[:, channels] for x in (q, k, v))
        y_head, A_head = circulant_attention(SIMILARITIES[name], *parts, 3)
        assert_close(y[:, channels], y_head)
        assert_close(A[:, head].values, A_head.values)


@similarities
def test_one_head_is_plain_attention(name, device):
    q, k, v = (features(2, 4, (5, 4), device) for _ in range(3))
    y, A = circulant_mh_attention(SIMILARITIES[name], q, k, v, 3, 1)
    wanted, B = circulant_attention(SIMILARITIES[name], q, k, v, 3)
    assert A == B
    assert_close(y, wanted, rtol=0, atol=0)


@similarities
def test_adjacency_of_heads_scales_nothing(name, device):
    x, y = features(2, 8, (5, 4), device), features(2, 8, (5, 4), device)
    A = circulant_mh_adjacency(SIMILARITIES[name], x, y, (5, 1), 4)
    assert A.shape == (2, 4, 20, 20)
    assert A.window == (5, 1)
    assert A == circulant_mh_adjacency(simfun=SIMILARITIES[name], x=x, y=y, W=[5, 1], nheads=4)
    for head in range(4):
        channels = slice(2 * head, 2 * head + 2)
        B = circulant_adjacency(SIMILARITIES[name], x[:, channels], y[:, channels], (5, 1))
        assert_close(A[:, head].values, B.values)


def test_the_operator_shows_its_name():
    assert repr(mh) == "mh"
