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

// The rows in the windows of a work item: [pixel][channel], all pixels at some offsets of its
// columns that are present. Pixels a dilation apart are adjacent: those that a tile of columns
// reads.
template <class S>
class ChannelRows : public RowsAround<S> {
  using T = Compute<S>;
  using RowsAround<S>::image_;
  static constexpr int64_t L = kLanes<T>;

 public:
  // `offsets` is the largest segment.
  ChannelRows(Arena& arena, const Image<const S>& image, const Geometry& g, const WorkItem& item,
              const Span& offsets)
      : RowsAround<S>(arena, image, g, item.rows,
                      round_up(item.columns.size(), g.dims[2].dilation) +
                          g.dims[2].dilation * (offsets.size() - 1),
                      padded_channels<T>(image.channels)),
        channels_(padded_channels<T>(image.channels)),
        columns_(item.columns),
        dim_(g.dims[2]),
        step_(dim_.dilation),
        alike_(divide_up(columns_.size(), step_) + offsets.size() - 1),
        placement_(placement(offsets)) {}

  // The place of the first pixel of column w, counted from the first of the item.
  int64_t place(int64_t w) const { return step_ == 1 ? w : w % step_ * alike_ + w / step_; }

  void pack_until(int64_t until) {
    this->pack_rows_until(until, [this](const S* const* from, T* const* to, int64_t count) {
      for (int64_t r = 0; r < count; ++r) pack(from[r], to[r]);
    });
  }

  // Packs rows from `first` on with the pixels at `offsets`.
  void start_segment(int64_t first, const Span& offsets) {
    placement_ = placement(offsets);
    this->restart(first);
  }

 private:
  Placement placement(const Span& offsets) const {
    return {columns_.begin + dim_.dilation * (offsets.begin - dim_.before),
            columns_.size() + dim_.dilation * (offsets.size() - 1), 0, dim_};
  }

  void pack(const S* row, T* to) const {
    const int64_t pixels = image_.pixels(), channels = image_.channels, padded = channels_;
    placement_.for_each_piece([=](int64_t column, int64_t at, int64_t count) {
      for (int64_t n = 0; n < count; n += L) {
        const int64_t lanes = smaller(L, count - n);
        const S* first = row + column + n;
        T* packed[L];
        for (int64_t l = 0; l < lanes; ++l) packed[l] = to + place(at + n + l) * padded;
        for (int64_t c = 0; c < padded; c += L) {
          Vec<T> block[L];
          CIRCULANT_UNROLL for (int i = 0; i < L; ++i) {
            block[i] = c + i < channels ? load_first(first + (c + i) * pixels, lanes) : Vec<T>{};
          }
          transpose_block<T>(block);
          CIRCULANT_UNROLL for (int l = 0; l < L; ++l) {
            if (l < lanes) store(packed[l] + c, block[l]);
          }
        }
      }
    });
  }

  int64_t channels_;
  Span columns_;
  Dim dim_;
  int64_t step_, alike_;  // the pixels a dilation apart
  Placement placement_;
};

// The sums of a few rows of a work item: [column][kTileRows][channel], columns in the order of
// ChannelRows: those a dilation apart are adjacent.
template <class T>
class ChannelSums {
  static constexpr int64_t L = kLanes<T>;

 public:
  ChannelSums(Arena& arena, const Span& columns, int64_t dilation, int64_t channels)
      : columns_(columns),
        dilation_(dilation),
        channels_(padded_channels<T>(channels)),
        data_(arena.take<T>(columns.size() * kTileRows * channels_)),
        places_(arena.take<T*>(columns.size())) {}

  // Call this once, before all others.
  void start() {
    T* place = data_;
    for (int64_t c = 0; c < smaller(dilation_, columns_.size()); ++c) {
      for (int64_t w = c; w < columns_.size(); w += dilation_, place += kTileRows * channels_) {
        places_[w] = place;
      }
    }
  }

  void clear() { fill_zero(data_, columns_.size() * kTileRows * channels_); }

  T* at(int64_t column, int64_t row) const { return places_[column] + row * channels_; }

  // Writes rows h.. of plane d, a few channels at a time: each channel has pages of its own, and
  // stores to many pages in turn are slow.
  template <class S>
  void store(const Image<S>& image, int64_t d, int64_t h, int64_t rows) const {
    const RowsOfImage<S> to(image, d, h, rows);
    for (int64_t c = 0; c < channels_; c += L) {
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t w = 0; w < columns_.size(); w += L) {
          const int64_t lanes = smaller(L, columns_.size() - w);
          Vec<T> block[L];
          CIRCULANT_UNROLL for (int l = 0; l < L; ++l) {
            block[l] = load(at(w + smaller(l, lanes - 1), r) + c);
          }
          transpose_block<T>(block);
          CIRCULANT_UNROLL for (int i = 0; i < L; ++i) {
            if (c + i >= image.channels) continue;
            store_first(to.row(c + i, r) + columns_.begin + w, block[i], lanes);
          }
        }
      }
    }
  }

 private:
  Span columns_;
  int64_t dilation_, channels_;
  T* data_;
  T** places_;  // of the columns
};

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
