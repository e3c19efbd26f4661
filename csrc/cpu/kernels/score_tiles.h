// The scores of a block of rows of queries with the key rows in their windows, tile by tile, and
// writing what becomes of them in CSR order.
#pragma once

#include <cstdint>

#include "../params.h"
#include "../simd/prefetch.h"
#include "csr.h"
#include "microkernels.h"
#include "packing.h"
#include "presence.h"
#include "query_tiles.h"
#include "row_block.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

// What the kernels of the similarity and the adjacency share.
template <class S>
class ScoreTiles {
 protected:
  using T = Compute<S>;
  static constexpr int64_t L = kLanes<T>;

  template <class Params>
  ScoreTiles(const Params& a, const WorkItem& item, Arena& arena)
      : channels_(a.channels),
        distance_(a.distance),
        item_(item),
        geometry_(geometry_of_classes(a.geometry, item)),
        window_(geometry_.dims[2].window),
        x_(query_image<const S>(a.x, item, a.channels, a.geometry)),
        segment_(largest_segment(window_)),
        keys_(arena, key_image<const S>(a.y, item, a.channels, a.geometry), geometry_, item,
              segment_),
        presence_(arena, geometry_.dims[2], keys_.pitch()),
        values_(static_cast<S*>(a.values), item, a.geometry),
        tiles_(arena, item.columns, a.channels),
        block_{kTileRows, geometry_.dims[0].window, geometry_.dims[1].window},
        key_rows_(arena.take<const T*>(block_.key_rows())) {}

  // Calls f(d, h, i) for each block of rows h.. of plane d, with queries times `factor` in the
  // tiles; row i of the item is the first of the block.
  template <class F>
  void for_each_block(T factor, F&& f) {
    keys_.clear();
    presence_.start(keys_.placement(), segment_);
    for_each_row_block(
        geometry_, item_, block_,
        [this](int64_t d) { keys_.start_plane(d, block_.present_planes, 0); },
        [&](int64_t d, int64_t h, int64_t i) {
          tiles_.load(x_, d, h, block_.rows, factor);
          f(d, h, i);
        });
  }

  // Packs the keys at `offsets` for the block that starts at row i of the item.
  void pack(int64_t i, const Span& offsets) {
    if (offsets.size() < window_) {
      keys_.start_segment(i, offsets);
      presence_.start(keys_.placement(), offsets);
      values_.start_segment(offsets);
    }
    keys_.pack_until(i + block_.plane_rows());
    point_to_key_rows(keys_, block_, i, key_rows_);
  }

  // Calls f(begin, end) for the present key rows of each plane of the block.
  template <class F>
  void for_each_plane(F&& f) const {
    for (int64_t p = block_.present_planes.begin; p < block_.present_planes.end; ++p) {
      const int64_t top = p * block_.plane_rows();
      f(top + block_.present_rows.begin, top + block_.present_rows.end);
    }
  }

  // The same for at most `count` key rows at a time.
  template <class F>
  void for_each_key_rows(int64_t count, F&& f) const {
    for_each_plane([&](int64_t first, int64_t last) {
      for (int64_t j = first; j < last; j += count) f(j, smaller(j + count, last));
    });
  }

  // What to add to the scores of tile t: null for nothing, or -infinity for absent keys.
  const T* biases(int64_t t) const { return presence_.biases(tiles_.columns(t), t * L); }

  // Starts writing the values of tile t in rows h.. of plane d, with the zeros of absent key rows.
  void start_values(int64_t t, int64_t d, int64_t h) {
    values_.start_tile(tiles_.columns(t));
    clear_absent_rows(values_, block_, d, h, tiles_.lanes(t));
  }

  // Computes the scores of tile t and key rows [begin, end), packed with `window` offsets;
  // distances times `factor`, plus `biases` unless null. Raises the highest score of each query
  // unless `highest` is null.
  void score(int64_t t, int64_t begin, int64_t end, int64_t window, T factor, const T* biases,
             T* highest, T* scores) {
    const ScoreStart<T> start{biases, nullptr, 0};
    for (int64_t j = begin; j < end; ++j, scores += scores_size<T>(window)) {
      const int64_t skipped = block_.first_query(j) * L;
      score_window<T>(distance_, block_.queries(j), window, tiles_.tile(t) + skipped,
                      key_rows_[j] + t * L, geometry_.dims[2].dilation, keys_.pitch(), channels_,
                      factor, start, scores + skipped,
                      highest == nullptr ? nullptr : highest + skipped);
      prefetcher_.step();
    }
  }

  // Writes value_of(r)(score) of tile t and key rows [begin, end), all of one plane, for each row r
  // of the block.
  template <class F>
  void write(int64_t t, int64_t d, int64_t h, int64_t begin, int64_t end, int64_t window,
             const T* scores, F&& value_of) {
    const int64_t size = scores_size<T>(window);
    for (int64_t r = 0; r < block_.rows; ++r) {
      const RowOffsets o(block_, begin, end, r);
      const T* first = scores + (o.key_row - begin) * size + r * L;
      const auto value = value_of(r);
      values_.for_each_slots(d, h + r, begin / block_.plane_rows(), o.first, o.last,
                             [&](int64_t offset, const Slots<S>& slots) {
                               const T* from = first + (offset - o.first) * size;
                               write_slots(slots, tiles_.lanes(t), [from, value](int64_t n) {
                                 return value(load(from + n * kTileRows * L));
                               });
                             });
    }
  }

  int64_t channels_;
  bool distance_;
  const WorkItem& item_;
  Geometry geometry_;  // of the classes
  int64_t window_;
  Image<const S> x_;
  Span segment_;
  KeyRows<S> keys_;
  Presence<T> presence_;
  CsrRows<S> values_;
  QueryTiles<T> tiles_;
  RowBlock block_;
  const T** key_rows_;
  Prefetcher prefetcher_;
};

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
