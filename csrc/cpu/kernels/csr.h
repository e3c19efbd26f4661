// Conversion between rows of the matrix in CSR order and vectors with queries in the lanes.
//
// A row of the matrix holds its values by ascending column: in the order of the offsets, rotated in
// each dim where the query is near a border. The queries of a vector share the rotation of planes
// and rows; that of columns differs from lane to lane.
#pragma once

#include <cstdint>
#include <type_traits>

#include "../../common/geometry.h"
#include "../params.h"
#include "../simd/half.h"
#include "../simd/prefetch.h"
#include "../simd/transpose.h"
#include "image.h"
#include "rotation.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

// Values of adjacent queries of a row: the offsets `offsets` along columns in `rows` rows of the
// window, which are more than one only if `offsets` is the whole window.
template <class S>
struct Slots {
  S* values;       // of the first query and offset 0 along columns
  int64_t stride;  // from one query to the next, K
  int64_t rows, window;
  Span offsets;
  // For every query the first offset along the columns in CSR order; null if it is 0 for all.
  const int64_t* first_offsets;
  const WindowRotation<Compute<std::remove_const_t<S>>>* rotation;  // if first_offsets are not null
};

// Calls f(n, vector) for value n of all slots, with query l in lane l of the vector. Lanes without
// a query are zero. `length` values of a query are treated together: row(values, l, n, count) loads
// values n to n + count - 1 of query l; value 0 is at `values`.
template <class S, class F, class Row>
inline void read_rows(const Slots<const S>& slots, int64_t length, int64_t lanes, F&& f,
                      Row&& row) {
  using T = Compute<S>;
  constexpr int64_t L = kLanes<T>;
  const int64_t end = slots.rows * slots.offsets.size();
  for (int64_t begin = 0; begin < end; begin += length) {
    for (int64_t n = 0; n < length; n += L) {
      const int64_t count = smaller(L, length - n);
      Vec<T> block[L];
      CIRCULANT_UNROLL for (int l = 0; l < L; ++l) {
        block[l] = l < lanes ? row(slots.values + l * slots.stride + begin, l, n, count) : Vec<T>{};
      }
      transpose_block<T>(block);
      CIRCULANT_UNROLL for (int i = 0; i < L; ++i) {
        if (i < count) f(begin + n + i, block[i]);
      }
    }
  }
}

template <class S, class F>
inline void read_slots(const Slots<const S>& slots, int64_t lanes, F&& f) {
  const bool rotated = slots.first_offsets != nullptr;
  const int64_t one = slots.offsets.size();
  if (rotated && one == slots.window && slots.rotation->possible()) {
    return read_rows<S>(
        slots, one, lanes, f,
        [&](const S* row, int64_t l, int64_t, int64_t count) __attribute__((always_inline)) {
          return slots.rotation->in_order(load_first(row, count), slots.first_offsets[l]);
        });
  }
  read_rows<S>(slots, rotated ? one : slots.rows * one, lanes, f,
               [&](const S* row, int64_t l, int64_t n, int64_t count)
                   __attribute__((always_inline)) {
                     const int64_t offset = slots.offsets.begin + n;
                     const int64_t first = rotated ? slots.first_offsets[l] : 0;
                     if (first > 0)
                       return RotatedLanes<S>(slots.window, first, offset, count).load(row);
                     return load_first(row + offset, count);
                   });
}

// The inverse: f(n) is the vector with value n of all queries, and put(values, l, n, count, vector)
// stores.
template <class S, class F, class Put>
inline void write_rows(const Slots<S>& slots, int64_t length, int64_t lanes, F&& f, Put&& put) {
  using T = Compute<S>;
  constexpr int64_t L = kLanes<T>;
  const int64_t end = slots.rows * slots.offsets.size();
  for (int64_t begin = 0; begin < end; begin += length) {
    for (int64_t n = 0; n < length; n += L) {
      const int64_t count = smaller(L, length - n);
      Vec<T> block[L];
      CIRCULANT_UNROLL for (int i = 0; i < L; ++i) block[i] = f(begin + n + smaller(i, count - 1));
      transpose_block<T>(block);
      CIRCULANT_UNROLL for (int l = 0; l < L; ++l) {
        if (l < lanes) put(slots.values + l * slots.stride + begin, l, n, count, block[l]);
      }
    }
  }
}

