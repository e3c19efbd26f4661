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


@pytest.fixture
def on_device(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the tensors of a test on each device."""
    monkeypatch.setattr(convention, "device", device)
