// The product of a matrix and an image: y_i = sum_j A_ij x_j.
#pragma once

#include <cstdint>

#include "../problem.h"
#include "csr.h"
#include "packing.h"
#include "prefetch.h"
#include "query_tiles.h"
#include "row_block.h"
#include "tiles.h"
#include "value_tiles.h"

namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET {

template <class S>
class ApplyEngine {
  using T = Compute<S>;
  static constexpr int64_t L = kLanes<T>;

 public:
  ApplyEngine(const Apply& a, const Chunk& chunk, Arena& arena)
      : a_(a),
        chunk_(chunk),
        y_(image_of_group<S>(a.y, chunk.group, a.channels, a.geometry)),
        keys_(arena, image_of_group<S>(a.x, chunk.group, a.channels, a.geometry), chunk.rows,
              chunk.columns),
        values_(static_cast<const S*>(a.values), chunk.group, a.geometry),
        tiles_(arena, chunk.columns, a.channels),
        block_{kTileRows, a.geometry.window[0], a.geometry.window[1]},
        units_(arena.take<const T*>(block_.units())),
        weights_(arena.take<T>(units_at_a_time<T>(a.geometry.window[2]) *
                               unit_size<T>(a.geometry.window[2]))) {}

  void run() {
    keys_.clear();
    for_each_row_block(
        chunk_, block_, [this](int64_t d) { keys_.start_plane(d); },
        [this](int64_t d, int64_t h, int64_t i) {
          keys_.pack_until(i + block_.key_rows());
          point_to_units(keys_, block_, i, units_);
          tiles_.clear();
          for (int64_t t = 0; t < tiles_.count(); ++t) tile(t, d, h);
          tiles_.store(y_, d, h, block_.rows,
                       [](int64_t, int64_t, int64_t, Vec<T> y) { return y; });
        });
  }

 private:
  void tile(int64_t t, int64_t d, int64_t h) {
    const int64_t window = a_.geometry.window[2], size = unit_size<T>(window);
    values_.start_tile(tiles_.columns(t));
    prefetch_next_tile(prefetcher_, chunk_, block_, tiles_, t, d, h, values_, keys_,
                       block_.rows * divide_up(a_.geometry.offsets(), L));
    for_each_units<T>(block_, window, [&](int64_t begin, int64_t end) {
      for (int64_t r = 0; r < block_.rows; ++r) {
        const RowOffsets o(block_, begin, end, r);
        T* weights = weights_ + (o.unit - begin) * size + r * L;
        values_.for_each_slots(
            d, h + r, begin / block_.key_rows(), o.first, o.last,
            [&](int64_t offset, const Slots<const S>& slots) {
              T* to = weights + (offset - o.first) * size;
              read_slots(slots, tiles_.lanes(t), prefetcher_,
                         [to](int64_t n, Vec<T> v) { store(to + n * kTileRows * L, v); });
            });
      }
      gather_units(block_, begin, end, weights_, units_, t * L, keys_.pitch(), window, a_.channels,
                   tiles_.tile(t));
    });
  }

  const Apply& a_;
  const Chunk& chunk_;
  Image<S> y_;
  KeyRows<S> keys_;
  CsrRows<const S> values_;
  QueryTiles<T> tiles_;
  RowBlock block_;
  const T** units_;
  T* weights_;
  Prefetcher prefetcher_;
};

}  // namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET
