"""Defects of attention on tensor cores that the check has to find."""

from __future__ import annotations

from cuda_on_host.mutant import RESULTS, STEP, Mutant

F, B, P = "attention_mma.cu", "attention_mma_backward.cu", "attention_mma_plan.cu"
K, S, C, G = "mma_block.cuh", "mma_step.cuh", "octets.cuh", "octets.h"
Q, X, T = "mma_place.cuh", "mma_products.cuh", "mma_terms.cuh"


def of_mma(
    name: str, file: str, before: str, after: str, part: str = "", kernel: str = ""
) -> Mutant:
    """A defect of attention on tensor cores; in a header, it is compiled into the gradients."""
    kernel = kernel or ("" if file.endswith(".cu") else B)
    return Mutant(f"mma-{name}", file, before, after, kernel, f"mma-{part}" if part else "mma")


def of_mma_terms(name: str, before: str, after: str, file: str = "", part: str = "terms") -> Mutant:
    """A defect of attention with terms on tensor cores; in a header, of the gradients."""
    return of_mma(f"terms-{name}", file or T, before, after, part)


def barrier_of_mma(file: str, comment: str, name: str, part: str = "") -> Mutant:
    """A missing barrier of attention on tensor cores."""
    before = f"__syncthreads();  // {comment}\n"
    return of_mma(f"barrier-{name}", file, before, "\n", part)


