"""The flops that torch's counter finds in the native ops, against products of dense sizes."""

from __future__ import annotations

from math import prod

import pytest
import torch
from inputs import features, matrix
from torch._library import custom_ops
from torch.utils.flop_counter import FlopCounterMode

import circulant_attention as ca
from circulant_attention import DistanceSimilarity, DotSimilarity

SIZES = [((7,), (3,)), ((6, 5), (3, 5)), ((3, 4, 5), (1, 3, 5))]
_ops = torch.ops.circulant_attention


def _count(call) -> dict:
    with FlopCounterMode(display=False) as counter:
        call()
    return dict(counter.get_flop_counts()["Global"])


@pytest.mark.parametrize(("size", "window"), SIZES, ids=str)
def test_attention(size, window, device):
    q = features(2, 6, size, device, torch.float32).requires_grad_()
    v = features(2, 4, size, device, torch.float32).requires_grad_()
    y, _ = ca.circulant_mh_attention(DistanceSimilarity(), q, q, v, window, 2)
    entries = 4 * prod(size) * prod(window)
    forward = _count(lambda: ca.circulant_mh_attention(q, q, v, window, 2))
    assert forward == {_ops.attention: 2 * entries * (3 + 2)}
    # Scores, dq and dk over 3 channels; dv and the gradient of the weights over 2.
    assert _count(lambda: y.sum().backward()) == {
        _ops.attention_backward: 2 * entries * (3 * 3 + 2 * 2)
    }


@pytest.mark.parametrize(("size", "window"), SIZES, ids=str)
def test_primitives(size, window, device):
    A = matrix(size, window, device, dtype=torch.float32).requires_grad_()
    x = features(6, 5, size, device, torch.float32).requires_grad_()
    each = 2 * A.nnz * 5
    assert _count(lambda: A @ x) == {_ops.apply: each}
    assert _count(lambda: A.mT @ x) == {_ops.apply_transposed: each}
    similarity = lambda: ca.circulant_similarity(DotSimilarity(), x, x, window)  # noqa: E731
    assert _count(similarity) == {_ops.similarity: each}
    adjacency = lambda: ca.circulant_adjacency(DotSimilarity(), x, x, window)  # noqa: E731
    assert _count(adjacency) == {_ops.adjacency: each}
    y = A @ x
    backward = {_ops.similarity: each, _ops.apply_transposed: each}
    assert _count(lambda: y.sum().backward()) == backward
    assert _count(lambda: A.mT.values).get(_ops.transpose, 0) == 0


def test_every_op_has_a_formula():
    from torch.utils.flop_counter import flop_registry

    schemas = torch._C._jit_get_all_schemas()
    names = {schema.name for schema in schemas if schema.name.startswith("circulant_attention::")}
    names -= {"circulant_attention::unchanged", *custom_ops.OPDEFS}  # of Python
    assert len(names) >= 6
    for name in names:
        assert getattr(_ops, name.partition("::")[2]) in flop_registry, name
