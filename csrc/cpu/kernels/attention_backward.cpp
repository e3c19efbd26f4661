// The gradients of fused attention. The weights are recomputed from the log-sum-exp.
//
// With P = exp(S - lse), dP_ij = dy_i . v_j and delta_i = dy_i . y_i:
//   dS = scale P (dP - delta), the gradient of the similarity,
//   dv_j = sum_i P_ij dy_i, dq_i = sum_j dS_ij k_j, dk_j = sum_i dS_ij q_i,
// and for the distance, dq_i -= q_i sum_j dS_ij and dk_j -= k_j sum_i dS_ij. The gradient of a bias
// is the sum of dS / scale over its scores. With dlse, delta_i is dy_i . y_i - dlse_i.
//
// A block of rows of queries at a time, and for it a few key rows at a time: for every tile, P, dS
// and the contribution to dq; then, with P and dS of all columns, the contributions to dk and dv.
#include <cstdint>

#include "../params.h"
#include "../simd/math.h"
#include "../simd/prefetch.h"
#include "attended_queries.h"
#include "biases.h"
#include "entry.h"
#include "microkernels.h"
#include "offset_sums.h"
#include "packing.h"
#include "query_tiles.h"
#include "row_block.h"
#include "scatter.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

template <class S>
class AttentionBackwardKernel {
  using T = Compute<S>;
  static constexpr int64_t L = kLanes<T>;

 public:
  AttentionBackwardKernel(const AttentionBackwardParams& a, const PairItem& pairs, Arena& arena)
      : a_(a),
        pairs_(pairs),
        item_(pairs.queries),
        geometry_(geometry_of_classes(a.geometry, item_)),
        k_(key_image<const S>(a.k, item_, a.channels, a.geometry)),
        v_(key_image<const S>(a.v, item_, a.value_channels, a.geometry)),
        dq_(query_image<T>(a.dq, item_, a.channels, a.geometry)),
        key_sums_(key_image<T>(a.key_sums, item_, a.key_sums != nullptr, a.geometry)),
        columns_{item_.columns, a.geometry.dims[2], pairs.offsets},
        block_{smaller(kTileRows, item_.rows.size()), geometry_.dims[0].window,
               geometry_.dims[1].window},
        keys_(arena, k_, geometry_, item_, pairs.offsets),
        values_(arena, v_, geometry_, item_, pairs.offsets),
        biases_(arena, a.biases, a.geometry, geometry_, item_, block_.key_rows(), keys_.pitch()),
        queries_(arena, a, item_, columns_, block_.rows, sums()),
        dk_rows_(arena, columns_, geometry_, item_.rows, a.channels + sums(),
                 key_image<T>(a.dk, item_, a.channels, a.geometry), pairs.stored_rows),
        dv_rows_(arena, columns_, geometry_, item_.rows, a.value_channels,
                 key_image<T>(a.dv, item_, a.value_channels, a.geometry), pairs.stored_rows),
        weights_(arena, columns_, smaller(kTileRows, block_.key_rows()), block_.rows),
        score_gradients_(arena, columns_, smaller(kTileRows, block_.key_rows()), block_.rows),
        dq_tiles_(arena, item_.columns, a.channels),
        gradient_sums_(arena, item_.columns, 1),
        offset_sums_(arena, a.offset_sums != nullptr ? geometry_.offsets() : 0),
        key_rows_(arena.take<const T*>(block_.key_rows())),
        value_rows_(arena.take<const T*>(block_.key_rows())),
        scores_(arena.take<T>(scores_size<T>(columns_.window()))),
        gradients_(arena.take<T>(kTileRows * scores_size<T>(columns_.window()))) {}

  void run() {
    keys_.clear();
    values_.clear();
    biases_.start(keys_.placement(), pairs_.offsets);
    offset_sums_.clear();
    queries_.clear();
    weights_.clear();
    score_gradients_.clear();
    for (int64_t d = item_.planes.begin; d < item_.planes.end; ++d) {
      const Dim& dim = geometry_.dims[0];
      const int64_t first = d - dim.before;
      const Span planes = common({pairs_.key_planes.begin - first, pairs_.key_planes.end - first},
                                 present_of(dim, d, dim.window));
      if (planes.size() > 0) run_plane(d, planes);
    }
    if (a_.offset_sums != nullptr) {
      offset_sums_.add_to(static_cast<T*>(a_.offset_sums) + pairs_.block * geometry_.offsets());
    }
  }

 private:
  // Whether an additional channel of dk sums dS: for the distance, and the gradients of key biases.
  bool sums() const { return a_.distance || a_.key_sums != nullptr; }

  static Span common(const Span& a, const Span& b) {
    return {larger(a.begin, b.begin), smaller(a.end, b.end)};
  }

