"""Devices, seeds and what tests record to be shown: for every test."""

from __future__ import annotations

import pytest
import torch

# Files and tests of thousands of small calls or of large grids, up to minutes of emulation; what
# they compute is computed there in other tests, too.
SLOW_WHEN_EMULATED = {
    "parity.test_array.test_entries",
    "parity.test_readme",
    "parity.test_rules.test_attention_derivatives",
    "parity.test_rules.test_scale_derivatives",
    "parity.test_rules.test_similarity_derivatives",
    "parity.test_rules.test_softmax_derivatives",
    "test_axial.test_gradcheck_of_the_transformer",
    "test_cosine.test_gradcheck",
    "test_differentiation",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-cuda",
        action="store_true",
        help="fail instead of skipping what needs a CUDA device",
    )
    parser.addoption(
        "--emulated",
        action="store_true",
        help="run the tests that take a device on an emulated one, too: see emulated_device.py",
    )


def pytest_configure(config: pytest.Config) -> None:
    # Tolerances count roundings of float32, and some results must repeat bit for bit; by default
    # cuDNN rounds to TF32 in convolutions, and sums their gradients in any order.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    if torch.__version__ < (2, 13):
        # An older torch says this once even where the checks are disabled explicitly.
        unasked = "ignore:Sparse invariant checks are implicitly disabled:UserWarning"
        config.addinivalue_line("filterwarnings", unasked)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames:
        devices = ["cpu"]
        if torch.cuda.is_available() or metafunc.config.getoption("--require-cuda"):
            devices.append("cuda")
        emulated = metafunc.config.getoption("--emulated")
        file = metafunc.module.__name__
        names = {file, f"{file}.{metafunc.function.__name__}"}
        if emulated and names.isdisjoint(SLOW_WHEN_EMULATED):
            devices.append("emulated")
        metafunc.parametrize("device", devices)


@pytest.fixture(autouse=True)
def _device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.config.getoption("--emulated"):
        import emulated_device

        if "device" in request.fixturenames and request.getfixturevalue("device") == "emulated":
            emulated_device.prepare(monkeypatch)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Shows what tests recorded to be shown, also those that passed in other processes."""
    for report in terminalreporter.stats.get("passed", []):
        for title, text in report.user_properties:
            terminalreporter.section(title)
            terminalreporter.write_line(text)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(20261120)
