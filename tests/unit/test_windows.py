"""Windows of every kind in the public functions, against dense matrices from the definition."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck
from torch.utils import _pytree as pytree
from windows import CIRCULAR, KINDS, TRUNCATED, Dim, dense, mask, sizes, table, window, windows

import circulant_attention as ca
from circulant_attention import Circulant, DistanceSimilarity, DotSimilarity, Window
from circulant_attention.geometry import Geometry, make_geometry
from circulant_attention.matrix import pattern
from circulant_attention.matrix.display import braille

# Every kind: causal, even, dilated with and without a common divisor, larger than the grid, mixed.
each_kind = pytest.mark.parametrize("dims", KINDS.values(), ids=KINDS)


def matrix(dims, batch=2, heads=3, dtype=torch.float64):
    """A Circulant of random entries, and the same dense."""
    keys = table(dims)
    values = torch.randn(batch, heads, *keys.shape, dtype=dtype) * (keys >= 0)
    A = Circulant(values.flatten(2), window(dims), sizes(dims))
    return A, dense(values, dims)


def softmax_of(scores, dims):
    return scores.masked_fill(~mask(dims), -torch.inf).softmax(-1)


# --- the value ---


def test_a_window_is_a_value():
    W = Window(((2, 0), 4), dilation=[1, 2], boundary="truncated")
    assert W.size == ((2, 0), 4)
    assert W.dilation == (1, 2)
    assert W == Window([(2, 0), 4], dilation=(1, 2), boundary="truncated")
    assert W != Window(((2, 0), 4), dilation=(1, 2))
    assert len({W, copy.deepcopy(W), pickle.loads(pickle.dumps(W))}) == 1
    assert eval(repr(W)) == W
    with pytest.raises(AttributeError):
        W.size = 3


def test_arguments_become_plain_python():
    size = [np.int32(4), torch.Size([1, 0])]
    W = Window(size, dilation=np.int64(2), boundary=np.str_("truncated"))
    assert repr(W) == "Window((4, (1, 0)), dilation=2, boundary='truncated')"
    assert W == Window((4, (1, 0)), dilation=2, boundary="truncated")
    assert type(W.boundary) is str
    assert {type(x) for x in (W.size[0], *W.size[1], W.dilation)} == {int}


@pytest.mark.parametrize("W, same", [(Window(3), 3), (Window((3, 1), boundary="circular"), (3, 1))])
def test_an_odd_circular_window_is_that_of_an_int(W, same):
    x = torch.randn(1, 2, 4, 5)
    A, B = (ca.circulant_similarity(DotSimilarity(), x, x, w) for w in (W, same))
    assert A == B
    assert A.window == B.window == ((3, 3) if same == 3 else same)
    assert repr(A) == repr(B)


def test_a_dilated_circle_is_not_that_of_an_int():
    W, pixels = Window(3, dilation=2), torch.arange(7)
    A, expected = Circulant(W, (1, 1, 7)), torch.zeros(7, 7)
    for offset in (-2, 0, 2):
        expected[pixels, (pixels + offset) % 7] = 1
    assert W == A.window
    assert torch.equal(A.to_dense()[0, 0], expected)


def test_a_window_of_one_pixel_has_no_boundary():
    one = make_geometry(Window(1, dilation=3, boundary="truncated"), (4, 5))
    assert one == make_geometry(1, (4, 5))


@pytest.mark.parametrize(
    "W",
    [
        Window((1, (6, 0)), boundary="truncated"),
        Window((4, 1), dilation=2, boundary="truncated"),
        Window(((1, 2), 1), dilation=3),
        Window(4, dilation=(1, 2), boundary=("truncated", "circular")),
        Window(3, boundary="truncated"),
    ],
    ids=str,
)
def test_a_matrix_has_the_window_it_is_made_with(W):
    A = Circulant(W, (1, 1, 12, 13))
    assert A.window == W
    assert A.mT.mT.window == W
    assert repr(W) in repr(A)


# --- the pattern ---


@given(windows(most=60))
@settings(deadline=None, max_examples=80)
def test_the_pattern(dims):
    geometry, keys = make_geometry(window(dims), sizes(dims)), table(dims)
    n = len(keys)
    present = keys >= 0
    assert geometry.present == present.sum()
    crow, columns = geometry.crow_indices(), geometry.col_indices()
    assert torch.equal(crow.diff(), present.sum(1).to(crow.dtype))
    assert torch.equal(columns.long(), keys[present])
    for row in columns.split(crow.diff().tolist()):
        assert (row.diff() > 0).all()
    for found, wanted in ((geometry.presence(), present), (geometry.slots(), present.flatten())):
        if found is None:
            assert present.all()
        else:
            slots = wanted.nonzero()[:, 0] if wanted.dim() == 1 else wanted
            assert torch.equal(found, slots)
    pixels = torch.arange(n)
    assert torch.equal(pattern.columns(geometry, pixels)[present], keys[present])
    place, stored = pattern.place(geometry, pixels[:, None], pixels)
    assert torch.equal(stored, mask(dims))
    row, slot = present.nonzero(as_tuple=True)
    assert torch.equal(place[row, keys[row, slot]], slot)
    assert make_geometry(geometry.window, sizes(dims)) == geometry
    assert geometry.transposed().transposed() == geometry


@given(windows(most=60), st.integers(0, 2**30))
@settings(deadline=None, max_examples=80)
def test_intervals_that_meet(dims, seed):
    geometry, seen = make_geometry(window(dims), sizes(dims)), mask(dims).numpy()
    n = len(seen)
    rng = np.random.default_rng(seed)
    first, last = np.sort(rng.integers(0, n, (2, 40)), axis=0)
    found = pattern.meet(geometry, (first[:20], last[:20]), (first[20:], last[20:]))
    for at in range(20):
        rows = slice(first[at], last[at] + 1)
        columns = slice(first[20 + at], last[20 + at] + 1)
        assert found[at] == seen[rows, columns].any()


# --- the functions ---


@given(windows(most=80), st.sampled_from([DotSimilarity(), DistanceSimilarity()]), st.booleans())
@settings(deadline=None, max_examples=40)
def test_similarity_adjacency_and_attention(dims, simfun, half):
    torch.manual_seed(0)
    W, dtype = window(dims), torch.bfloat16 if half else torch.float64
    q, k, v = torch.randn(3, 2, 4, *sizes(dims)).to(dtype)
    rows, columns = q.double().flatten(2).mT, k.double().flatten(2)
    scores = rows @ columns
    if isinstance(simfun, DistanceSimilarity):
        scores = -0.5 * (rows[..., None] - columns[:, None]).square().sum(2)
    tolerance = {"rtol": 0, "atol": 64 * torch.finfo(dtype).eps}
    A = ca.circulant_similarity(simfun, q, k, W)
    exact = (scores * mask(dims))[:, None]
    torch.testing.assert_close(A.to_dense().double(), exact, **tolerance)
    weights = softmax_of(scores, dims)
    A = ca.circulant_adjacency(simfun, q, k, W)
    torch.testing.assert_close(A.to_dense().double()[:, 0], weights, **tolerance)
    weights = softmax_of(scores / 2, dims)
    y, A = ca.circulant_attention(simfun, q, k, v, W)
    expected = (v.double().flatten(2) @ weights.mT).reshape(v.shape)
    torch.testing.assert_close(y.double(), expected, **tolerance)
    torch.testing.assert_close(A[0, 0, 0].double(), weights[0, 0], **tolerance)
    torch.testing.assert_close(A.to_dense().double()[:, 0], weights, **tolerance)


@each_kind
def test_the_algebra(dims, device):
    with torch.device(device):
        check_algebra(dims)


def check_algebra(dims):
    torch.manual_seed(0)
    A, D = matrix(dims)
    B, E = matrix(dims)
    x = torch.randn(6, 2, *sizes(dims), dtype=torch.float64)
    flat = x.flatten(2).unflatten(0, (2, 3))
    for found, expected in {
        (A + 2 * B, D + 2 * E),
        (A * B, D * E),
        (A.abs().sqrt(), D.abs().sqrt()),
        (A.mT, D.mT),
        (A.mT.mT, D),
        (A.mT.mT.mT + A.mT, 2 * D.mT),
        (ca.cat(A, B, dim=1), torch.cat([D, E], 1)),
        (A[1:, [0, 2]], D[1:, [0, 2]]),
        (A.sum(1), D.sum(1, keepdim=True)),
        (A.softmax(), softmax_of(D, dims)),
        (A.mT.softmax(), softmax_of(D.mT, tuple(d.mirrored() for d in dims))),
    }:
        torch.testing.assert_close(found.to_dense(), expected)
        torch.testing.assert_close(found.data.to_dense(), expected)
    for found, expected in {
        (A @ x, (flat @ D.mT).reshape(x.shape)),
        (A.mT @ x, (flat @ D).reshape(x.shape)),
        (A.sum(-1), D.sum(-1)),
        (A.sum(-2), D.sum(-2)),
        (A.mT.sum(-2), D.sum(-1)),
        (A.sum(), D.sum()),
        (A.mean(), D.mean()),
        (A.diagonal(), D.diagonal(dim1=-2, dim2=-1)),
        (A.dot(B), (D * E).sum()),
        (A[0, 1, 2], D[0, 1, 2]),
        (A[0, :, :, 1], D[0, :, :, 1]),
        (A.mT[0, 1, 1:3], D.mT[0, 1, 1:3]),
        (A[0, 1, [0, 2], [1, 1]], D[0, 1, [0, 2], [1, 1]]),
    }:
        torch.testing.assert_close(found, expected)
    assert A.nnz == 6 * mask(dims).sum()
    assert A.mT.nnz == A.nnz


@each_kind
def test_ones_and_sparse_data(dims):
    ones = Circulant(window(dims), (2, 1, *sizes(dims)))
    seen = mask(dims).float()
    assert torch.equal(ones.to_dense(), seen.expand(2, 1, -1, -1))
    A, D = matrix(dims)
    assert Circulant(A.data, window(dims), sizes(dims)) == A
    assert A.data._nnz() == mask(dims).sum()
    one = A.to_scipy(batch=1, head=2)
    assert one.nnz == mask(dims).sum()
    assert torch.equal(torch.from_numpy(one.toarray()), D[1, 2])
    assert Circulant(one, window(dims), sizes(dims)) == A[1, 2]


def test_values_of_absent_entries_are_zero():
    W = Window(((2, 0),), boundary="truncated")
    values = torch.full((1, 1, 15), 2.0, requires_grad=True)
    A = Circulant(values, W, (5,))
    assert A.values[0, 0, :6].tolist() == [0, 0, 2, 0, 2, 2]
    (gradient,) = torch.autograd.grad(A.values.sum(), values)
    assert gradient[0, 0, :6].tolist() == [0, 0, 1, 0, 1, 1]
    assert A.with_values(torch.ones(1, 1, 15)).sum() == 12


def test_other_patterns_are_refused():
    A, _ = matrix(KINDS["causal"])
    with pytest.raises(ValueError, match=r"expected a Circulant of spatial size .* and window"):
        A + A.mT
    with pytest.raises(ValueError, match="data's pattern is not the circulant one"):
        Circulant(A.data, Window(((0, 2),), boundary="truncated"), (7,))
    with pytest.raises(ValueError, match="at most 3 ascending columns"):
        Circulant(Circulant(3, (1, 1, 7)).data, A.window, (7,))


@each_kind
def test_display_and_files(dims):
    A, D = matrix(dims)
    assert f"{A.window!r}" in repr(A)
    assert str(A.nnz) in repr(A)
    assert str(A.window) in A._repr_html_().replace("&#x27;", "'")
    # The picture of a matrix that is not shrunk has a dot for each entry.
    dots = braille(A.geometry, max_height=100, max_width=100)
    if len(D[0, 0]) >= 8:
        lit = sum((ord(cell) - 0x2800).bit_count() for cell in dots if ord(cell) >= 0x2800)
        assert lit == mask(dims).sum()
    assert pickle.loads(pickle.dumps(A)) == A
    file = io.BytesIO()
    torch.save(A, file)
    file.seek(0)
    assert torch.load(file) == A
    leaves, spec = pytree.tree_flatten(A)
    assert pytree.tree_unflatten(leaves, pytree.treespec_loads(pytree.treespec_dumps(spec))) == A


def test_pictures_leave_absent_pixels_blank():
    pytest.importorskip("matplotlib").use("agg")
    dims = (Dim(5, 1, 1, 1, TRUNCATED), Dim(6, 2, 2, 1, CIRCULAR))
    A, D = matrix(dims)
    picture = A.window_image((0, 1), head=1).images[-1].get_array()
    drawn = np.ma.filled(picture, np.nan)
    assert np.array_equal(~np.isnan(drawn).ravel(), mask(dims)[1].numpy())
    assert np.allclose(np.nan_to_num(drawn).ravel(), D[0, 1, 1].numpy())
    cells = np.ma.filled(A.spy().images[-1].get_array(), np.nan)
    assert np.array_equal(~np.isnan(cells), mask(dims).numpy())


# --- derivatives ---


@each_kind
@pytest.mark.parametrize("simfun", [DotSimilarity(), DistanceSimilarity()], ids=str)
def test_derivatives_of_every_order(dims, simfun, device):
    torch.manual_seed(0)
    W = window(dims)
    inputs = [
        torch.randn(1, 2, *sizes(dims), dtype=torch.float64, device=device, requires_grad=True)
        for _ in range(3)
    ]

    def attend(q, k, v):
        return ca.circulant_attention(simfun, q, k, v, W)[0]

    def similar(x, y, z):
        # The zeros of absent entries have no gradient.
        S = ca.circulant_similarity(simfun, x, y, W)
        return S.values, S.mT @ z, S.softmax().mT.to_dense()

    for function in (attend, similar):
        assert gradcheck(function, inputs, check_forward_ad=True, check_batched_grad=True)
        assert gradgradcheck(function, inputs, check_fwd_over_rev=True, fast_mode=True)


@each_kind
def test_vmap_and_compile(dims):
    W = window(dims)
    q, k, v = torch.randn(3, 2, 1, 2, *sizes(dims))

    def attend(q, k, v):
        y, A = ca.circulant_attention(q, k, v, W)
        return y, A.mT @ v

    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    for one, other in zip(compiled(q[0], k[0], v[0]), attend(q[0], k[0], v[0]), strict=True):
        torch.testing.assert_close(one, other)
    mapped = torch.func.vmap(attend)(q, k, v)
    for at in range(2):
        for one, other in zip(mapped, attend(q[at], k[at], v[at]), strict=True):
            torch.testing.assert_close(one[at], other)


def test_flops_count_the_offsets():
    from torch.utils.flop_counter import FlopCounterMode

    q = torch.randn(1, 4, 6, 5)
    with FlopCounterMode(display=False) as counter:
        ca.circulant_attention(q, q, q, Window(4, boundary="truncated"))
    assert counter.get_total_flops() == 2 * 30 * 16 * 8


def test_geometries_of_other_windows_differ():
    geometry = make_geometry(Window(3, boundary="truncated"), (4,))
    assert not geometry.matches(make_geometry(3, (4,)))
    assert geometry.matches(Geometry((4,), (3,), geometry.general))
