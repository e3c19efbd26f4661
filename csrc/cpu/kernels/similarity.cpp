// The similarity of every pixel of one image with the pixels of another in the window around it.
//
// A block of rows of queries at a time, tile by tile, and for each tile a few key rows at a time:
// their scores stay in the first-level cache between the arithmetic and the transposition to CSR
// order.
#include <cstdint>

#include "entry.h"
#include "score_tiles.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

template <class S>
class SimilarityKernel : ScoreTiles<S> {
  using Base = ScoreTiles<S>;
  using Base::block_, Base::tiles_, Base::values_, Base::prefetcher_;
  using typename Base::T;

 public:
  SimilarityKernel(const SimilarityParams& a, const WorkItem& item, Arena& arena)
      : Base(a, item, arena),
        scores_(arena.take<T>(key_rows_at_a_time<T>(this->segment_.size()) *
                              scores_size<T>(this->segment_.size()))) {}

  void run() {
    this->for_each_block(T(1), [this](int64_t d, int64_t h, int64_t i) {
      for_each_segment(this->window_, [&](const Span& offsets) {
        this->pack(i, offsets);
        for (int64_t t = 0; t < tiles_.count(); ++t) tile(t, d, h, offsets.size());
      });
    });
  }

 private:
  // Tile t of rows h.. of plane d, with keys packed with `window` offsets.
  void tile(int64_t t, int64_t d, int64_t h, int64_t window) {
    values_.start_tile(tiles_.columns(t));
    prefetch(t, d, h);
    for_each_key_rows(window, [&](int64_t begin, int64_t end) {
      this->score(t, begin, end, window, T(-0.5), nullptr, scores_);
      this->write(t, d, h, begin, end, window, scores_,
                  [](int64_t) { return [](Vec<T> score) { return score; }; });
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
      const int64_t next = h + block_.rows, rows = smaller(kTileRows, this->item_.rows.end - next);
      if (rows > 0) {
        values_.prefetch(prefetcher_, d, next, rows, tiles_.columns(0));
        this->keys_.prefetch(prefetcher_, rows);
      }
    }
    prefetcher_.spread(block_.key_rows());
  }

  T* scores_;
};

CIRCULANT_DEFINE_KERNEL(similarity, SimilarityParams, SimilarityKernel)

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
