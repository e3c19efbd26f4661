"""Scale, bias, key mask and dropout of attention, against torch's dense attention in float64."""

from __future__ import annotations

import pytest
import score_oracle
import torch
from inputs import REAL_DTYPES
from rounding import eps
from same_bits import check_threads
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close
from windows import CIRCULAR, KINDS, Dim, mask, sizes, window

import circulant_attention as ca
from circulant_attention import Circulant, DistanceSimilarity, DotSimilarity, mh

B, HEADS = 2, 3
GRIDS = {
    "1d": (Dim(7, 2, 2, 1, CIRCULAR),),
    "2d": (Dim(5, 1, 1, 1, CIRCULAR), Dim(6, 2, 2, 1, CIRCULAR)),
    "whole": (Dim(3, 1, 1, 1, CIRCULAR), Dim(5, 2, 2, 1, CIRCULAR)),
    "3d": (Dim(3, 0, 0, 1, CIRCULAR), Dim(3, 1, 1, 1, CIRCULAR), Dim(4, 1, 1, 1, CIRCULAR)),
}
SIMILARITIES = {"dot": DotSimilarity(), "distance": DistanceSimilarity()}
similarities = pytest.mark.parametrize("name", SIMILARITIES)
grids = pytest.mark.parametrize("grid", GRIDS)
each_window = pytest.mark.parametrize(
    "dims", [*GRIDS.values(), *KINDS.values()], ids=[*GRIDS, *(f"other {name}" for name in KINDS)]
)


def features(dims, channels=6, batch=B, dtype=torch.float64, device="cpu"):
    return torch.randn(batch, channels, *sizes(dims), dtype=dtype, device=device)


def offsets(dims, heads=HEADS, dtype=torch.float64, device="cpu"):
    """A random bias."""
    lengths = [dim.before + dim.after + 1 for dim in dims]
    return torch.randn(heads, *lengths, dtype=dtype, device=device)


def keys(dims, *leading, device="cpu"):
    """A random bool mask, with a first batch in which rows without keys are likely."""
    drawn = torch.rand(*(leading or (B,)), *sizes(dims), device=device)
    chance = torch.full((len(drawn),), 0.7, device=device)
    chance[0] = 0.1
    return drawn < chance.view(-1, *(1,) * (drawn.dim() - 1))


def options_of(terms, dims, device="cpu"):
    """The options of a case: its name lists them."""
    made = {
        "scale": lambda: 0.37,
        "negative": lambda: -0.5,
        "bias": lambda: offsets(dims, device=device),
        "shared": lambda: offsets(dims, 1, device=device),
        "mask": lambda: keys(dims, device=device),
        "land": lambda: keys(dims, 1, device=device),
        "headmask": lambda: keys(dims, B, HEADS, device=device),
        "numbers": lambda: torch.randn(B, *sizes(dims), dtype=torch.float64, device=device),
        "headnumbers": lambda: torch.randn(
            1, HEADS, *sizes(dims), dtype=torch.float64, device=device
        ),
    }
    argument = {"scale": "scale", "negative": "scale", "bias": "bias", "shared": "bias"}
    return {argument.get(term, "key_mask"): made[term]() for term in terms.split("+")}


TERMS = ["scale", "bias", "mask", "numbers", "negative+shared+land", "scale+bias+headmask"]
TERMS += ["bias+headnumbers"]


@similarities
@pytest.mark.parametrize("terms", TERMS)
@grids
def test_values_and_gradients(grid, terms, name, device):
    check_values_and_gradients(GRIDS[grid], terms, name, device)


@similarities
@pytest.mark.parametrize("terms", ["scale+bias+mask", "shared+headnumbers"])
@pytest.mark.parametrize("grid", KINDS)
def test_values_and_gradients_of_other_windows(grid, terms, name):
    check_values_and_gradients(KINDS[grid], terms, name, "cpu")


