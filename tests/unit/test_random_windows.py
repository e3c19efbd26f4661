"""Random windows on random grids: every derivative of the public functions against dense matrices.

The dense matrices are made from the definition, by `windows.table`; torch differentiates them.
"""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close
from windows import CIRCULAR, TRUNCATED, Dims, dense, mask, sizes, table, window, windows

import circulant_attention as ca
from circulant_attention import Circulant, DistanceSimilarity, DotSimilarity
from circulant_attention import nn as own

# Relative to the largest number: sums of at most 1e4 products, each of which may cancel to 1e-3 of
# its terms, in another order.
EXACT = 1e7 * 2**-53

problems = {
    "dims": windows(most=40),
    "simfun": st.sampled_from([DotSimilarity(), DistanceSimilarity()]),
    "heads": st.integers(1, 2),
    "dtype": st.sampled_from([torch.float64, torch.complex128]),
    "seed": st.integers(0, 2**30),
}
few = settings(deadline=None, max_examples=25)


def features(dims: Dims, dtype: torch.dtype, count: int, batch: int = 2) -> list[Tensor]:
    return list(torch.randn(count, batch, 4, *sizes(dims), dtype=dtype) / 2)


def by_heads(x: Tensor, heads: int) -> Tensor:
    """``(B, heads, N, C / heads)``."""
    return x.flatten(2).unflatten(1, (heads, -1)).mT


def to_channels(y: Tensor, x: Tensor) -> Tensor:
    """The inverse of `by_heads`, on the grid of ``x``."""
    return y.mT.flatten(1, 2).reshape(x.shape)


def dense_scores(simfun: object, q: Tensor, k: Tensor, heads: int) -> Tensor:
    """All similarities ``(B, heads, N, N)``."""
    q, k = by_heads(q, heads), by_heads(k, heads)
    if simfun == DotSimilarity():
        return (q @ k.mH).real
    difference = q[..., None, :] - k[..., None, :, :]
    return -0.5 * (difference * difference.conj()).real.sum(-1)


def dense_weights(dims: Dims, scores: Tensor) -> Tensor:
    return scores.masked_fill(~mask(dims), -torch.inf).softmax(-1)


