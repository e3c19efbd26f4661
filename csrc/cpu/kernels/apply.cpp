// y_i = sum_j A_ij x_j and y_j = sum_i A_ij x_i.
//
// Both sum over the same neighbours, because the window is odd. Seen from the pixel of y, apply
// reads the run of values of that pixel's own row; the transposed product reads, from the row of
// each neighbour, the value that points back. In both, a step brings values into scratch memory
// with pixels in the lanes, and a block of lines by channels of y is summed in registers over the
// step's neighbours: a load of x serves all of its lines, a load of values all of its channels.
#include "engines.h"
#include "rows.h"

namespace circulant::CIRCULANT_INSTRUCTION_SET {
namespace {

constexpr int kBlockChannels = kBlockTaps;

template <class W>
struct Block {
  int64_t keys, taps;
  const W* values;
  int64_t values_line, values_key, values_tap;
  const W* x;
  int64_t x_key, x_channel;
  W* sums;
  int64_t sums_line, sums_channel;
};

template <class W, int lines, int channels>
void block(const Block<W>& b) {
  Vector<W> sum[lines][channels];
#pragma GCC unroll 8
  for (int l = 0; l < lines; ++l) {
#pragma GCC unroll 8
    for (int c = 0; c < channels; ++c) {
      sum[l][c] = load(b.sums + l * b.sums_line + c * b.sums_channel);
    }
  }
  for (int64_t key = 0; key < b.keys; ++key) {
    const W* values = b.values + key * b.values_key;
    const W* x = b.x + key * b.x_key;
    for (int64_t t = 0; t < b.taps; ++t, values += b.values_tap, ++x) {
      Vector<W> value[lines];
#pragma GCC unroll 8
      for (int l = 0; l < lines; ++l) value[l] = load(values + l * b.values_line);
#pragma GCC unroll 8
      for (int c = 0; c < channels; ++c) {
        const Vector<W> neighbour = load(x + c * b.x_channel);
#pragma GCC unroll 8
        for (int l = 0; l < lines; ++l) sum[l][c] += value[l] * neighbour;
      }
    }
  }
#pragma GCC unroll 8
  for (int l = 0; l < lines; ++l) {
#pragma GCC unroll 8
    for (int c = 0; c < channels; ++c) {
      store(b.sums + l * b.sums_line + c * b.sums_channel, sum[l][c]);
    }
  }
}

template <class W>
using BlockFunction = void (*)(const Block<W>&);

// The blocks of every number of lines and channels, entry (lines - 1) * kBlockChannels + channels
// - 1.
template <class W, class I>
struct Blocks;
template <class W, int... I>
struct Blocks<W, Indices<I...>> {
  static constexpr BlockFunction<W> table[] = {
      block<W, I / kBlockChannels + 1, I % kBlockChannels + 1>...};
};

template <class T, bool transposed>
struct Buffers {
  using W = Wide<T>;
  Plan plan;
  RowBuffers<W> rows;
  W *x, *values, *sums;
  // From the values of one line of y, or of keys, to those of the next.
  int64_t values_line, values_key;