  // The queries of plane d, with `planes` of the window.
  void run_plane(int64_t d, const Span& planes) {
    const Dim& dim = geometry_.dims[1];
    const int64_t first = item_.rows.begin - dim.before;
    // The key rows, numbered from the first one in the windows of the item.
    const Span rows = common({pairs_.key_rows.begin - first, pairs_.key_rows.end - first},
                             present_of(dim, item_.rows.begin, item_.rows.size() + dim.window - 1));
    keys_.start_plane(d, planes, rows.begin);
    values_.start_plane(d, planes, rows.begin);
    biases_.start_plane(d, planes, rows.begin);
    dk_rows_.start_plane(d, planes, rows.begin);
    dv_rows_.start_plane(d, planes, rows.begin);
    for (int64_t h = item_.rows.begin; h < item_.rows.end; h += kTileRows) {
      const int64_t i = h - item_.rows.begin;
      block_.rows = smaller(kTileRows, item_.rows.end - h);
      const Span block_rows = common(rows, {i, i + block_.plane_rows()});
      if (block_rows.size() > 0) {
        keys_.pack_until(block_rows.end);
        values_.pack_until(block_rows.end);
        dk_rows_.enter_until(block_rows.end);
        dv_rows_.enter_until(block_rows.end);
        point_to_key_rows(keys_, block_, i, key_rows_);
        point_to_key_rows(values_, block_, i, value_rows_);
        biases_.pack(block_, i, block_rows.end, keys_.placement());
        row_block(d, h, i, planes, {block_rows.begin - i, block_rows.end - i});
      }
      leave_until(larger(rows.begin, smaller(i + block_.rows, rows.end)));
    }
    leave_until(rows.end);
  }

  void leave_until(int64_t until) {
    dk_rows_.leave_until(until, T(outer_scale()), a_.distance ? &k_ : nullptr,
                         a_.key_sums != nullptr ? &key_sums_ : nullptr);
    dv_rows_.leave_until(until, T(1), static_cast<const Image<const S>*>(nullptr), nullptr);
  }

  // dS has the scale as a factor, or with biases, which need it without, dq and dk have.
  double inner_scale() const { return biases_.any() ? 1 : a_.scale; }
  double outer_scale() const { return biases_.any() ? a_.scale : 1; }

  // The queries of rows h.. of plane d, with `planes` of the window and `rows` of the block's key
  // rows in each. Their first key row is row i of the item's keys.
  void row_block(int64_t d, int64_t h, int64_t i, const Span& planes, const Span& rows) {
    const int64_t tiles = queries_.q_tiles.count();
    prefetch(d, h, 2 * planes.size() * rows.size() * tiles);
    queries_.load_rows(d, h, block_.rows);
    dq_tiles_.clear();
    gradient_sums_.clear();
    for (int64_t p = planes.begin; p < planes.end; ++p) {
      const int64_t last = p * block_.plane_rows() + rows.end;
      for (int64_t j = p * block_.plane_rows() + rows.begin; j < last;) {
        const int64_t end = smaller(last, scatter_end(block_, j));
        for (int64_t t = 0; t < tiles; ++t) add_key_rows(t, j, end);
        scatter_key_rows(block_, j, end, i, weights_, queries_.dy_rows, dv_rows_, columns_.window(),
                         columns_.dim.dilation);
        scatter_key_rows(block_, j, end, i, score_gradients_, queries_.q_rows, dk_rows_,
                         columns_.window(), columns_.dim.dilation);
        j = end;
      }
    }
    offset_sums_.end_block();
    const T scale = T(outer_scale());
    dq_tiles_.store(dq_, d, h, block_.rows,
                    [=](int64_t t, int64_t c, int64_t r, Vec<T> sum) -> Vec<T> {
                      if (a_.distance) {
                        const Vec<T> q = load(queries_.q_tiles.tile(t) + (c * kTileRows + r) * L);
                        sum -= load(gradient_sums_.tile(t) + r * L) * q;
                      }
                      sum *= scale;
                      if (!pairs_.add_dq) return sum;
                      const T* dq = dq_.row(c, d, h + r) + item_.columns.begin + t * L;
                      return sum + load_first(dq, queries_.q_tiles.lanes(t));
                    });
  }

  // Prefetches the rows that the next block reads.
  void prefetch(int64_t d, int64_t h, int64_t steps) {
    const int64_t next = h + block_.rows, rows = smaller(kTileRows, item_.rows.end - next);
    prefetcher_.clear();
    if (rows > 0) {
      queries_.prefetch(prefetcher_, d, next, rows);
      keys_.prefetch(prefetcher_, rows);
      values_.prefetch(prefetcher_, rows);
    }
    prefetcher_.spread(steps);
  }

