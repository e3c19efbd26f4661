// The adjacency: the row softmax of the similarity, written once.
//
// A block of rows of queries at a time, tile by tile. For a few key rows at a time: scores, and
// their exponentials relative to a reference near the highest score so far. The exponentials of a
// tile are kept, mostly in the second-level cache, until their sums are known; then they are
// divided by these and transposed to CSR order.
//
// The keys of windows in segments are packed for one segment at a time, and all tiles of a block.
// Instead of keeping the exponentials of all tiles, a first pass over the segments computes their
// sums, and a second one computes them again and writes.
#include <cstdint>

#include "entry.h"
#include "running_softmax.h"
#include "score_tiles.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

template <class S>
class AdjacencyKernel : ScoreTiles<S> {
  using Base = ScoreTiles<S>;
  using Base::L, Base::block_, Base::prefetcher_, Base::segment_, Base::tiles_, Base::values_,
      Base::window_;
  using typename Base::T;

 public:
  AdjacencyKernel(const AdjacencyParams& a, const WorkItem& item, Arena& arena)
      : Base(a, item, arena),
        scale_(a.scale),
        together_(key_rows_at_a_time<T>(segment_.size())),
        kept_(segments(window_) == 1),
        softmax_(arena.take<T>((kept_ ? 1 : tiles_.count()) * RunningSoftmax<T>::kSize)),
        references_(arena.take<T>(
            kept_ ? block_.planes * divide_up(block_.plane_rows(), together_) * kTileRows * L : 0)),
        scores_(arena.take<T>((kept_ ? block_.key_rows() : together_) *
                              scores_size<T>(segment_.size()))) {}

  void run() {
    const T factor = this->distance_ ? T(1) : T(scale_ * kLog2E);
    this->for_each_block(factor, [this](int64_t d, int64_t h, int64_t i) {
      if (kept_)
        compute_in_one_pass(d, h, i);
      else
        compute_in_two_passes(d, h, i);
    });
  }

 private:
  // Exponentials up to 2^64, and their sums, are as accurate as those up to 1, so that the
  // reference is raised rarely.
  static constexpr T kSlack = 64;

  // Both compute rows h.. of plane d, the first of them row i of the item.

  void compute_in_one_pass(int64_t d, int64_t h, int64_t i) {
    const int64_t window = segment_.size(), size = scores_size<T>(window);
    this->pack(i, segment_);
    for (int64_t t = 0; t < tiles_.count(); ++t) {
      RunningSoftmax<T> softmax(softmax_);
      softmax.start();
      prefetch(t, d, h);
      T* reference = references_;
      for_each_present_rows([&](int64_t begin, int64_t end) {
        score(t, begin, end, window, softmax.highest(), scores_ + begin * size);
        softmax.raise_reference(block_.rows, kSlack, 0, nullptr);
        exponentiate(begin, end, window, softmax, scores_ + begin * size);
        for (int64_t r = 0; r < kTileRows; ++r, reference += L) {
          store(reference, softmax.reference(r));
        }
      });
      rescale(softmax);
      softmax.finish();
      this->start_values(t, d, h);
      this->for_each_plane([&](int64_t begin, int64_t end) {
        write(t, d, h, begin, end, window, softmax, scores_ + begin * size);
      });
    }
  }

  void compute_in_two_passes(int64_t d, int64_t h, int64_t i) {
    const int64_t tiles = tiles_.count();
    const auto softmax = [this](int64_t t) {
      return RunningSoftmax<T>(softmax_ + t * RunningSoftmax<T>::kSize);
    };
    for (int64_t t = 0; t < tiles; ++t) softmax(t).start();
    prefetcher_.clear();
    const auto add = [&](int64_t t, int64_t begin, int64_t end, int64_t window) {
      score(t, begin, end, window, softmax(t).highest(), scores_);
      softmax(t).raise_reference(block_.rows, kSlack, 0, nullptr);
      exponentiate(begin, end, window, softmax(t), scores_);
    };
    for_each_part(i, [](int64_t) {}, add);
    for (int64_t t = 0; t < tiles; ++t) softmax(t).finish();
    const auto start = [&](int64_t t) {
      prefetch(t, d, h);
      this->start_values(t, d, h);
    };
    for_each_part(i, start, [&](int64_t t, int64_t begin, int64_t end, int64_t window) {
      score(t, begin, end, window, nullptr, scores_);
      exponentiate(begin, end, window, softmax(t), scores_);
      write(t, d, h, begin, end, window, softmax(t), scores_);
    });
  }

