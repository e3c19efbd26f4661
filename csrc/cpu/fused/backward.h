// The gradients of fused attention, the weights recomputed from the log-sum-exp.
//
// With P = exp(S - lse), dP_ij = dy_i . v_j and delta_i = dy_i . y_i:
//   dS = P (dP - delta), the gradient to the scores; times `scale`, that to the similarity,
//   dv_j = sum_i P_ij dy_i, dq_i = sum_j dS_ij k_j, dk_j = sum_i dS_ij q_i,
// and for the distance, dq_i -= q_i sum_j dS_ij and dk_j -= k_j sum_i dS_ij.
//
// A few rows of queries at a time, and for these a few key rows at a time: for all tiles, P and dS
// and the share of dq; then, with P and dS of all columns at hand, the shares of dk and dv.
#pragma once

#include <cstdint>

#include "elementary.h"
#include "packing.h"
#include "prefetch.h"
#include "problem.h"
#include "row_block.h"
#include "scatter.h"
#include "tiles.h"

namespace circulant::fused::CIRCULANT_INSTRUCTION_SET {

template <class S>
class Backward {
  using T = Compute<S>;
  static constexpr int64_t L = kLanes<T>;

 public:
  Backward(const AttentionBackward& a, const Chunk& chunk, Arena& arena)
      : a_(a),
        chunk_(chunk),
        dy_(image(a.dy, a.value_channels)),
        q_(image(a.q, a.channels)),
        k_(image(a.k, a.channels)),
        v_(image(a.v, a.value_channels)),
        y_(image(a.y, a.value_channels)),
        columns_{chunk.columns, a.geometry.size[2], a.geometry.window[2]},
        tiles_(divide_up(chunk.columns.size(), L)),
        block_{smaller(kTileRows, chunk.rows.size()), a.geometry.window[0], a.geometry.window[1]},
        keys_(arena, k_, chunk.rows, chunk.columns),
        values_(arena, v_, chunk.rows, chunk.columns),
        // For the distance, one more channel sums the weights.
        q_rows_(arena, columns_, a.channels + a.distance, block_.rows),
        dy_rows_(arena, columns_, a.value_channels, block_.rows),
        dk_rows_(arena, columns_, a.geometry, chunk.rows, a.channels + a.distance,
                 static_cast<T*>(a.dk) + chunk.group * a.channels * a.geometry.pixels(),
                 a.dk_touched + chunk.group * a.geometry.size[0] * a.geometry.size[1]),
        dv_rows_(arena, columns_, a.geometry, chunk.rows, a.value_channels,
                 static_cast<T*>(a.dv) + chunk.group * a.value_channels * a.geometry.pixels(),
                 a.dv_touched + chunk.group * a.geometry.size[0] * a.geometry.size[1]),
        weights_(arena, columns_, smaller(kTileRows, block_.key_rows()), block_.rows),
        score_gradients_(arena, columns_, smaller(kTileRows, block_.key_rows()), block_.rows),
        key_units_(arena.take<const T*>(block_.units())),
        value_units_(arena.take<const T*>(block_.units())),
        q_tiles_(arena.take<T>(tiles_ * a.channels * kTileRows * L)),
        dy_tiles_(arena.take<T>(tiles_ * a.value_channels * kTileRows * L)),
        dq_tiles_(arena.take<T>(tiles_ * a.channels * kTileRows * L)),
        row_tiles_(arena.take<T>(tiles_ * kRowTile)),
        scores_(arena.take<T>(unit_size<T>(columns_.window))),
        gradients_(arena.take<T>(kTileRows * unit_size<T>(columns_.window))) {}

  void run() {
    keys_.clear();
    values_.clear();
    q_rows_.clear();
    dy_rows_.clear();
    weights_.clear();
    score_gradients_.clear();
    const int64_t halo = a_.geometry.window[1] - 1;
    for (int64_t d = chunk_.planes.begin; d < chunk_.planes.end; ++d) {
      keys_.start_plane(d);
      values_.start_plane(d);
      dk_rows_.start_plane(d);
      dv_rows_.start_plane(d);
      for (int64_t h = chunk_.rows.begin; h < chunk_.rows.end; h += kTileRows) {
        block_.rows = smaller(kTileRows, chunk_.rows.end - h);
        const int64_t i = h - chunk_.rows.begin;
        keys_.pack_until(i + block_.key_rows());
        values_.pack_until(i + block_.key_rows());
        dk_rows_.enter_until(i + block_.key_rows());
        dv_rows_.enter_until(i + block_.key_rows());
        point_to_units(keys_, block_, i, key_units_);
        point_to_units(values_, block_, i, value_units_);
        row_block(d, h, i);
        const bool last = h + block_.rows == chunk_.rows.end;
        leave_until(i + block_.rows + (last ? halo : 0));
      }
    }
  }

