// The similarity of every pixel of one image with the pixels of another in the window around it.
//
// A block of rows of queries at a time, tile by tile, and for each tile a few key rows at a time:
// their scores stay in the first-level cache between the arithmetic and the transposition to CSR
// order.
#include <cstdint>

#include "../params.h"
#include "../simd/prefetch.h"
#include "csr.h"
#include "entry.h"
#include "microkernels.h"
#include "packing.h"
#include "query_tiles.h"
#include "row_block.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

template <class S>
class SimilarityKernel {
  using T = Compute<S>;
  static constexpr int64_t L = kLanes<T>;

 public:
  SimilarityKernel(const SimilarityParams& a, const WorkItem& item, Arena& arena)
      : a_(a),
        item_(item),
        x_(image_of_group<S>(a.x, item.group, a.channels, a.geometry)),
        segment_(largest_segment(a.geometry.window[2])),
        keys_(arena, image_of_group<S>(a.y, item.group, a.channels, a.geometry), item.rows,
              item.columns, segment_),
        values_(static_cast<S*>(a.values), item.group, a.geometry),
        tiles_(arena, item.columns, a.channels),
        block_{kTileRows, a.geometry.window[0], a.geometry.window[1]},
        key_rows_(arena.take<const T*>(block_.key_rows())),
        scores_(arena.take<T>(key_rows_at_a_time<T>(segment_.size()) *
                              scores_size<T>(segment_.size()))) {}

  void run() {
    keys_.clear();
    for_each_row_block(
        item_, block_, [this](int64_t d) { keys_.start_plane(d); },
        [this](int64_t d, int64_t h, int64_t i) {
          tiles_.load(x_, d, h, block_.rows, T(1));
          for_each_segment(a_.geometry.window[2], [&](const Span& offsets) {
            pack(i, offsets);
            for (int64_t t = 0; t < tiles_.count(); ++t) tile(t, d, h, offsets.size());
          });
        });
  }

 private:
  // Packs the keys at `offsets` of the block whose first key row is row i.
  void pack(int64_t i, const Span& offsets) {
    if (offsets.size() < a_.geometry.window[2]) {
      keys_.start_segment(i, offsets);
      values_.start_segment(offsets);
    }
    keys_.pack_until(i + block_.plane_rows());
    point_to_key_rows(keys_, block_, i, key_rows_);
  }

  // Tile t of rows h.. of plane d, with keys packed with `window` offsets.
  void tile(int64_t t, int64_t d, int64_t h, int64_t window) {
    const int64_t size = scores_size<T>(window);
    values_.start_tile(tiles_.columns(t));
    prefetch(t, d, h);
    for_each_key_rows(window, [&](int64_t begin, int64_t end) {
      for (int64_t j = begin; j < end; ++j) {
        const int64_t skipped = block_.first_query(j) * L;
        score_window<T>(a_.distance, block_.queries(j), window, tiles_.tile(t) + skipped,
                        key_rows_[j] + t * L, keys_.pitch(), a_.channels, T(-0.5),
                        scores_ + (j - begin) * size + skipped, nullptr);
        prefetcher_.step();
      }
      for (int64_t r = 0; r < block_.rows; ++r) {
        const RowOffsets o(block_, begin, end, r);
        const T* scores = scores_ + (o.key_row - begin) * size + r * L;
        values_.for_each_slots(d, h + r, begin / block_.plane_rows(), o.first, o.last,
                               [&](int64_t offset, const Slots<S>& slots) {
                                 const T* from = scores + (offset - o.first) * size;
                                 write_slots(slots, tiles_.lanes(t), [from](int64_t n) {
                                   return load(from + n * kTileRows * L);
                                 });
                               });
      }
    });
  }

  // Calls f(begin, end) for the key rows of the block, a few of one plane at a time.
  template <class F>
  void for_each_key_rows(int64_t window, F&& f) const {
    const int64_t step = key_rows_at_a_time<T>(window);
    for (int64_t p = 0; p < block_.planes; ++p) {
      const int64_t last = (p + 1) * block_.plane_rows();
      for (int64_t j = p * block_.plane_rows(); j < last; j += step) f(j, smaller(j + step, last));
    }
  }

  // Prefetches, during tile t, the values of the next tile; if that is in the next block of rows,
  // also the key rows to pack for it.
  void prefetch(int64_t t, int64_t d, int64_t h) {
    prefetcher_.clear();
    if (t + 1 < tiles_.count()) {
      values_.prefetch(prefetcher_, d, h, block_.rows, tiles_.columns(t + 1));
    } else {
      const int64_t next = h + block_.rows, rows = smaller(kTileRows, item_.rows.end - next);
      if (rows > 0) {
        values_.prefetch(prefetcher_, d, next, rows, tiles_.columns(0));
        keys_.prefetch(prefetcher_, rows);
      }
    }
    prefetcher_.spread(block_.key_rows());
  }

  const SimilarityParams& a_;
  const WorkItem& item_;
  Image<const S> x_;
  Span segment_;
  KeyRows<S> keys_;
  CsrRows<S> values_;
  QueryTiles<T> tiles_;
  RowBlock block_;
  const T** key_rows_;
  T* scores_;
  Prefetcher prefetcher_;
};

CIRCULANT_DEFINE_KERNEL(similarity, SimilarityParams, SimilarityKernel)

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
