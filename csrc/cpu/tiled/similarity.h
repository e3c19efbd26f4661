// The similarity of the pixels of two images, for all that are in one window.
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
class SimilarityEngine {
  using T = Compute<S>;
  static constexpr int64_t L = kLanes<T>;

 public:
  SimilarityEngine(const Similarity& a, const Chunk& chunk, Arena& arena)
      : a_(a),
        chunk_(chunk),
        x_(image_of_group<S>(a.x, chunk.group, a.channels, a.geometry)),
        keys_(arena, image_of_group<S>(a.y, chunk.group, a.channels, a.geometry), chunk.rows,
              chunk.columns),
        values_(static_cast<S*>(a.values), chunk.group, a.geometry),
        tiles_(arena, chunk.columns, a.channels),
        block_{kTileRows, a.geometry.window[0], a.geometry.window[1]},
        units_(arena.take<const T*>(block_.units())),
        scores_(arena.take<T>(units_at_a_time<T>(a.geometry.window[2]) *
                              unit_size<T>(a.geometry.window[2]))) {}

  void run() {
    keys_.clear();
    for_each_row_block(
        chunk_, block_, [this](int64_t d) { keys_.start_plane(d); },
        [this](int64_t d, int64_t h, int64_t i) {
          keys_.pack_until(i + block_.key_rows());
          point_to_units(keys_, block_, i, units_);
          tiles_.load(x_, d, h, block_.rows, T(1));
          for (int64_t t = 0; t < tiles_.count(); ++t) tile(t, d, h);
        });
  }

 private:
  void tile(int64_t t, int64_t d, int64_t h) {
    const int64_t window = a_.geometry.window[2], size = unit_size<T>(window);
    values_.start_tile(tiles_.columns(t));
    prefetch_next_tile(prefetcher_, chunk_, block_, tiles_, t, d, h, values_, keys_,
                       block_.units());
    for_each_units<T>(block_, window, [&](int64_t begin, int64_t end) {
      for (int64_t u = begin; u < end; ++u) {
        const int64_t skipped = block_.first(u) * L;
        score_window<T>(a_.distance, block_.count(u), window, tiles_.tile(t) + skipped,
                        units_[u] + t * L, keys_.pitch(), a_.channels, T(-0.5),
                        scores_ + (u - begin) * size + skipped, nullptr);
        prefetcher_.step();
      }
      for (int64_t r = 0; r < block_.rows; ++r) {
        const RowOffsets o(block_, begin, end, r);
        const T* scores = scores_ + (o.unit - begin) * size + r * L;
        values_.for_each_slots(d, h + r, begin / block_.key_rows(), o.first, o.last,
                               [&](int64_t offset, const Slots<S>& slots) {
                                 const T* from = scores + (offset - o.first) * size;
                                 write_slots(slots, tiles_.lanes(t), [from](int64_t n) {
                                   return load(from + n * kTileRows * L);
                                 });
                               });
      }
    });
  }

  const Similarity& a_;
  const Chunk& chunk_;
  Image<const S> x_;
  KeyRows<S> keys_;
  CsrRows<S> values_;
  QueryTiles<T> tiles_;
  RowBlock block_;
  const T** units_;
  T* scores_;
  Prefetcher prefetcher_;
};

}  // namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET
