// Moving values between their rows in CSR order and tiles with pixels in the lanes.
#pragma once

#include "tile.h"

namespace circulant::CIRCULANT_INSTRUCTION_SET {

// The same stretch of values in the rows of the pixels of a line. Some neighbouring offsets along
// the middle dim have neighbouring slots: a stretch covers `taps` of the `w` taps, from `tap` on,
// of each of `groups` of them, and only a single one if it does not cover all taps.
template <class T>
struct Stretch {
  T* line;         // slot of tap 0 of the first group, in the row of the line's first pixel
  int64_t stride;  // from a pixel's row to the next one's
  int64_t groups, tap, taps;
  int64_t n, w;  // size and window of the last dim

  CIRCULANT_ALWAYS_INLINE int64_t count() const { return groups * taps; }

  // Whether the values of the pixel at `column` can be used where they are: stored as they are
  // computed with, not rotated, and enough of them for whole vectors.
  CIRCULANT_ALWAYS_INLINE bool in_place(int64_t column) const {
    return sizeof(T) == sizeof(Wide<T>) && count() >= kLanes<Wide<T>> &&
           first_offset(column, n, w) == 0;
  }
  CIRCULANT_ALWAYS_INLINE T* begin(int64_t column) const { return line + column * stride + tap; }

  // Calls f(slots, t, count) for runs of `count` values of the pixel at `column`, in the slots from
  // `slots` on and in the order of the offsets from t on: border pixels have up to two runs a
  // group.
  template <class F>
  CIRCULANT_ALWAYS_INLINE void for_each_run(int64_t column, const F& f) const {
    const int64_t first = first_offset(column, n, w);
    if (first == 0) return f(begin(column), 0, count());
    const int64_t end = tap + taps;
    for (int64_t group = 0; group < groups; ++group) {
      T* row = line + column * stride + group * w;
      const int64_t before = min(end, first), after = max(tap, first);
      if (tap < before) f(row + tap + w - first, group * taps, before - tap);
      if (after < end) f(row + after - first, group * taps + after - tap, end - after);
    }
  }
};

// Scratch memory for stretches of up to `count` values.
template <class W>
struct RowBuffers {
  W* values;  // a vector's lanes of them, each with room for whole vectors
  W** rows;

