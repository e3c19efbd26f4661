// Rows of pixels with channels in the lanes: packing them and storing sums in this layout.
#pragma once

#include <cstdint>

#include "../params.h"
#include "../simd/transpose.h"
#include "packing.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

// The channels of a pixel, rounded up to whole vectors.
template <class T>
inline int64_t padded_channels(int64_t channels) {
  return round_up(channels, kLanes<T>);
}

// The rows in the windows of a work item: [column][channel], all pixels at some offsets of its
// columns.
template <class S>
class ChannelRows : public RowsAround<S> {
  using T = Compute<S>;
  using RowsAround<S>::image_;
  static constexpr int64_t L = kLanes<T>;

 public:
  // `offsets` is the largest segment.
  ChannelRows(Arena& arena, const Image<const S>& image, const Span& rows, const Span& columns,
              const Span& offsets)
      : RowsAround<S>(arena, image, rows, columns.size() + offsets.size() - 1,
                      padded_channels<T>(image.channels)),
        channels_(padded_channels<T>(image.channels)),
        columns_(columns) {
    select(offsets);
  }

  void pack_until(int64_t until) {
    this->pack_rows_until(until, [this](const S* const* from, T* const* to, int64_t count) {
      for (int64_t r = 0; r < count; ++r) pack(from[r], to[r]);
    });
  }

  // Packs rows from `first` on with the pixels at `offsets`.
  void start_segment(int64_t first, const Span& offsets) {
    select(offsets);
    this->restart(first);
  }

 private:
  void select(const Span& offsets) {
    const Geometry& g = image_.geometry;
    first_column_ = wrap(columns_.begin + offsets.begin - g.window[2] / 2, g.size[2]);
    count_ = columns_.size() + offsets.size() - 1;
  }

  void pack(const S* row, T* to) const {
    const int64_t pixels = image_.geometry.pixels(), size = image_.geometry.size[2];
    int64_t column = first_column_, lanes = 0;
    for (int64_t left = count_; left > 0; left -= lanes) {
      lanes = smaller(L, smaller(left, size - column));
      for (int64_t c = 0; c < channels_; c += L) {
        Vec<T> block[L];
        CIRCULANT_UNROLL for (int i = 0; i < L; ++i) {
          block[i] = c + i < image_.channels ? load_first(row + (c + i) * pixels + column, lanes)
                                             : Vec<T>{};
        }
        transpose_block<T>(block);
        CIRCULANT_UNROLL for (int l = 0; l < L; ++l) {
          if (l < lanes) store(to + l * channels_ + c, block[l]);
        }
      }
      to += lanes * channels_;
      column = wrap(column + lanes, size);
    }
  }

  int64_t channels_;
  Span columns_;
  int64_t first_column_ = 0, count_ = 0;
};

// The sums of a few rows of a work item: [column][kTileRows][channel].
template <class T>
class ChannelSums {
  static constexpr int64_t L = kLanes<T>;

 public:
  ChannelSums(Arena& arena, const Span& columns, int64_t channels)
      : columns_(columns),
        channels_(padded_channels<T>(channels)),
        data_(arena.take<T>(columns.size() * kTileRows * channels_)) {}

  void clear() { fill_zero(data_, columns_.size() * kTileRows * channels_); }

  T* at(int64_t column, int64_t row) const {
    return data_ + (column * kTileRows + row) * channels_;
  }

  // Writes rows h.. of plane d.
  template <class S>
  void store(const Image<S>& image, int64_t d, int64_t h, int64_t rows) const {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t w = 0; w < columns_.size(); w += L) {
        const int64_t lanes = smaller(L, columns_.size() - w);
        for (int64_t c = 0; c < channels_; c += L) {
          Vec<T> block[L];
          CIRCULANT_UNROLL for (int l = 0; l < L; ++l) {
            block[l] = load(at(w + smaller(l, lanes - 1), r) + c);
          }
          transpose_block<T>(block);
          CIRCULANT_UNROLL for (int i = 0; i < L; ++i) {
            if (c + i >= image.channels) continue;
            store_first(image.row(c + i, d, h + r) + columns_.begin + w, block[i], lanes);
          }
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