template <class S, class F>
inline void write_slots(const Slots<S>& slots, int64_t lanes, F&& f) {
  using T = Compute<S>;
  const bool rotated = slots.first_offsets != nullptr;
  const int64_t one = slots.offsets.size();
  if (rotated && one == slots.window && slots.rotation->possible()) {
    return write_rows(
        slots, one, lanes, f,
        [&](S* row, int64_t l, int64_t, int64_t count, Vec<T> v) __attribute__((always_inline)) {
          store_first(row, slots.rotation->rotated(v, slots.first_offsets[l]), count);
        });
  }
  write_rows(slots, rotated ? one : slots.rows * one, lanes, f,
             [&](S* row, int64_t l, int64_t n, int64_t count, Vec<T> v)
                 __attribute__((always_inline)) {
                   const int64_t offset = slots.offsets.begin + n;
                   const int64_t first = rotated ? slots.first_offsets[l] : 0;
                   if (first > 0) {
                     RotatedLanes<S>(slots.window, first, offset, count).store(row, v);
                   } else {
                     store_first(row + offset, v, count);
                   }
                 });
}

// The values of one group, and the queries of a tile in it.
template <class S>
class CsrRows {
 public:
  // Planes and rows of the queries are numbered in the classes of the item.
  CsrRows(S* values, const WorkItem& item, const Geometry& g)
      : values_(values + item.group * g.pixels() * g.offsets()),
        geometry_(g),
        planes_{item.plane_class, g.dims[0].dilation, g.dims[0].size},
        rows_{item.row_class, g.dims[1].dilation, g.dims[1].size},
        row_size_(g.offsets()),
        in_order_(unrotated(g.dims[2])),
        rotation_(g.dims[2].window),
        offsets_{0, g.dims[2].window} {}

  // Selects the offsets along columns.
  void start_segment(const Span& offsets) { offsets_ = offsets; }

  // Selects the tile of the queries in `columns`. Call this before for_each_slots.
  void start_tile(const Span& columns) {
    w_ = columns.begin;
    rotated_ = columns.begin < in_order_.begin || columns.end > in_order_.end;
    if (!rotated_) return;
    Rotation rotation(geometry_.dims[2], w_);
    for (int64_t l = 0; l < columns.size(); ++l) {
      if (w_ + l == rotation.end) rotation.next();
      first_offsets_[l] = rotation.first;
    }
  }

  // Calls f(offset, slots) for the rows [first, last) of plane p of the window, and the tile's
  // queries in row h of plane d: `slots` has the rows of the window from `offset` on.
  template <class F>
  void for_each_slots(int64_t d, int64_t h, int64_t p, int64_t first, int64_t last, F&& f) const {
    const Dim &planes = geometry_.dims[0], &rows = geometry_.dims[1], &columns = geometry_.dims[2];
    d = planes_.pixel(d);
    h = rows_.pixel(h);
    S* row = values_ + ((d * rows.size + h) * columns.size + w_) * row_size_;
    const int64_t plane = planes.slot_of_offset(d, p) * rows.window;
    // Slots are adjacent up to the last offset before the first column.
    const int64_t turn = rows.first_offset(h);
    const bool whole = offsets_.size() == columns.window;
    while (first < last) {
      const int64_t end = !whole ? first + 1 : first < turn ? smaller(turn, last) : last;
      const int64_t slot =
          (plane + first - turn + (first < turn ? rows.window : 0)) * columns.window;
      f(first, Slots<S>{row + slot, row_size_, end - first, columns.window, offsets_,
                        rotated_ ? first_offsets_ : nullptr, &rotation_});
      first = end;
    }
  }

  // Prefetches the values of the queries in `columns` of rows h.. of plane d, for writing.
  void prefetch(Prefetcher& prefetcher, int64_t d, int64_t h, int64_t rows,
                const Span& columns) const {
    const Dim &row_dim = geometry_.dims[1], &column_dim = geometry_.dims[2];
    const int64_t query = row_size_ * sizeof(S), row = column_dim.size * query;
    const int64_t pixel =
        (planes_.pixel(d) * row_dim.size + rows_.pixel(h)) * column_dim.size + columns.begin;
    S* first = values_ + pixel * row_size_;
    if (offsets_.size() == column_dim.window) {
      prefetcher.add(first, columns.size() * query, row_dim.dilation * row, rows, true);
    } else if (row_size_ == column_dim.window) {
      // Rotated rows have them in other slots.
      prefetcher.add(first + offsets_.begin, offsets_.size() * sizeof(S), query, columns.size(),
                     true);
    }
  }

 private:
  S* values_;
  Geometry geometry_;
  ClassPixels planes_, rows_;
  int64_t row_size_;  // K
  Span in_order_;     // the columns without rotation
  WindowRotation<Compute<S>> rotation_;
  Span offsets_;
  int64_t w_ = 0;
  bool rotated_ = false;
  int64_t first_offsets_[kVectorBytes / sizeof(float)];
};

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
