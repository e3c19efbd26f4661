// A few adjacent rows of queries, at most kTileRows, and the key rows that their windows touch.
//
// The window of query row r holds the key rows r <= j < r + window of its plane, so a key row at
// the top or the bottom is shared by fewer of the queries. Key rows are numbered from the top, and
// units are all key rows of all planes of the window.
#pragma once

#include <cstdint>

#include "packing.h"
#include "tiles.h"

namespace circulant::fused::CIRCULANT_INSTRUCTION_SET {

struct RowBlock {
  int64_t rows, planes, window;

  int64_t key_rows() const { return window + rows - 1; }
  int64_t units() const { return planes * key_rows(); }
  // The first query row whose window holds the key row of a unit, and how many there are.
  int64_t first(int64_t unit) const { return larger(0, unit % key_rows() - window + 1); }
  int64_t count(int64_t unit) const {
    return smaller(rows - 1, unit % key_rows()) - first(unit) + 1;
  }
  // The end of the longest run of units from `unit` on, before `end`, with the same query rows.
  int64_t run_end(int64_t unit, int64_t end) const {
    int64_t next = unit + 1;
    while (next < end && first(next) == first(unit) && count(next) == count(unit)) ++next;
    return next;
  }
};

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
  constexpr int64_t bytes = 16384;
  return larger(1, bytes / (unit_size<T>(window) * static_cast<int64_t>(sizeof(T))));
}

}  // namespace circulant::fused::CIRCULANT_INSTRUCTION_SET
