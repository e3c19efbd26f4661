// A few adjacent rows of queries, at most kTileRows, and the key rows that their windows touch.
//
// The window of query row r holds the key rows r <= j < r + window of its plane, so a key row at
// the top or the bottom is shared by fewer of the queries. Key rows are numbered from the top, and
// units are all key rows of all planes of the window.
#pragma once

#include <cstdint>

#include "../params.h"
#include "packing.h"
#include "microkernels.h"

namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET {

struct RowBlock {
  int64_t rows, planes, window;

  int64_t key_rows() const { return window + rows - 1; }
  int64_t units() const { return planes * key_rows(); }
  // The key row of a unit in its plane. Mostly there is one, and divisions cost more than to ask.
  int64_t key_row(int64_t unit) const { return planes == 1 ? unit : unit % key_rows(); }
  // The first query row whose window holds the key row of a unit, and how many there are.
  int64_t first(int64_t unit) const { return larger(0, key_row(unit) - window + 1); }
  int64_t count(int64_t unit) const { return smaller(rows - 1, key_row(unit)) - first(unit) + 1; }
  // The end of the longest run of units from `unit` on, before `end`, with the same query rows.
  int64_t run_end(int64_t unit, int64_t end) const {
    int64_t next = unit + 1;
    while (next < end && first(next) == first(unit) && count(next) == count(unit)) ++next;
    return next;
  }
};

// The part of units [begin, end), all of one plane, that is in the windows of row r of the block:
// offsets [first, last) along the rows, and the unit of the first of them.
struct RowOffsets {
  int64_t first, last, unit;

  RowOffsets(const RowBlock& block, int64_t begin, int64_t end, int64_t r) {
    const int64_t top = begin - block.key_row(begin);
    unit = larger(begin, top + r);
    first = unit - top - r;
    last = smaller(end - top - r, block.window);
  }
};

// Calls plane(d) for every plane of a chunk, then f(d, h, i) for every block of rows in it, with
// block.rows set: h is the block's first row, i its number in the chunk.
template <class Plane, class F>
inline void for_each_row_block(const Chunk& chunk, RowBlock& block, Plane&& plane, F&& f) {
  for (int64_t d = chunk.planes.begin; d < chunk.planes.end; ++d) {
    plane(d);
    for (int64_t h = chunk.rows.begin; h < chunk.rows.end; h += kTileRows) {
      block.rows = smaller(kTileRows, chunk.rows.end - h);
      f(d, h, h - chunk.rows.begin);
    }
  }
}

// Points units[u] to the packed key row of every unit; i is that of the block's first key row.
template <class S>
inline void point_to_units(const KeyRows<S>& keys, const RowBlock& block, int64_t i,
                           const Compute<S>** units) {
  for (int64_t p = 0; p < block.planes; ++p) {
    for (int64_t j = 0; j < block.key_rows(); ++j) *units++ = keys.row(p, i + j);
  }
}

// The scores of units are stored together, this many elements each.
template <class T>
inline int64_t unit_size(int64_t window) {
  return window * kTileRows * kLanes<T>;
}

// How many units to treat at a time, so that what is stored of them stays in the first-level cache.
template <class T>
inline int64_t units_at_a_time(int64_t window) {
  constexpr int64_t bytes = 24576;
  return larger(1, bytes / (unit_size<T>(window) * static_cast<int64_t>(sizeof(T))));
}

// y += the weights of units [begin, end) times their values, for the queries from column w on. Unit
// `begin` is the first of `weights`.
template <class T>
inline void gather_units(const RowBlock& block, int64_t begin, int64_t end, const T* weights,
                         const T* const* values, int64_t w, int64_t pitch, int64_t window,
                         int64_t channels, T* y) {
  const int64_t size = unit_size<T>(window);
  for (int64_t u = begin; u < end;) {
    const int64_t next = block.run_end(u, end), skipped = block.first(u) * kLanes<T>;
    gather_channels<T>(block.count(u), channels, weights + (u - begin) * size + skipped, values + u,
                       next - u, w, pitch, window, y + skipped);
    u = next;
  }
}

}  // namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET
