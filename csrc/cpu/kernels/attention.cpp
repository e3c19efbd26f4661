// Fused attention: y_i = sum_j softmax(S)_ij v_j and lse_i = log sum_j exp(S_ij), S never stored.
//
// A block of rows of queries at a time, cut into tiles. For a few key rows at a time, and for every
// tile: scores, exponentials relative to a reference near the highest score so far, contribution to
// y. Exponentials and logarithms have base 2.
//
// The arithmetic of a query depends neither on the work items nor on other queries, so results have
// the same bits for any division of the work, and in a shard of the grid.
#include <cstdint>

#include "../params.h"
#include "../simd/prefetch.h"
#include "biases.h"
#include "entry.h"
#include "microkernels.h"
#include "packing.h"
#include "query_tiles.h"
#include "row_block.h"
#include "running_softmax.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

template <class S>
class AttentionKernel {
  using T = Compute<S>;
  static constexpr int64_t L = kLanes<T>;

 public:
  AttentionKernel(const AttentionParams& a, const WorkItem& item, Arena& arena)
      : a_(a),
        item_(item),
        geometry_(geometry_of_classes(a.geometry, item)),
        q_(query_image<const S>(a.q, item, a.channels, a.geometry)),
        y_(query_image<S>(a.y, item, a.value_channels, a.geometry)),
        lse_(query_image<T>(a.lse, item, 1, a.geometry)),
        segment_(largest_segment(geometry_.dims[2].window)),
        keys_(arena, key_image<const S>(a.k, item, a.channels, a.geometry), geometry_, item,
              segment_),
        values_(arena, key_image<const S>(a.v, item, a.value_channels, a.geometry), geometry_, item,
                segment_),
        q_tiles_(arena, item.columns, a.channels),
        y_tiles_(arena, item.columns, a.value_channels),
        lse_tiles_(arena, item.columns, 1),
        softmax_(arena.take<T>(q_tiles_.count() * RunningSoftmax<T>::kSize)),
        block_{kTileRows, geometry_.dims[0].window, geometry_.dims[1].window},
        biases_(arena, a.biases, a.geometry, geometry_, item, block_.key_rows(), keys_.pitch()),
        key_rows_(arena.take<const T*>(block_.key_rows())),
        value_rows_(arena.take<const T*>(block_.key_rows())),
        scores_(arena.take<T>(key_rows_at_a_time<T>(segment_.size()) *
                              scores_size<T>(segment_.size()))) {}

  void run() {
    keys_.clear();
    values_.clear();
    biases_.start(keys_.placement(), segment_);
    for_each_row_block(
        geometry_, item_, block_,
        [this](int64_t d) {
          keys_.start_plane(d, block_.present_planes, 0);
          values_.start_plane(d, block_.present_planes, 0);
          biases_.start_plane(d, block_.present_planes, 0);
        },
        [this](int64_t d, int64_t h, int64_t i) { row_block(d, h, i); });
  }

 private:
  // The queries of rows h.. of plane d; their first key row is row i of the item's keys.
  void row_block(int64_t d, int64_t h, int64_t i) {
    const int64_t tiles = q_tiles_.count(), key_rows = block_.key_rows();
    const int64_t window = geometry_.dims[2].window;
    q_tiles_.load(q_, d, h, block_.rows, a_.distance ? T(1) : T(a_.scale * kLog2E));
    y_tiles_.clear();
    for (int64_t t = 0; t < tiles; ++t) softmax(t).start();
    for_each_segment(window, [&](const Span& offsets) {
      pack(i, offsets);
      if (offsets.begin == 0) prefetch(d, h, segments(window) * key_rows * tiles);
      const int64_t step = key_rows_at_a_time<T>(offsets.size());
      for_each_present(block_, [&](int64_t begin, int64_t end) {
        for (int64_t j = begin; j < end; j += step) {
          for (int64_t t = 0; t < tiles; ++t) {
            add_key_rows(t, j, smaller(j + step, end), offsets.size());
          }
        }
      });
    });
    for (int64_t t = 0; t < tiles; ++t) {
      softmax(t).finish();
      for (int64_t r = 0; r < kTileRows; ++r)
        store(lse_tiles_.tile(t) + r * L, softmax(t).log_sum(r));
    }
    lse_tiles_.store(lse_, d, h, block_.rows,
                     [](int64_t, int64_t, int64_t, Vec<T> lse) { return lse; });
    y_tiles_.store(y_, d, h, block_.rows, [this](int64_t t, int64_t, int64_t r, Vec<T> y) {
      const Vec<T> inverse = softmax(t).inverse_sum(r);
      // A row without any key, to which biases can lead: its sum is zero.
      if (biases_.any()) return inverse == T(__builtin_inf()) ? Vec<T>{} : inverse * y;
      return inverse * y;
    });
  }