MUTANTS = [
    # Barriers, and waits for copies,
    barrier_of_mma(F, STEP, "of-step"),
    barrier_of_mma(B, STEP, "of-step-gradient"),
    barrier_of_mma(F, RESULTS, "of-group", "groups"),
    barrier_of_mma(B, RESULTS, "of-group-gradient", "groups"),
    barrier_of_mma(K, "the tile is complete", "of-tile"),
    barrier_of_mma(K, "the tile has been read", "after-tile"),
    barrier_of_mma(K, "the halo, or the result before, has been read", "before-result"),
    barrier_of_mma(K, "the result is complete", "of-result"),
    of_mma("wait-tile", K, "    wait_copies<0>();\n    __sync", "    __sync"),
    of_mma("wait-step", C, "wait_copies<1>();", "wait_copies<2>();"),
    of_mma("no-groups-of-copies", B, "      commit_copies();", ""),
    of_mma("stages", S, "stage + 1 < p.stages ?", "stage + 1 < p.stages - 1 ?"),
    # threads of a warp that diverge at an instruction of the warp,
    of_mma(
        "diverge",
        F,
        "from_lane_xor(most[of_line], 2));",
        "most[of_line] > 0 ? from_lane_xor(most[of_line], 2) : 0);",
    ),
    # fragments of the wrong matrices,
    of_mma("left-not-transposed", K, "load_matrices<true>(left", "load_matrices<false>(left"),
    of_mma("not-transposed", X, "load_matrices<true>(", "load_matrices<false>(", kernel=F),
    of_mma("transposed", X, "load_matrices<false>(", "load_matrices<true>(", kernel=F),
    of_mma("channels", X, "2 + 1], right[2], right[3]", "2], right[2], right[3]"),
    of_mma("lines", X, "rows_of_octets(octet, MmaBlock<T, D>::kLine)", "octet", kernel=F),
    of_mma("halves", F, "weight[o][line * 2 + of_line]", "weight[o][of_line * 2 + line]"),
    # neighbours outside of the window or the grid, or of another pixel,
    of_mma("mask-begin", Q, "~bits_before(low - first)", "~bits_before(low - first - 1)"),
    of_mma("mask-end", Q, "present.high) + 1;", "present.high);"),
    of_mma("mask-bit", B, "octet << i % 2, line", "octet, line"),
    of_mma("mask-octets", F, "        window.advance(kTogether);\n", ""),
    of_mma("mask-bits", P, "p.span <= kMostOctets && ", ""),
    of_mma("mask-rows", Q, "exists && unsigned(offset) < unsigned(p.window.h)", "exists"),
    of_mma("mask-lines", Q, "rows + (line - of_line) * p.line_h", "rows"),
    of_mma("mask-flat", Q, "p.is_flat() || p.chunks > 1", "p.chunks > 1"),
    of_mma("mask-chunks", Q, "p.is_flat() || p.chunks > 1", "p.is_flat()"),
    of_mma("absent-rows", Q, "is_inside = exists &&", "is_inside =", kernel=F),
    of_mma("absent-before", Q, "max(w - p.before.w, present.low)", "w - p.before.w"),
    of_mma("absent-after", Q, "min(w + p.after.w, present.high)", "(w + p.after.w)"),
    of_mma("absent-planes", Q, "max(p.planes_present.low - d, 0)", "0"),
    of_mma("planes", Q, "min(last_plane - d, p.window.d - 1)", "p.window.d - 1"),
    of_mma("last-band", Q, "/ 2, p.bands - 1)}", "/ 2, p.bands - 1) - 1}", kernel=F),
    of_mma("bands", Q, "<= unsigned(p.window.h) / 2", "<= unsigned(p.window.h - 1) / 2"),
    of_mma("no-wrap-w", Q, "wrapped(w - of_granule, n, limits)", "max(0, w - of_granule)"),
    of_mma(
        "no-wrap-h", Q, "p.stride_h.at(h)) * size.w", "max(0, origin.h - p.before.h + j)) * size.w"
    ),
    of_mma("no-wrap-d", Q, "p.stride_d.at(d)) * size.h", "max(0, d - p.before.d)) * size.h"),
    of_mma("no-clamp", C, "i = min(max(i, limits.low), limits.high);", ""),
    of_mma("spans", P, "round_up(divide_up(p.octets, chunks), kTogether)", "1"),
    of_mma("margin", P, "p.margin = divide_up(p.before.w", "p.margin = divide_up(p.after.w"),
    # keys with a halo, and the transposed window,
    of_mma("halo-pixels", K, "once(p.log_positions, p.halo.", "once(p.log_positions, p.tile."),
    of_mma("halo-rows", Q, "p.stride_h.at(h)) * size.w", "p.stride_h.at(h)) * p.tile.size.w"),
    of_mma("halo-group", B, "halo_rows = g * p.halo.pixels;", "halo_rows = rows;"),
    of_mma("halo-keys", F, "f.channels * p.halo.pixels", "f.channels * p.tile.pixels"),
    of_mma("same-window", B, "mirrored = transposed(problem);", "mirrored = problem;"),
    of_mma("norms-of-queries", F, "transposed(problem), stream", "problem, stream"),
    of_mma("scratch", P, "return 1 + divide_up(", "return 2 + 0 * divide_up(", "plan"),
    # pixels of another class, or of several; classes of other lengths,
    of_mma("class-blocks", "attention_mma.h", "int64_t(class_count) * tile", "int64_t(1) * tile"),
    of_mma("class-of-tile-d", Q, "class_number.d + p.stride_d", "p.stride_d"),
    of_mma("class-of-tile-h", Q, "class_number.h + p.stride_h", "p.stride_h"),
    of_mma("class-of-tile-w", Q, "at = class_number.w +", "at ="),
    of_mma("class-of-halo", Q, "min(class_number.w, size.w - 1)", "0"),
    of_mma("class-of-row", Q, "number / p.classes.w % p.classes.h", "number % p.classes.h"),
    of_mma("class-without-keys", Q, "min(class_number.w, size.w - 1)", "class_number.w"),
    of_mma("class-length-d", Q, "(class_number.d >= tile_longest.d)", "0"),
    of_mma("class-length-h", Q, "(class_number.h >= tile_longest.h)", "0"),
    of_mma("class-length-w", Q, "(class_number.w >= tile_longest.w)", "0"),
    of_mma("class-keys-d", Q, "(class_number.d >= longest.d)", "0"),
    of_mma("class-keys-h", Q, "(class_number.h >= longest.h)", "0"),
    of_mma("class-keys-w", Q, "(class_number.w >= longest.w)", "0"),
    of_mma("class-present", G, "classes.key_length - 1}", "dim.keys - 1}", kernel=P),
    of_mma("class-plane", Q, "min(origin.d, c.length.d - 1)", "origin.d"),
    of_mma("class-plane-guard", K, "if (origin.d >= length.d) return;", ""),
    of_mma("class-pixel-guard", Q, "if (d >= c.length.d || h", "if (h", kernel=F),
    of_mma("stride-d", Q, "first.d + p.stride_d.at(d)", "first.d + d"),
    of_mma("stride-h", Q, "first.h + p.stride_h.at(h)", "first.h + h"),
    of_mma("stride-w", Q, "p.stride_w.at(wrapped(", "(wrapped("),
    of_mma("stride-of-plane", Q, "p.stride_d.at(min(origin.d, c.length.d - 1))", "origin.d"),
    of_mma("stride-of-row", Q, "class_number.h + p.stride_h.at(h)", "class_number.h + h"),
    of_mma("stride-of-result", K, "to[columns[i]] =", "to[columns[0] + i] ="),
    of_mma("stride-granule", G, "if (p.dilation.w > 1) return 1;", "", kernel=P),
    of_mma(
        "pixels-end", Q, "p.granule > 1 ? p.granules.high : c.column_end - 1", "p.granules.high"
    ),
    of_mma("granule-pixels", Q, "limits)) + of_granule;", "limits));"),
    of_mma("short-table", P, "p.table + p.table_size *", "p.table + 0 * p.table_size *"),
    of_mma("squeezed-dilation", P, "&p.before, &p.dilation, ", "&p.before, "),
    of_mma("squeezed-classes", P, "  p.count_classes();\n", ""),
    # channels, pixels and numbers that do not exist,
    of_mma("no-zeros", C, "if (missing == 0) return;", "return;"),
    of_mma("channel-guard", K, "c < channels; c += kMmaThreads", "c < D; c += kMmaThreads"),
    of_mma("column-guard", K, " || w >= length.w) continue;", ") continue;"),
    of_mma("row-guard", K, "if (h >= length.h || w", "if (w"),
    of_mma("octet-guard", K, " && w + i < length.w; ++i) to", "; ++i) to"),
    of_mma("pixel-guard", F, "block.t() == 0 && pixel >= 0", "block.t() == 0"),
    of_mma("short-numbers", P, "p.numbers + numbers *", "p.numbers + 0 * numbers *"),
    # copies of more pixels than are aligned,
    of_mma("align-width", G, "p.size.w % granule != 0 || ", "", kernel=P),
    of_mma("align-halo", G, " || p.keys.w % granule != 0", "", kernel=P),
    of_mma("align-arrays", G, "% (granule * sizeof(T)) != 0", "% 1 != 0"),
    of_mma("align-last", G, "positions.high / granule * granule", "positions.high"),
    # sums that are wrong,
    of_mma("sums-not-scaled", F, "sum[c][of_line * 2 + 1] *= shrink;", ""),
    of_mma("totals-not-scaled", F, "total[of_line] *= shrink;", ""),
    of_mma("quads", F, "all += from_lane_xor(all, 2);", ""),
    of_mma("largest", F, "from_lane_xor(most[of_line], 1)", "most[of_line]"),
    of_mma("sign", F, "query[c][i] ^= sign;", ";"),
    of_mma("norms", F, "norm[line] = half *", "norm[line] = 0 *"),
    of_mma("norms-gradient", B, "s[i] = own[i / 2] - 0.5f", "s[i] = -0.5f"),
    of_mma("own", B, "if (distance) subtract_own<T, D>(a, total, x_sum);", ""),
    of_mma("own-quads", B, "total[line] += from_lane_xor(total[line], 2);", ""),
    of_mma("no-delta", B, "s[i] * (ds[i] - d)", "s[i] * ds[i]"),
    of_mma("lse-of-tile", B, "of_keys ? of_line[i % 2]", "false ? of_line[i % 2]"),
    of_mma("no-scale", B, "x_sum[c][i] *= f.scale;", ";"),
    # offsets in 32 bits; groups that do not fit a launch; the choice of kernels.
    of_mma("32-bit", F, "f.v + int64_t(g)", "f.v + int(g)", "offsets"),
    of_mma("32-bit-result", F, "f.y + int64_t(g)", "f.y + int(g)", "offsets"),
    of_mma("32-bit-gradient", B, "const int64_t rows =", "const int rows =", "offsets"),
    of_mma("groups", F, "g < p.groups; g +=", "g < gridDim.z; g +=", "groups"),
    of_mma("groups-gradient", B, "g < p.groups; g +=", "g < gridDim.z; g +=", "groups"),
    of_mma("one-block", P, "needs.blocks > 1 &&", "false &&", "plan"),
    of_mma("same-plan", "cache.h", "push_back(device)", "push_back(0 * device)", "plan", P),
    of_mma("old-device", P, "if (current_device().major < 8) return false;", "", "plan"),
    of_mma("no-waits", P, "if (p.granule > 1) return 0;", "return 0;", "plan"),
    of_mma("not-counted", P, "mma_cycles(*plan, mma_channels(channels)) <", "0 <", "plan"),
    # An infinite value spoils no more than is documented.
    of_mma("infinite", P, "p.before.w, p.octet_step);", "p.before.w, 8) + 1;", "infinite"),
    # Terms of the scores on tensor cores: of another offset, key or group,
    of_mma_terms("not-mirrored", "from[is_transposed ? last - o : o]", "from[o]"),
    of_mma_terms(
        "mirrored", "terms.stage(g, f.inverse, false)", "terms.stage(g, f.inverse, true)", F
    ),
    of_mma_terms("first", "p.before.w + first_column(step);", "first_column(step);", Q),
    of_mma_terms(
        "row", "(step.plane * p.window.h + h) * p.window.w + p.b", "h * p.window.w + p.b", Q
    ),
    of_mma_terms("pixel", " + 2 * block.t() - block.r();", " + 2 * block.t();"),
    of_mma_terms("line", "(line - of_line) * block.p.line_offsets", "0"),
    of_mma_terms("line-offsets", "p.line_h * p.window.w + p.line_w;", "p.line_h * p.window.w;", P),
    of_mma_terms("octet", "bias += kTogether * p.octet_step;", "", F),
    of_mma_terms("octet-gradient", "        bias += p.octet_step;\n", "", B),
    of_mma_terms("factor", "s += f.inverse * of_keys[", "s += of_keys[", F),
    of_mma_terms("keys-at", "distance ? p.step_numbers : 0", "0", F),
    of_mma_terms("keys-gradient", "keys_at * p.step_numbers", "0", B),
    of_mma_terms("keys-group", "x = f.terms.key_bias_of(g);", "x = f.terms.key_bias_of(0);", B),
    of_mma_terms("keys-of-tile", "own[line] += inverse * f", "own[line] += 0 * f", B),
    of_mma_terms("short", "2 * margin) *", "0 * margin) *", P),
    of_mma_terms(
        "too-long", "best_plan(problem, {channels, 3, 1, true, true}) &&", "true &&", P, "plan"
    ),
    of_mma_terms(
        "unused",
        "if (pattern.offsets() != problem.pattern.offsets()) return false;",
        "",
        P,
        "plan",
    ),
    # queries without keys, and beyond the grid,
    of_mma_terms("divided-by-zero", "has_terms && all == 0", "false", F),
    of_mma_terms("padding", "sums_offsets && block.pixel(line) < 0", "false", B),
    # sums of their gradients: waits, the ring, its rows and ends,
    of_mma_terms("wait-octet", "sync_warp();  // the octet is complete", ""),
    of_mma_terms("not-cleared", "if (sums_offsets) offset_sums.clear();", "", B),
    of_mma_terms("phase", "    phase ^= kOctet;\n", ""),
    of_mma_terms("phase-read", "(phase ^ kOctet) + place()", "phase + place()"),
    of_mma_terms("diagonal", "2 * block.t() - block.r() + phase", "2 * block.t() + phase"),
    of_mma_terms("rows-of-ring", "r < kOctet; ++r) sum", "r < kOctet - 1; ++r) sum"),
    of_mma_terms("lines-of-ring", "row() * block.p.line_w", "0"),
    of_mma_terms("rows-of-window", "+ row() * p.line_h;", ";"),
    of_mma_terms("row-guard", "unsigned(h) < unsigned(p.window.h) &&", ""),
    of_mma_terms("place-guard", "unsigned(at) < unsigned(p.window.w)", "true"),
    of_mma_terms("lanes", "block.lane() < 3 * kOctet && ", ""),
    of_mma_terms("last-octet", "!p.is_flat()) offset_sums.add", "false) offset_sums.add", B),
    of_mma_terms("flat-octet", "if (p.is_flat()) offset", "if (false) offset", B),
    of_mma_terms("one-line", "grads[0][0] + grads[1][2],", "grads[0][0],", B),
    of_mma_terms("above", "{grads[0][2], grads[0][3]}", "{grads[1][0], grads[1][1]}", B),
    of_mma_terms("one-warp", "warp < kMmaWarps; ++warp) sum", "warp < 1; ++warp) sum"),
    of_mma_terms("tile", "p.groups, g, blockIdx.x)", "p.groups, g, 0)", B),
    of_mma_terms("no-key-sums", "if (sums_keys && !distance) total", "if (false) total", B),
    of_mma_terms("key-sums-twice", "if (sums_keys && !distance) total", "if (sums_keys) total", B),
]
