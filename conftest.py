"""For every test: its devices, its random seed, and what it records to be shown at the end."""

from __future__ import annotations

from typing import Any

import pytest
import torch

# Nothing new would be found there by the parity tests, which call the same functions, nor by finite
# differences and random problems, which are thousands of small calls.
NOT_EMULATED = (
    *("parity.", "test_differentiation.", "test_properties.", "test_denoising.test_gradients"),
    *("test_contract.test_derivatives", "test_windows.test_derivatives"),
    *("has_every_derivative", "gradcheck", "random_shapes"),
)
# There one grid, one real dtype and one complex one are enough: the others take the same path.
EMULATED_GRID = (3, 4, 5)
EMULATED_DTYPES = (torch.float64, torch.complex64)


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
        name = f"{metafunc.module.__name__}.{metafunc.function.__name__}"
        emulated = metafunc.config.getoption("--emulated")
        if emulated and not any(part in name for part in NOT_EMULATED):
            devices.append("emulated")
        metafunc.parametrize("device", devices)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = [item for item in items if not _is_repeated(getattr(item, "callspec", None))]


def _is_repeated(call: Any) -> bool:
    """Whether another test takes the same path on the emulated device."""
    if call is None or call.params.get("device") != "emulated":
        return False
    import inputs

    sizes = {size for size, _ in inputs.GRIDS} - {EMULATED_GRID}
    return any(
        given not in EMULATED_DTYPES if isinstance(given, torch.dtype) else given in sizes
        for name, given in call.params.items()
        if name == "size" or isinstance(given, torch.dtype)
    )


@pytest.fixture(autouse=True)
def _device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.config.getoption("--emulated"):
        import emulated_device

        if "device" in request.fixturenames and request.getfixturevalue("device") == "emulated":
            emulated_device.prepare(monkeypatch)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Shows what tests recorded, also those that passed in other processes."""
    for report in terminalreporter.stats.get("passed", []):
        for title, text in report.user_properties:
            terminalreporter.section(title)
            terminalreporter.write_line(text)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(20261120)
