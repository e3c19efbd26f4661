"""What an import brings, and what the door says without a process group."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import circulant_attention, circulant_attention.nn
import torch
circulant_attention.circulant_attention(*torch.randn(3, 1, 2, 9), 3)
loaded = [name for name in sys.modules if name.startswith("torch.distributed.tensor")]
assert not loaded, loaded
assert "circulant_attention.distributed" not in sys.modules
"""


def test_the_package_imports_no_dtensor():
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
