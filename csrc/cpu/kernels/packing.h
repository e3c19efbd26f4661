// Packed rows of pixels: in the type of the sums, all channels of a row together, with the columns
// beyond the border of the grid copied from the other side, or zero where these are absent.
//
// In the tensors the channels of a pixel are a whole image apart, so that for most image sizes they
// share one set of the cache. In packed rows they are `pitch` elements apart, an odd number of
// cache lines or of quarters of them.
#pragma once

#include <cstdint>

#include "../../common/geometry.h"
#include "../params.h"
#include "../simd/half.h"
#include "../simd/prefetch.h"
#include "arena.h"
#include "image.h"
#include "microkernels.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

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

// Copies the keys at positions [begin, begin + count) of a grid's row to [at, at + count) of a
// packed row: in a circular dim at most three pieces of adjacent columns, else one, with zeros
// around it. The rest of the packed row stays as it is.
class Placement {
 public:
  Placement(int64_t begin, int64_t count, int64_t at, const Dim& dim) {
    if (!dim.circular) {
      const Span columns = present(dim, begin, begin + count);
      const int64_t first = at + columns.begin - begin, last = first + columns.size();
      zeros_[0] = {at, first};
      zeros_[1] = {last, at + count};
      any_absent_ = columns.size() < count;
      if (columns.size() > 0) pieces_[size_++] = {columns.begin, first, columns.size()};
      return;
    }
    for (int64_t column = wrap(begin, dim.keys); count > 0; column = 0) {
      const int64_t piece = smaller(count, dim.keys - column);
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
    if (any_absent_) {
      for_each_absent([=](int64_t at, int64_t count) { fill_zero(to + at, count); });
    }
  }
  // Whether the packed row has parts without keys.
  bool any_absent() const { return any_absent_; }

  // Calls f(column, at, count) for every piece.
  template <class F>
  void for_each_piece(F&& f) const {
    for (int64_t n = 0; n < size_; ++n) f(pieces_[n].from, pieces_[n].to, pieces_[n].count);
  }
  // Calls f(at, count) for the parts of the packed row without keys.
  template <class F>
  void for_each_absent(F&& f) const {
    for (const Span& zeros : zeros_) {
      if (zeros.size() > 0) f(zeros.begin, zeros.size());
    }
  }

 private:
  struct Piece {
    int64_t from, to, count;
  };
  Piece pieces_[3];
  int64_t size_ = 0;
  bool any_absent_ = false;
  Span zeros_[2] = {};
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
  // Starts plane d of the queries at row `first`, with `planes` of the window, all of them present.
  // Call this before the first row of every plane.
  void start_plane(int64_t d, const Span& planes, int64_t first) {
    plane_ = d;
    planes_ = planes;
    packed_ = first;
  }

  // Prefetches the next `rows` rows.
  void prefetch(Prefetcher& prefetcher, int64_t rows) const {
    const Span next = present_rows(packed_ + rows);
    if (next.size() <= 0) return;
    const int64_t h = row_dim_.key(first_row_ + next.begin);
    for (int64_t p = planes_.begin; p < planes_.end; ++p) {
      image_.prefetch(prefetcher, plane_dim_.neighbour(plane_, p), h,
                      smaller(next.size(), row_dim_.keys - h));
    }
  }

  const T* row(int64_t plane, int64_t i) const { return ring_.row(plane, i); }

 protected:
  // `g` is the geometry of the classes.
  RowsAround(Arena& arena, const Image<const S>& image, const Geometry& g, const Span& rows,
             int64_t channels, int64_t pitch)
      : image_(image),
        ring_(arena, g.dims[0].window, g.dims[1].window + kTileRows - 1, channels, pitch),
        plane_dim_(g.dims[0]),
        row_dim_(g.dims[1]),
        first_row_(rows.begin - g.dims[1].before) {}

  // Calls pack(from, to, count) for the present rows before `until` that are not packed yet, at
  // most kTileRows at a time: from[r], a row of the first channel of the image, goes to to[r].
  template <class F>
  void pack_rows_until(int64_t until, F&& pack) {
    const Span rows = present_rows(until);
    for (int64_t p = planes_.begin; p < planes_.end; ++p) {
      const int64_t d = plane_dim_.neighbour(plane_, p);
      for (int64_t i = rows.begin; i < rows.end; i += kTileRows) {
        const int64_t count = smaller(kTileRows, rows.end - i);
        const S* from[kTileRows];
        T* to[kTileRows];
        for (int64_t r = 0; r < count; ++r) {
          from[r] = image_.row(0, d, row_dim_.key(first_row_ + i + r));
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
  // The present rows from packed_ to `until`.
  Span present_rows(int64_t until) const {
    const Span rows = present(row_dim_, first_row_ + packed_, first_row_ + until);
    return {rows.begin - first_row_, rows.end - first_row_};
  }

  Dim plane_dim_, row_dim_;
  int64_t first_row_, plane_ = 0, packed_ = 0;
  Span planes_{};
};

// The key rows of a work item: [channel][column], all keys at some offsets of its columns. The key
// of column w at offset n of these is at [w + n * dilation].
template <class S>
class KeyRows : public RowsAround<S> {
  using T = Compute<S>;
  using RowsAround<S>::image_;
  using RowsAround<S>::ring_;

 public:
  // `offsets` is the largest segment.
  KeyRows(Arena& arena, const Image<const S>& image, const Geometry& g, const WorkItem& item,
          const Span& offsets)
      : RowsAround<S>(arena, image, g, item.rows, image.channels,
                      odd_unaligned_pitch<T>(round_up(item.columns.size(), kLanes<T>) +
                                             g.dims[2].dilation * (offsets.size() - 1))),
        columns_(item.columns),
        dim_(g.dims[2]),
        placement_(placement(offsets)) {}

  // Call this once, before all others.
  void clear() { ring_.clear(); }

  void pack_until(int64_t until) {
    const int64_t pixels = image_.pixels();
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
  const Placement& placement() const { return placement_; }

 private:
  Placement placement(const Span& offsets) const {
    return {columns_.begin + dim_.dilation * (offsets.begin - dim_.before),
            columns_.size() + dim_.dilation * (offsets.size() - 1), 0, dim_};
  }

  Span columns_;
  Dim dim_;
  Placement placement_;
};

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
