"""Seeds, and what tests record to be shown."""

from __future__ import annotations

import pytest
import torch


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Shows what tests recorded to be shown, also those that passed in other processes."""
    for report in terminalreporter.stats.get("passed", []):
        for title, text in report.user_properties:
            terminalreporter.section(title)
            terminalreporter.write_line(text)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(20261120)
