// What the gradients of attention read of a block of rows of queries: in tiles, and in packed rows
// for the sums over the queries of each key.
#pragma once

#include <cstdint>

#include "../../common/constants.h"
#include "../params.h"
#include "../simd/prefetch.h"
#include "arena.h"
#include "image.h"
#include "query_tiles.h"
#include "scatter.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

template <class S>
class AttendedQueries {
  using T = Compute<S>;
  static constexpr int64_t L = kLanes<T>;

 public:
  // With `ones`, packed rows of q have one more channel, of ones.
  AttendedQueries(Arena& arena, const AttentionBackwardParams& a, const WorkItem& item,
                  const KeyColumns& columns, int64_t rows, bool ones)
      : q_rows(arena, columns, a.channels + ones, rows),
        dy_rows(arena, columns, a.value_channels, rows),
        q_tiles(arena, item.columns, a.channels),
        dy_tiles(arena, item.columns, a.value_channels),
        log_sums(arena, item.columns, 1),
        deltas(arena, item.columns, 1),
        a_(a),
        first_column_(item.columns.begin),
        ones_(ones),
        q_(query_image<const S>(a.q, item, a.channels, a.geometry)),
        dy_(query_image<const S>(a.dy, item, a.value_channels, a.geometry)),
        y_(query_image<const S>(a.y, item, a.value_channels, a.geometry)),
        lse_(query_image<const T>(a.lse, item, 1, a.geometry)),
        dlse_(query_image<const T>(a.dlse, item, a.dlse != nullptr, a.geometry)) {}

  // Call this once, before all others.
  void clear() {
    q_rows.clear();
    dy_rows.clear();
    if (ones_) q_rows.fill_channel(a_.channels, T(1));
  }

  // Reads rows h.. of plane d.
  void load_rows(int64_t d, int64_t h, int64_t rows) {
    const RowsOfImage<const S> q(q_, d, h, rows), dy(dy_, d, h, rows), y(y_, d, h, rows);
    for (int64_t c = 0; c < a_.channels; ++c) q_rows.pack(q, c, rows);
    q_tiles.load(q_, d, h, rows, a_.distance ? T(1) : T(a_.scale * kLog2E));
    log_sums.load(lse_, d, h, rows, T(kLog2E));
    if (a_.biases.any()) raise_log_sums_of_empty_rows(rows);
    if (a_.dlse != nullptr) {
      deltas.load(dlse_, d, h, rows, T(-1));
    } else {
      deltas.clear();
    }
    dy_tiles.load(dy_, d, h, rows, T(1));
    for (int64_t c = 0; c < a_.value_channels; ++c) {
      dy_rows.pack(dy, c, rows);
      for (int64_t r = 0; r < rows; ++r) add_deltas(c, r, y.row(c, r) + first_column_);
    }
  }

  void prefetch(Prefetcher& prefetcher, int64_t d, int64_t h, int64_t rows) const {
    q_.prefetch(prefetcher, d, h, rows);
    dy_.prefetch(prefetcher, d, h, rows);
    y_.prefetch(prefetcher, d, h, rows);
  }

  QueryRows<T> q_rows, dy_rows;
  // q has the factor of the scores; log_sums have base 2; deltas are dy . y - dlse.
  QueryTiles<T> q_tiles, dy_tiles, log_sums, deltas;

 private:
  // With infinity all weights of a row without keys are zero.
  void raise_log_sums_of_empty_rows(int64_t rows) {
    const Vec<T> infinity = broadcast(T(__builtin_inf()));
    for (int64_t t = 0; t < log_sums.count(); ++t) {
      for (int64_t r = 0; r < rows; ++r) {
        T* place = log_sums.tile(t) + r * L;
        const Vec<T> log_sum = load(place);
        store(place, log_sum == -infinity ? infinity : log_sum);
      }
    }
  }

  // Adds the part of row r of channel c to deltas.
  void add_deltas(int64_t c, int64_t r, const S* y) {
    for (int64_t t = 0; t < dy_tiles.count(); ++t) {
      const Vec<T> dy = load(dy_tiles.tile(t) + (c * kTileRows + r) * L);
      T* delta = deltas.tile(t) + r * L;
      store(delta, fma(dy, load_first(y + t * L, dy_tiles.lanes(t)), load(delta)));
    }
  }

  const AttentionBackwardParams& a_;
  int64_t first_column_;
  bool ones_;
  Image<const S> q_, dy_, y_;
  Image<const T> lse_, dlse_;
};

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
