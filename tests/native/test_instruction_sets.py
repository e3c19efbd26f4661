"""The kernels with every instruction set of the processor, not only with the fastest."""

from __future__ import annotations

import os

import kernel_runs
import pytest

from circulant_attention.ops import library as _library

# A library that takes the place of the CPU library does not choose between instruction sets.
pytestmark = pytest.mark.skipif(
    _library.LIBRARY_VARIABLE in os.environ, reason="another library is loaded instead"
)


def test_a_wrong_name_is_refused_with_the_right_ones():
    ran = kernel_runs.use_instruction_set("sse9")
    assert ran.returncode == 1
    assert "CIRCULANT_ATTENTION_CPU=sse9 is not an instruction set of this processor" in ran.stderr
    assert kernel_runs.instruction_sets()[-1] == "plain"


def test_the_named_instruction_set_is_used():
    """Vectors of another width sum in another order: each set has bits of its own."""
    names = kernel_runs.instruction_sets()
    assert len({kernel_runs.use_instruction_set(name).stdout for name in names}) == len(names)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["avx512", "avx2", "plain"])
def test_every_instruction_set(name):
    fastest, *others = kernel_runs.instruction_sets()
    if name == fastest:
        pytest.skip(f"all tests ran with {name}, the fastest")
    if name not in others:
        pytest.skip(f"this processor has no {name}")
    kernel_runs.check_tests(
        "test_values or inf or finite or test_native_gradient",
        # The instruction sets share the source: each test runs with one more of them.
        part=f"{others.index(name)}/{len(others)}",
        CIRCULANT_ATTENTION_CPU=name,
    )
