"""Issue slots and shared-memory wavefronts of the kernels' inner loops, counted in machine code.

Two kinds of loops are counted: those that multiply, per product, and those of the maps that move
values between global and shared memory, per load or store of a warp.

No disassembler is needed: an instruction of the architectures since sm_75 has 16 bytes, of which
the low 12 bits say what it does, and few kinds matter here. An instruction takes an issue slot of
its warp. A wavefront is a cycle of shared memory, 128 bytes for a warp; conflicts of banks would
add to what is counted.

``python tests/native/issue_slots.py LIBRARY``: a library that was compiled with ``--no-compress``.
"""

from __future__ import annotations

import re
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from resource_report import demangled, short_name

# By the low 9 bits, which do not depend on where operands come from.
NAMES = {
    0x02B: "DFMA",
    0x023: "FFMA",
    0x03C: "HMMA",
    0x03B: "LDSM",
    0x108: "MUFU",
    0x147: "BRA",
    0x181: "LDG",
    0x184: "LDS",
    0x186: "STG",
    0x188: "STS",
    0x1AE: "LDGSTS",
}
PRODUCTS = ("HMMA", "DFMA", "FFMA")
# 32 lanes with 1, 2, 4, 8 or 16 bytes.
WAVEFRONTS = {0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 2, 6: 4}
EM_CUDA = 190
# A predicate that is never true.
NEVER = 15
# Of a loop that is counted. Single values are moved in loops for absent neighbours only.
LEAST_PRODUCTS, LEAST_MATRIX_PRODUCTS, LEAST_MOVES = 12, 4, 4
# Slots and wavefronts per product that a loop may take.
LIMITS: dict[str, tuple[float, float]] = {
    "adjacency_kernel<T>": (2.30, 0.50),
    "apply_kernel<T, false>": (1.41, 0.24),
    "apply_kernel<T, true>": (1.39, 0.24),
    "apply_mma_kernel<T, 32, false>": (19.7, 3.0),
    "apply_mma_kernel<T, 32, true>": (20.3, 3.0),
    "apply_mma_kernel<T, 64, false>": (11.4, 2.0),
    "apply_mma_kernel<T, 64, true>": (11.7, 2.0),
    "attention_backward_kernel<T, false>": (2.30, 0.67),
    "attention_backward_kernel<T, true>": (2.30, 0.67),
    "attention_kernel<T, false>": (2.30, 0.67),
    "attention_kernel<T, true>": (2.30, 0.67),
    "attention_mma_backward_kernel<T, 32, false, false, false>": (11.1, 2.34),
    "attention_mma_backward_kernel<T, 32, false, false, true>": (42.0, 10.0),
    "attention_mma_backward_kernel<T, 32, true, true, false>": (10.6, 2.75),
    "attention_mma_backward_kernel<T, 32, true, true, true>": (16.1, 4.0),
    "attention_mma_backward_kernel<T, 64, false, false, false>": (6.8, 2.17),
    "attention_mma_backward_kernel<T, 64, false, false, true>": (20.9, 5.67),
    "attention_mma_backward_kernel<T, 64, true, true, false>": (6.3, 2.38),
    "attention_mma_backward_kernel<T, 64, true, true, true>": (9.2, 3.0),
    "attention_mma_backward_kernel<T, 128, false, false, false>": (4.4, 2.09),
    "attention_mma_backward_kernel<T, 128, false, false, true>": (11.5, 3.84),
    "attention_mma_backward_kernel<T, 128, false, true, true>": (7.3, 2.88),
    "attention_mma_backward_kernel<T, 128, true, false, true>": (6.6, 2.67),
    "attention_mma_backward_kernel<T, 128, true, true, false>": (4.3, 2.19),
    "attention_mma_kernel<T, 32, false>": (15.0, 2.5),
    "attention_mma_kernel<T, 32, true>": (19.6, 3.75),
    "attention_mma_kernel<T, 64, false>": (9.1, 2.25),
    "attention_mma_kernel<T, 64, true>": (11.3, 2.88),
    "attention_mma_kernel<T, 128, false>": (6.0, 2.13),
    "attention_mma_kernel<T, 128, true>": (7.1, 2.44),
    "similarity_kernel<T, false>": (1.18, 0.375),
    "similarity_kernel<T, true>": (2.21, 0.375),
    "similarity_mma_kernel<T, 32>": (47.3, 3.5),
    "similarity_mma_kernel<T, 64>": (25.2, 2.25),
    "similarity_mma_kernel<T, 128>": (13.6, 1.63),
}

# Slots per global load, and per global store, that a loop may take which moves the entries or
# features of a map. 0 where no loop does.
MOVE_LIMITS: dict[str, tuple[float, float]] = {
    "adjacency_kernel<T>": (11.3, 17.0),
    "apply_kernel<T, false>": (15.1, 0.0),
    "apply_kernel<T, true>": (17.6, 0.0),
    "similarity_kernel<T, false>": (8.8, 16.3),
    "similarity_kernel<T, true>": (8.8, 17.1),
    "transpose_kernel<T>": (16.6, 15.4),
}


