"""Indexing: batches and heads stay sparse, rows, columns and entries come out dense."""

from __future__ import annotations

from contextlib import contextmanager
from random import Random

import numpy as np
import pytest
import torch
from inputs import SIMILARITIES, dense, dtypes, grids, matrix
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from circulant_attention import Circulant, circulant_mh_attention


@dtypes
def test_a_few_indices(dtype, device):
    A = matrix((5, 4), 3, device, dtype=dtype)
    D = dense(A)
    mask = torch.tensor([True, False, True], device=device)
    for index, kept in [
        (1, [1]),
        (torch.tensor(-1, device=device), [-1]),
        (slice(None, None, 2), slice(None, None, 2)),
        (range(2), slice(2)),
        ([], slice(0)),
        (..., ...),
        ((slice(None), mask), (slice(None), [0, 2])),
    ]:
        assert isinstance(A[index], Circulant)
        assert_close(A[index].to_dense(), D[kept], rtol=0, atol=0)
    assert A[1, 2, 3, 4] == A[..., 3, 4][1, 2] == D[1, 2, 3, 4]
    assert_close(A[1, ..., 4], D[1, :, :, 4], rtol=0, atol=0)
    assert_close(A[1, 2, 3], D[1, 2, 3], rtol=0, atol=0)


def _random_index(random, n, pairs, device):
    """An index of one dim: an int, a slice, or a list of ``pairs`` ints or of one."""
    kind = random.choice(["int", "int", "full", "full", "slice", "list", "list", "tensor", "numpy"])
    ends = [None, random.randrange(-n, n)]
    ints = [random.randrange(-n, n) for _ in range(random.choice([pairs, pairs, 1]))]
    return {
        "int": ints[0],
        "full": slice(None),
        "slice": slice(random.choice(ends), random.choice(ends), random.choice([None, 1, 2])),
        "list": ints,
        "tensor": torch.tensor(ints, device=device),
        "numpy": np.int64(ints[0]),
    }[kind]


def _random_indices(random, shape, device):
    """Indices of some dims, the others left out, at the end or where an ellipsis stands."""
    index = [_random_index(random, n, 3, device) for n in shape]
    given = random.randint(1, 4)
    if random.choice([True, False]):
        return tuple(index[:given])
    at = random.randint(0, given)
    return (*index[:at], ..., *index[len(index) - given + at :])


def _of_every_dim(index):
    """The same index as torch takes it for a dense matrix, without an ellipsis."""
    index = [torch.tensor(i) if isinstance(i, list) else i for i in index]
    at = index.index(...) if ... in [i for i in index if i is ...] else len(index)
    left_out = [slice(None)] * (4 - len([i for i in index if i is not ...]))
    return [*index[:at], *left_out, *index[at + 1 :]]


@pytest.mark.parametrize("state", ["computed", "lazy", "transposed", "transposed lazy"])
@grids
def test_any_index_gives_what_torch_gives(size, window, state, device):
    random = Random(str((size, window, state)))
    q, k = torch.randn(2, 2, 6, *size, dtype=torch.float64, device=device)
    for _ in range(40):
        fresh = circulant_mh_attention(q, k, k, window, 3)[1]
        A = fresh.mT if "transposed" in state else fresh
        if "lazy" not in state:
            assert A.values.shape == (2, 3, A.nnz // 6)
        index = _random_indices(random, A.shape, device)
        taken = A[index]
        D, given = dense(A), _of_every_dim(index)
        if all(isinstance(i, slice) and i == slice(None) for i in given[2:]):
            # Batch and heads stay sparse and keep their dims: an int becomes a slice of one.
            assert isinstance(taken, Circulant)
            assert (taken.window, taken.spatial_size) == (A.window, A.spatial_size)
            lists = [isinstance(i, torch.Tensor) for i in given[:2]]
            given = [
                slice(i, i + 1 or None) if isinstance(i, int | np.integer) else i for i in given
            ]
            expected = D[tuple(given)].unsqueeze(1) if all(lists) else D[tuple(given)]
            taken = taken.to_dense()
        else:
            assert isinstance(taken, torch.Tensor)
            expected = D[tuple(given)]
        error = 1e-12 if "lazy" in state else 0
        assert_close(taken, expected, rtol=0, atol=error, msg=lambda m, i=index: f"{i}: {m}")


def test_pairs_of_lists_are_entries(device):
    A = matrix((5, 4), 3, device)
    rows, columns = [3, 0, 5, 7], [2, 4, -1, 0]
    entries = A[0, 1, rows, columns]
    expected = [float(dense(A)[0, 1, i, j]) for i, j in zip(rows, columns, strict=True)]
    assert entries.tolist() == expected


def test_dense_blocks_carry_the_gradient(device):
    A = matrix((5, 4), 3, device).requires_grad_()
    near = dense(torch.ones_like(A.detach())) != 0
    for index in [(1, 2, 3), (0, slice(None), slice(None), 5), (1, 1, 0, 1)]:
        twin = dense(A.detach()).requires_grad_()
        twin[index].square().sum().backward()
        (gradient,) = torch.autograd.grad(A[index].square().sum(), A.values)
        assert_close(gradient, twin.grad[near].reshape(A.values.shape))


def test_sparse_parts_carry_the_gradient_and_share_memory(device):
    A = matrix((5, 4), 3, device)
    assert A[1].values.data_ptr() == A.values[1].data_ptr()
    A.requires_grad_()
    A[1, 2].values.sum().backward()
    assert float(A.values.grad.sum()) == float(A.values.grad[1, 2].sum()) == 180


def test_iteration_goes_over_the_batch(device):
    A = matrix((5, 4), 3, device)
    parts = list(A)
    assert len(parts) == len(A) == 2
    assert parts[0] == A[0]
    assert parts[1] == A[1]


@contextmanager
def _largest_tensor():
    """A function that says how many elements the largest tensor made in this context has."""
    sizes = [0]

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            view = any(returned.alias_info for returned in func._schema.returns)
            if isinstance(result, torch.Tensor) and not view:
                sizes.append(result.numel())
            return result

    with Watch():
        yield lambda: max(sizes)


def _lazy(name, q, k, window, heads):
    return circulant_mh_attention(SIMILARITIES[name], q, k, k.real, window, heads)[1]


ROWS_ONLY = [
    (0, 1, 7),
    (1, 0, 7, 8),
    (1, 2, [7, 60, 7]),
    (..., 3, slice(None)),
    (0, 1, [7, 60], [8, 61]),
    (0, 1, [7, 60], slice(2, 9)),
]


@pytest.mark.parametrize("index", ROWS_ONLY, ids=repr)
@pytest.mark.parametrize("transposed", [False, True])
def test_rows_of_a_lazy_matrix_are_computed_alone(index, transposed, device):
    q, k = torch.randn(2, 2, 6, 40, 40, dtype=torch.float64, device=device)
    A = _lazy("dot", q, k, 21, 3)
    expected = _lazy("dot", q, k, 21, 3)
    if transposed:
        # The entries of A are computed, those of its transpose are not.
        A, expected = A.mT, expected.mT
    with _largest_tensor() as largest:
        block = A[index]
    # N * K * C of all matrices is 25 million; ten rows with their keys are less.
    assert largest() <= max(10 * 441 * 2, 6 * 1600)
    assert_close(block, expected.with_values(expected.values)[index], rtol=0, atol=1e-12)
    assert A._source._values is None


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@grids
def test_lazy_rows_are_those_of_the_values(size, window, dtype, name, device):
    q, k = torch.randn(2, 2, 2, *size, dtype=dtype, device=device)
    A = _lazy(name, q, k, window, 2)
    groups, pixels = (torch.tensor(i, device=device) for i in ([0, 3, 2], [0, -1, 0]))
    pixels = pixels % A.shape[-1]
    rows, one = A._source.rows(groups, pixels), A._source.matrix(2)
    assert A._source._values is None
    expected = A.rows.flatten(0, 1)
    assert_close(rows, expected[groups, pixels], rtol=0, atol=1e-12)
    assert_close(one, expected[2], rtol=0, atol=1e-12)
    T = A.mT
    rows, one = T._source.rows(groups, pixels), T._source.matrix(1)
    assert T._source._values is None
    expected = T.rows.flatten(0, 1)
    assert torch.equal(rows, expected[groups, pixels])
    assert torch.equal(one, expected[1])


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_lazy_rows_in_half_precision_are_rounded_once(dtype, name, device):
    # Scores up to about 50: rounded to half precision they would be off by up to 12 %.
    q, k = 3 * torch.randn(2, 1, 16, 30, 30, device=device).to(dtype)
    row = _lazy(name, q, k, 5, 1)[0, 0, 31]
    exact = _lazy(name, q.double(), k.double(), 5, 1)[0, 0, 31]
    assert row.dtype == dtype
    # float32 has an error of 2^-24 per product and sum, relative to the scores.
    unit, scores = torch.finfo(dtype).eps / 2, 16 * 100 * 2.0**-24
    tiny = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    assert_close(row.double(), exact, rtol=unit + 2 * scores, atol=tiny)


def test_lazy_rows_under_autocast_are_not_rounded(device):
    q, k = torch.randn(2, 1, 16, 30, 30, device=device)
    A = _lazy("dot", q, k, 5, 1)
    expected = A[0, 0, 31]
    with torch.autocast(torch.device(A.device).type, torch.bfloat16):
        assert torch.equal(A[0, 0, 31], expected)


@pytest.mark.parametrize("transposed", [False, True])
def test_lazy_rows_carry_the_gradient(transposed, device):
    q, k = torch.randn(2, 1, 2, 30, 30, dtype=torch.float64, device=device)
    inputs = q.requires_grad_(), k.requires_grad_()

    def gradients(computed):
        A = _lazy("distance", q, k, (3, 5), 1)
        A = A.mT if transposed else A
        if computed:
            A.values  # noqa: B018
        loss = sum(A[i].square().sum() for i in [(0, 0, 31), (0, 0, [1, 2], [2, 2]), (0, 0, 7, 8)])
        assert computed or A._source._values is None
        return torch.autograd.grad(loss, inputs)

    assert_close(gradients(computed=False), gradients(computed=True), rtol=0, atol=1e-12)
    with torch.no_grad():
        assert not _lazy("dot", q, k, 3, 1)[0, 0, 31].requires_grad


def test_lazy_rows_after_a_change_in_place_raise(device):
    q, k = torch.randn(2, 1, 2, 30, 30, device=device)
    A, B = _lazy("dot", q, k, 3, 1), _lazy("dot", q, k, 3, 1)
    T = B.mT
    q.add_(1)
    B.values.mul_(2)
    for lazy in (A, T):
        with pytest.raises(RuntimeError, match="changed in place"):
            lazy[0, 0, 31]
        with pytest.raises(RuntimeError, match="changed in place"):
            lazy._source.matrix(0)


def _taken(x):
    A = circulant_mh_attention(x, x, x, 5, 2)[1]
    return A[0, 0, 7], A[0, 1, [1, 2], [3, 4]], A[0, 0, :, 5], A[..., [1, 2], :], A.mT[0, 0, 3]


@pytest.mark.parametrize("dynamic", [False, True])
def test_indexing_compiles(dynamic, device):
    torch.compiler.reset()
    compiled = torch.compile(_taken, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for size in [(12, 10), (9, 14)]:
        x = torch.randn(1, 4, *size, dtype=torch.float64, device=device)
        assert_close(compiled(x), _taken(x), rtol=0, atol=1e-12)


def test_indexing_is_exported_and_leaves_no_fake_tensor(device):
    class Taking(torch.nn.Module):
        def forward(self, x):
            return _taken(x)

    x = torch.randn(1, 4, 11, 13, dtype=torch.float64, device=device)
    exported = torch.export.export(Taking(), (x,)).module()
    assert_close(exported(x), _taken(x), rtol=0, atol=1e-12)
    row = Circulant(5, (1, 1, 11, 13), device=device)[0, 0, 7]
    assert type(row) is torch.Tensor
    assert float(row.sum()) == 25


def test_lazy_rows_in_forward_mode_and_under_vmap(device):
    def row(x):
        return circulant_mh_attention(x[None], x[None], x[None], 3, 2)[1][0, 1, 31]

    x, tangent = torch.randn(2, 3, 4, 10, 12, dtype=torch.float64, device=device)
    rows, moved = torch.func.jvp(torch.func.vmap(row), (x,), (tangent,))
    assert_close(rows, torch.stack([row(one) for one in x]), rtol=0, atol=1e-12)
    pairs = zip(x, tangent, strict=True)
    expected = [torch.func.jacrev(row)(one).flatten(1) @ to.flatten() for one, to in pairs]
    assert_close(moved, torch.stack(expected), rtol=0, atol=1e-12)


def test_lazy_rows_in_inference_mode(device):
    q, k = torch.randn(2, 1, 2, 30, 30, device=device).requires_grad_()
    A = _lazy("dot", q, k, 3, 1)
    with torch.inference_mode():
        row = A[0, 0, 31]
    assert_close(row, A.detach()[0, 0, 31])
    assert A.requires_grad