def check_values_and_gradients(dims, terms, name, device):
    torch.manual_seed(0)
    q, k, v = (features(dims, device=device).requires_grad_() for _ in range(3))
    options = options_of(terms, dims, device)
    leaves = [q, k, v]
    for option in options.values():
        if isinstance(option, torch.Tensor) and option.dtype != torch.bool:
            leaves.append(option.requires_grad_())
    distance = name == "distance"
    y, A = ca.circulant_mh_attention(SIMILARITIES[name], q, k, v, window(dims), HEADS, **options)
    expected = score_oracle.attention(q, k, v, dims, HEADS, distance=distance, **options)
    # Sums of at most 1e2 products of numbers of order 1 to 10.
    exact = {"rtol": 1e-10, "atol": 1e-11}
    assert_close((y, A.to_dense()), expected, **exact)
    assert_close(A @ mh @ v, y, **exact)
    x_adjacency = ca.circulant_mh_adjacency(
        SIMILARITIES[name], q, k, window(dims), HEADS, **{"scale": 2**-0.5, **options}
    )
    assert_close(x_adjacency.to_dense(), expected[1], **exact)
    for ours, theirs in ((y, expected[0]), (A.to_dense(), expected[1])):
        cotangent = torch.randn_like(ours)
        used = leaves if ours is y else [leaf for leaf in leaves if leaf is not v]
        found, wanted = (
            torch.autograd.grad((x * cotangent).sum(), used, retain_graph=True)
            for x in (ours, theirs)
        )
        assert_close(found, wanted, **exact)


@grids
def test_rows_without_keys_are_zero(grid, device):
    dims = GRIDS[grid]
    q, k, v = (features(dims, device=device).requires_grad_() for _ in range(3))
    numbers = torch.full((B, *sizes(dims)), -torch.inf, dtype=torch.float64, device=device)
    numbers[1] = 0.0
    bias = offsets(dims, device=device).requires_grad_()
    numbers.requires_grad_()
    options = {"bias": bias, "key_mask": numbers}
    y, A = ca.circulant_mh_attention(q, k, v, window(dims), HEADS, **options)
    assert not y[0].any() and not A[0].values.any()
    assert_close(A[1].sum(-1), torch.ones_like(A[1].sum(-1)))
    for x in (y, A.values):
        found = torch.autograd.grad(
            x.square().sum(), (q, k, v, bias, numbers), retain_graph=True, allow_unused=True
        )
        assert all(g is None or g.isfinite().all() for g in found)
        assert not any(g is not None and g[0].any() for g in (*found[:3], found[4]))


@similarities
@pytest.mark.parametrize("dtype", [*REAL_DTYPES, torch.complex64, torch.complex128], ids=str)
def test_of_every_dtype(dtype, name, device):
    dims = GRIDS["2d"]
    torch.manual_seed(1)
    q, k, v = (features(dims, dtype=dtype, device=device) / 4 for _ in range(3))
    options = {"bias": offsets(dims, dtype=torch.float32, device=device)}
    options["key_mask"] = keys(dims, device=device)
    y, A = ca.circulant_mh_attention(SIMILARITIES[name], q, k, v, window(dims), HEADS, **options)
    real = dtype.to_real()
    assert (y.dtype, A.dtype) == (dtype, real)
    assert_close(mh(A, v), y, rtol=0, atol=40 * eps(real))

    def parts(x):
        if not x.is_complex():
            return x.double()
        # Real and imaginary parts as channels of each head.
        split = x.unflatten(1, (HEADS, -1))
        return torch.cat([split.real, split.imag], 2).flatten(1, 2).double()

    options["bias"] = options["bias"].double()
    wanted, weights = score_oracle.attention(
        *map(parts, (q, k, v)), dims, HEADS, distance=name == "distance", scale=2**-0.5, **options
    )
    # Weights of at most 1, of scores below 4 that are rounded a few times; sums of 15 of them.
    assert_close(A.to_dense().double(), weights, rtol=0, atol=20 * eps(real))
    assert_close(parts(y), wanted, rtol=0, atol=40 * eps(real))


def test_half_precision_adds_in_float32(device):
    """A bias of 1000 leaves no digits to scores in half precision, and the softmax drops it."""
    dims = GRIDS["2d"]
    q, k, v = (features(dims, dtype=torch.float16, device=device) for _ in range(3))
    plain, A = ca.circulant_attention(q, k, v, window(dims))
    bias = torch.full((1, 3, 5), 1000.0, device=device)
    y, C = ca.circulant_attention(q, k, v, window(dims), bias=bias)
    assert_close(y, plain, rtol=0, atol=4 * eps(torch.float16))
    assert_close(C.values, A.values, rtol=0, atol=4 * eps(torch.float16))


@each_window
def test_bias_of_zero_and_mask_of_true_change_no_bit(dims):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        q, k, v = (features(dims, dtype=dtype) for _ in range(3))
        everything = torch.ones(B, *sizes(dims), dtype=torch.bool)
        for name in SIMILARITIES:
            plain, _ = ca.circulant_mh_attention(SIMILARITIES[name], q, k, v, window(dims), HEADS)
            for options in (
                {"bias": torch.zeros_like(offsets(dims))},
                {"key_mask": everything},
                {"bias": torch.zeros_like(offsets(dims)), "key_mask": everything},
                {"scale": 2**-0.5},
            ):
                y, _ = ca.circulant_mh_attention(
                    SIMILARITIES[name], q, k, v, window(dims), HEADS, **options
                )
                assert torch.equal(y, plain)


