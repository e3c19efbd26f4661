// Rows of pixels with the channels of a pixel next to each other, in whole vectors, and back.
#pragma once

#include <cstdint>

#include "../problem.h"
#include "packing.h"
#include "prefetch.h"
#include "transpose_block.h"

namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET {

// The channels of a pixel with zeros up to a whole vector.
template <class T>
inline int64_t padded_channels(int64_t channels) {
  return round_up(channels, kLanes<T>);
}

// The rows around a chunk's rows, with half a window of columns on both sides, packed when they are
// first needed.
template <class S>
class ChannelRows {
  using T = Compute<S>;
  static constexpr int64_t L = kLanes<T>;

 public:
  ChannelRows(Arena& arena, const Image<const S>& image, const Span& rows, const Span& columns)
      : image_(image),
        channels_(padded_channels<T>(image.channels)),
        first_row_(rows.begin - image.geometry.window[1] / 2),
        first_column_(wrap(columns.begin - image.geometry.window[2] / 2, image.geometry.size[2])),
        columns_(columns.size() + image.geometry.window[2] - 1),
        ring_(arena, image.geometry.window[0], image.geometry.window[1] + kTileRows - 1, columns_,
              channels_) {}

  // To be called before the first row of every plane.
  void start_plane(int64_t d) {
    plane_ = d;
    packed_ = 0;
  }

  // Makes the rows 0 <= i < until around the chunk available, the last slots of them.
  void pack_until(int64_t until) {
    const Geometry& g = image_.geometry;
    for (int64_t p = 0; p < g.window[0]; ++p) {
      const int64_t d = neighbour(plane_, p, g.size[0], g.window[0]);
      for (int64_t i = packed_; i < until; ++i) {
        pack(image_.row(0, d, wrap(first_row_ + i, g.size[1])), ring_.row(p, i));
      }
    }
    packed_ = until;
  }

  // Asks for the `rows` rows that come next.
  void prefetch(Prefetcher& prefetcher, int64_t rows) const {
    const Geometry& g = image_.geometry;
    const int64_t h = wrap(first_row_ + packed_, g.size[1]);
    for (int64_t p = 0; p < g.window[0]; ++p) {
      const int64_t d = neighbour(plane_, p, g.size[0], g.window[0]);
      image_.prefetch(prefetcher, d, h, smaller(rows, g.size[1] - h));
    }
  }

  const T* row(int64_t plane, int64_t i) const { return ring_.row(plane, i); }

 private:
  void pack(const S* row, T* to) const {
    const int64_t pixels = image_.geometry.pixels(), size = image_.geometry.size[2];
    int64_t column = first_column_, lanes = 0;
    for (int64_t left = columns_; left > 0; left -= lanes) {
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

  Image<const S> image_;
  int64_t channels_, first_row_, first_column_, columns_;
  RowRing<T> ring_;
  int64_t plane_ = 0, packed_ = 0;
};

// The sums of a few rows of a chunk: [column][kTileRows][channels].
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

}  // namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET
