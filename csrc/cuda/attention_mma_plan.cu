// Chooses tile, steps and stages of fused attention on tensor cores, and whether it is used at all.
#include <algorithm>
#include <cmath>
#include <optional>

#include "attention_mma.h"
#include "launch.h"
#include "strips.cuh"

namespace circulant {
namespace {

// The same memory with dims of one pixel first.
Pattern squeezed(Pattern pattern) {
  Extents &size = pattern.size, &window = pattern.window;
  if (size.w == 1) {
    size = {1, size.d, size.h};
    window = {1, window.d, window.h};
  }
  if (size.w == 1) {
    size = {1, size.d, size.h};
    window = {1, window.d, window.h};
  }
  if (size.h == 1) {
    size = {1, size.d, size.w};
    window = {1, window.d, window.w};
  }
  return pattern;
}

// Issue slots of a warp, counted for sm_90: for an octet of both lines, and for a step beside them.
double octet_slots(int D) { return D == 32 ? 105 : D == 64 ? 125 : 150; }
double step_slots(const MmaPlan& p, int D) {
  return 150 + 6.0 * (4 * D << p.log_positions) / kMmaThreads;
}

// Cycles of a multiprocessor for all groups, four slots each.
double mma_cycles(const MmaPlan& p, int D) {
  const double met = double(p.planes) * (p.reach.h + 1) * p.octets;
  const double steps = double(p.planes) * p.bands * p.chunks;
  return double(p.groups) * double(p.blocks()) * kMmaWarps / 4 *
         (met * octet_slots(D) + steps * step_slots(p, D));
}

// The same for the kernel without tensor cores, as in attention_plan.cu.
double fma_cycles(const AttentionProblem& problem) {
  constexpr int tile_h = 8, tile_w = 16;
  const Extents &size = problem.pattern.size, &window = problem.pattern.window;
  const AttentionShape& shape = problem.shape;
  const double strips = double(window.d) * window.h * divide_up(window.w, kStripTaps);
  const double loads =
      (tile_h + std::min(window.h, 8) - 1) * divide_up(tile_w + window.w - 1, 32) * strips / 8;
  const double tiles =
      double(problem.groups) * std::ceil(double(size.d) * size.h * size.w / (tile_h * tile_w));
  return tiles * ((16 * strips + 3 * loads) * shape.channels * divide_up(shape.value_channels, 64) +
                  (24 * strips + 3 * loads) * shape.value_channels);
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
  // The tile, too: each warp's octet is a position of a step, or a line of one.
  p.shared = p.numbers + numbers * static_cast<int>(sizeof(float));
}

// Chooses the steps that fit `limit` bytes: as few as possible, then as many stages.
bool lay_out_within(MmaPlan& p, const MmaNeeds& needs, int limit) {
  for (int chunks = 1; chunks <= divide_up(p.octets, kTogether); ++chunks) {
    for (const int stages : {3, 2}) {
      lay_out(p, needs, chunks, stages);
      if (p.log_positions <= 5 && p.shared <= limit) return true;
    }
  }
  return false;
}

std::optional<MmaPlan> make_plan(const AttentionProblem& problem, const MmaNeeds& needs,
                                 const Device& device) {
  const int D = mma_channels(needs.channels);
  std::optional<MmaPlan> best;
  const Pattern pattern = squeezed(problem.pattern);
  const Extents &size = pattern.size, &window = pattern.window;
  const bool is_flat = size.h == 1;
  for (int log_across = is_flat ? 3 : 1; log_across <= 3; ++log_across) {
    MmaPlan p{size, {window.d / 2, window.h / 2, window.w / 2}};
    p.groups = static_cast<int>(problem.groups);
    p.pixels = pattern.pixels();
    p.octet_step = is_flat ? 2 * kOctet : kOctet;
    p.line_h = is_flat ? 0 : 1;
    p.line_w = is_flat ? kOctet : 0;
    p.log_across = log_across;
    p.across = 1 << log_across;
    p.tile_lines = 2 * kMmaWarps / p.across;
    p.tile_h = is_flat ? 1 : p.tile_lines;
    p.tile_w = p.across * p.octet_step;
    p.tiles_across = divide_up(size.w, p.tile_w);
    p.tiles_down = divide_up(size.h, p.tile_h);
    p.margin = divide_up(p.reach.w, p.octet_step);
    p.octets = 2 * p.margin + 1;
    p.planes = window.d;
    p.bands = p.reach.h + p.tile_lines / 2;
    const int half = device.total_shared_memory / 2 - device.block_shared_memory;
    const bool fits = (needs.blocks > 1 && lay_out_within(p, needs, half)) ||
                      lay_out_within(p, needs, device.shared_memory);
    if (fits && (!best || mma_cycles(p, D) < mma_cycles(*best, D))) best = p;
  }
  return best;
}

std::optional<MmaPlan> best_plan(const AttentionProblem& problem, const MmaNeeds& needs) {
  const Device device = current_device();
  return cached<std::optional<MmaPlan>>(
      plan_key(problem.pattern, device.index,
               {problem.groups, needs.channels, needs.numbers, needs.blocks}),
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
  if (current_device().major < 8 || !problem.pattern.is_odd_circular()) return false;
  const auto plan = best_plan(problem, {channels, 3, 1});
  return plan && mma_cycles(*plan, mma_channels(channels)) < fma_cycles(problem);
}

template <class T>
int attention_scratch(const AttentionProblem& problem) {
  return is_half<T> && problem.shape.distance && uses_mma(problem) ? 2 : 0;
}
template int attention_scratch<c10::Half>(const AttentionProblem&);
template int attention_scratch<c10::BFloat16>(const AttentionProblem&);
template int attention_scratch<float>(const AttentionProblem&);
template int attention_scratch<double>(const AttentionProblem&);

}  // namespace circulant
