// Chooses tile, steps and stages of fused attention on tensor cores, and whether it is used at all.
#include <algorithm>
#include <cmath>
#include <optional>

#include "attention_mma.h"
#include "launch.h"
#include "strips.cuh"

namespace circulant {
namespace {

// Exchanges dims, here and in the grids, so that those of one pixel come first.
Pattern squeezed(Pattern p) {
  Extents* const all[] = {&p.size, &p.keys, &p.window, &p.before, &p.dilation, &p.circular};
  // At the only pixel, the only neighbour is the pixel itself.
  if (p.size.d == 1 && p.keys.d == 1) p.window.d = 1, p.before.d = 0, p.dilation.d = 1;
  if (p.size.h == 1 && p.keys.h == 1) p.window.h = 1, p.before.h = 0, p.dilation.h = 1;
  if (p.size.w == 1 && p.keys.w == 1) p.window.w = 1, p.before.w = 0, p.dilation.w = 1;
  for (int i = 0; i < 2 && p.size.w == 1 && p.keys.w == 1; ++i) {
    for (Extents* x : all) *x = {x->w, x->d, x->h};
  }
  if (p.size.h == 1 && p.keys.h == 1) {
    for (Extents* x : all) *x = {x->h, x->d, x->w};
  }
  p.count_classes();
  return p;
}

Stride stride(const Axis& dim, const Classes& classes) {
  return {dim.dilation, dim.size, classes.turn};
}

// Issue slots of a warp, counted for sm_90: for an octet of both lines, and for a step beside them.
double octet_slots(int D) { return D == 32 ? 95 : D == 64 ? 110 : 135; }
double step_slots(const MmaPlan& p, int D) {
  const int columns = p.granule == 1 ? 4 * 16 : 0;  // of four lines, found pixel by pixel
  return 340 + columns + copy_slots(p.granule) * (4.0 * D * (1 << p.log_positions)) / kMmaThreads;
}
// Cycles that a block waits in a step for pixels that pass through registers: about 300 for each
// line of an input, a load from the L2 cache. An estimate, not measured.
double step_wait(const MmaPlan& p, int D) {
  if (p.granule > 1) return 0;
  return 4.0 * divide_up(D << p.log_positions, kMmaThreads) * 300;
}

// Cycles of a multiprocessor for all groups, four slots each. While a block waits, the other one
// computes.
double mma_cycles(const MmaPlan& p, int D) {
  const double met = double(p.window.d) * (p.window.h / 2 + 1) * p.octets;
  const double steps = double(p.window.d) * p.bands * p.chunks;
  const double issue = kMmaWarps / 4 * (met * octet_slots(D) + steps * step_slots(p, D));
  return double(p.groups) * double(p.blocks()) *
         std::max(issue, (issue + steps * step_wait(p, D)) / p.resident);
}

// The same for the kernel without tensor cores, as in attention_plan.cu, and what each step of 8
// strips takes beside its products and sums.
double fma_cycles(const AttentionProblem& problem) {
  constexpr int tile_h = 8, tile_w = 16;
  const Extents size = problem.pattern.lengths(), &window = problem.pattern.window;
  const AttentionShape& shape = problem.shape;
  const double strips = double(window.d) * window.h * divide_up(window.w, kStripTaps);
  const double loads =
      (tile_h + std::min(window.h, 8) - 1) * divide_up(tile_w + window.w - 1, 32) * strips / 8;
  const double tiles = double(problem.groups) * problem.pattern.class_count() *
                       std::ceil(double(size.d) * size.h * size.w / (tile_h * tile_w));
  return tiles *
         ((16 * strips + 1.8 * loads) * shape.channels * divide_up(shape.value_channels, 64) +
          (24 * strips + 1.8 * loads) * shape.value_channels + 1500 * std::ceil(strips / 8));
}

// Sets the sizes of a step in shared memory, with the halo in `chunks` steps per band.
void lay_out(MmaPlan& p, const MmaNeeds& needs, int chunks, int stages) {
  const int D = mma_channels(needs.channels), half_bytes = 2;
  const int pixels = 2 * kOctet;  // of an octet in both lines
  p.span = chunks == 1 ? p.octets : round_up(divide_up(p.octets, chunks), kTogether);
  p.chunks = divide_up(p.octets, p.span);
  p.positions = p.span + p.across - 1;
  p.log_positions = 0;
  while (1 << p.log_positions < p.positions) ++p.log_positions;
  p.stages = stages;
  p.half = p.positions * pixels * D;
  p.numbers = stages * 2 * p.half * half_bytes;
  p.step_numbers = p.positions * pixels;
  const int numbers = stages * needs.numbers * p.step_numbers;
  // The tile fits in the memory of the steps: 8 octets, where these have at least 4 times 2.
  p.shared = p.numbers + numbers * static_cast<int>(sizeof(float));
  p.place = p.shared;
  p.table = p.place + static_cast<int>(sizeof(MmaClass));
  p.rows_at = p.window.d;
  p.columns_at = p.rows_at + 2 * p.bands;
  p.tile_rows_at = p.columns_at + (p.chunks * p.span + p.across - 1) * p.octet_step;
  p.tile_columns_at = p.tile_rows_at + p.tile_lines;
  p.table_size = p.tile_columns_at + p.across * p.octet_step;
  p.shared = p.table + p.table_size * static_cast<int>(sizeof(int));
  if (needs.has_bias) {
    // Neighbours beyond the window are up to a row and 30 columns away.
    const int margin = p.line_h * p.window.w + 32;
    p.bias = p.shared + margin * static_cast<int>(sizeof(float));
    p.shared += (p.offsets + 2 * margin) * static_cast<int>(sizeof(float));
  }
  if (needs.has_offset_sums) {
    p.offset_sums = p.shared;
    p.shared += kMmaWarps * (kRingFloats + p.offsets) * static_cast<int>(sizeof(float));
  }
}

// Chooses the steps that fit `limit` bytes: as few as possible, then as many stages.
bool lay_out_within(MmaPlan& p, const MmaNeeds& needs, int limit) {
  for (int chunks = 1; chunks <= divide_up(p.octets, kTogether); ++chunks) {
    for (const int stages : {3, 2}) {
      lay_out(p, needs, chunks, stages);
      if (p.span <= kMostOctets && p.log_positions <= 5 && p.shared <= limit) return true;
    }
  }
  return false;
}

std::optional<MmaPlan> make_plan(const AttentionProblem& problem, const MmaNeeds& needs,
                                 const Device& device) {
  const int D = mma_channels(needs.channels);
  std::optional<MmaPlan> best;
  const Pattern pattern = squeezed(problem.pattern);
  const Axis d = pattern.d(), h = pattern.h(), w = pattern.w();
  const auto& [of_d, of_h, of_w] = pattern.classes;
  const bool is_flat = pattern.size.h == 1 && pattern.keys.h == 1;
  for (int log_across = is_flat ? 3 : 1; log_across <= 3; ++log_across) {
    MmaPlan p;
    p.tile = {pattern.size,
              pattern.lengths(),
              {of_d.longest, of_h.longest, of_w.longest},
              pattern.pixels()};
    p.halo = {pattern.keys,
              {of_d.key_length, of_h.key_length, of_w.key_length},
              {of_d.key_longest, of_h.key_longest, of_w.key_longest},
              pattern.key_pixels()};
    p.window = pattern.window;
    p.before = pattern.before;
    p.after = {d.after(), h.after(), w.after()};
    p.planes_present = present(d, of_d);
    p.rows_present = present(h, of_h);
    p.columns_present = present(w, of_w);
    p.stride_d = stride(d, of_d);
    p.stride_h = stride(h, of_h);
    p.stride_w = stride(w, of_w);
    p.classes = {of_d.count, of_h.count, of_w.count};
    p.class_count = pattern.class_count();
    p.granule = granule_of(pattern);
    p.groups = static_cast<int>(problem.groups);
    p.log_octet_step = is_flat ? 4 : 3;
    p.octet_step = 1 << p.log_octet_step;
    p.line_h = is_flat ? 0 : 1;
    p.line_w = is_flat ? kOctet : 0;
    p.line_offsets = p.line_h * p.window.w + p.line_w;
    p.offsets = static_cast<int>(pattern.offsets());
    p.log_across = log_across;
    p.across = 1 << log_across;
    p.tile_lines = 2 * kMmaWarps / p.across;
    p.tile_h = is_flat ? 1 : p.tile_lines;
    p.tile_w = p.across * p.octet_step;
    p.tiles_across = divide_up(p.tile.length.w, p.tile_w);
    p.tiles_down = divide_up(p.tile.length.h, p.tile_h);
    p.margin = divide_up(p.before.w, p.octet_step);
    p.octets = p.margin + 1 + divide_up(p.after.w, p.octet_step);
    p.bands = p.window.h / 2 + p.tile_lines / 2;
    const int half = device.total_shared_memory / 2 - device.block_shared_memory;
    p.resident = needs.blocks > 1 && lay_out_within(p, needs, half) ? 2 : 1;
    const bool fits = p.resident > 1 || lay_out_within(p, needs, device.shared_memory);
    if (fits && (!best || mma_cycles(p, D) < mma_cycles(*best, D))) best = p;
  }
  return best;
}

std::optional<MmaPlan> best_plan(const AttentionProblem& problem, const MmaNeeds& needs) {
  const Device device = current_device();
  return cached<std::optional<MmaPlan>>(
      plan_key(problem.pattern, device.index,
               {problem.groups, needs.channels, needs.numbers, needs.blocks, needs.has_bias,
                needs.has_offset_sums}),
      [&] { return make_plan(problem, needs, device); });
}

}  // namespace

MmaPlan plan_mma(const AttentionProblem& problem, const MmaNeeds& needs) {
  const std::optional<MmaPlan> plan = best_plan(problem, needs);
  if (!plan) {
    fail_to_tile("attention", problem.pattern, needs.channels, 2, current_device().shared_memory);
  }
  return *plan;
}

bool uses_mma(const AttentionProblem& problem) {
  const AttentionShape& shape = problem.shape;
  const int channels = std::max(shape.channels, shape.value_channels);
  // Scores are multiplied by scale / log 2 after their maximum was taken.
  const double scale = std::abs(shape.scale);
  if (channels > kMmaMaxChannels || !(scale >= 1e-20 && scale <= 1e6)) return false;
  if (current_device().major < 8) return false;
  // All kernels of 32 channels, without terms, have registers for two blocks.
  const auto plan = best_plan(problem, {channels, 3, channels <= 32 ? 2 : 1});
  return plan && best_plan(transposed(problem), {channels, 3, 1}) &&
         mma_cycles(*plan, mma_channels(channels)) < fma_cycles(problem);
}

bool uses_mma(const AttentionProblem& problem, bool has_bias) {
  if (!uses_mma(problem)) return false;
  if (!has_bias) return true;
  // Offsets are not counted in dims that have none but their own pixel.
  const Pattern pattern = squeezed(problem.pattern);
  if (pattern.offsets() != problem.pattern.offsets()) return false;
  const int channels = std::max(problem.shape.channels, problem.shape.value_channels);
  return best_plan(problem, {channels, 3, 1, true, true}) &&
         best_plan(transposed(problem), {channels, 3, 1, true});
}

int64_t attention_mma_tiles(const AttentionProblem& problem) {
  return plan_mma(problem, queries_needs(problem.shape, true, true)).blocks();
}

template <class T>
int attention_scratch(const AttentionProblem& problem) {
  if (!is_half<T> || !problem.shape.distance || !uses_mma(problem)) return 0;
  return 1 + divide_up(problem.pattern.key_pixels(), problem.pattern.pixels());
}
template int attention_scratch<c10::Half>(const AttentionProblem&);
template int attention_scratch<c10::BFloat16>(const AttentionProblem&);
template int attention_scratch<float>(const AttentionProblem&);
template int attention_scratch<double>(const AttentionProblem&);

}  // namespace circulant