def derivatives(function, inputs: list[Tensor]) -> dict[str, Tensor]:
    """Results, gradients, second derivatives, tangents, their gradients, and a batch."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    results = function(*leaves)
    # Weights that differ, so that no cotangent is a multiple of ones.
    loss = sum((y * y.conj()).real.mul(1 + n).cos().sum() for n, y in enumerate(results))
    plain = torch.autograd.grad(loss, leaves, retain_graph=True)
    first = torch.autograd.grad(loss, leaves, create_graph=True)
    second = torch.autograd.grad(sum((g * g.conj()).real.sum() for g in first), leaves)
    tangents = torch.func.jvp(function, tuple(inputs), tuple(x.cos() for x in inputs))[1]
    batches = tuple(torch.stack([x, 2 * x]) for x in inputs)
    mapped = torch.func.vmap(function)(*batches)
    found = {"result": results, "gradient": plain, "gradient of a graph": first}
    found |= {"second": second, "tangent": tangents, "vmap": mapped}
    return {f"{name} {n}": x for name, group in found.items() for n, x in enumerate(group)}


def check(function, expected, inputs: list[Tensor]) -> None:
    found, wanted = derivatives(function, inputs), derivatives(expected, inputs)
    for name, one in found.items():
        check_close(one, wanted[name], name)


def check_close(found: Tensor, wanted: Tensor, name: str = "result") -> None:
    bound = EXACT * max(1, wanted.abs().max().item())
    assert_close(found, wanted, rtol=0, atol=bound, msg=lambda text: f"{name}: {text}")


@given(**problems)
@few
def test_attention(dims, simfun, heads, dtype, seed):
    """The fused function alone; its matrix is not used."""
    torch.manual_seed(seed)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor]:
        return (ca.circulant_mh_attention(simfun, q, k, v, window(dims), heads)[0],)

    def expected(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor]:
        scores = dense_scores(simfun, q, k, heads) * (4 / heads) ** -0.5
        weights = dense_weights(dims, scores).to(v.dtype)
        return (to_channels(weights @ by_heads(v, heads), v),)

    check(attend, expected, features(dims, dtype, 3))


@given(**problems)
@few
def test_the_matrix_of_attention(dims, simfun, heads, dtype, seed):
    """A, computed on first use, its transpose, sums and products with itself."""
    torch.manual_seed(seed)
    W, x = window(dims), features(dims, dtype, 1)[0]

    def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        y, A = ca.circulant_mh_attention(simfun, q, k, v, W, heads)
        B = 2 * A - A * A
        return y, A.to_dense(), A.mT @ ca.mh @ v, B @ ca.mh @ v, B.softmax().sum(-2)

    def expected(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        scores = dense_scores(simfun, q, k, heads) * (4 / heads) ** -0.5
        A = dense_weights(dims, scores)
        B = 2 * A - A * A
        y, z, u = (to_channels(M.to(v.dtype) @ by_heads(v, heads), v) for M in (A, A.mT, B))
        return y, A, z, u, dense_weights(dims, B).sum(-2)

    check(attend, expected, [*features(dims, dtype, 2), x])


@given(**problems)
@few
def test_similarity_and_adjacency(dims, simfun, heads, dtype, seed):
    torch.manual_seed(seed)
    W = window(dims)

    def similar(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        S = ca.circulant_similarity(simfun, x, y, W)
        A = ca.circulant_mh_adjacency(simfun, x, y, W, heads)
        return S.to_dense(), S.mT.sum(-1), A.to_dense(), A.mT @ ca.mh @ y

    def expected(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        S = dense_scores(simfun, x, y, 1) * mask(dims)
        A = dense_weights(dims, dense_scores(simfun, x, y, heads))
        return S, S.sum(-2), A, to_channels(A.mT.to(y.dtype) @ by_heads(y, heads), y)

    check(similar, expected, features(dims, dtype, 2))


@given(**problems)
@few
def test_products_with_given_entries(dims, simfun, heads, dtype, seed):
    """Entries that are not there have no influence and no gradient."""
    torch.manual_seed(seed)
    keys = table(dims)
    values = torch.randn(1, heads, keys.numel(), dtype=torch.float64)

    def apply(values: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        A = Circulant(values, window(dims), sizes(dims))
        return A @ ca.mh @ x, A.mT @ ca.mh @ x, A.mT.mT.sum(-1), A.softmax().to_dense()

    def expected(values: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        A = dense(values.unflatten(-1, keys.shape), dims)
        y, z = (to_channels(M.to(x.dtype) @ by_heads(x, heads), x) for M in (A, A.mT))
        return y, z, A.sum(-1), dense_weights(dims, A)

    check(apply, expected, [values, *features(dims, dtype, 1, batch=1)])


@given(**{**problems, "dtype": st.sampled_from([torch.float32, torch.float16, torch.bfloat16])})
@few
def test_gradients_of_other_dtypes(dims, simfun, heads, dtype, seed):
    torch.manual_seed(seed)
    inputs = [x.to(dtype) for x in features(dims, torch.float64, 4)]
    gradients = []
    for kind in (dtype, torch.float64):
        q, k, v, dy = (x.to(kind).requires_grad_() for x in inputs)
        if kind == dtype:
            y = ca.circulant_mh_attention(simfun, q, k, v, window(dims), heads)[0]
        else:
            scores = dense_scores(simfun, q, k, heads) * (4 / heads) ** -0.5
            y = to_channels(dense_weights(dims, scores) @ by_heads(v, heads), v)
        gradients.append(torch.autograd.grad(y, (q, k, v), dy.detach()))
    for found, wanted in zip(*gradients, strict=True):
        # Sums of at most 40 products of numbers of order one, rounded like y and dy.
        bound = 64 * torch.finfo(dtype).eps * wanted.abs().max().clamp(min=1)
        assert found.dtype == dtype
        assert (found.double() - wanted).abs().max() <= bound


LAYERS = {1: own.CirculantAttention1d, 2: own.CirculantAttention2d, 3: own.CirculantAttention3d}


@given(**{**problems, "dtype": st.just(torch.float64)})
@few
def test_layers(dims, simfun, heads, dtype, seed):
    torch.manual_seed(seed)
    layer = LAYERS[len(dims)](4, heads, window(dims), similarity=simfun, dtype=dtype)
    names = list(dict(layer.named_parameters()))

    def attend(x: Tensor, *parameters: Tensor) -> tuple[Tensor]:
        given = dict(zip(names, parameters, strict=True))
        return (torch.func.functional_call(layer, given, (x,)),)

    def expected(x: Tensor, *parameters: Tensor) -> tuple[Tensor]:
        given = dict(zip(names, parameters, strict=True))

        def project(name: str, x: Tensor) -> Tensor:
            y = given[f"{name}.weight"].flatten(1) @ x.flatten(2)
            return (y + given[f"{name}.bias"][:, None]).reshape(x.shape)

        q, k, v = (project(name, x) for name in ("to_q", "to_k", "to_v"))
        scores = dense_scores(simfun, q, k, heads) * (4 / heads) ** -0.5
        y = to_channels(dense_weights(dims, scores) @ by_heads(v, heads), v)
        return (project("to_out", y),)

    parameters = [x.detach() for x in layer.parameters()]
    check(attend, expected, [*features(dims, dtype, 1), *parameters])


# --- what windows preserve ---


@given(**problems)
@few
def test_shifts_along_circular_dims_commute(dims, simfun, heads, dtype, seed):
    torch.manual_seed(seed)
    inputs = features(dims, dtype, 3)
    moved = [at for at, dim in enumerate(dims, 2) if dim.boundary == CIRCULAR]
    turn = {"shifts": [1 + at for at in moved], "dims": moved}
    y = ca.circulant_mh_attention(simfun, *inputs, window(dims), heads)[0]
    inputs = [x.roll(**turn) if moved else x for x in inputs]
    found = ca.circulant_mh_attention(simfun, *inputs, window(dims), heads)[0]
    check_close(found, y.roll(**turn) if moved else y)


@given(**problems)
@few
def test_mirrors_commute_with_the_mirrored_window(dims, simfun, heads, dtype, seed):
    torch.manual_seed(seed)
    inputs = features(dims, dtype, 3)
    flipped = list(range(2, 2 + len(dims)))
    y = ca.circulant_mh_attention(simfun, *inputs, window(dims), heads)[0]
    mirrored = window(tuple(dim.mirrored() for dim in dims))
    found = ca.circulant_mh_attention(simfun, *(x.flip(flipped) for x in inputs), mirrored, heads)[
        0
    ]
    check_close(found, y.flip(flipped))


@given(windows(boundaries=(TRUNCATED,), most=60), st.integers(0, 2**30))
@few
def test_the_past_does_not_depend_on_the_future(dims, seed):
    """Bit by bit, also if the future is infinite."""
    torch.manual_seed(seed)
    dims = (dims[0]._replace(after=0), *dims[1:])
    at = seed % dims[0].size
    q, k, v = features(dims, torch.float64, 3)
    y = ca.circulant_attention(q, k, v, window(dims))[0]
    for x in (q, k, v):
        x[:, :, at:] = torch.inf
    found = ca.circulant_attention(q, k, v, window(dims))[0]
    assert torch.equal(found[:, :, :at], y[:, :, :at])
