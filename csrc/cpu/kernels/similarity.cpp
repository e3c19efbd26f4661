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
  using Base::L, Base::block_, Base::tiles_, Base::values_, Base::prefetcher_;
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
    const T* biases = this->biases(t);
    prefetch(t, d, h);
    this->start_values(t, d, h);
    this->for_each_key_rows(key_rows_at_a_time<T>(window), [&](int64_t begin, int64_t end) {
      this->score(t, begin, end, window, T(-0.5), nullptr, nullptr, scores_);
      if (biases != nullptr) clear_absent_columns(begin, end, window, biases);
      this->write(t, d, h, begin, end, window, scores_,
                  [](int64_t) { return [](Vec<T> score) { return score; }; });
    });
  }

  // Sets the scores of absent keys in key rows [begin, end) to zero.
  void clear_absent_columns(int64_t begin, int64_t end, int64_t window, const T* biases) const {
    const int64_t dilation = this->geometry_.dims[2].dilation;
    T* scores = scores_;
    for (int64_t j = begin; j < end; ++j) {
      const int64_t first = block_.first_query(j), last = first + block_.queries(j);
      for (int64_t o = 0; o < window; ++o, scores += kTileRows * L) {
        const auto present = load(biases + o * dilation) == T(0);
        for (int64_t r = first; r < last; ++r) {
          store(scores + r * L, present ? load(scores + r * L) : Vec<T>{});
        }
      }
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
