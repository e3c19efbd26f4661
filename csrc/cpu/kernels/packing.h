// Packed rows of pixels: in the type of the sums, all channels of a row together, with the columns
// beyond the border of the grid copied from the other side.
//
// In the tensors the channels of a pixel are a whole image apart, so that for most image sizes they
// share one set of the cache. In packed rows they are `pitch` elements apart, an odd number of
// cache lines.
#pragma once

#include <cstdint>

#include "../../common/geometry.h"
#include "../params.h"
#include "../simd/half.h"
#include "../simd/prefetch.h"
#include "arena.h"
#include "microkernels.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

// One group's image: (channels, *spatial). S is const if it is only read.
template <class S>
struct Image {
  S* data;
  int64_t channels;
  Geometry geometry;

  S* row(int64_t c, int64_t d, int64_t h) const {
    const int64_t* n = geometry.size;
    return data + ((c * n[0] + d) * n[1] + h) * n[2];
  }
  // Prefetches `rows` rows from h on, all channels.
  void prefetch(Prefetcher& prefetcher, int64_t d, int64_t h, int64_t rows) const {
    prefetcher.add(row(0, d, h), rows * geometry.size[2] * sizeof(S), geometry.pixels() * sizeof(S),
                   channels);
  }
};

template <class S>
inline Image<const S> image_of_group(const void* tensor, int64_t group, int64_t channels,
                                     const Geometry& g) {
  return {static_cast<const S*>(tensor) + group * channels * g.pixels(), channels, g};
}
template <class S>
inline Image<S> image_of_group(void* tensor, int64_t group, int64_t channels, const Geometry& g) {
  return {static_cast<S*>(tensor) + group * channels * g.pixels(), channels, g};
}

// i modulo n, for -n <= i < 2n.
inline int64_t wrap(int64_t i, int64_t n) { return i < 0 ? i + n : (i >= n ? i - n : i); }

template <class T>
inline void fill_zero(T* to, int64_t count) {
  constexpr int64_t L = kLanes<T>;
  const Vec<T> zero{};
  int64_t i = 0;
  for (; i + L <= count; i += L) store(to + i, zero);
  if (i < count) store_range(to + i, zero, 0, count - i);
}

// Copies fewer than 2 n elements: n at both ends, which overlap, or fewer by the same way.
template <int n, class T>
inline void copy_few(const T* from, T* to, int64_t count) {
  if (count >= n) {
    T first[n], last[n];
    __builtin_memcpy(first, from, sizeof first);
    __builtin_memcpy(last, from + count - n, sizeof last);
    __builtin_memcpy(to, first, sizeof first);
    __builtin_memcpy(to + count - n, last, sizeof last);
  } else if constexpr (n > 1) {
    copy_few<n / 2>(from, to, count);
  }
}

// Copies `count` elements and converts them. Masked loads and stores are slow where they reach into
// another page, so elements of the type of the sums are copied without masks.
template <class S>
inline void copy_piece(const S* from, Compute<S>* to, int64_t count) {
  constexpr int64_t L = kLanes<Compute<S>>;
  int64_t i = 0;
  for (; i + L <= count; i += L) store(to + i, load(from + i));
  if constexpr (sizeof(S) != sizeof(Compute<S>)) {
    if (i < count) store_range(to + i, load_range(from + i, 0, count - i), 0, count - i);
  } else if (count < L) {
    copy_few<L / 2>(from, to, count);
  } else if (i < count) {
    store(to + count - L, load(from + count - L));
  }
}

// Copies columns [begin, begin + count) of a grid's row, modulo its size, to [at, at + count) of a
// packed row: at most three pieces of adjacent columns. The rest of the packed row stays zero.
class Placement {
 public:
  Placement(int64_t begin, int64_t count, int64_t at, int64_t size) {
    for (int64_t column = wrap(begin, size); count > 0; column = 0) {
      const int64_t piece = smaller(count, size - column);
      pieces_[size_++] = {column, at, piece};
      at += piece;
      count -= piece;
    }
  }

  template <class S>
  void pack(const S* row, Compute<S>* to) const {
    for (int64_t n = 0; n < size_; ++n) {
      copy_piece(row + pieces_[n].from, to + pieces_[n].to, pieces_[n].count);
    }
  }

 private:
  struct Piece {
    int64_t from, to, count;
  };
  Piece pieces_[3];
  int64_t size_ = 0;
};

// The packed rows in the windows of a few rows of queries: a ring of `slots` rows for each plane of
// the window. Rows are numbered from the first one that the work item needs.
template <class T>
class RowRing {
 public:
  RowRing(Arena& arena, int64_t planes, int64_t slots, int64_t channels, int64_t pitch)
      : planes_(planes),
        slots_(slots),
        pitch_(pitch),
        row_size_(channels * pitch),
        data_(arena.take<T>(planes * slots * row_size_)) {}

