// How a problem is cut into tiles, and how lines of pixels are packed.
//
// A line is a run of pixels along the last dim. Vector lanes run over the pixels of a line, so that
// a neighbour along the last dim is the same load, one element further: lines of keys are packed
// into scratch memory with their halo, wrapped while packing. Lines of queries that are neighbours
// along the middle dim share the loads of a line of keys.
//
// A segment is a block of neighbouring lines of one plane (the last two dims) of one group, from
// one column to another; a tile is one segment, or several side by side in the lanes, where a
// single one would leave too many lanes empty. A tile is a task. Every sum is formed in the same
// order in every tile, so results do not depend on how the tiles are cut.
//
// A step of a tile reads some lines of keys of one plane, at some taps, which are the offsets along
// the last dim: at all of them, unless the window is so long that it is cut too. Seen from the
// tile, line `key` of keys is `key - window[1] / 2` lines below the first line of queries, so line
// `l` of queries sees it at offset `key - l` along the middle dim, if that is in [0, window[1]).
#pragma once

#include "../../common/geometry.h"
#include "convert.h"
#include "vector.h"

namespace circulant::CIRCULANT_INSTRUCTION_SET {

CIRCULANT_ALWAYS_INLINE int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
CIRCULANT_ALWAYS_INLINE int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
CIRCULANT_ALWAYS_INLINE int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
CIRCULANT_ALWAYS_INLINE int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }
CIRCULANT_ALWAYS_INLINE int64_t wrap(int64_t i, int64_t n) {
  i %= n;
  return i < 0 ? i + n : i;
}

// The smallest of the equal parts into which n is cut when none may exceed `most`.
CIRCULANT_ALWAYS_INLINE int64_t equal_part(int64_t n, int64_t most) {
  return divide_up(n, divide_up(n, most));
}

struct Plan {
  Geometry geometry;
  int64_t channels;
  int64_t lines, line_blocks;      // lines of a segment, segments along the middle dim
  int64_t columns, column_blocks;  // columns of a segment, segments along the last dim
  int64_t segments;                // all of them
  int64_t width;                   // segments of a tile
  int64_t tiles;
  int64_t segment_pitch;  // lanes from one segment of a tile to the next
  int64_t lanes;          // lanes of a line of queries, a multiple of the vector
  int64_t pitch;          // elements from one packed line to the next, halo included
  int64_t keys, taps;     // lines of keys and taps of a step

  CIRCULANT_ALWAYS_INLINE int64_t all_keys() const { return lines + geometry.window[1] - 1; }
};

struct Segment {
  int64_t group, plane, line, lines, column, columns;
};

// What a tile works on should stay in the second-level cache.
constexpr int64_t kCacheBytes = 512 * 1024;
// Tasks below which tiles are cut smaller, so that several threads share even a small problem.
constexpr int64_t kEnoughTasks = 16;
// Sums travel between registers and scratch memory once a step: enough taps make that cheap, while
// the values of a step still fit the first-level cache.
constexpr int64_t kStepTaps = 64;

template <class T>
Plan plan_tiles(const Geometry& g, int64_t groups, int64_t channels, int64_t most_lines,
                int64_t most_columns) {
  constexpr int64_t V = kLanes<T>, line_elements = 64 / sizeof(T);
  Plan p{};
  p.geometry = g;
  p.channels = channels;
  p.taps = equal_part(g.window[2], kStepTaps);
  const int64_t halo = p.taps - 1;
  // Lines share the keys of neighbouring lines; without a window in the middle dim there are none.
  p.lines = g.window[1] == 1 ? 1 : equal_part(g.size[1], most_lines);
  p.line_blocks = divide_up(g.size[1], p.lines);
  const int64_t affordable = kCacheBytes / 2 / int64_t(sizeof(T)) / ((p.lines + 1) * channels + 1);
  const int64_t columns = max(min(affordable, most_columns) / V, 2) * V;
  p.columns = g.size[2] <= columns ? g.size[2] : round_up(equal_part(g.size[2], columns), V);
  p.column_blocks = divide_up(g.size[2], p.columns);
  p.segments = groups * g.size[0] * p.line_blocks * p.column_blocks;
  // Several segments side by side if they fill the lanes notably better; they lose those of the
  // halo.
  p.width = 1;
  p.segment_pitch = p.columns + halo;
  p.lanes = round_up(p.columns, V);
  for (int64_t width = 2; width <= p.segments && width * p.segment_pitch <= columns; ++width) {
    const int64_t lanes = round_up((width - 1) * p.segment_pitch + p.columns, V);
    if (10 * lanes * p.width < 9 * p.lanes * width) {
      p.width = width;
      p.lanes = lanes;
    }
  }
  p.tiles = divide_up(p.segments, p.width);
  // An odd number of cache lines from one channel to the next spreads the channels over the cache.
  const int64_t used = (p.width - 1) * p.segment_pitch + max(p.columns, V);
  p.pitch = (divide_up(max(p.lanes, used) + halo, line_elements) | 1) * line_elements;
  const int64_t left = kCacheBytes - p.lines * channels * p.lanes * int64_t(sizeof(T));
  const int64_t fitting = left / ((channels + p.lines * p.taps) * p.pitch * int64_t(sizeof(T)));
  p.keys = max(1, min(min(kStepTaps / g.window[2], fitting), p.all_keys()));
  return p;
}