@each_window
@similarities
def test_derivatives_of_every_order(name, dims):
    torch.manual_seed(0)
    W = window(dims)
    q, k, v = (features(dims, 2, 1).requires_grad_() for _ in range(3))
    bias = offsets(dims, 2).requires_grad_()
    numbers = torch.randn(1, 2, *sizes(dims), dtype=torch.float64)
    numbers.flatten()[::3] = -torch.inf
    shift = torch.zeros_like(numbers).requires_grad_()

    def attend(q, k, v, bias, shift):
        mask = numbers + shift
        y, A = ca.circulant_mh_attention(
            SIMILARITIES[name], q, k, v, W, 2, bias=bias, key_mask=mask
        )
        return y, A.values

    inputs = (q, k, v, bias, shift)
    assert gradcheck(attend, inputs, check_forward_ad=True, check_batched_grad=True, fast_mode=True)
    assert gradgradcheck(attend, inputs, check_fwd_over_rev=True, fast_mode=True)


@similarities
def test_vmap(name, device):
    dims = GRIDS["2d"]
    q, k, v = (features(dims, device=device).unflatten(0, (1, B)) for _ in range(3))
    q, k, v = (x.expand(2, *x.shape[1:]) + 1 for x in (q, k, v))
    bias = torch.stack([offsets(dims, device=device) for _ in range(2)])
    seen = torch.stack([keys(dims, device=device) for _ in range(2)])

    def attend(q, k, v, bias, seen):
        y, A = ca.circulant_mh_attention(
            SIMILARITIES[name], q, k, v, window(dims), HEADS, bias=bias, key_mask=seen
        )
        return y, A.values

    tensors = (q, k, v, bias, seen)
    for in_dims in ((0,) * 5, (0, 0, 0, None, 0), (0, None, 0, 0, None)):
        given = [x if at == 0 else x[0] for x, at in zip(tensors, in_dims, strict=True)]
        mapped = torch.func.vmap(attend, in_dims)(*given)
        for one in range(2):
            alone = attend(
                *(x[one] if at == 0 else x for x, at in zip(given, in_dims, strict=True))
            )
            assert_close([x[one] for x in mapped], list(alone))


# --- A on demand ---


@each_window
def test_parts_of_a_lazy_matrix(dims):
    for terms in ("scale", "bias+mask", "shared+headnumbers", "headmask"):
        q, k, v = (features(dims) for _ in range(3))
        options = options_of(terms, dims)
        lazy, whole = (
            ca.circulant_mh_attention(q, k, v, window(dims), HEADS, **options)[1] for _ in "ab"
        )
        D = whole.to_dense()
        assert_close(lazy[1, 2, [0, 3]], D[1, 2, [0, 3]])
        assert_close(lazy[..., 1, :], D[..., 1, :])
        assert lazy._source._values is None
        assert_close(lazy._source.matrix(4).flatten(), whole.values[1, 1])
        assert lazy._source._values is None


def test_a_lazy_matrix_keeps_to_its_tensors():
    dims = GRIDS["2d"]
    q, k, v = (features(dims) for _ in range(3))
    for options in ({"bias": offsets(dims, 1)}, {"key_mask": torch.randn(B, *sizes(dims))}):
        _, A = ca.circulant_attention(q, k, v, window(dims), **options)
        next(iter(options.values())).add_(1)
        with pytest.raises(RuntimeError, match="changed in place"):
            _ = A.values
    # A bool mask is read by the call.
    seen = keys(dims)
    _, A = ca.circulant_attention(q, k, v, window(dims), key_mask=seen)
    _, C = ca.circulant_attention(q, k, v, window(dims), key_mask=seen.clone())
    seen.logical_not_()
    assert A == C


def test_inference_mode():
    dims = GRIDS["2d"]
    q, k, v = (features(dims) for _ in range(3))
    options = options_of("bias+mask", dims)
    wanted, A = ca.circulant_mh_attention(q, k, v, window(dims), HEADS, **options)
    with torch.inference_mode():
        made = {name: x.clone() for name, x in options.items()}
        y, C = ca.circulant_mh_attention(q, k, v, window(dims), HEADS, **made)
        made["bias"].zero_()
        assert_close(y, wanted)
        assert_close(C.values, A.values)


# --- torch's modes ---


