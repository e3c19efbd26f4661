"""What a round of each loop of the kernels takes, for the estimates of ``benchmarks/cuda``.

Where ``issue_slots.py`` counts all instructions of a loop, this follows branches: those that are
taken in full tiles and inside of grids.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from issue_slots import (
    LEAST_MATRIX_PRODUCTS,
    LEAST_MOVES,
    LEAST_PRODUCTS,
    NAMES,
    PRODUCTS,
    Words,
    cubins,
    decoded,
    functions,
    wavefronts,
)
from resource_report import demangled, short_name

# Predicates that are always true.
ALWAYS = 7
# Of 16 bytes per thread.
WIDE = 6


@dataclass(frozen=True)
class Round:
    """One round of a loop, without the loops inside of it: the path with the most products and
    copies of 16 bytes, and of these the one with the fewest slots.

    Two other paths: ``copying``, with the most copies of 16 bytes only, and ``storing``, with the
    most products, copies of 16 bytes, and stores to global memory.
    """

    depth: int
    everything: int  # instructions of the loop, with the loops inside
    slots: int
    copying: int  # slots of that path
    storing: int
    wavefronts: int
    products: int
    loads: int
    stores: int
    wide: int  # copies of 16 bytes, which are among the loads


def rounds(code: bytes) -> list[Round]:
    """The loops of a kernel, from the outside to the inside and from first to last."""
    words, names, targets = decoded(code)
    ends: dict[int, int] = {}
    for i, target in targets.items():
        if 0 <= target <= i:
            ends[target] = max(ends.get(target, 0), i + 1)
    # What branches back from behind a loop into it is no loop.
    ranges = [
        (start, end)
        for start, end in sorted(ends.items())
        if not any(first < start < last < end for first, last in ends.items())
    ]
    product = next((name for name in PRODUCTS if name in names), "")
    copies = {i for i, word in enumerate(words) if is_wide(*word)}
    multiplies = {i for i, name in enumerate(names) if name == product}
    found = []
    for start, end in ranges:
        inside = [(a, b) for a, b in ranges if start <= a and b <= end and (a, b) != (start, end)]
        own = {i for i in range(start, end) if not any(a <= i < b for a, b in inside)}
        # Loops that store single values are those of borders.
        stores = {
            i
            for i in range(start, end)
            if names[i] == "STG" and (i in own or words[i][1] >> 9 & 7 == WIDE)
        }
        if (usual := path(words, targets, (start, end), own, multiplies | copies)) is None:
            continue
        kinds = Counter(names[i] for i in usual)
        found.append(
            Round(
                sum(a <= start and end <= b for a, b in ranges),
                end - start,
                len(usual),
                len(path(words, targets, (start, end), own, copies) or ()),
                len(path(words, targets, (start, end), own, multiplies | copies | stores) or ()),
                wavefronts([words[i] for i in usual]),
                kinds[product] if product else 0,
                kinds["LDG"] + kinds["LDGSTS"],
                kinds["STG"],
                len(copies & {*usual}),
            )
        )
    return found


def path(
    words: Words, targets: dict[int, int], loop: tuple[int, int], own: set[int], wanted: set[int]
) -> tuple[int, ...] | None:
    """The instructions among ``own`` on the shortest of the paths with the most ``wanted`` ones."""
    start, end = loop
    # From each instruction on: those that are wanted, slots (negative), and the path.
    best: dict[int, tuple[int, int, tuple[int, ...]] | None] = {}
    for i in reversed(range(start, end)):
        low, high = words[i]
        target = targets.get(i, i + 1)
        # Also without the second predicate and the form of a branch for threads that diverge.
        is_certain = i in targets and low >> 12 & 15 == ALWAYS and high >> 23 & 31 == ALWAYS
        nexts = [] if is_certain or i + 1 == end else [best[i + 1]]
        if target == start:
            nexts.append((0, 0, ()))
        elif i < target < end:
            nexts.append(best[target])
        elif start < target <= i and is_certain:
            nexts.append(best[i + 1])
        most = max((one for one in nexts if one is not None), default=None)
        if most is not None:
            mine = i in own
            best[i] = (most[0] + (i in wanted), most[1] - mine, (i, *most[2]) if mine else most[2])
        else:
            best[i] = None
    return way[2] if (way := best[start]) else None


def is_wide(low: int, high: int) -> bool:
    """Whether it copies 16 bytes per thread to shared memory."""
    return NAMES.get(low & 0x1FF) == "LDGSTS" and high >> 9 & 7 == WIDE


Counts = dict[str, list[list[int]]]


def counts(every: list[Round]) -> Counts:
    """The inner loops of a kernel, each once, by what they do: see benchmarks/cuda/estimates.py."""
    found: dict[str, set[tuple[int, ...]]] = {}
    step = 0
    for i, one in enumerate(every):
        if i + 1 < len(every) and every[i + 1].depth > one.depth:
            continue
        numbers = (one.slots, one.wavefronts, one.products, one.everything)
        if one.products >= LEAST_PRODUCTS:
            found.setdefault("products", set()).add(numbers)
            step = max((j for j in range(i) if every[j].depth < one.depth), default=0)
        elif one.loads >= LEAST_MOVES or one.stores >= LEAST_MOVES:
            moved = (one.slots, one.wavefronts, one.loads + one.stores)
            found.setdefault("loads" if one.loads else "stores", set()).add(moved)
    if step:
        tile = max(j for j in range(step + 1) if every[j].depth == 1)
        for role, j in ("step", step), ("tile", tile):
            found[role] = {(every[j].slots, every[j].wavefronts)}
        inside = every[step + 1 :]
        copies = [i for i, one in enumerate(inside) if one.loads == 1]
        for i in copies[:2]:
            if inside[i].wide:
                found["line"] = {(inside[i - 1].slots, inside[i - 1].wavefronts)}
                found["row"] = {(inside[i - 2].slots, inside[i - 2].wavefronts)}
            found["copy" if inside[i].wide else "number"] = {
                (inside[i].slots, inside[i].wavefronts)
            }
    return {role: [list(numbers) for numbers in sorted(some)] for role, some in found.items()}


def map_counts(every: list[Round]) -> Counts:
    """The loops of a map on tensor cores, by what they do: slots and wavefronts.

    Of the step also the slots without products, and of one that writes entries.
    """

    def is_inner(i: int) -> bool:
        return i + 1 == len(every) or every[i + 1].depth <= every[i].depth

    def outer(i: int) -> int:
        return max(j for j in range(i) if every[j].depth < every[i].depth)

    products = next(i for i, one in enumerate(every) if one.products >= LEAST_MATRIX_PRODUCTS)
    step = outer(products)
    inside = [i for i in range(step + 1, len(every)) if is_inner(i)]
    # Features are copied first, then the entries of apply.
    copies = [i for i in inside if every[i].wide and every[i].loads == 1]
    roles = {"products": products, "step": step, "copy": copies[0], "line": outer(copies[0])}
    if len(copies) > 1:
        roles |= {"word": copies[1], "check": inside[0], "checked line": outer(inside[0])}
    else:
        roles["word"] = next(i for i in inside if every[i].stores and every[i].wavefronts == 4)
    roles["run"] = outer(roles["word"])
    # Rows of the tile are copied before the steps, or written after them.
    after = [i for i in range(step + 1, len(every)) if every[i].depth == every[step].depth]
    roles["tile"] = outer(step)
    roles["row"] = after[0] if after else roles["tile"] + 1
    found = {role: [[every[i].slots, every[i].wavefronts]] for role, i in roles.items()}
    found["products"][0] += [every[products].products, every[products].everything]
    found["step"][0] += [every[step].copying, every[step].storing]
    for role in "run", "row":
        found[role][0][0] = every[roles[role]].storing
    # Of octets that are copied as a whole, in halves, in quarters and pixel by pixel.
    loops = [every[i] for i in inside if outer(i) == roles["line"] and every[i].loads]
    ordered = sorted(loops, key=lambda one: one.loads)
    found["copy"] = [[one.slots, one.wavefronts, one.loads] for one in ordered]
    return found


def all_counts(library: Path, architectures: tuple[str, ...]) -> dict[str, Counts]:
    """By architecture and kernel: in float32, and in float16 on tensor cores, the maps also not."""
    counted = r"_mma\w*<Half|<(float|unsigned int)\b|^(similarity|apply)_kernel<Half"
    found = {}
    for architecture, elf in cubins(library):
        if architecture not in architectures:
            continue
        named = list(functions(elf))
        for name, (_, code) in zip(demangled([n for n, _ in named]), named, strict=True):
            kernel = short_name(name)
            if re.search(counted, kernel):
                is_map = re.match(r"(similarity|apply)_mma", kernel)
                if of_kernel := (map_counts if is_map else counts)(rounds(code)):
                    found[f"{architecture} {kernel}"] = of_kernel
    return dict(sorted(found.items()))