template <class T>
Plan plan_tiles(const Geometry& g, int64_t groups, int64_t channels) {
  constexpr int64_t most_columns[] = {256, 256, 4 * kLanes<T>, 4 * kLanes<T>};
  constexpr int64_t most_lines[] = {8, 4, 4, 2};
  Plan p;
  for (int i = 0; i < 4; ++i) {
    p = plan_tiles<T>(g, groups, channels, most_lines[i], most_columns[i]);
    const bool fits = p.lines * channels * p.pitch * int64_t(sizeof(T)) <= kCacheBytes;
    if (fits && p.tiles >= kEnoughTasks) break;
  }
  return p;
}

CIRCULANT_ALWAYS_INLINE Segment segment_of(const Plan& p, int64_t index) {
  const Geometry& g = p.geometry;
  Segment s;
  s.column = index % p.column_blocks * p.columns;
  index /= p.column_blocks;
  s.line = index % p.line_blocks * p.lines;
  index /= p.line_blocks;
  s.plane = index % g.size[0];
  s.group = index / g.size[0];
  s.lines = min(p.lines, g.size[1] - s.line);
  s.columns = min(p.columns, g.size[2] - s.column);
  return s;
}

// The segments of tile `tile`, each with the first of its lanes: f(segment, lane).
template <class F>
CIRCULANT_ALWAYS_INLINE void for_each_segment(const Plan& p, int64_t tile, const F& f) {
  const int64_t first = tile * p.width, last = min(first + p.width, p.segments);
  for (int64_t i = first; i < last; ++i) f(segment_of(p, i), (i - first) * p.segment_pitch);
}

struct Step {
  int64_t plane;        // the offset along the first dim
  int64_t first, last;  // lines [first, last) of keys
  int64_t tap, taps;    // the first tap and how many
};

// Calls f(step) for every step of a tile, the offsets in ascending order.
template <class F>
CIRCULANT_ALWAYS_INLINE void for_each_step(const Plan& p, const F& f) {
  const int64_t w = p.geometry.window[2];
  for (int64_t plane = 0; plane < p.geometry.window[0]; ++plane) {
    for (int64_t first = 0; first < p.all_keys(); first += p.keys) {
      for (int64_t tap = 0; tap < w; tap += p.taps) {
        f(Step{plane, first, min(first + p.keys, p.all_keys()), tap, min(p.taps, w - tap)});
      }
    }
  }
}

// The lines [first, last) of queries that see line `key` of keys.
struct Range {
  int64_t first, last;
};
CIRCULANT_ALWAYS_INLINE Range lines_of_key(const Plan& p, int64_t key) {
  return {max(0, key - p.geometry.window[1] + 1), min(p.lines, key + 1)};
}

// The number, in all groups, of the first pixel of line l of queries of a segment.
CIRCULANT_ALWAYS_INLINE int64_t line_pixel(const Plan& p, const Segment& s, int64_t l) {
  const Geometry& g = p.geometry;
  return ((s.group * g.size[0] + s.plane) * g.size[1] + s.line + l) * g.size[2];
}

// The number, in the group, of the first pixel of line `key` of keys of a segment, in its plane
// `o`.
CIRCULANT_ALWAYS_INLINE int64_t key_pixel(const Plan& p, const Segment& s, int64_t o, int64_t key) {
  const Geometry& g = p.geometry;
  const int64_t plane = neighbour(s.plane, o, g.size[0], g.window[0]);
  const int64_t line = wrap(s.line + key - g.window[1] / 2, g.size[1]);
  return (plane * g.size[1] + line) * g.size[2];
}

// Copies `count` pixels of a line, from column `column` on, which may lie outside of it.
template <class T>
CIRCULANT_ALWAYS_INLINE void pack_line(const T* line, int64_t n, int64_t column, int64_t count,
                                       Wide<T>* out) {
  for (column = wrap(column, n); count > 0; column = 0) {
    const int64_t run = min(count, n - column);
    widen(line + column, out, run);
    out += run;
    count -= run;
  }
}

// Packs the keys of a step of a tile, with their halo: channel c of line `key` to
// `out + ((key - step.first) * channels + c) * pitch`, so that tap t of the step is t elements
// further than the query's lane. Lines follow each other in memory, channels do not.
template <class T>
void pack_keys(const Plan& p, int64_t tile, const Step& step, const T* x, Wide<T>* out) {
  const Geometry& g = p.geometry;
  const int64_t N = g.pixels();
  for_each_segment(p, tile, [&](const Segment& s, int64_t lane) {
    for (int64_t c = 0; c < p.channels; ++c) {
      const T* channel = x + (s.group * p.channels + c) * N;
      for (int64_t key = step.first; key < step.last; ++key) {
        pack_line(channel + key_pixel(p, s, step.plane, key), g.size[2],
                  s.column + step.tap - g.window[2] / 2, s.columns + step.taps - 1,
                  out + ((key - step.first) * p.channels + c) * p.pitch + lane);
      }
    }
  });
}

// Parts of a thread's scratch memory. Without memory it only counts.
class Arena {
 public:
  explicit Arena(char* memory) : address_(reinterpret_cast<uintptr_t>(memory)), begin_(address_) {}
  template <class T>
  CIRCULANT_ALWAYS_INLINE T* take(int64_t elements) {
    T* part = reinterpret_cast<T*>(address_);
    address_ += round_up(elements * int64_t(sizeof(T)), 64);
    return part;
  }
  CIRCULANT_ALWAYS_INLINE int64_t used() const { return address_ - begin_; }

 private:
  uintptr_t address_, begin_;
};

CIRCULANT_ALWAYS_INLINE int64_t take_task(int64_t* next) {
  return __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
}

}  // namespace circulant::CIRCULANT_INSTRUCTION_SET
