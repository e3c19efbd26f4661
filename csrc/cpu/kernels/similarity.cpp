// The similarity of every pixel of one image with the pixels of another in the window around it.
//
// A few rows of queries at a time, tile by tile. The key rows of a tile's windows are taken a few
// units at a time, so that their scores stay in the first-level cache between the arithmetic and
// the transposition to CSR order.
#include <cstdint>

#include "../params.h"
#include "entry.h"
#include "csr.h"
#include "packing.h"
#include "../simd/prefetch.h"
#include "query_tiles.h"
#include "row_block.h"
#include "microkernels.h"

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
    prefetch(t, d, h);
    for_each_units([&](int64_t begin, int64_t end) {
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

  // Calls f(begin, end) for the units of the block, a few of one plane at a time.
  template <class F>
  void for_each_units(F&& f) const {
    const int64_t step = units_at_a_time<T>(a_.geometry.window[2]);
    for (int64_t p = 0; p < block_.planes; ++p) {
      const int64_t last = (p + 1) * block_.key_rows();
      for (int64_t u = p * block_.key_rows(); u < last; u += step) f(u, smaller(u + step, last));
    }
  }

  // During tile t: the values of the next tile; when that is one of the next block of rows, also
  // the rows to pack for these.
  void prefetch(int64_t t, int64_t d, int64_t h) {
    prefetcher_.clear();
    if (t + 1 < tiles_.count()) {
      values_.prefetch(prefetcher_, d, h, block_.rows, tiles_.columns(t + 1));
    } else {
      const int64_t next = h + block_.rows, rows = smaller(kTileRows, chunk_.rows.end - next);
      if (rows > 0) {
        values_.prefetch(prefetcher_, d, next, rows, tiles_.columns(0));
        keys_.prefetch(prefetcher_, rows);
      }
    }
    prefetcher_.spread(block_.units());
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

int64_t similarity(const Similarity& problem, const Chunk& chunk, void* scratch) {
  return run_for_dtype<SimilarityEngine>(problem, chunk, scratch);
}

}  // namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET
