"""Times calls on a GPU, and measures its peak rates."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch

COPY_BYTES = 2**30
PRODUCT_SIZE = 8192
# The calls of a batch are queued together, so that the time between two events is that of the GPU
# unless the CPU cannot keep up.
BATCH_SECONDS = 0.02
MOST_CALLS = 1000


@dataclass(frozen=True)
class Times:
    """Seconds of one call, over batches of calls."""

    median: float
    iqr: float
    batches: int
    calls: int


def seconds_of(call: Callable[[], object], calls: int) -> float:
    """Seconds per call of ``calls`` queued calls."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / calls


def times(call: Callable[[], object], budget_seconds: float) -> Times:
    """Median and quartiles over as many batches as fit, at least three.

    ``call`` must be warm: nothing is compiled here.
    """
    one = max(seconds_of(call, 1), 1e-6)
    calls = max(1, min(MOST_CALLS, int(BATCH_SECONDS / one)))
    batches = max(3, min(50, int(budget_seconds / (calls * one))))
    measured = [seconds_of(call, calls) for _ in range(batches)]
    quartiles = statistics.quantiles(measured, n=4)
    return Times(statistics.median(measured), quartiles[2] - quartiles[0], batches, calls)


def copy_bandwidth() -> float:
    """Bytes read and written per second by a copy on the device."""
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)

    copy()
    return 2 * COPY_BYTES / times(copy, 0.5).median


def product_rate(dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product of random numbers; float32 without TF32."""
    a, b = (torch.randn(PRODUCT_SIZE, PRODUCT_SIZE, device="cuda").to(dtype) for _ in range(2))
    result = torch.empty_like(a)

    def product() -> None:
        torch.mm(a, b, out=result)

    product()
    return 2 * PRODUCT_SIZE**3 / times(product, 1.0).median