  // P and dS of tile t and key rows [begin, end), and their contribution to dq.
  void add_key_rows(int64_t t, int64_t begin, int64_t end) {
    const int64_t window = columns_.window(), size = scores_size<T>(window);
    const int64_t dilation = columns_.dim.dilation;
    const T factor = T(-0.5 * a_.scale * kLog2E);
    const ScoreStart<T> tile = biases_.of_tile(queries_.q_tiles.columns(t), t * L), zero{};
    const bool biased = biases_.any(), sums_offsets = a_.offset_sums != nullptr;
    for (int64_t j = begin; j < end; ++j) {
      const int64_t first = block_.first_query(j), rows = block_.queries(j);
      T* gradients = gradients_ + (j - begin) * size + first * L;
      score_window<T>(a_.distance, rows, window, queries_.q_tiles.tile(t) + first * L,
                      key_rows_[j] + t * L, dilation, keys_.pitch(), a_.channels, factor,
                      biased ? biases_.of_key_row(tile, block_, j, t * L) : tile,
                      scores_ + first * L, nullptr);
      prefetcher_.step();
      score_window<T>(false, rows, window, queries_.dy_tiles.tile(t) + first * L,
                      value_rows_[j] + t * L, dilation, values_.pitch(), a_.value_channels, T(1),
                      zero, gradients, nullptr);
      prefetcher_.step();
      with_rows(rows, [=](auto n) {
        constexpr int rows = decltype(n)::value;
        if (sums_offsets) {
          this->template differentiate<rows, true>(t, j, begin, first, gradients);
        } else {
          this->template differentiate<rows, false>(t, j, begin, first, gradients);
        }
      });
    }
    gather_key_rows(block_, begin, end, gradients_, key_rows_, t * L, dilation, keys_.pitch(),
                    window, a_.channels, dq_tiles_.tile(t));
  }

  // Turns the scores and dP of key row `row`, dP in `gradients`, into P and dS. Weights start at
  // key row `begin`.
  template <int rows, bool sums_offsets>
  void differentiate(int64_t t, int64_t row, int64_t begin, int64_t first, T* gradients) {
    const int64_t j = row - begin;
    // Local copies: the compiler knows that no store changes them.
    const ShearedWeights<T> all_weights = weights_, all_gradients = score_gradients_;
    const int64_t window = columns_.window(), lanes = queries_.q_tiles.lanes(t);
    const Vec<T> scale = broadcast(T(inner_scale()));
    Vec<T> log_sum[rows], delta[rows], sum[rows];
    CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) {
      log_sum[r] = load(queries_.log_sums.tile(t) + (first + r) * L);
      delta[r] = load(queries_.deltas.tile(t) + (first + r) * L);
      sum[r] = load(gradient_sums_.tile(t) + (first + r) * L);
    }
    const T* scores = scores_ + first * L;
    T* offset_sum = nullptr;
    if constexpr (sums_offsets) {
      offset_sum = offset_sums_.at(biases_.first_offset(block_, row) + columns_.offsets.begin);
    }
    const int64_t next_row = geometry_.dims[2].window * L;
    const auto in_grid = lane_numbers<T>() < static_cast<Int<T>>(lanes);
    for (int64_t d = 0; d < window; ++d) {
      const bool whole = all_weights.whole(d, t * L, lanes);
      CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) {
        const Vec<T> weight = exp2<T>(load(scores + r * L) - log_sum[r]);
        const Vec<T> gradient = weight * scale * (load(gradients + r * L) - delta[r]);
        sum[r] += gradient;
        store(gradients + r * L, gradient);
        if constexpr (sums_offsets) {
          T* s = offset_sum - r * next_row;
          store(s, load(s) + (in_grid ? gradient : Vec<T>{}));
        }
        T* weight_place = all_weights.place(j, d, first + r, t * L);
        T* gradient_place = all_gradients.place(j, d, first + r, t * L);
        if (whole) {
          store(weight_place, weight);
          store(gradient_place, gradient);
        } else {
          all_weights.put(d, t * L, lanes, weight, weight_place);
          all_gradients.put(d, t * L, lanes, gradient, gradient_place);
        }
      }
      scores += kTileRows * L;
      gradients += kTileRows * L;
      if constexpr (sums_offsets) offset_sum += L;
    }
    CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) {
      store(gradient_sums_.tile(t) + (first + r) * L, sum[r]);
    }
  }

  const AttentionBackwardParams& a_;
  const PairItem& pairs_;
  const WorkItem& item_;
  Geometry geometry_;  // of the classes
  Image<const S> k_, v_;
  Image<T> dq_, key_sums_;
  KeyColumns columns_;
  RowBlock block_;
  KeyRows<S> keys_, values_;
  ScoreBiases<T> biases_;
  AttendedQueries<S> queries_;
  SumRows<T> dk_rows_, dv_rows_;
  ShearedWeights<T> weights_, score_gradients_;
  QueryTiles<T> dq_tiles_, gradient_sums_;
  OffsetSums<T> offset_sums_;
  const T **key_rows_, **value_rows_;
  T *scores_, *gradients_;
  Prefetcher prefetcher_;
};

CIRCULANT_DEFINE_KERNEL(attention_backward, AttentionBackwardParams, AttentionBackwardKernel)

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
