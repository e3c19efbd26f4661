"""Defects of the maps on tensor cores that the check has to find."""

from __future__ import annotations

from cuda_on_host.mutant import RESULTS, STEP, Mutant

S, A, P = "similarity_mma.cu", "apply_mma.cu", "map_mma_plan.cu"
B, R, T = "map_mma.cuh", "entry_runs.cuh", "apply_mma.cuh"
C, G = "octets.cuh", "octets.h"


def of_maps(
    name: str, file: str, before: str, after: str, part: str = "", kernel: str = ""
) -> Mutant:
    """A defect of a map on tensor cores; in a header, it is compiled into apply."""
    kernel = kernel or ("" if file.endswith(".cu") else S if file == R else A)
    return Mutant(
        f"maps-mma-{name}", file, before, after, kernel, f"maps-mma-{part}" if part else "maps-mma"
    )


def barrier_of_maps(file: str, comment: str, name: str, part: str = "") -> Mutant:
    """A missing barrier of a map on tensor cores."""
    before = f"__syncthreads();  // {comment}\n"
    return of_maps(f"barrier-{name}", file, before, "\n", part)


MUTANTS = [
    # Barriers, and waits for copies and for other lanes,
    barrier_of_maps(S, STEP, "of-step"),
    barrier_of_maps(A, STEP, "of-step-apply"),
    barrier_of_maps(S, RESULTS, "of-group", "groups"),
    barrier_of_maps(A, RESULTS, "of-group-apply", "groups"),
    barrier_of_maps(S, "the tile is complete", "of-tile"),
    barrier_of_maps(S, "the tile has been read", "after-tile"),
    barrier_of_maps(S, "the norms are complete", "of-norms"),
    barrier_of_maps(A, "the runs of the step are tabulated", "of-table"),
    barrier_of_maps(A, "the last step has been read", "before-result"),
    barrier_of_maps(A, "the results are complete", "of-result"),
    of_maps("wait-tile", S, "    wait_copies<0>();\n", ""),
    of_maps("wait-step", C, "wait_copies<1>();", "wait_copies<2>();"),
    of_maps("no-groups-of-copies", A, "      commit_copies();\n", ""),
    of_maps("stages", B, "stage + 1 < p.stages ?", "stage + 1 < p.stages - 1 ?"),
    of_maps("tables", T, "kTables = 4;", "kTables = 2;"),
    of_maps("wait-runs", S, "sync_warp();  // the runs are complete\n", "\n"),
    # fragments of the wrong matrices,
    of_maps("left", S, "load_matrices<true>(left", "load_matrices<false>(left"),
    of_maps("not-transposed", S, "load_matrices<true>(right", "load_matrices<false>(right"),
    of_maps("transposed", A, "load_matrices<false>(", "load_matrices<true>("),
    of_maps("channels", S, "left[i][c * 2 + 1], right[2]", "left[i][c * 2], right[2]"),
    of_maps("octets", A, "rows_of_octets(halo, Block::kOctetValues)", "rows_of_octets(halo, 0)"),
    of_maps("pixels", A, "j % 2 * 8 * by_pixel", "j / 2 * 8 * by_pixel"),
    of_maps("pair", A, "pair_of(at[0], at[by_column])", "pair_of(at[by_column], at[0])"),
    of_maps("rows", A, "(row + i) * row_entries", "row * row_entries"),
    of_maps("rows-of-image", S, "image + i * image_row, p.pitch", "image, p.pitch"),
    # neighbours outside of the window or the grid,
    of_maps("mask-begin", B, "~octets_before(low - from - i)", "~octets_before(low - from - 1)"),
    of_maps("mask-end", B, "octets_before(end - from - i)", "octets_before(end - from)"),
    of_maps("mask", A, "at[by_column]) & mask & meets[i]", "at[by_column]) & meets[i]"),
    of_maps("mask-rows", A, "& mask & meets[i]", "& mask"),
    of_maps("mask-octets", A, "        inside[1] >>= 2;\n", ""),
    of_maps("mask-octets-similarity", S, "        inside[1] >>= 1;\n", ""),
    of_maps("word", A, "o % kWordOctets == kWordOctets - 2", "false"),
    of_maps("word-similarity", S, "o % kWordOctets == kWordOctets - 1", "false"),
    of_maps("absent-columns", B, "if (present && !w.circular)", "if (false)"),
    of_maps(
        "absent-columns-similarity",
        S,
        "exists && has_key(of_w, first_column + o",
        "exists && has_key(of_w, 0 * o",
    ),
    of_maps("absent-rows", S, "lacks = !exists ||", "lacks ="),
    of_maps("absent-last", S, "+ p.octets * kOctet - 1);", ");"),
    of_maps("absent-planes", B, "return has_key(p.pattern.d(), step_plane(step)) &&", "return"),
    of_maps("meets", T, "unsigned(b) < unsigned(window.h) &&", ""),
    of_maps("last-row", S, "window.h + kMapRows - 1 ||", "window.h ||"),
    of_maps("no-wrap", C, "return i < 0 ? i + n :", "return i < 0 ? 0 :"),
    of_maps("no-wrap-row", B, "wrapped(step_row(step), pattern.keys.h, p.rows_present)", "0"),
    of_maps("no-clamp", C, "i = min(max(i, limits.low), limits.high);", ""),
    of_maps("margin", P, "divide_up(w.before, kOctet)", "divide_up(w.after(), kOctet)"),
    of_maps("odd-octets", P, "p.octets = round_up(p.octets, 2);", "p.octets = p.octets / 2 * 2;"),
    # values that are not finite,
    of_maps("spoiled", A, "block.spoiled[step.stage] == number", "false"),
    of_maps("spoiled-once", A, "block.spoiled[step.stage] = number;", ";"),
    of_maps("spoiled-bits", T, "return found & 0x80008000u;", "return found & 0x8000u;"),
    of_maps("spoiled-exponent", T, "0x0400 : 0x0080", "0x0200 : 0x0080"),
    of_maps("spoiled-window", A, "unsigned(tap) >= unsigned(window.w) ||", ""),
    of_maps("spoiled-absent", A, " || !has_key(of_w, at + j))", ")"),
    of_maps("spoiled-rows", A, "if (!meets[i / 2] ||", "if ("),
    of_maps("infinite-norms", S, "norms == INFINITY ? -INFINITY : sum", "sum"),
    # runs of entries: rotated, partial words, of other rows and groups,
    of_maps("rotated", R, "rotated(tap, first, window)] = image", "tap] = image"),
    of_maps("rotated-apply", T, "from[rotated(tap, column.first, window)]", "from[tap]"),
    of_maps("rotated-rows", S, "&& next != of_h.first_offset(h + i)", ""),
    of_maps("rotated-row-slot", T, "of_h.slot_of_offset(h, b)", "b"),
    of_maps("rotated-plane-slot", T, "of_d.slot_of_offset(d, a)", "a"),
    of_maps(
        "rotated-plane",
        S,
        "rotated(step.plane, of_d.first_offset(block.origin.d), window.d)",
        "step.plane",
    ),
    of_maps("rotated-words", T, "column.first == 0 && of_row", "of_row"),
    of_maps("rotated-some", R, "w + count + of_w.after() <= of_w.keys", "true"),
    of_maps("part-two", R, "if (at + 4 <= end) copy", "if (at + 4 < end) copy"),
    of_maps("part-of-word", R, " || (lane % 2 == 0 && first == last)", ""),
    of_maps("part-last", R, "last > first;", "false;"),
    of_maps("words-of-end", T, "* of_row >= kRunWord", "* of_row >= 0"),
    of_maps("words-of-group", T, "(g * rows + row + 1)", "(row + 1)"),
    of_maps("words-in-part", S, "rows[i] < p.rows && ", ""),
    of_maps("pitch", P, "least += static_cast<int>(((K - least) % 8 + 8) % 8);", ""),
    of_maps("short-pitch", P, "choose_pitch(window.w + 14,", "choose_pitch(window.w,"),
    of_maps("short-image", "map_mma.h", "kMapPixels * pitch + 8;", "kMapPixels * pitch;", "", P),
    of_maps("transposed-slot", T, "b = window.h - 1 - b;", ""),
    of_maps("transposed-axes", T, "        of_h = of_h.transposed();\n", ""),
    of_maps("transposed-width", T, "width = pattern.keys.w;", ""),
    # keys with a halo,
    of_maps("halo-pixels", A, "x_pixels = pattern.key_pixels()", "x_pixels = pattern.pixels()"),
    of_maps("halo-rows", B, "step.d * pattern.keys.h + h", "step.d * pattern.size.h + h"),
    of_maps("entries-of-group", A, "(transposed ? x_pixels : y_pixels)", "y_pixels"),
    # channels and pixels that do not exist,
    of_maps("no-zeros", C, "if (missing == 0) return;", "return;", "", S),
    of_maps("channel-guard", A, "c < channels; c += share", "c < D; c += share"),
    of_maps("column-guard", A, "if (w >= size.w) return;", ""),
    of_maps("row-guard", A, " && block.origin.h + i < size.h; ++i", "; ++i"),
    of_maps("octet-guard", A, " && w + j < size.w; ++j", "; ++j"),
    of_maps(
        "row-guard-similarity", S, "unsigned(window.h) && h + i < size.h;", "unsigned(window.h);"
    ),
    of_maps("pixels-guard", S, "min(kMapPixels, size.w - w)", "kMapPixels"),
    of_maps("short-norms", P, "numbers = p.positions * kOctet *", "numbers = p.positions *"),
    # copies of more pixels than are aligned; sums that are wrong,
    of_maps("align-width", G, "p.size.w % granule != 0 || ", "", "", P),
    of_maps("align-halo", G, " || p.keys.w % granule != 0", "", "", P),
    of_maps("align-arrays", G, "% (granule * sizeof(T)) != 0", "% 1 != 0"),
    of_maps("align-last", G, "positions.high / granule * granule", "positions.high"),
    of_maps("norms", S, "norm[i][j / 2] + number[j % 2]", "norm[i][j / 2]"),
    of_maps("norms-octet", S, "        number += kOctet;\n", ""),
    of_maps("norms-quads", S, "return sum + from_lane_xor(sum, 2);", "return sum;"),
    # offsets in 32 bits; groups that do not fit a launch; the choice of kernels.
    of_maps(
        "32-bit", S, "g * pattern.pixels() + pixel", "int(g) * pattern.pixels() + pixel", "offsets"
    ),
    of_maps("32-bit-apply", T, "row * of_row + slot;", "int(row) * int(of_row) + slot;", "offsets"),
    of_maps("32-bit-array", A, "const int64_t entry_count", "const int entry_count", "offsets"),
    of_maps("groups", S, "g < p.groups; g +=", "g < gridDim.z; g +=", "groups"),
    of_maps("groups-apply", A, "g < p.groups; g +=", "g < gridDim.z; g +=", "groups"),
    of_maps("old-device", P, "if (current_device().major < 8) return false;", "", "plan"),
    of_maps("dilated", P, "dilation.d > 1 || dilation.h > 1 || dilation.w > 1", "false", "plan"),
    of_maps("too-wide", P, "problem.channels > kMapChannels) return", "false) return", "plan"),
    of_maps("not-counted", P, "slots.mma * kLeastGain <", "0 <", "plan"),
]
