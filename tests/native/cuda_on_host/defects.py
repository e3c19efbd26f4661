"""Defects of the CUDA kernels that the check has to find."""

from __future__ import annotations

from cuda_on_host import defects_maps_mma, defects_mma
from cuda_on_host.mutant import Mutant


def barrier(file: str, comment: str, name: str) -> Mutant:
    """A missing barrier."""
    return Mutant(name, file, f"__syncthreads();  // {comment}", "//")


def of_attention(
    name: str, file: str, before: str, after: str, part: str = "attention", kernel: str = ""
) -> Mutant:
    """A defect of fused attention; in a header, it is compiled into the gradients."""
    kernel = kernel or ("" if file.endswith(".cu") else B)
    return Mutant(f"attention-{name}", file, before, after, kernel, part)


def barrier_of_attention(file: str, comment: str, name: str, part: str = "attention") -> Mutant:
    """A missing barrier of fused attention."""
    return of_attention(f"barrier-{name}", file, f"__syncthreads();  // {comment}\n", "\n", part)


def of_terms(
    name: str, before: str, after: str, file: str = "", part: str = "", kernel: str = ""
) -> Mutant:
    """A defect of attention with terms of the scores; in a header, compiled into the gradients."""
    file = file or TERMS
    kernel = kernel or ("" if file.endswith(".cu") else B)
    return Mutant(
        f"terms-{name}", file, before, after, kernel, f"biased-{part}" if part else "biased"
    )


def of_adjacency(name: str, before: str, after: str, part: str = "", file: str = "") -> Mutant:
    """A defect of the adjacency."""
    part = f"adjacency-{part}" if part else "adjacency"
    return Mutant(f"adjacency-{name}", file or D, before, after, D if file else "", part)


def barrier_of_adjacency(comment: str, name: str) -> Mutant:
    """A missing barrier of the adjacency."""
    return of_adjacency(f"barrier-{name}", f"__syncthreads();  // {comment}\n", "\n")


D = "adjacency.cu"
S, A, T = "similarity.cu", "apply.cu", "transpose.cu"
AP = "apply_plan.cuh"
W, R, G, X, L = "entries.cuh", "packed.cuh", "staging.cuh", "products.cuh", "launch.h"
F, B, P = "attention.cu", "attention_backward.cu", "attention_plan.cu"
C, Y = "tile.cuh", "copies.cuh"
K, M, E = "attention_block.cuh", "attention_mainloop.cuh", "attention_epilogue.cuh"
TERMS, SUMS_OF = "score_terms.cuh", "attention_sums.cu"
OFFSETS, GROUPS = "attention-offsets", "attention-groups"
NO_STRIP = "if (!strip_exists) continue;"
POINTER = "uint64_t(p) * (K * uint32_t(sizeof(T)))"
ROTATED_H = "rotated(strip.b, place.h.axis.first_offset(h), window.h)"
ROTATED_D = "rotated(strip.a, place.d.axis.first_offset(d), window.d)"
GROUP = "int64_t(g) * p.pixels * p.pattern.offsets()"
SUMS = "(int64_t(opaque(g)) * channels + first + c) * block.p.halo_pixels"
RESULT = "(int64_t(g) * channels + channel) * N"
STAGING_READ = "the staging before has been read"
LARGEST = "the largest score of each warp is complete"
SUMS_AFTER_LARGEST = f"__syncthreads();  // {LARGEST}; the chunks have been read\n  start_sums();"
SUMS_BEFORE_LARGEST = "start_sums();\n  __syncthreads();"
WINDOWS, OF_WINDOWS = "windows", "attention-windows"
COLUMN = "line.neighbour(line.halo(tap) + j)"