  CIRCULANT_ALWAYS_INLINE RowBuffers(int64_t count, Arena& arena)
      : values(arena.take<W>(kLanes<W> * round_up(count, kLanes<W>))),
        rows(arena.take<W*>(count)) {}
};

// Values of the pixels in columns [column, column + columns) of the line, from lanes to their rows:
// value t of a stretch, in the order of the offsets, from b.rows[t].
template <class T>
void store_rows(const Stretch<T>& to, int64_t column, int64_t columns,
                const RowBuffers<Wide<T>>& b) {
  using W = Wide<T>;
  constexpr int64_t V = kLanes<W>;
  const int64_t count = to.count(), room = round_up(count, V);
  for (int64_t c = 0; c < columns; c += V) {
    // The last vector overlaps the one before it rather than being a partial one.
    const int64_t start = max(0, min(c, columns - V)), width = min(V, columns);
    W* out[V];
    for (int64_t v = 0; v < V; ++v) {
      const int64_t at = column + start + v;
      out[v] =
          v < width && to.in_place(at) ? reinterpret_cast<W*>(to.begin(at)) : b.values + v * room;
    }
    for (int64_t t = 0; t < count; t += V) {
      const int64_t first = max(0, min(t, count - V));
      Vector<W> block[V];
#pragma GCC unroll 16
      for (int64_t k = 0; k < V; ++k) block[k] = load(b.rows[min(first + k, count - 1)] + start);
      transpose<W>(block);
#pragma GCC unroll 16
      for (int64_t v = 0; v < V; ++v) store(out[v] + first, block[v]);
    }
    for (int64_t v = 0; v < width; ++v) {
      const int64_t at = column + start + v;
      if (to.in_place(at)) continue;
      to.for_each_run(
          at, [&](T* slots, int64_t t, int64_t n) { narrow(b.values + v * room + t, slots, n); });
    }
  }
}

// Values of the pixels in columns [column, column + columns) of the line, wrapped, from their rows
// to lanes: value t of a stretch to b.rows[t]. Fewer pixels than a vector has lanes fill all of
// them.
template <class T>
void load_rows(const Stretch<const T>& from, int64_t column, int64_t columns,
               const RowBuffers<Wide<T>>& b) {
  using W = Wide<T>;
  constexpr int64_t V = kLanes<W>;
  const int64_t count = from.count(), room = round_up(count, V);
  for (int64_t c = 0; c < columns; c += V) {
    const int64_t start = max(0, min(c, columns - V)), width = min(V, columns);
    const W* in[V];
    int64_t at = wrap(column + start, from.n);
    for (int64_t v = 0; v < width; ++v, at = at + 1 == from.n ? 0 : at + 1) {
      if (from.in_place(at)) {
        in[v] = reinterpret_cast<const W*>(from.begin(at));
        continue;
      }
      in[v] = b.values + v * room;
      from.for_each_run(at, [&](const T* slots, int64_t t, int64_t n) {
        widen(slots, b.values + v * room + t, n);
      });
    }
    for (int64_t v = width; v < V; ++v) in[v] = in[width - 1];
    for (int64_t t = 0; t < count; t += V) {
      const int64_t first = max(0, min(t, count - V)), kept = min(V, count);
      Vector<W> block[V];
#pragma GCC unroll 16
      for (int64_t v = 0; v < V; ++v) block[v] = load(in[v] + first);
      transpose<W>(block);
#pragma GCC unroll 16
      for (int64_t k = 0; k < V; ++k) {
        if (k < kept) store(b.rows[first + k] + start, block[k]);
      }
    }
  }
}

// Calls f(slot, first, count) for offsets [first, first + count) along the middle dim that have
// neighbouring slots from `slot` on, in the rows of the pixels of line `line`; together these are
// the offsets [first, last). One at a time if a step does not take all taps.
template <class F>
CIRCULANT_ALWAYS_INLINE void for_each_group(const Plan& p, int64_t line, int64_t first,
                                            int64_t last, const F& f) {
  const int64_t n = p.geometry.size[1], w = p.geometry.window[1];
  const bool together = p.taps == p.geometry.window[2];
  const int64_t split = first_offset(line, n, w);
  while (first < last) {
    const int64_t end = !together ? first + 1 : first < split ? min(split, last) : last;
    f(slot_of_offset(line, first, n, w), first, end - first);
    first = end;
  }
}

// Stores the values of the rows of a tile's queries that a step has computed. The lanes of the
// value of query line l at tap t of line `key` of keys are row(l, key, t).
template <class T, class F>
CIRCULANT_ALWAYS_INLINE void store_step(const Plan& p, int64_t tile, const Step& step,
                                        const RowBuffers<Wide<T>>& b, T* values, const F& row) {
  const Geometry& g = p.geometry;
  const int64_t K = g.offsets(), w1 = g.window[1], w2 = g.window[2];
  for_each_segment(p, tile, [&](const Segment& s, int64_t lane) {
    const int64_t slot0 = slot_of_offset(s.plane, step.plane, g.size[0], g.window[0]);
    for (int64_t l = 0; l < s.lines; ++l) {
      T* line = values + line_pixel(p, s, l) * K + slot0 * w1 * w2;
      const auto move = [&](int64_t slot, int64_t first, int64_t groups) {
        Wide<T>** next = b.rows;
        for (int64_t o = first; o < first + groups; ++o) {
          for (int64_t t = 0; t < step.taps; ++t) *next++ = row(l, o + l, t) + lane;
        }
        store_rows<T>({line + slot * w2, K, groups, step.tap, step.taps, g.size[2], w2}, s.column,
                      s.columns, b);
      };
      for_each_group(p, s.line + l, max(0, step.first - l), min(w1, step.last - l), move);
    }
  });
}

// Loads the values that store_step stores: those of query line l in line `key` of keys to row(l,
// key) and, tap by tap, to the rows behind it, `pitch` from each other.
template <class T, class F>
CIRCULANT_ALWAYS_INLINE void load_step(const Plan& p, int64_t tile, const Step& step,
                                       const RowBuffers<Wide<T>>& b, const T* values,
                                       const F& row) {
  const Geometry& g = p.geometry;
  const int64_t K = g.offsets(), w1 = g.window[1], w2 = g.window[2];
  for_each_segment(p, tile, [&](const Segment& s, int64_t lane) {
    const int64_t slot0 = slot_of_offset(s.plane, step.plane, g.size[0], g.window[0]);
    for (int64_t l = 0; l < s.lines; ++l) {
      const T* line = values + line_pixel(p, s, l) * K + slot0 * w1 * w2;
      const auto move = [&](int64_t slot, int64_t first, int64_t groups) {
        Wide<T>** next = b.rows;
        for (int64_t o = first; o < first + groups; ++o) {
          for (int64_t t = 0; t < step.taps; ++t) *next++ = row(l, o + l) + t * p.pitch + lane;
        }
        load_rows<T>({line + slot * w2, K, groups, step.tap, step.taps, g.size[2], w2}, s.column,
                     s.columns, b);
      };
      for_each_group(p, s.line + l, max(0, step.first - l), min(w1, step.last - l), move);
    }
  });
}

// Loads, from the rows of a step's keys, the values that lead back to the tile's queries: those
// that lead from line `key` of keys to query line l to row(l, key) and the rows behind it, as
// load_step does, but with the halo in the lanes. From the key at tap t of the step, which is t
// lanes further than the query is, the value that leads back is in row `step.taps - 1 - t`.
template <class T, class F>
CIRCULANT_ALWAYS_INLINE void load_step_back(const Plan& p, int64_t tile, const Step& step,
                                            const RowBuffers<Wide<T>>& b, const T* values,
                                            const F& row) {
  const Geometry& g = p.geometry;
  const int64_t K = g.offsets(), w0 = g.window[0], w1 = g.window[1], w2 = g.window[2];
  for_each_segment(p, tile, [&](const Segment& s, int64_t lane) {
    const int64_t plane = neighbour(s.plane, step.plane, g.size[0], w0);
    const int64_t slot0 = slot_of_offset(plane, w0 - 1 - step.plane, g.size[0], w0);
    for (int64_t key = step.first; key < step.last; ++key) {
      const int64_t pixel = key_pixel(p, s, step.plane, key);
      const T* line = values + (s.group * g.pixels() + pixel) * K + slot0 * w1 * w2;
      // Seen from line `key` of keys, query line l is at offset l + back.
      const int64_t back = w1 - 1 - key;
      const auto move = [&](int64_t slot, int64_t first, int64_t groups) {
        Wide<T>** next = b.rows;
        for (int64_t o = first; o < first + groups; ++o) {
          for (int64_t t = 0; t < step.taps; ++t) *next++ = row(o - back, key) + t * p.pitch + lane;
        }
        load_rows<T>(
            {line + slot * w2, K, groups, w2 - step.tap - step.taps, step.taps, g.size[2], w2},
            s.column + step.tap - w2 / 2, s.columns + step.taps - 1, b);
      };
      const Range seen = lines_of_key(p, key);
      for_each_group(p, pixel / g.size[2] % g.size[1], seen.first + back, seen.last + back, move);
    }
  });
}

}  // namespace circulant::CIRCULANT_INSTRUCTION_SET