 private:
  // What is kept of every tile, besides channels: the log-sum-exp in base 2, delta, and the sums of
  // dS.
  static constexpr int64_t kRowTile = 3 * kTileRows * L;
  T* log_sums(int64_t t) const { return row_tiles_ + t * kRowTile; }
  T* deltas(int64_t t) const { return log_sums(t) + kTileRows * L; }
  T* gradient_sums(int64_t t) const { return deltas(t) + kTileRows * L; }
  T* q_tile(int64_t t) const { return q_tiles_ + t * a_.channels * kTileRows * L; }
  T* dy_tile(int64_t t) const { return dy_tiles_ + t * a_.value_channels * kTileRows * L; }
  T* dq_tile(int64_t t) const { return dq_tiles_ + t * a_.channels * kTileRows * L; }
  int64_t lanes(int64_t t) const { return smaller(L, chunk_.columns.size() - t * L); }

  Image<S> image(const void* tensor, int64_t channels) const {
    return image_of_group<S>(tensor, chunk_.group, channels, a_.geometry);
  }

  // The queries of rows h.. of plane d; row i of the keys is the first that they touch.
  void row_block(int64_t d, int64_t h, int64_t i) {
    const int64_t units = block_.units();
    prefetch(d, h, 2 * units * tiles_);
    load_queries(d, h);
    for (int64_t u = 0; u < units;) {
      const int64_t end = scatter_end(block_, u);
      for (int64_t t = 0; t < tiles_; ++t) add_units(t, u, end);
      scatter_units(block_, u, end, i, weights_, dy_rows_, dv_rows_, columns_.window);
      scatter_units(block_, u, end, i, score_gradients_, q_rows_, dk_rows_, columns_.window);
      u = end;
    }
    store_results(d, h);
  }

  void prefetch(int64_t d, int64_t h, int64_t steps) {
    const Geometry& g = a_.geometry;
    const int64_t next = h + block_.rows, rows = smaller(kTileRows, chunk_.rows.end - next);
    prefetcher_.clear();
    if (rows > 0) {
      for (const Image<S>* x : {&q_, &dy_, &y_}) {
        prefetcher_.add(x->row(0, d, next), rows * g.size[2] * sizeof(S), g.pixels() * sizeof(S),
                        x->channels);
      }
      keys_.prefetch(prefetcher_, rows);
      values_.prefetch(prefetcher_, rows);
    }
    prefetcher_.spread(steps);
  }

  void load_queries(int64_t d, int64_t h) {
    fill_zero(row_tiles_, tiles_ * kRowTile);
    fill_zero(dq_tiles_, tiles_ * a_.channels * kTileRows * L);
    const Vec<T> factor = broadcast(a_.distance ? T(1) : T(a_.scale * kLog2E));
    for (int64_t c = 0; c < a_.channels; ++c) {
      q_rows_.pack(q_, c, d, h, block_.rows);
      for (int64_t r = 0; r < block_.rows; ++r) {
        const T* q = q_rows_.queries(c, r);
        T* tile = q_tiles_ + (c * kTileRows + r) * L;
        for (int64_t t = 0; t < tiles_; ++t, tile += a_.channels * kTileRows * L) {
          store(tile, factor * load(q + t * L));
        }
      }
    }
    if (a_.distance) q_rows_.fill_channel(a_.channels, block_.rows, T(1));
    for (int64_t c = 0; c < a_.value_channels; ++c) {
      dy_rows_.pack(dy_, c, d, h, block_.rows);
      for (int64_t r = 0; r < block_.rows; ++r) {
        const T* dy = dy_rows_.queries(c, r);
        const S* y = y_.row(c, d, h + r) + chunk_.columns.begin;
        T* tile = dy_tiles_ + (c * kTileRows + r) * L;
        T* delta = deltas(0) + r * L;
        for (int64_t t = 0; t < tiles_; ++t) {
          const Vec<T> x = load(dy + t * L);
          store(tile, x);
          store(delta, fma(x, load_first(y + t * L, lanes(t)), load(delta)));
          tile += a_.value_channels * kTileRows * L;
          delta += kRowTile;
        }
      }
    }
    const Geometry& g = a_.geometry;
    const T* lse = static_cast<const T*>(a_.lse) + chunk_.group * g.pixels();
    for (int64_t r = 0; r < block_.rows; ++r) {
      const T* row = lse + (d * g.size[1] + h + r) * g.size[2] + chunk_.columns.begin;
      for (int64_t t = 0; t < tiles_; ++t) {
        store(log_sums(t) + r * L, T(kLog2E) * load_first(row + t * L, lanes(t)));
      }
    }
  }