  // Calls start(t) for every segment and tile, then f(t, begin, end, window) for all present key
  // rows [begin, end) of the block that starts at row i, a few of one plane at a time, packed with
  // `window` offsets.
  template <class Start, class F>
  void for_each_part(int64_t i, Start&& start, F&& f) {
    for_each_segment(window_, [&](const Span& offsets) {
      this->pack(i, offsets);
      for (int64_t t = 0; t < tiles_.count(); ++t) {
        start(t);
        this->for_each_key_rows(
            together_, [&](int64_t begin, int64_t end) { f(t, begin, end, offsets.size()); });
      }
    });
  }

  // Calls f(begin, end) for the present key rows, a few at a time, also of several planes.
  template <class F>
  void for_each_present_rows(F&& f) const {
    for_each_present(block_, [&](int64_t first, int64_t last) {
      for (int64_t j = first; j < last; j += together_) f(j, smaller(j + together_, last));
    });
  }

  // The scores of key rows [begin, end), times log2(e).
  void score(int64_t t, int64_t begin, int64_t end, int64_t window, T* highest, T* scores) {
    Base::score(t, begin, end, window, T(-0.5 * scale_ * kLog2E), this->biases(t), highest, scores);
  }

  void exponentiate(int64_t begin, int64_t end, int64_t window, RunningSoftmax<T> softmax,
                    T* scores) const {
    for (int64_t j = begin; j < end; ++j, scores += scores_size<T>(window)) {
      softmax.exponentiate(block_.first_query(j), block_.queries(j), window, scores);
    }
  }

  // Multiplies the exponentials that are relative to a lower reference than the last one.
  void rescale(const RunningSoftmax<T>& softmax) {
    const int64_t window = segment_.size(), size = scores_size<T>(window);
    const T* reference = references_;
    for_each_present_rows([&](int64_t begin, int64_t end) {
      for (int64_t r = 0; r < kTileRows; ++r, reference += L) {
        const Vec<T> old = load(reference), last = softmax.reference(r);
        if (!any<T>(old < last)) continue;
        const Vec<T> factor = exp2<T>(old - last);
        for (int64_t j = begin; j < end; ++j) {
          const int64_t row = r - block_.first_query(j);
          if (row < 0 || row >= block_.queries(j)) continue;
          T* weight = scores_ + j * size + r * L;
          for (int64_t o = 0; o < window; ++o, weight += kTileRows * L) {
            store(weight, factor * load(weight));
          }
        }
      }
    });
  }

  // Writes the exponentials of key rows [begin, end), all of one plane, over their sums.
  void write(int64_t t, int64_t d, int64_t h, int64_t begin, int64_t end, int64_t window,
             const RunningSoftmax<T>& softmax, const T* exponentials) {
    Base::write(t, d, h, begin, end, window, exponentials, [&softmax](int64_t r) {
      return [factor = softmax.inverse_sum(r)](Vec<T> weight) { return factor * weight; };
    });
  }

  // Prefetches, during tile t, the values to write; during the last tile of a block of rows also
  // the key rows to pack for the next block.
  void prefetch(int64_t t, int64_t d, int64_t h) {
    prefetcher_.clear();
    values_.prefetch(prefetcher_, d, h, block_.rows, tiles_.columns(t));
    if (t + 1 == tiles_.count()) {
      const int64_t rows = smaller(kTileRows, this->item_.rows.end - h - block_.rows);
      if (rows > 0) this->keys_.prefetch(prefetcher_, rows);
    }
    prefetcher_.spread(block_.key_rows());
  }

  double scale_;
  int64_t together_;
  bool kept_;
  T *softmax_, *references_, *scores_;
};

CIRCULANT_DEFINE_KERNEL(adjacency, AdjacencyParams, AdjacencyKernel)

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