@pytest.mark.parametrize("dims", [GRIDS["2d"], KINDS["even"]], ids=["2d", "even"])
@pytest.mark.parametrize("dropout_p", [0.0, 0.5])
def test_compiles_as_one_graph(dropout_p, dims):
    torch._dynamo.reset()
    W = window(dims)
    q, k, v = (features(dims).requires_grad_() for _ in range(3))
    options = options_of("bias+mask", dims)
    options["bias"].requires_grad_()

    def attend(q, k, v, bias, seen):
        y, A = ca.circulant_mh_attention(
            q, k, v, W, HEADS, scale=0.7, bias=bias, key_mask=seen, dropout_p=dropout_p
        )
        S = ca.circulant_similarity(DotSimilarity(), q, k, W).add_bias(bias[:1]).mask_keys(seen)
        return y, mh(A.mT, v).square() + S.softmax() @ v

    inputs = (q, k, v, options["bias"], options["key_mask"])
    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    results = []
    for function in (attend, compiled):
        torch.manual_seed(3)
        y, z = function(*inputs)
        results.append((y, z, *torch.autograd.grad((y.square() + z).sum(), inputs[:4])))
    assert_close(results[1], results[0])


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_is_exported():
    dims = GRIDS["2d"]

    class Attend(torch.nn.Module):
        def forward(self, q, k, v, bias, seen):
            y, A = ca.circulant_mh_attention(q, k, v, window(dims), HEADS, bias=bias, key_mask=seen)
            return y, A.values

    inputs = (*(features(dims) for _ in range(3)), offsets(dims), keys(dims))
    exported = torch.export.export(Attend(), inputs)
    assert_close(exported.module()(*inputs), Attend()(*inputs))


def test_autocast():
    dims = GRIDS["2d"]
    q, k, v = (features(dims, dtype=torch.float32).requires_grad_() for _ in range(3))
    options = options_of("bias+mask", dims)
    bias = options["bias"] = options["bias"].float().requires_grad_()
    exact, _ = ca.circulant_mh_attention(q, k, v, window(dims), HEADS, **options)
    with torch.autocast("cpu", torch.bfloat16):
        y, A = ca.circulant_mh_attention(q, k, v, window(dims), HEADS, **options)
    assert y.dtype == A.dtype == torch.bfloat16
    assert_close(y.float(), exact, rtol=0, atol=40 * eps(torch.bfloat16))
    (gradient,) = torch.autograd.grad(y.float().square().sum(), bias)
    assert gradient.dtype == torch.float32 and gradient.any()


def test_the_number_of_threads_changes_no_bit():
    dims = (Dim(40, 4, 4, 1, CIRCULAR), Dim(37, 4, 4, 1, CIRCULAR))
    q, k, v = (features(dims, dtype=torch.float32).requires_grad_() for _ in range(3))
    bias = offsets(dims, dtype=torch.float32).requires_grad_()
    numbers = torch.randn(B, *sizes(dims)).requires_grad_()
    inputs = (q, k, v, bias, numbers)

    def gradients():
        options = {"bias": bias, "key_mask": numbers}
        y, A = ca.circulant_mh_attention(q, k, v, 9, HEADS, **options)
        S = ca.circulant_similarity(DotSimilarity(), q, k, 9)
        T = S.add_bias(bias[:1]).mask_keys(numbers).softmax()
        first = torch.autograd.grad(y.square().sum(), inputs)
        second = torch.autograd.grad(mh(A, v).square().sum(), inputs)
        third = torch.autograd.grad((T @ v).square().sum(), inputs)
        return y.detach(), A.values.detach(), *first, *second, *third

    check_threads(gradients)


# --- dropout ---


def test_dropout(device):
    dims = GRIDS["2d"]
    q, k, v = (features(dims, batch=40, device=device).requires_grad_() for _ in range(3))
    W = window(dims)
    _, plain = ca.circulant_mh_attention(q, k, v, W, HEADS)
    torch.manual_seed(0)
    y, A = ca.circulant_mh_attention(q, k, v, W, HEADS, dropout_p=0.25)
    kept = A.values != 0
    # 54000 draws: 0.75 within 5 standard deviations.
    assert abs(kept.double().mean() - 0.75) < 0.01
    assert_close(A.values[kept], plain.values[kept] / 0.75)
    assert_close(mh(A, v), y)
    found = torch.autograd.grad(y.square().sum(), (q, k, v))
    values = plain.values * kept / 0.75
    wanted = torch.autograd.grad(mh(plain.with_values(values), v).square().sum(), (q, k, v))
    assert_close(found, wanted)
    torch.manual_seed(0)
    again = ca.circulant_mh_adjacency(
        DotSimilarity(), q, k, W, HEADS, scale=2**-0.5, dropout_p=0.25
    )
    assert_close(again.values, A.values)
    y, A = ca.circulant_mh_attention(q, k, v, W, HEADS, dropout_p=1.0)
    assert not y.any() and not A.values.any()