  // P and dS of tile t with the key rows of units [begin, end), and their share of dq.
  void add_units(int64_t t, int64_t begin, int64_t end) {
    const int64_t window = columns_.window, size = unit_size<T>(window);
    const T factor = T(-0.5 * a_.scale * kLog2E);
    for (int64_t u = begin; u < end; ++u) {
      const int64_t first = block_.first(u), rows = block_.count(u);
      T* gradients = gradients_ + (u - begin) * size;
      score_window<T>(a_.distance, rows, window, q_tile(t) + first * L, key_units_[u] + t * L,
                      keys_.pitch(), a_.channels, factor, scores_ + first * L, nullptr);
      prefetcher_.step();
      score_window<T>(false, rows, window, dy_tile(t) + first * L, value_units_[u] + t * L,
                      values_.pitch(), a_.value_channels, T(1), gradients + first * L, nullptr);
      prefetcher_.step();
      with_rows(rows, [=](auto n) {
        this->template differentiate<decltype(n)::value>(t, u - begin, first, gradients);
      });
    }
    for (int64_t u = begin; u < end;) {
      const int64_t next = block_.run_end(u, end), skipped = block_.first(u) * L;
      gather_channels<T>(block_.count(u), a_.channels, gradients_ + (u - begin) * size + skipped,
                         key_units_ + u, next - u, t * L, keys_.pitch(), window,
                         dq_tile(t) + skipped);
      u = next;
    }
  }

  // From the scores and dP of one unit, in `gradients`, the weights and dS.
  template <int rows>
  void differentiate(int64_t t, int64_t unit, int64_t first, T* gradients) {
    const Vec<T> scale = broadcast(T(a_.scale));
    Vec<T> log_sum[rows], delta[rows], sum[rows];
    CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) {
      log_sum[r] = load(log_sums(t) + (first + r) * L);
      delta[r] = load(deltas(t) + (first + r) * L);
      sum[r] = load(gradient_sums(t) + (first + r) * L);
    }
    // Copies, which the compiler knows that no store changes.
    const ShearedWeights<T> all_weights = weights_, all_gradients = score_gradients_;
    const int64_t window = columns_.window, lanes = this->lanes(t);
    const T* s = scores_ + first * L;
    T* g = gradients + first * L;
    for (int64_t d = 0; d < window; ++d, s += kTileRows * L, g += kTileRows * L) {
      const bool whole = all_weights.whole(d, t * L, lanes);
      CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) {
        const Vec<T> weight = exp2<T>(load(s + r * L) - log_sum[r]);
        const Vec<T> gradient = weight * scale * (load(g + r * L) - delta[r]);
        sum[r] += gradient;
        store(g + r * L, gradient);
        T* weight_place = all_weights.place(unit, d, first + r, t * L);
        T* gradient_place = all_gradients.place(unit, d, first + r, t * L);
        if (whole) {
          store(weight_place, weight);
          store(gradient_place, gradient);
        } else {
          all_weights.put(d, t * L, lanes, weight, weight_place);
          all_gradients.put(d, t * L, lanes, gradient, gradient_place);
        }
      }
    }
    CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) {
      store(gradient_sums(t) + (first + r) * L, sum[r]);
    }
  }

  void store_results(int64_t d, int64_t h) {
    const Geometry& g = a_.geometry;
    S* dq = static_cast<S*>(a_.dq) + chunk_.group * a_.channels * g.pixels();
    for (int64_t c = 0; c < a_.channels; ++c) {
      for (int64_t r = 0; r < block_.rows; ++r) {
        S* row = dq + ((c * g.size[0] + d) * g.size[1] + h + r) * g.size[2] + chunk_.columns.begin;
        for (int64_t t = 0; t < tiles_; ++t) {
          const int64_t at = (c * kTileRows + r) * L;
          Vec<T> sum = load(dq_tile(t) + at);
          if (a_.distance) sum -= load(gradient_sums(t) + r * L) * load(q_tile(t) + at);
          store_first(row + t * L, sum, lanes(t));
        }
      }
    }
  }

  void leave_until(int64_t i) {
    dk_rows_.leave_until(i, a_.distance ? &k_ : nullptr);
    dv_rows_.leave_until(i, static_cast<const Image<S>*>(nullptr));
  }

  const AttentionBackward& a_;
  const Chunk& chunk_;
  Image<S> dy_, q_, k_, v_, y_;
  KeyColumns columns_;
  int64_t tiles_;
  RowBlock block_;
  KeyRows<S> keys_, values_;
  QueryRows<T> q_rows_, dy_rows_;
  SumRows<T> dk_rows_, dv_rows_;
  ShearedWeights<T> weights_, score_gradients_;
  const T **key_units_, **value_units_;
  T *q_tiles_, *dy_tiles_, *dq_tiles_, *row_tiles_, *scores_, *gradients_;
  Prefetcher prefetcher_;
};

}  // namespace circulant::fused::CIRCULANT_INSTRUCTION_SET