MUTANTS = [
    barrier(S, "rows and columns of the halo", "similarity-barrier-of-halo"),
    barrier(S, "the tables are complete; `out`", "similarity-barrier-of-tables"),
    barrier(S, "the chunk is complete; the one before", "similarity-barrier-of-chunk"),
    barrier(S, "`out`, or the last chunk in its place", "similarity-barrier-before-out"),
    barrier(S, "`out` is complete", "similarity-barrier-after-out"),
    barrier(A, "the spot is complete; the entry rows", "apply-barrier-of-spot"),
    barrier(A, "halo, entries and the entry rows before", "apply-barrier-before"),
    barrier(A, "halo and entries are complete", "apply-barrier-after"),
    barrier(T, "the tables are complete; the entries", "transpose-barrier-before"),
    barrier(T, "the entries are complete", "transpose-barrier-after"),
    # Copies without a wait, into memory that is in use, of too little.
    Mutant("similarity-no-wait", Y, "wait_copies<0>();", "", S),
    Mutant("apply-no-wait", A, "finish_copies<T, A>();", ""),
    Mutant("transpose-no-wait", T, "finish_copies<T, T>();", ""),
    Mutant("similarity-no-group", Y, "commit_copies();", "", S),
    Mutant("similarity-one-stage", S, "at ^ 1);", "at);"),
    Mutant("similarity-part", S, "part = warp >> p.log_chunk;", "part = 0;"),
    # Threads of a block that diverge at a barrier.
    Mutant("similarity-early-end", S, NO_STRIP, "if (!strip_exists) return;"),
    Mutant("similarity-in-branch", S, NO_STRIP, "if (strip_exists) __syncthreads();"),
    # Less shared memory than is used, or packs that are not aligned.
    Mutant("similarity-short-halo", S, "(t.h() + box.h - 1); };", "(t.h() + box.h - 2); };"),
    Mutant("similarity-short-table", S, "(channel(t) + halo_pitch(t) +", "(halo_pitch(t) +"),
    Mutant("similarity-short-out", S, "32 * kOutPitch<A>) *", "31 * kOutPitch<A>) *"),
    Mutant("similarity-misaligned", R, "| 1) * kPack<A>;", "| 1) * kPack<A> + 1;", S),
    Mutant("apply-short-entries", AP, "(batch(t)) * entry", "(batch(t) - 1) * entry", A),
    Mutant("apply-short-halo", AP, "(halo_rows(t)) * pitch", "(halo_rows(t) - 1) * pitch", A),
    Mutant("apply-short-rows", AP, "2 * t.rows() + spot) *", "t.rows() + spot) *", A),
    Mutant("apply-short-spot", AP, "2 * t.rows() + spot) *", "2 * t.rows()) *", A),
    Mutant("apply-misaligned", AP, "tile.pixels() + kPack<A>", "tile.pixels() + 1", A),
    Mutant("transpose-short", T, "kTaps * kPitch * sizeof(T)", "(kTaps - 1) * kPitch * sizeof(T)"),
    Mutant("transpose-short-rows", T, "p.tile.rows() * sizeof(int64_t) +", ""),
    # A shared memory limit that holds for one launch only.
    Mutant("launch-allows-own", L, "current_device().shared_memory));", "int(l.shared)));", A),
    # Halos that do not wrap, in each dim; positions too far away to wrap once.
    Mutant(
        "similarity-no-wrap-w", G, "columns[j] = max(place.w.neighbour(", "columns[j] = max((", S
    ),
    Mutant(
        "similarity-no-wrap-h", G, "const int h = max(place.h.neighbour(", "const int h = max((", S
    ),
    Mutant(
        "similarity-no-wrap-d", G, "const int d = max(place.d.neighbour(", "const int d = max((", S
    ),
    Mutant("apply-no-wrap-w", W, COLUMN, "(line.halo(tap) + j)", A),
    Mutant("apply-no-wrap-h", A, "place.h.neighbour(place.h.halo(b) + h)", "(place.h.halo(b) + h)"),
    Mutant("apply-no-wrap-d", A, "place.d.neighbour(place.d.halo(a) + d)", "(place.d.halo(a) + d)"),
    Mutant("no-last-coordinate", C, "t = min(t, n - 1 + axis.after());", "", S),
    Mutant("entries-no-wrap-w", W, COLUMN, "(line.halo(tap) + j)", T),
    Mutant("entries-no-wrap-h", W, "place.h.neighbour(", "(", T),
    # Entries in the order of the window instead of CSR order; of the wrong row when transposed.
    Mutant("similarity-order-w", S, "rotated(tap, pixel.first, window.w)", "tap"),
    Mutant("similarity-order-h", S, ROTATED_H, "strip.b"),
    Mutant("similarity-order-d", S, ROTATED_D, "strip.a"),
    Mutant("entries-order-w", W, "rotated(offset, of_row.first, window_w)", "offset", A),
    Mutant("entries-order-h", W, "of_h.slot_of_offset(h, o_h)", "o_h", A),
    Mutant("entries-order-d", W, "of_d.slot_of_offset(d, o_d)", "o_d", A),
    Mutant("entries-not-mirrored", W, "window_w - 1 - taps.begin - t :", "taps.begin + t :", T),
    Mutant("transpose-order", T, "rotated(begin + t, pixel.first, window.w)", "begin + t"),
    # Pixels, taps and channels that do not exist.
    Mutant("similarity-tile-guard", S, "column] = max(pixel, 0);", "column] = pixel;"),
    Mutant("similarity-unused", S, "p.tile.w() + i % unused] = 0;", "p.tile.w() + i % unused];"),
    Mutant("similarity-halo-guard", S, "(j < halo_w ? halo.columns[j] : 0)", "halo.columns[j]"),
    Mutant("similarity-channel-guard", S, "if (first + c >= p.channels) return;", ""),
    Mutant("similarity-tap-guard", S, "exists(window) && tap < window.w;", "exists(window);"),
    Mutant("similarity-pixel-guard", S, "if (pixel.pixel >= 0) *to", "*to"),
    Mutant("transpose-pixel-guard", T, "if (pixel.first >= 0) *to", "*to"),
    Mutant("apply-channel-guard", A, "divide_up(channels - warp,", "divide_up(64 - warp,"),
    Mutant("apply-tap-guard", X, "if (count >= taps) {", "if (true) {", A),
    Mutant("apply-pixel-guard", A, "if (column[i] >= 0) ", ""),
    Mutant("apply-row-guard", A, "if (start < 0 || ", "if ("),
    Mutant("apply-store-in-packs", A, "size.w % kThreadPixels == 0", "w + kThreadPixels <= size.w"),
    Mutant("entries-pixel-guard", W, "max(of_row.pixel, 0)", "of_row.pixel", A),
    Mutant("entries-row-guard", W, "if (entry_row == kBeyondGrid) continue;", "", A),
    Mutant("entries-walk", W, "(step - tap_lane) & (width - 1)", "step - tap_lane", A),
    # The entry rows of the next window row, in the place of those in use.
    Mutant("apply-entry-rows", A, "entry_rows + (next & 1) * tile_rows", "entry_rows"),
    # Batches of copies to shared memory.
    Mutant("copy-no-rest", G, "if (first + i * stride < end) store", "if (false) store", S),
    Mutant("copy-past-end", G, "if (first + i * stride < end) store", "store", S),
    Mutant("copy-whole-batches", G, "first + (batch - 1) * stride < end", "first < end", S),
    # The row of the halo that is kept from one window row to the next.
    Mutant("apply-stale-row", A, "p.segment >= window.w ? tile_h - 1", "true ? tile_h - 1"),
    Mutant("apply-no-new-row", A, "p.segment >= window.w ? tile_h - 1", "true ? tile_h"),
    Mutant("apply-row-order", A, "((pixel_row + b) & (tile_h - 1))", "(pixel_row & (tile_h - 1))"),
    # Offsets in 32 bits; groups that do not fit a launch.
    Mutant("similarity-32-bit", W, POINTER, "(p * (K * uint32_t(sizeof(T))))", S, "offsets"),
    Mutant(
        "similarity-32-bit-group",
        S,
        "g * p.pattern.pixels() * K",
        "int(g) * p.pattern.pixels() * K",
        part="offsets",
    ),
    Mutant(
        "apply-32-bit",
        A,
        "values + g * entry_count",
        "values + int(g * entry_count)",
        part="offsets",
    ),
    Mutant(
        "entries-32-bit-row",
        W,
        "int64_t(d * of_h.size + h) * size_w * K",
        "(d * of_h.size + h) * size_w * int(K)",
        A,
        "offsets",
    ),
    Mutant("transpose-32-bit", T, "const int64_t K =", "const int K =", part="offsets"),
    Mutant("similarity-groups", S, "g < p.groups; g +=", "g < gridDim.z; g +=", part="groups"),
    Mutant("apply-groups", A, "g < p.groups; g +=", "g < gridDim.z; g +=", part="groups"),
    Mutant("transpose-groups", T, "g < p.groups; g +=", "g < gridDim.z; g +=", part="groups"),
    # The adjacency: barriers,
    barrier_of_adjacency("the table of the step before has been read", "before-table"),
    barrier_of_adjacency("the statistics of each warp are complete", "of-statistics"),
    barrier_of_adjacency("`out` has been read", "before-out"),
    barrier_of_adjacency("`out` and the slots are complete", "after-out"),
    # entries in the order of the window, pixels and taps that do not exist,
    of_adjacency("order-w", "rotated(tap, pixel.first, window.w)", "tap"),
    of_adjacency("order-h", ROTATED_H, "strip.b"),
    of_adjacency("order-d", ROTATED_D, "strip.a"),
    of_adjacency("pixel-guard", "if (pixel.pixel >= 0) *to", "*to"),
    of_adjacency("tap-guard", "< block.table().strip_taps[of_step]", "< kStripTaps"),
    of_adjacency("window-guard", "tap < taps ? score", "true ? score"),
    of_adjacency("misaligned", "+ kPack<A>;", "+ 1;"),
    # sums that are wrong,
    of_adjacency("no-lowest", "= A(-FLT_MAX)", "= A(-INFINITY)", file=M),
    of_adjacency("totals-not-scaled", "total[i] *= std::exp2(before - largest[i]);", ""),
    of_adjacency("warps-not-scaled", " * std::exp2(its_largest[i] - largest[i])", ""),
    of_adjacency("stale-scores", "if (n != last + 1) compute", "if (n <= last) compute"),
    # offsets in 32 bits; groups that do not fit a launch.
    of_adjacency("32-bit", POINTER, "(p * (K * uint32_t(sizeof(T))))", "offsets", file=W),
    of_adjacency("32-bit-group", f"values + {GROUP}", f"values + int({GROUP})", "offsets"),
    of_adjacency("groups", "g < p.groups; g +=", "g < gridDim.z; g +=", "groups"),
    # Fused attention: barriers,
    barrier_of_attention(
        M, f"the chunk and the tables are complete; {STAGING_READ}", "before-products"
    ),
    barrier_of_attention(M, "the halo of the pass before has been read", "before-pass"),
    barrier_of_attention(M, "the halo and the weights are complete", "before-adding"),
    barrier_of_attention(F, "the table has been read", "before-table"),
    barrier_of_attention(F, f"{LARGEST}; the chunks have been read", "of-largest"),
    barrier_of_attention(B, "the chunks have been read", "before-sums"),
    # copies without a wait, into memory that is in use, of too little,
    of_attention("no-wait", K, "finish_copies<T, A>();", ""),
    of_attention("one-stage", M, "staged_chunk(at ^ 1) + c", "staged_chunk(at) + c"),
    of_attention("early-sums", F, SUMS_AFTER_LARGEST, SUMS_BEFORE_LARGEST),
    of_attention(
        "few-rows", K, "++r, to += p.halo_pitch) {\n        start", "++r) {\n        start"
    ),
    of_attention("copy-no-rest", Y, "first < end; first += stride) copy", "false;) copy"),
    of_attention("copies-not-of-numbers", B, "if (block.warp() == 1) {", "if (false) {"),
    # halos that do not wrap,
    of_attention("no-wrap-w", G, "columns[j] = max(place.w.neighbour(", "columns[j] = max(("),
    of_attention("no-wrap-h", G, "const int h = max(place.h.neighbour(", "const int h = max(("),
    of_attention("no-wrap-d", G, "const int d = max(place.d.neighbour(", "const int d = max(("),
    # shared memory that is too short or not aligned,
    of_attention("short-table", P, "+ l.halo_rows, 4)", "+ l.halo_rows - 4, 4)"),
    of_attention("short-weights", P, "l.weights = strips *", "l.weights = (strips - 1) *"),
    of_attention("short-statistics", P, "2 * kAttentionWarps *", "kAttentionWarps *"),
    of_attention("short-numbers", P, "kTilePixels, 2 * l.halo)", "kTilePixels, 0)"),
    of_attention("short-staging", P, "pass_channels * l.halo,", "(pass_channels - 1) * l.halo,"),
    of_attention("misaligned", P, "| 1) * step) * pack;", "| 1) * step) * pack + 1;"),
    # or leaves room for one block where there could be two,
    of_attention("one-block", P, "resident_blocks ? kAlone : 1.0", "0 ? 1.0 : 1.0", "plan"),
    of_attention("no-latency", P, "kLatency * (1 + passes) / resident", "0", "plan"),
    of_attention("no-reserve", L, "(bytes + block_shared_memory)", "bytes", "plan", P),
    # pixels, taps, channels and strips that do not exist, or are elsewhere,
    of_attention("tile-guard", K, "max(pixel[i * 32], 0)", "pixel[i * 32]"),
    of_attention("pixel-guard", E, "if (pixel[i] >= 0) channel", "channel"),
    of_attention("tap-guard", X, "if (count >= taps) {", "if (true) {"),
    of_attention("window-guard", F, "if (tap >= taps) score", "if (false) score"),
    of_attention("channel-guard", F, "if (channel >= channels) break;", ""),
    of_attention("strip-place", K, "strip.tap - box.tap;", "strip.tap;"),
    of_attention("strip-taps", K, "min(kStripTaps, window.w - strip.tap)", "kStripTaps"),
    of_attention("channel-block", M, "block.first_channel() + pass *", "pass *", kernel=F),
    # sums that are wrong,
    of_attention("sums-not-scaled", F, "sum[c][i] *= shrink;", ";"),
    of_attention("totals-not-scaled", F, "total[i] *= shrink;", ""),
    of_attention("rows-of-tile", B, "tap_step = f.queries_halo,", "tap_step = 0,"),
    of_attention("no-delta", B, " - lse[delta_at + i + tap * tap_step]", ""),
    of_attention("no-total", B, "if (subtract_total || key", "if (key"),
    of_attention("total-of-all", B, "tap < taps ? weight[i] : A(0)", "weight[i]"),
    # offsets in 32 bits; groups that do not fit a launch.
    of_attention(
        "32-bit-chunk",
        M,
        "f.tile + channel * p.pixels",
        "f.tile + int(channel * p.pixels)",
        OFFSETS,
    ),
    of_attention("32-bit-sums", M, f"z + {SUMS}", f"z + int({SUMS})", OFFSETS),
    of_attention("32-bit-result", F, f"y + {RESULT}", f"y + int({RESULT})", OFFSETS),
    of_attention("32-bit-gradient", B, "const int64_t at =", "const int at =", OFFSETS),
    of_attention("32-bit-delta", SUMS_OF, "    int64_t at = g", "    int at = g", OFFSETS),
    of_attention("groups", F, "g < p.groups; g +=", "g < gridDim.z; g +=", GROUPS),
    of_attention("groups-gradient", B, "g < p.groups; g +=", "g < launched_groups; g +=", GROUPS),
    of_attention("groups-delta", SUMS_OF, "g < groups; g +=", "g < gridDim.z; g +=", GROUPS),
    # Terms of the scores: of another head, row, offset, pixel or neighbour,
    of_terms("head", "int64_t(g % heads)", "int64_t(g / heads)", "score_terms.h"),
    of_terms("row", "int64_t(g / row_groups)", "int64_t(g % row_groups)", "score_terms.h"),
    of_terms("not-mirrored", "queries_halo ? given.offsets - 1 - o : o", "o"),
    of_terms("pixel", "of_pixel[i] *", "of_pixel[0] *"),
    of_terms("neighbour", "of_neighbour[i + tap] *", "of_neighbour[i] *", kernel=F),
    of_terms("tap", "score[i][tap] += of_tap[tap] *", "score[i][tap] += of_tap[0] *"),
    # beyond the window, or staged for dP,
    of_terms("strip-guard", "strip.exists(window) && ", ""),
    of_terms("tap-guard", " && tap < window.w", ""),
    of_terms("blocks", "blockIdx.x) >= f.blocks) return;", "blockIdx.x) < 0) return;", B),
    of_terms("of-dp", "if (first) return;", "if (!first) return;", B),
    of_terms("short", "kStepBiases + l.halo", "l.halo", P),
    # queries without keys,
    of_terms("divided-by-zero", "has_terms && total[i] == 0 ?", "false ?", F),
    of_terms("lse-of-nothing", "lse == A(-INFINITY) ?", "false ?", SUMS_OF),
    of_terms("no-dlse", "sum -= queries.dlse[query];", ";", SUMS_OF),
    # sums of their gradients,
    of_terms("sums-of-padding", "exists ? x[i][tap] : A(0)", "x[i][tap]"),
    of_terms("sums-of-half", "kept + from_lane_xor(sent, mask)", "kept"),
    of_terms("sums-exchanged", "upper ? x[0][tap] : x", "!upper ? x[0][tap] : x"),
    of_terms("sums-of-first", "if (upper) mine += left;", ""),
    of_terms("sums-beyond", " || mine >= block.warp_taps()", ""),
    of_terms("sums-not-cleared", "to[o] = 0;", ";", part="windows"),
    of_terms(
        "sums-of-groups", "g % terms.heads * (groups / terms.heads) + g", "g", "score_terms.h"
    ),
    of_terms("sums-32-bit", "int64_t(row) * tiles", "row * int(tiles)", "score_terms.h", "offsets"),
    of_terms("sums-of-keys", "subtract_total || key_sums != nullptr", "subtract_total", B),
    of_terms("rows-added", "warps; ++other", "warps - 1; ++other", SUMS_OF),
    of_terms("rows", "r < rows; r +=", "r < gridDim.z; r +=", SUMS_OF, "groups"),
    of_terms("barrier-of-sums", "__syncthreads();  // the sum of each warp", "//", SUMS_OF),
    of_terms("barrier-after-sums", "__syncthreads();  // the sums have", "//", SUMS_OF, "groups"),
    # Other windows: absent neighbours,
    Mutant("similarity-absent", S, "if (table.bounds.lacks) {", "if (false) {", part=WINDOWS),
    Mutant("apply-absent", A, "plane >= 0 && row >= 0 && column", "column", part=WINDOWS),
    Mutant("apply-absent-zero", A, "to += to_step) *to = 0;", "to += to_step) {}", part=WINDOWS),
    Mutant("entries-absent", W, "entry_row == kAbsent || of_row.pixel < 0", "false", T, WINDOWS),
    Mutant("entries-absent-row", W, "entry_row == kAbsent || of_row", "of_row", T, WINDOWS),
    Mutant("entries-absent-column", W, "== kAbsent || of_row.pixel < 0", "== kAbsent", T, WINDOWS),
    Mutant("bounds-w", G, "w.begin <= j && j < w.end", "w.begin <= j", S, WINDOWS),
    of_adjacency("absent", "mask_absent(block, A(0), score);", "", "windows"),
    of_attention("absent", M, "if (!(present >> (i + tap) & 1))", "if (false)", OF_WINDOWS),
    of_attention(
        "absent-values", K, "if (!table().bounds.lacks) return;", "return;", OF_WINDOWS, F
    ),
    of_attention("too-empty", G, "h.begin >= h.end ||", "h.begin + 1 >= h.end ||", OF_WINDOWS),
    # classes of dilated dims,
    Mutant("class-number", C, "return number + Stride", "return Stride", S, WINDOWS),
    Mutant("class-turns", C, " - turns * size", "", S, WINDOWS),
    Mutant("class-length", C, " - (number >= classes.longest)", "", A, WINDOWS),
    Mutant("class-keys", C, " - (number >= classes.key_longest)", "", A, WINDOWS),
    Mutant("apply-dilated-packs", A, " && p.pattern.dilation.w == 1", "", part=WINDOWS),
    of_attention("dilated-packs", E, " && pattern.dilation.w == 1", "", OF_WINDOWS),
    # the transposed window,
    Mutant("apply-same-window", AP, "transposed ? problem.pattern.transposed() :", "", A, WINDOWS),
    Mutant(
        "transpose-same-window",
        T,
        "{problem.pattern.transposed()}",
        "{problem.pattern}",
        part=WINDOWS,
    ),
    Mutant("entries-same-window-h", W, "transposed ? place.h.axis.transposed() :", "", T, WINDOWS),
    Mutant("entries-same-window-d", W, "transposed ? place.d.axis.transposed() :", "", T, WINDOWS),
    Mutant("entries-same-grid", W, "transposed ? place.w.axis.keys :", "", A, WINDOWS),
    Mutant("entries-same-window-w", W, "transposed ? line.axis.transposed() :", "", T, WINDOWS),
    of_attention(
        "same-window",
        B,
        "queries_halo ? problem.pattern.transposed() :",
        "queries_halo ? problem.pattern :",
        OF_WINDOWS,
    ),
    # keys with a halo, and tiles without neighbours.
    of_attention("halo-chunk", M, "channel * p.halo_pixels", "channel * p.pixels", OF_WINDOWS),
    of_attention("halo-sums", M, "c) * block.p.halo_pixels", "c) * block.p.pixels", OF_WINDOWS),
    of_attention(
        "halo-rows", B, "queries_halo ? p.halo_pixels :", "queries_halo ? p.pixels :", OF_WINDOWS
    ),
    barrier_of_attention(B, "the totals are complete, if no step follows", "of-totals", OF_WINDOWS),
    # Problems that are not refused.
    of_attention("not-refused", P, "if (least < 0)", "if (false)", "limits"),
    Mutant("similarity-not-refused", S, "if (!tile)", "if (false)", part="limits"),
    Mutant("apply-not-refused", AP, "if (!tile)", "if (false)", A, "limits"),
    Mutant("launch-not-refused", L, "l.blocks > INT32_MAX", "false", T, "limits"),
    *defects_mma.MUTANTS,
    *defects_maps_mma.MUTANTS,
]