  Buffers(const ApplyProblem& p, Arena& arena)
      : plan(plan_tiles<W>(p.geometry, p.groups, p.channels)),
        rows((transposed ? plan.lines : plan.keys) * plan.taps, arena),
        x(arena.take<W>(plan.keys * plan.channels * plan.pitch)),
        sums(arena.take<W>(plan.lines * plan.channels * plan.pitch)) {
    const int64_t taps = plan.taps * plan.pitch;
    values_line = transposed ? taps : plan.keys * taps;
    values_key = transposed ? plan.lines * taps : taps;
    values = arena.take<W>(plan.lines * plan.keys * taps);
  }
};

// Adds the products of a step to the sums.
template <class T, bool transposed>
void multiply(const Buffers<T, transposed>& b, const Step& step) {
  using W = Wide<T>;
  const auto* table = Blocks<W, CountToT<kBlockLines * kBlockChannels>>::table;
  const Plan& p = b.plan;
  const int64_t channels = equal_part(p.channels, kBlockChannels);
  for (int64_t key = step.first, end; key < step.last; key = end) {
    // Keys seen by the same lines are summed in one go.
    const Range seen = lines_of_key(p, key);
    const auto same = [&](int64_t other) {
      const Range range = lines_of_key(p, other);
      return range.first == seen.first && range.last == seen.last;
    };
    for (end = key + 1; end < step.last && same(end); ++end) {
    }
    const int64_t lines = equal_part(seen.last - seen.first, kBlockLines);
    for (int64_t lane = 0; lane < p.lanes; lane += kLanes<W>) {
      for (int64_t l = seen.first; l < seen.last; l += lines) {
        for (int64_t c = 0; c < p.channels; c += channels) {
          Block<W> part;
          part.keys = end - key;
          part.taps = step.taps;
          part.values = b.values + l * b.values_line + (key - step.first) * b.values_key + lane;
          part.values_line = b.values_line;
          part.values_key = b.values_key;
          part.values_tap = p.pitch;
          if (transposed) {
            // The value that leads back from tap t is t lanes further, in row taps - 1 - t.
            part.values += (step.taps - 1) * p.pitch;
            part.values_tap = 1 - p.pitch;
          }
          part.x = b.x + ((key - step.first) * p.channels + c) * p.pitch + lane;
          part.x_key = p.channels * p.pitch;
          part.x_channel = p.pitch;
          part.sums = b.sums + (l * p.channels + c) * p.pitch + lane;
          part.sums_line = p.channels * p.pitch;
          part.sums_channel = p.pitch;
          table[(min(lines, seen.last - l) - 1) * kBlockChannels + min(channels, p.channels - c) -
                1](part);
        }
      }
    }
  }
}

template <class T, bool transposed>
void run(const ApplyProblem& problem, char* scratch, int64_t* next) {
  Arena arena(scratch);
  const Buffers<T, transposed> b(problem, arena);
  const Plan& p = b.plan;
  const Geometry& g = p.geometry;
  const int64_t N = g.pixels();
  T* y = static_cast<T*>(problem.y);
  for (int64_t tile; (tile = take_task(next)) < p.tiles;) {
    const int64_t sums = p.lines * p.channels * p.pitch;
    for (int64_t i = 0; i < sums; ++i) b.sums[i] = 0;
    for_each_step(p, [&](const Step& step) {
      pack_keys(p, tile, step, static_cast<const T*>(problem.x), b.x);
      const auto row = [&](int64_t l, int64_t key) {
        return b.values + l * b.values_line + (key - step.first) * b.values_key;
      };
      const T* values = static_cast<const T*>(problem.values);
      if constexpr (transposed) {
        load_step_back(p, tile, step, b.rows, values, row);
      } else {
        load_step(p, tile, step, b.rows, values, row);
      }
      multiply(b, step);
    });
    for_each_segment(p, tile, [&](const Segment& s, int64_t lane) {
      for (int64_t l = 0; l < s.lines; ++l) {
        T* line = y + s.group * (p.channels - 1) * N + line_pixel(p, s, l) + s.column;
        for (int64_t c = 0; c < p.channels; ++c) {
          narrow(b.sums + (l * p.channels + c) * p.pitch + lane, line + c * N, s.columns);
        }
      }
    });
  }
}

template <bool transposed>
Work work(const ApplyProblem& problem) {
  return visit(problem.dtype, [&](auto zero) {
    Arena arena(nullptr);
    const Buffers<decltype(zero), transposed> b(problem, arena);
    return Work{b.plan.tiles, arena.used()};
  });
}

}  // namespace

Work apply_work(const ApplyProblem& problem) { return work<false>(problem); }
Work apply_transposed_work(const ApplyProblem& problem) { return work<true>(problem); }

void apply_run(const ApplyProblem& problem, char* scratch, int64_t* next) {
  visit(problem.dtype, [&](auto zero) { run<decltype(zero), false>(problem, scratch, next); });
}
void apply_transposed_run(const ApplyProblem& problem, char* scratch, int64_t* next) {
  visit(problem.dtype, [&](auto zero) { run<decltype(zero), true>(problem, scratch, next); });
}

}  // namespace circulant::CIRCULANT_INSTRUCTION_SET
