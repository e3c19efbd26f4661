"""The tables of README.md that follow from ``counts.json``: see estimates.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.cases import Case
from benchmarks.cuda.estimates import (
    ARCHITECTURES,
    BANDWIDTH,
    CASES,
    CLOCK,
    FLOPS,
    MULTIPROCESSORS,
    Counts,
    in_one,
)

README = Path(__file__).parent / "README.md"

# Products, and how often features, values of A and numbers of a pixel are moved.
OPS = {
    "similarity": (1, 2, 1, 0),
    "apply": (1, 2, 1, 0),
    "apply_transposed": (1, 2, 1, 0),
    "transpose": (0, 0, 2, 0),
    "attention": (2, 4, 0, 1),
    "attention_backward": (5, 8, 0, 2),
}
FUSED = ("attention", "attention_backward")
COMPOSED = "attention, composed"


def floor(case: Case, op: str) -> tuple[float, float]:
    """Seconds for the least operations and for the least bytes of an op in float32."""
    products, features, values, numbers = (OPS | {COMPOSED: (2, 4, 4, 0)})[op]
    groups, channels, *_ = case.group_shape
    moved = groups * case.pixels * (features * channels + values * case.offsets + numbers)
    return products * case.product_flops / FLOPS, 4 * moved / BANDWIDTH


def duration(seconds: float) -> str:
    return f"{1e6 * seconds:.0f} us" if seconds < 1e-3 else f"{1e3 * seconds:.2f} ms"


def problem(case: Case) -> str:
    name = " (README)" if case.name == "readme" else ""
    return f"{', '.join(map(str, (*case.shape, case.window)))}{name}"


def limits(counts: Counts, name: str, op: str, dtype: str) -> list[tuple[str, float]]:
    """The seconds that each resource takes for an op, the most first."""
    seconds: dict[str, float] = {}
    for launch in counts.launches(name, op, dtype):
        for resource, cycles in launch.cycles().items():
            of_launch = launch.blocks * cycles / MULTIPROCESSORS / CLOCK
            seconds[resource] = seconds.get(resource, 0) + of_launch
    return sorted(seconds.items(), key=lambda one: -one[1])


def ceilings(_: Counts) -> Iterator[list[str]]:
    ops = ("apply", "transpose", *FUSED, COMPOSED)
    yield ["B, C, H, W, window", "similarity, apply, apply_transposed", *ops[1:]]
    for case in CASES.values():
        yield [problem(case), *(" \\| ".join(map(duration, floor(case, op))) for op in ops)]


def shares(counts: Counts) -> Iterator[list[str]]:
    yield ["kernel", *map(problem, CASES.values()), "limits of the README problem"]
    for op in OPS:
        cells, limit = [], "bandwidth"
        for name, case in CASES.items():
            least = max(floor(case, op))
            if op == "transpose":
                cells.append(f"{least / max(least, counts.transposition(case)):.2f}")
                continue
            bounds = [counts.seconds(name, op, whole) for whole in (False, True)]
            cells.append(", ".join(f"{least / max(least, bound):.2f}" for bound in bounds))
            if name == "readme":
                resources = limits(counts, name, op, "float32")[:2]
                limit = ", ".join(f"{resource} {least / s:.2f}" for resource, s in resources)
        yield [op, *cells, limit]


# Loops that multiply: multiply-adds of a thread, and the kernel.
MULTIPLYING = {
    "similarity, a channel": (64, "similarity_kernel<float, false>"),
    "similarity with the distance, a channel": (64, "similarity_kernel<float, true>"),
    "apply, 8 taps": (512, "apply_kernel<float, false>"),
    "apply_transposed, 8 taps": (512, "apply_kernel<float, true>"),
    "attention, scores, a channel": (32, "attention_kernel<float, false>"),
    "attention, sums, 4 taps of 4 channels": (64, "attention_kernel<float, false>"),
    "attention_backward, sums, the same": (64, "attention_backward_kernel<float, false>"),
}


def multiplying(counts: Counts) -> Iterator[list[str]]:
    slots = [f"issue slots, {architecture}" for architecture in ARCHITECTURES]
    yield ["loop", "FMA of a thread", "their cycles", "cycles of shared memory", *slots]
    for name, (multiplied, kernel) in MULTIPLYING.items():
        loops = [
            counts.sums(kernel, a) if "sums" in name else counts.loop(kernel, "products", a)
            for a in ARCHITECTURES
        ]
        numbers = [multiplied, multiplied // 4, loops[-1][1], *(loop[0] for loop in loops)]
        yield [name, *map(str, numbers)]


# Loops that move values of maps: kernel, role, place in the list, slots before there were tables.
MOVING = {
    "similarity, entries written": ("similarity_kernel<float, false>", "stores", -1, "88 - 102"),
    "similarity, values staged": ("similarity_kernel<float, false>", "loads", -1, "9.3 - 13.9"),
    "adjacency, entries written": ("adjacency_kernel<float>", "stores", -1, "41 - 43"),
    "apply, entries staged": ("apply_kernel<float, false>", "loads", -1, "37"),
    "apply_transposed, entries staged": ("apply_kernel<float, true>", "loads", -1, "37"),
    "apply, halo staged": ("apply_kernel<float, false>", "loads", 0, "15"),
    "transpose, entries read": ("transpose_kernel<unsigned int>", "loads", -1, "43"),
    "transpose, entries written": ("transpose_kernel<unsigned int>", "stores", -1, "88"),
}


def moving(counts: Counts) -> Iterator[list[str]]:
    yield ["loop", "before", "after"]
    for name, (*loop, before) in MOVING.items():
        yield [name, before, f"{counts.move(*loop)[0]:.1f}"]


def tensor_cores(counts: Counts) -> Iterator[list[str]]:
    yield ["B, C, H, W, window", "useful part of the products", *FUSED]
    for name, case in CASES.items():
        octets = counts.contents[f"{name} attention bfloat16"][0]["octets"]
        cells = [f"{100 * case.offsets / ((case.window // 2 + 1) * octets * 16):.0f} %"]
        for op in FUSED:
            seconds = counts.seconds(name, op, True, "bfloat16")
            rate = OPS[op][0] * case.product_flops / seconds / 1e12
            [limit, _], *_ = limits(counts, name, op, "bfloat16")
            cells.append(f"{duration(seconds)}, {rate:.0f} TFLOP/s ({limit})")
        yield [problem(case), *cells]


def maps(counts: Counts) -> Iterator[list[str]]:
    """Slots of a warp per entry: without and with tensor cores, and in the time of the bytes."""
    ops = ("similarity", "apply", "apply_transposed")
    yield ["B, C, H, W, window", *ops]
    for name, case in CASES.items():
        entries = case.group_shape[0] * case.pixels * case.offsets
        cells = []
        for op in ops:
            [slots] = counts.contents[f"{name} {op} bfloat16"]
            bandwidth = floor(case, op)[1] / 2 * CLOCK * 4 * MULTIPROCESSORS
            numbers = (slots["fma"], slots["mma"], bandwidth)
            cells.append(", ".join(f"{number / entries:.1f}" for number in numbers))
        yield [problem(case), *cells]


def granules(counts: Counts) -> Iterator[list[str]]:
    copies = counts.contents["sm_90 similarity_mma_kernel<Half, 64>"]["copy"]
    yield ["pixels that are copied at a time", *(str(8 // loads) for _, _, loads in copies)]
    yield ["slots", *(str(slots) for slots, _, _ in copies)]


# Up to the argument that says whether there are terms of the scores, and octets per round.
OCTETS = {
    "attention": ("attention_mma_kernel<Half, 64, ", 3),
    "gradients of queries": ("attention_mma_backward_kernel<Half, 64, false, false, ", 1),
    "gradients of keys and values": ("attention_mma_backward_kernel<Half, 64, true, true, ", 1),
}


def octets(counts: Counts) -> Iterator[list[str]]:
    every = "all branches"
    yield [
        "",
        "usual path",
        every,
        f"{every}, with a bias and a mask of keys",
        "a step beside them",
    ]
    for name, (kernel, together) in OCTETS.items():
        plain, terms = f"{kernel}false>", f"{kernel}true>"
        slots, _, _, all_slots = counts.loop(plain, "products")
        numbers = (slots, all_slots, counts.loop(terms, "products")[3])
        step, copy = counts.of_step(plain), counts.loop(plain, "copy")[0]
        cells = [f"{number / together:.0f}" for number in numbers]
        yield [name, *cells, f"{step}, and {copy} per 4 KiB that are copied"]


def phrases(counts: Counts) -> Iterator[str]:
    """What the text of README.md says of the counts, beside its tables."""
    slots, _ = counts.move("attention_kernel<float, false>", "loads")
    yield f"A copy takes {slots:.1f} issue slots"
    forward, backward = (counts.sums(f"{op}_kernel<float, false>")[0] for op in FUSED)
    yield f"sums take {forward} slots in the forward pass and {backward} in the gradients"
    launches = counts.launches("readme", "attention_backward")
    ratio = in_one(launches) / sum(launch.seconds(True) for launch in launches)
    yield f"one takes by count {ratio:.1f} of their time"

    kernel = "attention_mma_kernel<Half, 64, false>"
    of_octets = counts.of_step(kernel) + counts.loop(kernel, "products")[0]
    copies = counts.contents["sm_90 similarity_mma_kernel<Half, 64>"]["copy"]
    # Four octets of a channel per thread, and pixels that are found one by one in four lines.
    dilated, usual = of_octets + 4 * copies[-1][0] + 4 * 16, of_octets + 4 * copies[0][0]
    yield f"{round(dilated, -1)} slots of a warp where columns are dilated, {round(usual, -1)} "
    more = [
        counts.of_step(name.replace("64", "128")) - counts.of_step(name)
        for name in (f"{kernel}false>" for kernel, _ in OCTETS.values())
    ]
    yield f"takes {round(min(more), -1)} to {round(max(more), -1)} slots more"

    # With two channels of an octet per thread.
    onto, back = "similarity_mma_kernel<Half, 64>", "apply_mma_kernel<Half, 64, false>"
    rows = [
        sum(counts.loop(name, role)[0] * (1 + (role in ("copy", "check"))) for role in roles)
        for name, roles in (
            (onto, ("step", "line", "copy")),
            (back, ("step", "line", "copy", "checked line", "check")),
        )
    ]
    a, b = (50 * round(row / 50) for row in rows)
    yield f"takes a warp about {a} slots in similarity, {b} in apply"
    yield f"{counts.loop(back, 'check')[0]} slots per 16 bytes"


TABLES = {
    "ceilings": ceilings,
    "shares": shares,
    "multiplying": multiplying,
    "moving": moving,
    "tensor cores": tensor_cores,
    "octets": octets,
    "granules": granules,
    "maps": maps,
}


def with_tables(text: str, counts: Counts) -> str:
    """The text with each table computed anew, between ``<!-- NAME -->`` and ``<!-- end -->``."""
    for name, rows in TABLES.items():
        begin, end = f"<!-- {name} -->\n", "<!-- end -->\n"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        assert found, f"README.md has no place for the table {name!r}"
        head, *others = rows(counts)
        lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *others)]
        text = "\n".join([before + begin, *lines, "", end + after])
    return text


def write(counts: Counts) -> None:
    README.write_text(with_tables(README.read_text(), counts))