def test_dropout_of_a_truncated_window_with_a_mask():
    dims = KINDS["even"]
    q, k, v = (features(dims) for _ in range(3))
    options = {"key_mask": keys(dims), "dropout_p": 0.5}
    _, A = ca.circulant_mh_attention(q, k, v, window(dims), HEADS, **options)
    assert not A.to_dense()[..., ~mask(dims)].any()
    assert not A.to_dense().mT[~options["key_mask"].flatten(1)[:, None].expand(-1, HEADS, -1)].any()


# --- functions of a matrix ---


@each_window
def test_scores_step_by_step(dims):
    """A similarity with a bias and a mask, then its softmax, is the adjacency with both."""
    q, k = (features(dims).requires_grad_() for _ in range(2))
    bias = offsets(dims, 1).requires_grad_()
    numbers = torch.randn(B, *sizes(dims), dtype=torch.float64).requires_grad_()
    seen = keys(dims)
    S = ca.circulant_similarity(DotSimilarity(), q, k, window(dims))
    for key_mask in (seen, numbers, numbers.masked_fill(~seen, -torch.inf)):
        A = S.add_bias(bias).mask_keys(key_mask).softmax()
        C = ca.circulant_adjacency(
            DotSimilarity(), q, k, window(dims), bias=bias, key_mask=key_mask
        )
        assert_close(A.values, C.values)
        leaves = [q, k, bias, *([] if key_mask is seen else [numbers])]
        found, wanted = (
            torch.autograd.grad(x.values.square().sum(), leaves, retain_graph=True) for x in (A, C)
        )
        assert_close(found, wanted)


@each_window
def test_entries_with_a_bias_and_a_mask(dims):
    for dtype in (torch.float64, torch.bfloat16, torch.complex128):
        values = torch.randn(B, HEADS, *score_oracle.offset_table(dims).shape).to(dtype)
        A = Circulant(values.flatten(2), window(dims), sizes(dims))
        D = A.to_dense()
        bias, there = offsets(dims).bfloat16(), mask(dims)
        found = A.add_bias(bias)
        assert found.dtype == dtype
        wanted = (D + score_oracle.dense_bias(bias, dims)).masked_fill(~there, 0)
        assert torch.equal(found.to_dense(), wanted)
        for seen in (keys(dims), keys(dims, B, HEADS), keys(dims, 1), keys(dims, 1, HEADS)):
            found = A.mask_keys(seen)
            assert found.dtype == dtype
            left_out = ~seen.flatten(-len(dims))
            left_out = left_out.unsqueeze(1) if left_out.dim() == 2 else left_out
            left_out = (left_out.unsqueeze(-2) & there).expand(D.shape)
            assert torch.equal(found.to_dense(), D.masked_fill(left_out, -torch.inf))
    # A lazy matrix, and a transposed one with the mirrored window.
    q = features(dims)
    _, A = ca.circulant_mh_attention(q, q, q, window(dims), HEADS)
    seen = keys(dims)
    D = A.to_dense().mT.masked_fill(~seen.flatten(1)[:, None, None] & mask(dims).mT, -torch.inf)
    assert torch.equal(A.mT.mask_keys(seen).to_dense(), D)


def test_the_softmax_of_rows_without_keys(device):
    S = Circulant(3, (1, 1, 6), dtype=torch.float64, device=device)
    values = S.values.clone().requires_grad_()
    seen = torch.tensor([[True, False, False, False, True, True]], device=device)
    wanted = torch.zeros(6, 6, dtype=torch.float64, device=device)
    wanted[0, [0, 5]] = wanted[4, [4, 5]] = 0.5
    wanted[1, 0] = wanted[3, 4] = 1.0
    wanted[5, [0, 4, 5]] = 1 / 3

    def weights(values):
        return S.with_values(values).mask_keys(seen).softmax().values

    A = S.with_values(weights(values))
    assert_close(A.to_dense()[0, 0], wanted)
    assert gradcheck(weights, values, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(weights, values)
    compiled = torch.compile(weights, fullgraph=True, backend="aot_eager")
    assert_close(compiled(values), weights(values))
    # A row with NaN or infinity stays NaN.
    for number in (torch.nan, torch.inf):
        rows = S.mask_keys(seen).values.clone()
        rows[..., 6] = number
        found = S.with_values(rows).softmax().rows[0, 0]
        assert found[2].isnan().any() and found[[0, 1, 3, 4, 5]].isfinite().all()
