"""The timed problems on a GPU, in order of importance."""

from benchmarks.cases import CASES, Case

GPU_CASES = {
    "readme": CASES["readme"],
    "large": Case("large", 8, 64, (256, 256), 15),
    "large_window": CASES["large_window"],
    "large_both": Case("large_both", 8, 64, (256, 256), 35),
    "heads": CASES["heads"],
    "many_small": CASES["many_small"],
    "volume": CASES["volume"],
    "signal": CASES["signal"],
}
