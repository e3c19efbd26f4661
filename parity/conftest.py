"""What holds for every parity test."""

from collections.abc import Iterator

import pytest
import torch

from parity import convention


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Compute with one thread: the arrays are so small that several would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def on_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the tensors of a test that has a ``device`` there."""
    if "device" in request.fixturenames:
        monkeypatch.setattr(convention, "device", request.getfixturevalue("device"))
