// The product of the transposed matrix and an image: y_j = sum_i A_ij x_i.
//
// A few rows of queries at a time, and for these a few key rows at a time: the values of all tiles,
// sheared to keys, and then their share of the sums.
#pragma once

#include <cstdint>

#include "csr.h"
#include "prefetch.h"
#include "row_block.h"
#include "scatter.h"

namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET {

template <class S>
class ApplyTransposedEngine {
  using T = Compute<S>;
  static constexpr int64_t L = kLanes<T>;

 public:
  ApplyTransposedEngine(const ApplyTransposed& a, const Chunk& chunk, Arena& arena)
      : a_(a),
        chunk_(chunk),
        x_(image_of_group<S>(a.x, chunk.group, a.channels, a.geometry)),
        values_(static_cast<const S*>(a.values), chunk.group, a.geometry),
        columns_{chunk.columns, a.geometry.size[2], a.geometry.window[2]},
        block_{smaller(kTileRows, chunk.rows.size()), a.geometry.window[0], a.geometry.window[1]},
        x_rows_(arena, columns_, a.channels, block_.rows),
        y_rows_(arena, columns_, chunk.rows, a.channels,
                image_of_group<T>(a.y, chunk.group, a.channels, a.geometry),
                a.touched + chunk.group * a.geometry.size[0] * a.geometry.size[1]),
        weights_(arena, columns_, smaller(kTileRows, block_.key_rows()), block_.rows) {}

  void run() {
    x_rows_.clear();
    weights_.clear();
    for_each_row_block(
        chunk_, block_, [this](int64_t d) { y_rows_.start_plane(d); },
        [this](int64_t d, int64_t h, int64_t i) {
          for (int64_t c = 0; c < a_.channels; ++c) x_rows_.pack(x_, c, d, h, block_.rows);
          y_rows_.enter_until(i + block_.key_rows());
          for (int64_t u = 0; u < block_.units();) {
            const int64_t end = scatter_end(block_, u);
            prefetch(d, h, u, end);
            for (int64_t w = 0; w < chunk_.columns.size(); w += L) load_weights(d, h, w, u, end);
            scatter_units(block_, u, end, i, weights_, x_rows_, y_rows_, columns_.window);
            u = end;
          }
          const bool last = h + block_.rows == chunk_.rows.end;
          y_rows_.leave_until(i + (last ? block_.key_rows() : block_.rows),
                              static_cast<const Image<const S>*>(nullptr));
        });
  }

 private:
  // While units [begin, end) are loaded: the values of the next units, of the next rows in the end.
  void prefetch(int64_t d, int64_t h, int64_t begin, int64_t end) {
    const int64_t blocks = divide_up((end - begin) * columns_.window, L);
    const int64_t tiles = divide_up(chunk_.columns.size(), L);
    RowBlock next = block_;
    int64_t next_h = h, next_begin = end;
    if (end == block_.units()) {
      next_h = h + block_.rows;
      next.rows = smaller(kTileRows, chunk_.rows.end - next_h);
      next_begin = 0;
    }
    prefetcher_.clear();
    if (next.rows > 0) {
      const int64_t next_end = scatter_end(next, next_begin);
      for (int64_t r = 0; r < next.rows; ++r) {
        const RowOffsets o(next, next_begin, next_end, r);
        values_.prefetch(prefetcher_, d, next_h + r, chunk_.columns, next_begin / next.key_rows(),
                         o.first, o.last);
      }
      if (next_begin == 0) x_.prefetch(prefetcher_, d, next_h, next.rows);
    }
    prefetcher_.spread(block_.rows * blocks * tiles);
  }

  // The values of units [begin, end) of the queries from column w of the chunk on.
  void load_weights(int64_t d, int64_t h, int64_t w, int64_t begin, int64_t end) {
    const int64_t window = columns_.window, lanes = smaller(L, chunk_.columns.size() - w);
    const ShearedWeights<T> weights = weights_;
    const int64_t column = chunk_.columns.begin + w;
    values_.start_tile({column, column + lanes});
    for (int64_t r = 0; r < block_.rows; ++r) {
      const RowOffsets o(block_, begin, end, r);
      values_.for_each_slots(d, h + r, begin / block_.key_rows(), o.first, o.last,
                             [&](int64_t offset, const Slots<const S>& slots) {
                               int64_t unit = o.unit - begin + offset - o.first, n0 = 0;
                               read_slots(slots, lanes, prefetcher_, [&](int64_t n, Vec<T> v) {
                                 for (; n - n0 >= window; n0 += window) ++unit;
                                 T* place = weights.place(unit, n - n0, r, w);
                                 if (weights.whole(n - n0, w, lanes))
                                   store(place, v);
                                 else
                                   weights.put(n - n0, w, lanes, v, place);
                               });
                             });
    }
  }

  const ApplyTransposed& a_;
  const Chunk& chunk_;
  Image<const S> x_;
  CsrRows<const S> values_;
  KeyColumns columns_;
  RowBlock block_;
  QueryRows<T> x_rows_;
  SumRows<T> y_rows_;
  ShearedWeights<T> weights_;
  Prefetcher prefetcher_;
};

}  // namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET
