"""A Circulant in torch's containers: modules, files, batches of data, programs, trees."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from inputs import features, matrix
from torch import nn
from torch.testing import assert_close
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader

from circulant_attention import Circulant


def test_a_parameter_is_refused_with_what_to_do(device):
    A = matrix((5, 4), 3, device)
    module = nn.Module()
    with pytest.raises(TypeError, match=r"values = nn\.Parameter\(A\.values\).*with_values"):
        module.A = nn.Parameter(A)
    assert not isinstance(A, nn.Parameter)
    assert not A.requires_grad


def test_a_buffer_is_refused_with_what_to_do(device):
    A = matrix((5, 4), 3, device)
    module = nn.Module()
    with pytest.raises(
        TypeError, match=r"register_buffer\('A', A\.values\).*with_values\(self\.A\)"
    ):
        module.register_buffer("A", A)
    assert not dict(module.named_buffers())
    module.register_buffer("A", A.values)
    assert_close(A.with_values(module.A).values, A.values, rtol=0, atol=0)


def test_a_plain_attribute_of_a_module(device):
    module = nn.Linear(2, 2)
    module.A = matrix((5, 4), 3, device)
    assert module.A is module.A
    assert copy.deepcopy(module).A == module.A
    assert list(module.state_dict()) == ["weight", "bias"]


def test_torch_load_of_weights_only():
    A = matrix((5, 4), (3, 1), "cpu")
    file = io.BytesIO()
    torch.save({"A": A, "step": 3}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert loaded["A"] == A
    assert loaded["A"].window == (3, 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_data_loader(workers, device):
    A = matrix((5, 4), 3, device, batch=5)
    samples = [(A[i], torch.full((3,), float(i))) for i in range(5)]
    batches = list(DataLoader(samples, batch_size=2, num_workers=workers))
    assert [tuple(x.shape) for _, x in batches] == [(2, 3), (2, 3), (1, 3)]
    assert torch.cat([matrices for matrices, _ in batches]) == A


class _Apply(nn.Module):
    def forward(self, A: Circulant, x: torch.Tensor) -> tuple[torch.Tensor, Circulant]:
        return (2 * A) @ x, A.mT


def test_export_of_a_module_that_takes_a_circulant(device):
    A, x = matrix((5, 4), 3, device), features(6, 2, (5, 4), device)
    program = torch.export.export(_Apply(), (A, x))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    other = matrix((5, 4), 3, device)
    for exported in (program, torch.export.load(file)):
        y, transposed = exported.module()(other, x)
        assert_close(y, 2 * (other @ x))
        assert transposed == other.mT


def test_the_tree_names_its_leaf(device):
    A = matrix((5, 4), 3, device)
    leaves, spec = pytree.tree_flatten_with_path({"A": A})
    ((path, values),) = leaves
    assert pytree.keystr(path) == "['A'].values"
    assert pytree.tree_unflatten([values], spec)["A"] == A