@dataclass(frozen=True)
class Loop:
    """An inner loop: its instructions, whether they are executed each time or not."""

    slots: int
    kinds: Counter[str]
    wavefronts: int

    @property
    def products(self) -> int:
        """The instructions that multiply: of tensor cores if there are any."""
        return next((self.kinds[name] for name in PRODUCTS if self.kinds[name]), 0)

    @property
    def loads(self) -> int:
        """The loads from global memory, to registers or to shared memory."""
        return self.kinds["LDG"] + self.kinds["LDGSTS"]

    @property
    def stores(self) -> int:
        """The stores to global memory."""
        return self.kinds["STG"]


def cubins(library: Path) -> Iterator[tuple[str, bytes]]:
    """The machine code in a library, by architecture."""
    data = library.read_bytes()
    for found in re.finditer(rb"\x7fELF\x02\x01", data):
        elf = data[found.start() :]
        if struct.unpack_from("<H", elf, 18)[0] == EM_CUDA:
            flags = struct.unpack_from("<I", elf, 48)[0]
            # The number of the architecture has moved with a newer form of the file.
            number = flags >> 8 & 0xFF if elf[8] >= 8 else flags & 0xFF
            yield f"sm_{number}", elf


def functions(elf: bytes) -> Iterator[tuple[str, bytes]]:
    """The kernels of a cubin: mangled names and code."""
    at, size, count, names_index = (
        struct.unpack_from("<Q", elf, 40)[0],
        *struct.unpack_from("<HHH", elf, 58),
    )
    sections = [struct.unpack_from("<IIQQQQ", elf, at + i * size) for i in range(count)]
    names = sections[names_index][4]
    for section in sections:
        start = names + section[0]
        name = elf[start : elf.index(b"\0", start)].decode()
        if name.startswith(".text."):
            yield name.removeprefix(".text."), elf[section[4] : section[4] + section[5]]


def branch(low: int, high: int, split: bool) -> int:
    """How far a branch goes, in bytes from the next instruction.

    The distance has 48 bits from bit 34 on; in the newer form (``split``) its lowest byte is in
    bits 16 to 23.
    """
    far = (low >> 34) | (high & 0x3FFFF) << 30
    far -= (far >> 47) << 48
    return 4 * (far << 8 | low >> 16 & 0xFF) if split else 4 * far


Words = list[tuple[int, int]]


def decoded(code: bytes) -> tuple[Words, list[str], dict[int, int]]:
    """The instructions of a kernel, the names of those in ``NAMES``, and where branches go."""
    words = list(struct.iter_unpack("<QQ", code))
    names = [NAMES.get(low & 0x1FF, "") for low, _ in words]
    branches = [i for i, name in enumerate(names) if name == "BRA"]
    # A kernel ends with a branch to itself, which tells the form.
    last = branches[-1]
    split = branch(*words[last], True) == -16
    assert branch(*words[last], split) == -16, "not the code of a known architecture"
    targets = {i: i + 1 + branch(*words[i], split) // 16 for i in branches[:-1]}
    return words, names, targets


def loops(code: bytes) -> list[Loop]:
    """The innermost loops of a kernel."""
    words, names, targets = decoded(code)
    ranges = [(target, i + 1) for i, target in targets.items() if 0 <= target <= i]
    inner = [
        one
        for one in ranges
        if not any(one != o and one[0] <= o[0] and o[1] <= one[1] for o in ranges)
    ]
    return [
        Loop(end - start, Counter(filter(None, names[start:end])), wavefronts(words[start:end]))
        for start, end in inner
    ]


def wavefronts(words: Words) -> int:
    """The wavefronts of loads from shared memory and stores to it, and of copies to it."""
    total = 0
    for low, high in words:
        name = NAMES.get(low & 0x1FF, "")
        # Compilers put loads that are never executed between copies.
        if low >> 12 & 15 == NEVER:
            continue
        if name in ("LDS", "STS", "LDGSTS"):
            total += WAVEFRONTS.get(high >> 9 & 7, 4)
        elif name == "LDSM":
            total += (1, 2, 4)[min(high >> 8 & 3, 2)]
    return total


Found = dict[str, dict[str, list[Loop]]]
Worst = dict[str, tuple[float, float]]


def all_loops(library: Path) -> Found:
    """Per kernel and architecture, the inner loops, by size."""
    found: Found = {}
    for architecture, elf in cubins(library):
        named = list(functions(elf))
        for name, (_, code) in zip(demangled([n for n, _ in named]), named, strict=True):
            of_kernel = sorted(loops(code), key=lambda loop: (loop.products, loop.slots))
            found.setdefault(short_name(name), {})[architecture] = of_kernel
    return found


def those(found: Found, counted: Callable[[str, Loop], bool]) -> Found:
    """The loops for which ``counted`` is true, by the name of the kernel and the loop."""
    kept: Found = {}
    for kernel, of_kernel in found.items():
        for architecture, every in of_kernel.items():
            if some := [loop for loop in every if counted(kernel, loop)]:
                kept.setdefault(kernel, {})[architecture] = some
    return kept


def multiplies(kernel: str, loop: Loop) -> bool:
    return loop.products >= (LEAST_MATRIX_PRODUCTS if loop.kinds["HMMA"] else LEAST_PRODUCTS)


def moves(kernel: str, loop: Loop) -> bool:
    is_map = name_of(kernel) in MOVE_LIMITS
    return is_map and not multiplies(kernel, loop) and loop.loads + loop.stores >= LEAST_MOVES


def name_of(kernel: str) -> str:
    """The same name for all types."""
    return re.sub(r"<(Half|BFloat16|float|unsigned short|unsigned int)", "<T", kernel)


def table(found: Found) -> str:
    """Per loop and architecture, slots / products, or loads, or stores, and wavefronts."""
    columns = sorted({a for row in found.values() for a in row}, key=lambda a: int(a[3:]))
    lines = []
    for kind, counted, per in (
        ("slots/products, wavefronts", multiplies, lambda loop: loop.products),
        ("slots/loads or stores, wavefronts", moves, lambda loop: loop.loads + loop.stores),
    ):
        lines.append(f"{kind:56s}" + "".join(f"{c:>15s}" for c in columns))
        for kernel, of_kernel in sorted(those(found, counted).items()):
            for i in range(max(len(every) for every in of_kernel.values())):
                cells = {
                    a: f"{every[i].slots}/{per(every[i])}, {every[i].wavefronts}"
                    for a, every in of_kernel.items()
                    if i < len(every)
                }
                name = f"{kernel}, loop {i + 1}"
                lines.append(f"{name:56s}" + "".join(f"{cells.get(c, '-'):>15s}" for c in columns))
    return "\n".join(lines)


def worst(found: Found, of_loop: Callable[[Loop], tuple[float, float]]) -> Worst:
    """The most of two numbers of the loops of a kernel, for each name.

    Without float64, which some architectures compute by other instructions.
    """
    most: Worst = {}
    for kernel, of_kernel in found.items():
        if "double" in kernel or "unsigned long" in kernel:
            continue
        for loop in (loop for every in of_kernel.values() for loop in every):
            first, second = most.get(name_of(kernel), (0.0, 0.0))
            numbers = of_loop(loop)
            most[name_of(kernel)] = (max(first, numbers[0]), max(second, numbers[1]))
    return most


def worst_products(found: Found) -> Worst:
    """Slots and wavefronts per product."""
    return worst(
        those(found, multiplies),
        lambda loop: (loop.slots / loop.products, loop.wavefronts / loop.products),
    )


def worst_moves(found: Found) -> Worst:
    """Slots per global load and per global store.

    Without bfloat16, to which some architectures convert by several instructions.
    """
    return worst(
        those(found, lambda kernel, loop: moves(kernel, loop) and "BFloat16" not in kernel),
        lambda loop: (
            loop.slots / loop.loads if loop.loads else 0.0,
            loop.slots / loop.stores if loop.stores else 0.0,
        ),
    )


def summary(found: Found) -> str:
    """The most that loops of a kernel take on any architecture, and what they may take."""
    lines = []
    for kind, limits, most in (
        ("slots and wavefronts per product", LIMITS, worst_products(found)),
        ("slots per load and per store", MOVE_LIMITS, worst_moves(found)),
    ):
        lines.append(f"{kind:56s}{'counted':>16s}{'allowed':>16s}")
        for name, counted in sorted(most.items()):
            pairs = (counted, limits.get(name, (0.0, 0.0)))
            cells = [f"{first:.2f}, {second:.2f}" for first, second in pairs]
            lines.append(f"{name:56s}" + "".join(f"{cell:>16s}" for cell in cells))
    return "\n".join(lines)


def problems(found: Found) -> Iterator[str]:
    """Loops that take more than the limits allow, and kernels without a limit."""
    for limits, most, words in (
        (LIMITS, worst_products(found), ("multiplies", "slots and {:.3f} wavefronts per product")),
        (MOVE_LIMITS, worst_moves(found), ("moves", "slots per load and {:.3f} per store")),
    ):
        for name in sorted(limits.keys() - most.keys()):
            yield f"{name} has no loop that {words[0]}"
        for name, (first, second) in sorted(most.items()):
            allowed = limits.get(name, (0.0, 0.0))
            if first > allowed[0] or second > allowed[1]:
                numbers = f"{first:.3f} {words[1].format(second)}"
                yield f"{name}: {numbers}, allowed are {allowed}"


if __name__ == "__main__":
    loops_of_library = all_loops(Path(sys.argv[1]))
    print(table(loops_of_library))
    for numbers_of in (worst_products(loops_of_library), worst_moves(loops_of_library)):
        for kernel_name, numbers in sorted(numbers_of.items()):
            print(f'    "{kernel_name}": ({numbers[0]:.3f}, {numbers[1]:.3f}),')
