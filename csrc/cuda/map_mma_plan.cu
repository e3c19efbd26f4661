// Chooses tile, stages and runs of the maps on tensor cores, and whether they are used at all.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "launch.h"
#include "map_mma.h"
#include "strips.cuh"

namespace circulant {
namespace {

// Beyond the first and the last run of a row, a gather reads up to 31 entries, which it drops.
constexpr int kRunMargin = 32;
// The most entries of a run of several window rows.
constexpr int kLongRun = 96;
// Warps of a multiprocessor that hide most latency, an estimate.
constexpr double kBusyWarps = 12;
// How much faster than the other kernels tensor cores are to be by count, which is not exact.
constexpr double kLeastGain = 1.25;

// Cycles of shared memory of an access to the runs by all lanes.
int conflicts(int pitch, bool transposed) {
  int words[32] = {}, most = 0;
  for (int r = 0; r < 8; ++r) {
    for (int t = 0; t < 4; ++t) {
      const int at = transposed ? r + 2 * t * (pitch - 1) : r * (pitch - 1) + 2 * t;
      // Two neighbours are in a word together.
      if (transposed && r % 2 == 1) continue;
      most = std::max(most, ++words[at / 2 % 32]);
    }
  }
  return most;
}

// The shortest pitch, equal to K modulo 8, with the fewest conflicts.
int choose_pitch(int least, int64_t K, bool transposed) {
  least += static_cast<int>(((K - least) % 8 + 8) % 8);
  int best = least;
  for (int pitch = least; pitch < least + 64; pitch += 8) {
    if (conflicts(pitch, transposed) < conflicts(best, transposed)) best = pitch;
  }
  return best;
}

// Issue slots of a warp, counted for sm_90, each without those of its parts.
struct Slots {
  double octet;          // of a row of the halo, with both rows of the warp
  double step, met;      // a step, and more if the warp meets it
  double line, channel;  // an octet that a thread copies, and each of its channels
  double run, word;      // a run of entries, and each of its words of 16 bytes
  double written;        // runs of a row that are written together
  double tile, row;      // a tile, and each of its rows
};
Slots slots_of(MapOp op, int D) {
  if (op == kMapSimilarity)
    return {D == 32 ? 59. : D == 64 ? 64. : 78., 77, 89, 51, 12, 36, 11, 190, 130, 37};
  return {D == 32 ? 37. : 40., 150, 44, 51, 27, 50, 13, 0, 310, 50};
}

// Of `runs` runs that 2^log lanes each share.
double run_slots(int words, int runs, int log, const Slots& s) {
  return divide_up(runs, 32 >> log) * (s.run + s.word * divide_up(words, 1 << log));
}

// log2 of the lanes that share a run: the fewest slots. Neighbours read a sector of memory
// together.
int choose_lanes(int words, int runs, const Slots& s) {
  int best = words > 1;
  for (int log = best + 1; log <= 5; ++log) {
    if (run_slots(words, runs, log, s) < run_slots(words, runs, best, s)) best = log;
  }
  return best;
}

// Issue slots of a block.
double block_slots(const MapMmaPlan& p, MapOp op) {
  const int D = map_channels(p.channels, op), threads = 32 * p.warps;
  const Extents& window = p.pattern.window;
  const Slots s = slots_of(op, D);
  const double steps = double(window.d) * p.steps, met = double(window.d) * (window.h + 1);
  // Of a row of octets, copied or written.
  const auto line = [&](int octets, double channel) {
    return divide_up(octets, 1 << p.log_positions) *
           (s.line + channel * divide_up(D, threads >> p.log_positions));
  };
  const double copies = line(p.positions, s.channel + copy_slots(p.granule) - copy_slots(8));
  const double tile = s.tile + p.tile_h * (s.row + line(2 << p.log_across, copy_slots(p.granule)));
  double runs;  // of a warp
  if (op == kMapSimilarity) {
    const int words = p.rows * window.w / kRunWord + 1;
    runs = double(window.d) * divide_up(window.h, p.rows) * kMapRows *
           (run_slots(words, kMapPixels, p.log_lanes, s) + s.written);
  } else {
    const int of_warp = divide_up(p.tile_h * p.image_pixels, p.warps);
    runs =
        double(window.d) * window.h * run_slots(window.w / kRunWord + 2, of_warp, p.log_lanes, s);
  }
  return p.warps * (tile + steps * (s.step + copies) + met * (s.met + p.octets * s.octet) + runs);
}

// Cycles that a block takes of a multiprocessor: four issue slots each, or, an estimate, 24 bytes
// of copies each.
double block_cycles(const MapMmaPlan& p, MapOp op) {
  const int D = map_channels(p.channels, op), octet_bytes = 2 * kOctet;
  double words = double(p.steps) * p.positions * std::min(D, p.channels);
  if (op != kMapSimilarity)
    words += double(p.pattern.window.h) * p.tile_h * p.image_pixels * (p.pattern.window.w / 8 + 2);
  return std::max(block_slots(p, op) / 4, p.pattern.window.d * words * octet_bytes / 24);
}

// Issue slots of all warps without tensor cores, counted for sm_90 in float16.
double fma_slots(const Problem& problem, MapOp op) {
  const Pattern pattern = op == kMapTransposed ? problem.pattern.transposed() : problem.pattern;
  const Extents& window = pattern.window;
  const double rows = double(window.d) * window.h, strips = rows * divide_up(window.w, kStripTaps);
  const double warps = double(problem.groups) * std::ceil(pattern.pixels() / 128.0);
  const int C = problem.channels;
  // Per strip and 128 pixels: of each channel the multiply-adds, and the loads of its halo, 32
  // values each; 32 stores or loads of 32 entries. similarity computes 256 pixels of a strip
  // together. apply computes 16 channels together, with entries that are loaded once for up to 64.
  if (op == kMapSimilarity) return warps * strips * (C * (75 / 2. + 1.8 * 9) + 32 * 15 + 230 / 2.);
  return warps * (rows * C * (113 / 16.) +
                  strips * (C * (700 / 16. + 0.9 * 8) + divide_up(C, 64) * 32 * 16));
}

// Sets what lies in shared memory.
void lay_out(MapMmaPlan& p, MapOp op) {
  const int D = map_channels(p.channels, op), half_bytes = 2;
  const Extents& window = p.pattern.window;
  const int64_t K = p.pattern.offsets();
  const Slots s = slots_of(op, D);
  const int features = p.positions * kOctet * D * half_bytes;
  const int tile = p.tile_h * p.tile_w * D * half_bytes;
  int numbers;
  if (op == kMapSimilarity) {
    const int most = std::max(1, std::min(window.h, kLongRun / window.w));
    p.rows = divide_up(window.h, divide_up(window.h, most));
    p.pitch = choose_pitch(p.rows * window.w, K, false);
    p.log_lanes = choose_lanes(p.rows * window.w / kRunWord + 1, kMapPixels, s);
    p.stage = features;
    p.image = p.stages * p.stage;
    const int entries = p.warps * kMapRows * map_image(p.pitch);
    p.numbers = round_up(p.image + entries * half_bytes, 16);
    p.numbers = std::max(p.numbers, tile);
    numbers = p.positions * kOctet * static_cast<int>(sizeof(float));
  } else {
    const bool transposed = op == kMapTransposed;
    p.image_pixels = transposed ? p.positions * kOctet : p.tile_w;
    p.image_inverse = static_cast<unsigned>(((uint64_t(1) << 32) - 1) / p.image_pixels + 1);
    p.pitch = choose_pitch(window.w + 14, K, transposed);
    p.log_lanes = choose_lanes(window.w / kRunWord + 2, 32, s);
    p.image = features + kRunMargin * half_bytes;
    const int entries = p.tile_h * p.image_pixels * p.pitch + kRunMargin;
    p.stage = round_up(p.image + entries * half_bytes, 16);
    p.numbers = std::max(p.stages * p.stage, tile);
    // See ApplyBlock.
    numbers = 4 * p.tile_h * 16 + p.image_pixels * 8 + p.stages * 4;
  }
  p.shared = p.numbers + numbers;
}

// An estimate of the time of all blocks. Few warps hide less latency, and few blocks leave
// multiprocessors idle.
double map_time(const MapMmaPlan& p, MapOp op, const Device& device) {
  const double blocks = double(p.groups) * double(p.blocks());
  const double rounds = std::ceil(blocks / device.multiprocessors);
  const double resident = std::min<double>(rounds, device.resident(p.shared));
  return rounds * block_cycles(p, op) * std::max(1.0, kBusyWarps / (resident * p.warps)) *
         (p.stages == 2 ? 1.02 : 1);
}

MapMmaPlan make_plan(const Problem& problem, MapOp op, int log_warps, int log_across, int stages) {
  MapMmaPlan p{op == kMapTransposed ? problem.pattern.transposed() : problem.pattern};
  const Axis d = p.pattern.d(), h = p.pattern.h(), w = p.pattern.w();
  p.groups = problem.groups;
  p.channels = problem.channels;
  if (op != kMapSimilarity)
    p.channel_blocks = std::max(1, divide_up(p.channels, map_channels(p.channels, op)));
  p.warps = 1 << log_warps;
  p.log_across = log_across;
  p.tile_h = kMapRows * p.warps >> log_across;
  p.tile_w = kMapPixels << log_across;
  p.tiles_down = divide_up(p.pattern.size.h, p.tile_h);
  p.tiles_across = divide_up(w.size, p.tile_w);
  p.margin = divide_up(w.before, kOctet);
  p.octets = p.margin + 2 + divide_up(w.after(), kOctet);
  if (op != kMapSimilarity) p.octets = round_up(p.octets, 2);
  p.positions = p.octets + (2 << log_across) - 2;
  while (1 << p.log_positions < p.positions && p.log_positions < log_warps + 2) ++p.log_positions;
  p.steps = p.tile_h + p.pattern.window.h - 1;
  p.stages = stages;
  p.planes_present = present(d, p.pattern.classes[0]);
  p.rows_present = present(h, p.pattern.classes[1]);
  p.columns_present = present(w, p.pattern.classes[2]);
  p.granule = granule_of(p.pattern);
  lay_out(p, op);
  return p;
}

std::optional<MapMmaPlan> best_plan(const Problem& problem, MapOp op) {
  const Device device = current_device();
  return cached<std::optional<MapMmaPlan>>(
      plan_key(problem.pattern, device.index, {problem.groups, problem.channels, op}), [&] {
        std::optional<MapMmaPlan> best;
        for (const MapMmaPlan& p : map_mma_plans(problem, op)) {
          if (!best || map_time(p, op, device) < map_time(*best, op, device)) best = p;
        }
        return best;
      });
}

}  // namespace

std::vector<MapMmaPlan> map_mma_plans(const Problem& problem, MapOp op) {
  std::vector<MapMmaPlan> plans;
  for (int log_warps = 0; 1 << log_warps <= kMapWarps; ++log_warps) {
    for (int log_across = 0; log_across <= log_warps; ++log_across) {
      for (const int stages : {3, 2}) {
        const MapMmaPlan p = make_plan(problem, op, log_warps, log_across, stages);
        if (p.shared <= current_device().shared_memory) plans.push_back(p);
      }
    }
  }
  return plans;
}

MapMmaPlan plan_map_mma(const Problem& problem, MapOp op) { return best_plan(problem, op).value(); }

MapSlots map_slots(const Problem& problem, MapOp op) {
  const auto plan = best_plan(problem, op);
  const double mma = plan ? double(plan->groups) * double(plan->blocks()) * block_slots(*plan, op)
                          : std::numeric_limits<double>::infinity();
  return {fma_slots(problem, op), mma};
}

bool uses_map_mma(const Problem& problem, MapOp op) {
  if (op == kMapSimilarity && problem.channels > kMapChannels) return false;
  const Extents& dilation = problem.pattern.dilation;
  if (dilation.d > 1 || dilation.h > 1 || dilation.w > 1) return false;
  if (current_device().major < 8) return false;
  const MapSlots slots = map_slots(problem, op);
  return slots.mma * kLeastGain < slots.fma;
}

}  // namespace circulant
