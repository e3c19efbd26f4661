"""Devices, seeds and the reference that every test shares."""

from __future__ import annotations

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-cuda",
        action="store_true",
        help="fail instead of skipping what needs a CUDA device",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames:
        devices = ["cpu"]
        if torch.cuda.is_available() or metafunc.config.getoption("--require-cuda"):
            devices.append("cuda")
        metafunc.parametrize("device", devices)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(20261120)
