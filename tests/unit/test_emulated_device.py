"""The emulated device finds what a GPU would: see ``emulated_device.py``."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from circulant_attention import Circulant, circulant_attention


@pytest.fixture
def emulated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    if not request.config.getoption("--emulated"):
        pytest.skip("--emulated is not given")
    import emulated_device

    emulated_device.prepare(monkeypatch)
    return torch.device("emulated", 0)


def test_everything_is_where_the_inputs_are(emulated: torch.device):
    q, k, v = (torch.randn(1, 4, 6, 5, device=emulated, requires_grad=True) for _ in range(3))
    y, A = circulant_attention(q, k, v, 3)
    y.sum().backward()
    for x in (y, A.values, A.crow_indices(), A.mT.values, A.sum(1).values, q.grad):
        assert x.device == emulated
    assert_close(A.cpu() @ v.cpu(), y.cpu())


@pytest.mark.parametrize(
    "mix",
    [
        lambda here, there: here + there,
        lambda here, there: torch.cat((here, there)),
        lambda here, there: circulant_attention(here, there, here, 3),
        lambda here, there: Circulant(3, (1, 1, 6), device=here.device) @ there,
    ],
)
def test_a_tensor_of_the_cpu_is_an_error(mix, emulated: torch.device):
    there = torch.ones(1, 1, 6)
    with pytest.raises((RuntimeError, ValueError), match=r"emulated|device"):
        mix(there.to(emulated), there)
