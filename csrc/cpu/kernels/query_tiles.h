// Rows of queries cut into tiles: [tile][channel][kTileRows][lanes].
#pragma once

#include <cstdint>

#include "../params.h"
#include "microkernels.h"
#include "packing.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

template <class T>
class QueryTiles {
  static constexpr int64_t L = kLanes<T>;

 public:
  QueryTiles(Arena& arena, const Span& columns, int64_t channels)
      : columns_(columns),
        channels_(channels),
        data_(arena.take<T>(count() * channels * kTileRows * L)) {}

  int64_t count() const { return divide_up(columns_.size(), L); }
  // The number of queries in a row of tile t.
  int64_t lanes(int64_t t) const { return smaller(L, columns_.size() - t * L); }
  // Their columns in the grid.
  Span columns(int64_t t) const {
    const int64_t begin = columns_.begin + t * L;
    return {begin, begin + lanes(t)};
  }
  T* tile(int64_t t) const { return data_ + t * channels_ * kTileRows * L; }

  void clear() { fill_zero(data_, count() * channels_ * kTileRows * L); }

  // Reads rows h.. of plane d, times `factor`.
  template <class S>
  void load(const Image<const S>& image, int64_t d, int64_t h, int64_t rows, T factor) {
    const Vec<T> f = broadcast(factor);
    const int64_t tiles = count();
    const RowsOfImage<const S> from(image, d, h, rows);
    for (int64_t c = 0; c < channels_; ++c) {
      for (int64_t r = 0; r < rows; ++r) {
        const S* row = from.row(c, r) + columns_.begin;
        T* to = data_ + (c * kTileRows + r) * L;
        for (int64_t t = 0; t < tiles; ++t, row += L, to += channels_ * kTileRows * L) {
          CIRCULANT_INSTRUCTION_SET::store(to, f * load_first(row, lanes(t)));
        }
      }
    }
  }

  // Writes f(t, c, r, vector) to rows h.. of plane d.
  template <class S, class F>
  void store(const Image<S>& image, int64_t d, int64_t h, int64_t rows, F&& f) const {
    const int64_t tiles = count();
    const RowsOfImage<S> to(image, d, h, rows);
    for (int64_t c = 0; c < channels_; ++c) {
      for (int64_t r = 0; r < rows; ++r) {
        S* row = to.row(c, r) + columns_.begin;
        const T* from = data_ + (c * kTileRows + r) * L;
        for (int64_t t = 0; t < tiles; ++t, row += L, from += channels_ * kTileRows * L) {
          store_first(row, f(t, c, r, CIRCULANT_INSTRUCTION_SET::load(from)), lanes(t));
        }
      }
    }
  }

 private:
  Span columns_;
  int64_t channels_;
  T* data_;
};

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