  // Packs the keys and values at `offsets` of the block whose first key row is row i.
  void pack(int64_t i, const Span& offsets) {
    if (offsets.size() < geometry_.dims[2].window) {
      keys_.start_segment(i, offsets);
      values_.start_segment(i, offsets);
      biases_.start_segment(i, keys_.placement(), offsets);
    }
    keys_.pack_until(i + block_.plane_rows());
    values_.pack_until(i + block_.plane_rows());
    point_to_key_rows(keys_, block_, i, key_rows_);
    point_to_key_rows(values_, block_, i, value_rows_);
    biases_.pack(block_, i, i + block_.plane_rows(), keys_.placement());
  }

  // Of tile t.
  RunningSoftmax<T> softmax(int64_t t) const {
    return RunningSoftmax<T>(softmax_ + t * RunningSoftmax<T>::kSize);
  }

  // Prefetches the rows that the next block reads. Prefetching the rows that this one writes costs
  // more than it saves.
  void prefetch(int64_t d, int64_t h, int64_t steps) {
    const int64_t next = h + block_.rows, rows = smaller(kTileRows, item_.rows.end - next);
    prefetcher_.clear();
    if (rows > 0) {
      q_.prefetch(prefetcher_, d, next, rows);
      keys_.prefetch(prefetcher_, rows);
      values_.prefetch(prefetcher_, rows);
    }
    prefetcher_.spread(steps);
  }

  // Adds key rows [begin, end), packed with `window` offsets, to tile t.
  void add_key_rows(int64_t t, int64_t begin, int64_t end, int64_t window) {
    const int64_t size = scores_size<T>(window), dilation = geometry_.dims[2].dilation;
    const T factor = T(-0.5 * a_.scale * kLog2E);
    const ScoreStart<T> tile = biases_.of_tile(q_tiles_.columns(t), t * L);
    const bool biased = biases_.any();
    T *q = q_tiles_.tile(t), *y = y_tiles_.tile(t);
    RunningSoftmax<T> softmax = this->softmax(t);
    for (int64_t j = begin; j < end; ++j) {
      const int64_t skipped = block_.first_query(j) * L;
      score_window<T>(a_.distance, block_.queries(j), window, q + skipped, key_rows_[j] + t * L,
                      dilation, keys_.pitch(), a_.channels, factor,
                      biased ? biases_.of_key_row(tile, block_, j, t * L) : tile,
                      scores_ + (j - begin) * size + skipped, softmax.highest() + skipped);
      prefetcher_.step();
    }
    softmax.raise_reference(block_.rows, T(8), a_.value_channels, y);
    for (int64_t j = begin; j < end; ++j) {
      softmax.exponentiate(block_.first_query(j), block_.queries(j), window,
                           scores_ + (j - begin) * size);
    }
    gather_key_rows(block_, begin, end, scores_, value_rows_, t * L, dilation, values_.pitch(),
                    window, a_.value_channels, y);
  }

  const AttentionParams& a_;
  const WorkItem& item_;
  Geometry geometry_;  // of the classes
  Image<const S> q_;
  Image<S> y_;
  Image<T> lse_;
  Span segment_;
  KeyRows<S> keys_, values_;
  QueryTiles<T> q_tiles_, y_tiles_, lse_tiles_;
  T* softmax_;
  RowBlock block_;
  ScoreBiases<T> biases_;
  const T **key_rows_, **value_rows_;
  T* scores_;
  Prefetcher prefetcher_;
};

CIRCULANT_DEFINE_KERNEL(attention, AttentionParams, AttentionKernel)

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