  T* row(int64_t plane, int64_t i) const {
    return data_ + (plane * slots_ + i % slots_) * row_size_;
  }
  void clear() { fill_zero(data_, planes_ * slots_ * row_size_); }
  int64_t pitch() const { return pitch_; }
  int64_t row_size() const { return row_size_; }

 private:
  int64_t planes_, slots_, pitch_, row_size_;
  T* data_;
};

// The rows of an image in the windows of a work item, packed when they are first needed. A derived
// class defines the layout of a packed row; its pack_until(until) packs the rows before `until`, of
// which the ring keeps the last ones.
template <class S>
class RowsAround {
  using T = Compute<S>;

 public:
  // Starts plane d of the queries at row `first`, with `planes` of the window. Call this before the
  // first row of every plane.
  void start_plane(int64_t d, const Span& planes, int64_t first) {
    plane_ = d;
    planes_ = planes;
    packed_ = first;
  }
  void start_plane(int64_t d) { start_plane(d, {0, image_.geometry.window[0]}, 0); }

  // Prefetches the next `rows` rows.
  void prefetch(Prefetcher& prefetcher, int64_t rows) const {
    const Geometry& g = image_.geometry;
    const int64_t h = wrap(first_row_ + packed_, g.size[1]);
    for (int64_t p = planes_.begin; p < planes_.end; ++p) {
      const int64_t d = neighbour(plane_, p, g.size[0], g.window[0]);
      image_.prefetch(prefetcher, d, h, smaller(rows, g.size[1] - h));
    }
  }

  const T* row(int64_t plane, int64_t i) const { return ring_.row(plane, i); }

 protected:
  RowsAround(Arena& arena, const Image<const S>& image, const Span& rows, int64_t channels,
             int64_t pitch)
      : image_(image),
        ring_(arena, image.geometry.window[0], image.geometry.window[1] + kTileRows - 1, channels,
              pitch),
        first_row_(rows.begin - image.geometry.window[1] / 2) {}

  // Calls pack(from, to, count) for the rows before `until` that are not packed yet, at most
  // kTileRows at a time: from[r], a row of the first channel of the image, goes to to[r].
  template <class F>
  void pack_rows_until(int64_t until, F&& pack) {
    const Geometry& g = image_.geometry;
    for (int64_t p = planes_.begin; p < planes_.end; ++p) {
      const int64_t d = neighbour(plane_, p, g.size[0], g.window[0]);
      for (int64_t i = packed_; i < until; i += kTileRows) {
        const int64_t count = smaller(kTileRows, until - i);
        const S* from[kTileRows];
        T* to[kTileRows];
        for (int64_t r = 0; r < count; ++r) {
          from[r] = image_.row(0, d, wrap(first_row_ + i + r, g.size[1]));
          to[r] = ring_.row(p, i + r);
        }
        pack(from, to, count);
      }
    }
    packed_ = until;
  }
  // Packs the rows from `first` on again.
  void restart(int64_t first) { packed_ = first; }

  Image<const S> image_;
  RowRing<T> ring_;

 private:
  int64_t first_row_, plane_ = 0, packed_ = 0;
  Span planes_{};
};

// The key rows of a work item: [channel][column], all keys at some offsets of its columns.
template <class S>
class KeyRows : public RowsAround<S> {
  using T = Compute<S>;
  using RowsAround<S>::image_;
  using RowsAround<S>::ring_;

 public:
  // `offsets` is the largest segment.
  KeyRows(Arena& arena, const Image<const S>& image, const Span& rows, const Span& columns,
          const Span& offsets)
      : RowsAround<S>(arena, image, rows, image.channels,
                      odd_pitch<T>(round_up(columns.size(), kLanes<T>) + offsets.size() - 1)),
        columns_(columns),
        placement_(placement(offsets)) {}

  // Call this once, before all others.
  void clear() { ring_.clear(); }

  void pack_until(int64_t until) {
    const int64_t pixels = image_.geometry.pixels();
    this->pack_rows_until(until, [=](const S* const* from, T* const* to, int64_t count) {
      // Channel by channel: the rows of one channel are adjacent in memory.
      for (int64_t c = 0; c < image_.channels; ++c) {
        for (int64_t r = 0; r < count; ++r) {
          placement_.pack(from[r] + c * pixels, to[r] + c * pitch());
        }
      }
    });
  }

  // Packs rows from `first` on with the keys at `offsets`.
  void start_segment(int64_t first, const Span& offsets) {
    placement_ = placement(offsets);
    this->restart(first);
  }

  int64_t pitch() const { return ring_.pitch(); }

 private:
  Placement placement(const Span& offsets) const {
    const Geometry& g = image_.geometry;
    return {columns_.begin + offsets.begin - g.window[2] / 2, columns_.size() + offsets.size() - 1,
            0, g.size[2]};
  }

  Span columns_;
  Placement placement_;
};

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
