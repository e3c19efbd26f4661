"""Repeated calls, timed in turns: other load slows all of a turn alike."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

Clock = Callable[[], float]
# A call is repeated within a turn, once at least, until this time is over; its fastest time counts.
# So the caches hold what it reads, whatever the call before it was.
TURN_SECONDS = 0.02
TURNS = 3  # at least


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Sets the number of torch's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fastest(call: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """The seconds of the fastest of the calls in one turn."""
    times: list[float] = []
    end = time.perf_counter() + TURN_SECONDS
    while len(times) < 2 or time.perf_counter() < end:
        start = clock()
        call()
        times.append(clock() - start)
    return min(times)


def turns(budget: float) -> Iterator[int]:
    """The numbers of the turns, for `budget` seconds."""
    end = time.perf_counter() + budget
    turn = 0
    while turn < TURNS or time.perf_counter() < end:
        yield turn
        turn += 1


def in_turns(
    calls: list[Callable[[], object]], budget: float, clock: Clock = time.perf_counter
) -> list[list[float]]:
    """The seconds of each call, turn by turn."""
    for call in calls:
        call()
    return [[fastest(call, clock) for call in calls] for _ in turns(budget)]


def spread(numbers: list[float]) -> dict[str, float]:
    """The median and the quartiles."""
    low, middle, high = statistics.quantiles(numbers, n=4)
    return {"median": middle, "low": low, "high": high}


def shortest(seconds: list[float]) -> dict[str, float]:
    """The shortest time and the median."""
    return {"best": min(seconds), "median": statistics.median(seconds)}


def largest(numbers: list[float]) -> dict[str, float]:
    """The largest number and the median."""
    return {"best": max(numbers), "median": statistics.median(numbers)}
