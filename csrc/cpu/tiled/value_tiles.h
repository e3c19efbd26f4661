// Going through the values of a block of rows tile by tile.
//
// The key rows of a tile's windows are taken a few units at a time, so that their values stay in
// the first-level cache between the arithmetic and the transposition to or from CSR order.
#pragma once

#include <cstdint>

#include "../problem.h"
#include "prefetch.h"
#include "query_tiles.h"
#include "row_block.h"

namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET {

// Calls f(begin, end) for the units of a block, a few of one plane at a time.
template <class T, class F>
inline void for_each_units(const RowBlock& block, int64_t window, F&& f) {
  const int64_t step = units_at_a_time<T>(window);
  for (int64_t p = 0; p < block.planes; ++p) {
    const int64_t last = (p + 1) * block.key_rows();
    for (int64_t u = p * block.key_rows(); u < last; u += step) f(u, smaller(u + step, last));
  }
}

// At the start of tile t: asks for the values of the next tile. When that is one of the next block
// of rows, asks as well for what packs these rows.
template <class Values, class Keys, class T>
inline void prefetch_next_tile(Prefetcher& prefetcher, const Chunk& chunk, const RowBlock& block,
                               const QueryTiles<T>& tiles, int64_t t, int64_t d, int64_t h,
                               const Values& values, const Keys& keys, int64_t steps) {
  prefetcher.clear();
  if (t + 1 < tiles.count()) {
    values.prefetch(prefetcher, d, h, block.rows, tiles.columns(t + 1));
  } else {
    const int64_t next = h + block.rows, rows = smaller(kTileRows, chunk.rows.end - next);
    if (rows > 0) {
      values.prefetch(prefetcher, d, next, rows, tiles.columns(0));
      keys.prefetch(prefetcher, rows);
    }
  }
  prefetcher.spread(steps);
}

}  // namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET
