"""Defects that the check of the kernels has to find.

Each replaces a piece of a source, once, compiles the kernels with it and with sanitizers, for
float32, and runs the check. ``python -m cuda_on_host.mutants [NAME ...]``, run in ``tests``, prints
how each was found, and ends with status 1 if one was not.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cuda_on_host.build import BUILD, CHECK, HERE, ROOT, SANITIZE, Ninja, kernels


@dataclass(frozen=True)
class Mutant:
    """``before`` becomes ``after`` in csrc/cuda/``file``.

    When that is a header, ``kernel`` is the source that is compiled with it. ``part`` is the part
    of the check that finds it.
    """

    name: str
    file: str
    before: str
    after: str
    kernel: str = ""
    part: str = "borders"


def barrier(file: str, comment: str, name: str) -> Mutant:
    """A barrier that is gone."""
    return Mutant(name, file, f"__syncthreads();  // {comment}", "//")


def of_attention(
    name: str, file: str, before: str, after: str, part: str = "attention", kernel: str = ""
) -> Mutant:
    """A defect of fused attention; in its header, with the kernel of the gradients."""
    return Mutant(
        f"attention-{name}", file, before, after, kernel or (B if file == H else ""), part
    )


def barrier_of_attention(file: str, comment: str, name: str, kernel: str = "") -> Mutant:
    """A barrier of fused attention that is gone."""
    before = f"__syncthreads();  // {comment}\n"
    return of_attention(f"barrier-{name}", file, before, "\n", kernel=kernel)


S, A, T, W, R = "similarity.cu", "apply.cu", "transpose.cu", "entries.cuh", "packed.cuh"
G, L = "tile.cuh", "launch.h"
F, B, H, P = "attention.cu", "attention_backward.cu", "attention_block.cuh", "attention_plan.cu"
UNWRAPPED = "[](int i, int, int) { return i; }("
WRAP_W, WRAP_H = (
    "neighbour(w, tap, s.size.w, s.window.w)",
    "neighbour(h, b, s.size.h, s.window.h)",
)
OTHER_TYPES = re.compile(
    r"CIRCULANT_INSTANTIATE\((c10::.*|double)\)|template void transpose.const uint(16|64)_t"
)
FLAGS = [*SANITIZE, "-w", "-DCHECK_FLOAT32_ONLY"]

MUTANTS = [
    barrier(S, "the chunk before, or `out`", "similarity-barrier-before-chunk"),
    barrier(S, "the chunk is complete", "similarity-barrier-after-chunk"),
    barrier(S, "what `out` or the last chunk", "similarity-barrier-before-out"),
    barrier(S, "`out` is complete", "similarity-barrier-after-out"),
    barrier(A, "halo and weights have been read", "apply-barrier-before"),
    barrier(A, "halo and weights are complete", "apply-barrier-after"),
    barrier(T, "the weights before these", "transpose-barrier-before"),
    barrier(T, "the weights are complete", "transpose-barrier-after"),
    # Threads of a block that do not stay together.
    Mutant("similarity-early-end", S, "if (!valid) continue;", "if (!valid) return;"),
    Mutant(
        "similarity-barrier-in-branch", S, "if (!valid) continue;", "if (valid) __syncthreads();"
    ),
    # Less shared memory than is used, or packs that are not aligned.
    Mutant("similarity-short-halo", S, "(t.h() + box.h - 1); };", "(t.h() + box.h - 2); };"),
    Mutant("similarity-short-table", S, "(t.rows() + halo_rows(t)) *", "halo_rows(t) *"),
    Mutant("similarity-short-out", S, "32 * kOutPitch<A>) *", "31 * kOutPitch<A>) *"),
    Mutant("similarity-misaligned", S, "| 1) * kPack<A>;", "| 1) * kPack<A> + 1;"),
    Mutant(
        "apply-short-weights",
        A,
        "size_t(batch(t)) * weights_pitch",
        "size_t(batch(t) - 1) * weights_pitch",
    ),
    Mutant(
        "apply-short-halo", A, "size_t(halo_rows(t)) * pitch", "size_t(halo_rows(t) - 1) * pitch"
    ),
    Mutant("apply-misaligned", A, "tile.pixels() + kPack<A>", "tile.pixels() + 1"),
    Mutant("transpose-short", T, "kTaps * kPitch * sizeof(T)", "(kTaps - 1) * kPitch * sizeof(T)"),
    # Shared memory that is allowed for one launch only.
    Mutant("launch-allows-own", L, "current_device().shared_memory));", "int(shared)));", A),
    # Halos that do not wrap, in each dim; places that are too far away to wrap once.
    Mutant("similarity-no-wrap-w", S, "halo_coordinate(origin.w", UNWRAPPED + "origin.w"),
    Mutant("similarity-no-wrap-h", S, "halo_coordinate(h, ", UNWRAPPED + "h, "),
    Mutant("similarity-no-wrap-d", S, "halo_coordinate(d, ", UNWRAPPED + "d, "),
    Mutant("apply-no-wrap-w", A, "halo_coordinate(origin.w", UNWRAPPED + "origin.w"),
    Mutant("apply-no-wrap-h", A, "halo_coordinate(origin.h", UNWRAPPED + "origin.h"),
    Mutant("apply-no-wrap-d", A, "halo_coordinate(origin.d", UNWRAPPED + "origin.d"),
    Mutant("no-last-coordinate", G, "i = i < last ? i : last;", "", S),
    Mutant("weights-no-wrap-w", W, WRAP_W, "w + tap - s.window.w / 2", T),
    Mutant("weights-no-wrap-h", W, WRAP_H, "h + b - s.window.h / 2", T),
    # Entries in the order of the window instead of CSR order; of the wrong row when transposed.
    Mutant("similarity-order-w", S, "slot_of_offset(w, tap, size.w, window.w)", "tap"),
    Mutant("similarity-order-h", S, "slot_of_offset(h, mine.b, size.h, window.h)", "mine.b"),
    Mutant("similarity-order-d", S, "slot_of_offset(d, mine.a, size.d, window.d)", "mine.a"),
    Mutant("weights-order-w", W, "slot_of_offset(w, tap, s.size.w, s.window.w)", "tap", A),
    Mutant("weights-order-h", W, "slot_of_offset(h, b, s.size.h, s.window.h)", "b", A),
    Mutant("weights-order-d", W, "slot_of_offset(d, a, s.size.d, s.window.d)", "a", A),
    Mutant("weights-not-mirrored", W, "tap = s.window.w - 1 - tap;", "", T),
    Mutant(
        "transpose-order",
        T,
        "to[slot_of_offset(w, begin + t, s.size.w, s.window.w)]",
        "to[begin + t]",
    ),
    # Pixels, taps and channels that are not there.
    Mutant("similarity-tile-guard", S, "start >= 0 && w < size.w ?", "start >= 0 ?"),
    Mutant("similarity-tap-guard", S, "valid(window) && tap < window.w;", "valid(window);"),
    Mutant("similarity-pixel-guard", S, "start < 0 || w >= size.w", "start < 0"),
    Mutant(
        "apply-channel-guard",
        A,
        "warp, channels, warps,",
        "warp, p.channel_warps * depth, warps,",
    ),
    Mutant("apply-tap-guard", A, "if (left >= taps) {", "if (true) {"),
    Mutant("apply-pixel-guard", A, "if (w + i < size.w) ", ""),
    Mutant("apply-row-guard", A, "h >= size.h || w >= size.w) continue", "w >= size.w) continue"),
    Mutant("apply-store-in-packs", A, "size.w % kRun == 0", "w + kRun <= size.w"),
    Mutant("weights-pixel-guard", W, " && origin.w + first + pixel < s.size.w", "", A),
    # What a thread brings to shared memory, a few numbers at a time.
    Mutant("copy-no-rest", R, "if (first + i * stride < end) store", "if (false) store", S),
    Mutant("copy-past-end", R, "if (first + i * stride < end) store", "store", S),
    Mutant("copy-whole-batches", R, "first + (at_once - 1) * stride < end", "first < end", S),
    # The row of the halo that is kept from one window row to the next.
    Mutant("apply-stale-row", A, "p.segment >= window.w ? tile_h - 1", "true ? tile_h - 1"),
    Mutant("apply-no-fresh-row", A, "p.segment >= window.w ? tile_h - 1", "true ? tile_h"),
    Mutant("apply-row-order", A, "((my_row + b) & (tile_h - 1))", "(my_row & (tile_h - 1))"),
    # Offsets in 32 bits; groups that do not fit a launch.
    Mutant(
        "similarity-32-bit",
        S,
        "[(g * N + start + w) * K + slot]",
        "[int((g * N + start + w) * K + slot)]",
        part="offsets",
    ),
    Mutant("apply-32-bit", A, "values + g * N * K", "values + int(g * N * K)", part="offsets"),
    Mutant("weights-32-bit", W, "const int64_t K =", "const int K =", A, "offsets"),
    Mutant("transpose-32-bit", T, "const int64_t K =", "const int K =", part="offsets"),
    Mutant("similarity-groups", S, "g < p.groups; g +=", "g < gridDim.z; g +=", part="groups"),
    Mutant("apply-groups", A, "g < p.groups; g +=", "g < gridDim.z; g +=", part="groups"),
    Mutant("transpose-groups", T, "g < p.groups; g +=", "g < gridDim.z; g +=", part="groups"),
    # Fused attention: barriers,
    barrier_of_attention(
        H, "what was staged before has been read; the tables are complete", "before-chunk"
    ),
    barrier_of_attention(H, "the chunk is complete", "after-chunk"),
    barrier_of_attention(H, "what was staged before has been read", "before-sums"),
    barrier_of_attention(H, "the halo and the numbers are complete", "before-adding"),
    barrier_of_attention(F, "the table, and what others keep, has been read", "before-table"),
    barrier_of_attention(F, "the largest score of each warp is there", "of-largest"),
    barrier_of_attention(B, "what was staged before has been read", "before-rows"),
    barrier_of_attention(B, "lse and delta are complete", "after-rows"),
    # halos that do not wrap,
    of_attention("no-wrap-w", H, "halo_coordinate(table().first_w", UNWRAPPED + "table().first_w"),
    of_attention("no-wrap-h", H, "halo_coordinate(h, ", UNWRAPPED + "h, "),
    of_attention("no-wrap-d", H, "halo_coordinate(d, ", UNWRAPPED + "d, "),
    # shared memory that is too short or not aligned,
    of_attention("short-table", P, "+ l.halo_rows, 4)", "+ l.halo_rows - 4, 4)"),
    of_attention("short-numbers", P, "l.numbers = together *", "l.numbers = (together - 1) *"),
    of_attention("short-partial", P, "= 3 * kAttentionWarps", "= 2 * kAttentionWarps"),
    of_attention("short-staging", P, "pass_channels * l.halo,", "(pass_channels - 1) * l.halo,"),
    of_attention("misaligned", P, "| 1) * step) * pack;", "| 1) * step) * pack + 1;"),
    # or leaves room for one block where there could be two,
    of_attention("one-block", P, "(alone ? kAlone : 1.0) *", ""),
    of_attention("no-reserve", L, "(bytes + block_shared_memory)", "bytes", kernel=P),
    # pixels, taps, channels and units that are not there, or elsewhere,
    of_attention("tile-guard", H, "pixel >= 0 ? from[pixel] : T(0)", "from[pixel]"),
    of_attention("pixel-guard", H, "if (pixel[i] >= 0) to", "to"),
    of_attention("tap-guard", H, "if (count >= taps) {", "if (true) {"),
    of_attention("window-guard", F, "tap < count ? number[i][tap] * factor :", "false ? A(0) :"),
    of_attention("channel-guard", F, "if (channel >= shape.value_channels) break;", ""),
    of_attention("unit-place", H, "unit.tap - box.tap;", "unit.tap;"),
    of_attention("unit-taps", H, "min(kUnitTaps, window.w - unit.tap)", "kUnitTaps"),
    of_attention("channel-block", H, "first_channel<A>(p) + pass *", "pass *", kernel=F),
    # sums that are wrong,
    of_attention("sums-not-scaled", F, "sum[c][i] *= shrink;", ";"),
    of_attention("totals-not-scaled", F, "total[i] *= shrink;", ""),
    of_attention("rows-of-tile", B, "const int step = f.transposed;", "const int step = 0;"),
    of_attention("no-delta", B, "other[i] - rows[delta_at + i + tap * step]", "other[i]"),
    of_attention("no-total", B, "if (subtracts) t.add", "if (false) t.add"),
    of_attention("total-of-all", B, "tap < count ? weight[i] : A(0)", "weight[i]"),
    # offsets in 32 bits; groups that do not fit a launch.
    of_attention(
        "32-bit-chunk",
        H,
        "at = (int64_t(fresh(g)) * f.channels + first + c) * p.pixels",
        "at = int((int64_t(fresh(g)) * f.channels + first + c) * p.pixels)",
        "offsets",
    ),
    of_attention(
        "32-bit-sums",
        H,
        "z + (int64_t(fresh(g)) * channels + first + c) * p.pixels",
        "z + int((int64_t(fresh(g)) * channels + first + c) * p.pixels)",
        "offsets",
    ),
    of_attention(
        "32-bit-result",
        F,
        "y + (int64_t(g) * shape.value_channels + channel) * p.pixels",
        "y + int((int64_t(g) * shape.value_channels + channel) * p.pixels)",
        "offsets",
    ),
    of_attention("32-bit-gradient", B, "const int64_t at =", "const int at =", "offsets"),
    of_attention("32-bit-delta", B, "    int64_t at = g", "    int at = g", "offsets"),
    of_attention("groups", F, "g < p.groups; g +=", "g < gridDim.z; g +=", "groups"),
    of_attention("groups-gradient", B, "g < p.groups; g +=", "g < gridDim.z; g +=", "groups"),
    of_attention("groups-delta", B, "g < groups; g +=", "g < gridDim.z; g +=", "groups"),
]


def sources_of(mutant: Mutant | None) -> Path:
    """A copy of csrc, for float32 only, with the defect."""
    copy = BUILD / "mutants" / (mutant.name if mutant else "none") / "csrc"
    for source in [*(ROOT / "csrc" / "common").iterdir(), *(ROOT / "csrc" / "cuda").iterdir()]:
        target = copy / source.relative_to(ROOT / "csrc")
        text = source.read_text()
        if mutant and source == ROOT / "csrc" / "cuda" / mutant.file:
            count = text.count(mutant.before)
            assert count == 1, f"{mutant.name}: {count} times in {mutant.file}: {mutant.before}"
            text = text.replace(mutant.before, mutant.after)
        text = "".join(line for line in text.splitlines(True) if not OTHER_TYPES.match(line))
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_text() != text:
            target.write_text(text)
    return copy


def build(mutants: list[Mutant]) -> dict[str, Path]:
    """The check without a defect (named "none") and with each of ``mutants``.

    The sources with a defect are compiled once and run for a moment: they are not optimised.
    """
    ninja = Ninja(FLAGS)
    objects = {
        path.name: ninja.object(path, f"{path.stem}.o") for path in kernels(sources_of(None))
    }
    tools = [ninja.object(HERE / f"{name}.cpp", f"{name}.o") for name in CHECK]
    targets = {"none": ninja.link([*objects.values(), *tools], "none/check")}
    for mutant in mutants:
        kernel = mutant.kernel or mutant.file
        source = sources_of(mutant) / "cuda" / kernel
        mutated = {**objects, kernel: ninja.object(source, f"{mutant.name}/kernel.o", "-O0")}
        targets[mutant.name] = ninja.link([*mutated.values(), *tools], f"{mutant.name}/check")
    directory = ninja.run(BUILD / "mutants")
    return {name: directory / target for name, target in targets.items()}


def run(check: Path, part: str) -> str:
    """How ``part`` of the check (all of it if empty) failed; empty if it passed."""
    options = ["cases=0", "failures=1", *([f"part={part}"] if part else [])]
    done = subprocess.run([check, *options], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    for pattern in (
        r"runtime error: .*",
        r"AddressSanitizer: [\w-]+",
        r"FAIL .*",
        r"cuda_on_host: .*",
    ):
        found = re.search(pattern, done.stderr + done.stdout)
        if found:
            return found[0]
    return f"ended with status {done.returncode}: {done.stderr[-200:]}"


def main(names: list[str]) -> int:
    mutants = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    checks = build(mutants)
    parts = {"none": "", **{mutant.name: mutant.part for mutant in mutants}}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(run, checks.values(), (parts[name] for name in checks))
        how = dict(zip(checks, found, strict=True))
    for name in checks:
        print(f"{name:32s} {how[name] or 'passed'}")
    return how.pop("none") != "" or not all(how.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
