// values_ij = sum_c x[c, i] y[c, j] or -1/2 sum_c (x[c, i] - y[c, j])^2, for every j in the window
// of i.
//
// x is packed once per tile, y once per step. A block of lines of queries by taps (offsets along
// the last dim) is summed in registers over all channels: a load of y serves all of its lines. The
// sums of a step go to scratch memory with the pixels in the lanes, and from there to their rows.
#include "engines.h"
#include "rows.h"

namespace circulant::CIRCULANT_INSTRUCTION_SET {
namespace {

template <class W>
struct Block {
  int64_t channels;
  const W* x;
  int64_t x_line, x_channel;
  const W* y;
  int64_t y_channel;
  W* sums;
  int64_t sums_line, sums_tap;
};

template <class W, bool distance, int lines, int taps>
void block(const Block<W>& b) {
  Vector<W> sum[lines][taps] = {};
  const W *x = b.x, *y = b.y;
  for (int64_t c = 0; c < b.channels; ++c, x += b.x_channel, y += b.y_channel) {
    Vector<W> query[lines];
#pragma GCC unroll 8
    for (int l = 0; l < lines; ++l) query[l] = load(x + l * b.x_line);
#pragma GCC unroll 8
    for (int t = 0; t < taps; ++t) {
      const Vector<W> key = load(y + t);
#pragma GCC unroll 8
      for (int l = 0; l < lines; ++l) {
        if constexpr (distance) {
          const Vector<W> difference = query[l] - key;
          sum[l][t] += difference * difference;
        } else {
          sum[l][t] += query[l] * key;
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int l = 0; l < lines; ++l) {
#pragma GCC unroll 8
    for (int t = 0; t < taps; ++t) {
      store(b.sums + l * b.sums_line + t * b.sums_tap, distance ? sum[l][t] * W(-0.5) : sum[l][t]);
    }
  }
}

template <class W>
using BlockFunction = void (*)(const Block<W>&);

// The blocks of every number of lines and taps, entry (lines - 1) * kBlockTaps + taps - 1.
template <class W, bool distance, class I>
struct Blocks;
template <class W, bool distance, int... I>
struct Blocks<W, distance, Indices<I...>> {
  static constexpr BlockFunction<W> table[] = {
      block<W, distance, I / kBlockTaps + 1, I % kBlockTaps + 1>...};
};

template <class T>
struct Buffers {
  using W = Wide<T>;
  Plan plan;
  RowBuffers<W> rows;
  W *x, *y, *sums;
  // From the sums of one line of queries, or of keys, to those of the next.
  int64_t sums_line, sums_key;

  Buffers(const SimilarityProblem& p, Arena& arena)
      : plan(plan_tiles<W>(p.geometry, p.groups, p.channels)),
        rows(plan.keys * plan.taps, arena),
        x(arena.take<W>(plan.lines * plan.channels * plan.pitch)),
        y(arena.take<W>(plan.keys * plan.channels * plan.pitch)),
        sums_key(plan.taps * plan.pitch) {
    sums_line = plan.keys * sums_key;
    sums = arena.take<W>(plan.lines * sums_line);
  }
};

// All sums of line `key` of keys in a step.
template <class T>
void multiply(const Buffers<T>& b, bool distance, const Step& step, int64_t key) {
  using W = Wide<T>;
  using All = CountToT<kBlockLines * kBlockTaps>;
  const auto* table = distance ? Blocks<W, true, All>::table : Blocks<W, false, All>::table;
  const Plan& p = b.plan;
  const Range seen = lines_of_key(p, key);
  const int64_t lines = equal_part(seen.last - seen.first, kBlockLines);
  const int64_t taps = equal_part(step.taps, kBlockTaps);
  const W* y = b.y + (key - step.first) * p.channels * p.pitch;
  W* sums = b.sums + (key - step.first) * b.sums_key;
  for (int64_t lane = 0; lane < p.lanes; lane += kLanes<W>) {
    for (int64_t t = 0; t < step.taps; t += taps) {
      for (int64_t l = seen.first; l < seen.last; l += lines) {
        Block<W> part;
        part.channels = p.channels;
        part.x = b.x + l * p.channels * p.pitch + lane;
        part.x_line = p.channels * p.pitch;
        part.x_channel = p.pitch;
        part.y = y + lane + t;
        part.y_channel = p.pitch;
        part.sums = sums + l * b.sums_line + t * p.pitch + lane;
        part.sums_line = b.sums_line;
        part.sums_tap = p.pitch;
        table[(min(lines, seen.last - l) - 1) * kBlockTaps + min(taps, step.taps - t) - 1](part);
      }
    }
  }
}

template <class T>
void run(const SimilarityProblem& problem, char* scratch, int64_t* next) {
  Arena arena(scratch);
  const Buffers<T> b(problem, arena);
  const Plan& p = b.plan;
  const Geometry& g = p.geometry;
  const int64_t N = g.pixels();
  const T* x = static_cast<const T*>(problem.x);
  for (int64_t tile; (tile = take_task(next)) < p.tiles;) {
    for_each_segment(p, tile, [&](const Segment& s, int64_t lane) {
      for (int64_t c = 0; c < p.channels; ++c) {
        const T* channel = x + (s.group * (p.channels - 1) + c) * N;
        for (int64_t l = 0; l < s.lines; ++l) {
          pack_line(channel + line_pixel(p, s, l), g.size[2], s.column, s.columns,
                    b.x + (l * p.channels + c) * p.pitch + lane);
        }
      }
    });
    for_each_step(p, [&](const Step& step) {
      pack_keys(p, tile, step, static_cast<const T*>(problem.y), b.y);
      for (int64_t key = step.first; key < step.last; ++key) {
        multiply(b, problem.distance, step, key);
      }
      store_step(p, tile, step, b.rows, static_cast<T*>(problem.values),
                 [&](int64_t l, int64_t key, int64_t t) {
                   return b.sums + l * b.sums_line + (key - step.first) * b.sums_key + t * p.pitch;
                 });
    });
  }
}

}  // namespace

Work similarity_work(const SimilarityProblem& problem) {
  return visit(problem.dtype, [&](auto zero) {
    Arena arena(nullptr);
    const Buffers<decltype(zero)> b(problem, arena);
    return Work{b.plan.tiles, arena.used()};
  });
}

void similarity_run(const SimilarityProblem& problem, char* scratch, int64_t* next) {
  visit(problem.dtype, [&](auto zero) { run<decltype(zero)>(problem, scratch, next); });
}

}  // namespace circulant::CIRCULANT_INSTRUCTION_SET
