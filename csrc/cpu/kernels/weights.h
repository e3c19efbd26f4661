// The weights of a product with the matrix or its transpose: where they are in the rows of the
// matrix.
//
// Pixel i of y and the pixel at offset o in its window have the weight A_ij, in the matrix's row of
// i, or in the transposed product A_ji, in the row of j at the opposite offset. Away from the
// border a row holds its weights in the order of the offsets and is used in place. Near the border
// of a circle it is rotated: the place of each weight is found once, for all rows. The half types
// have to be widened: their rows are copied, in the order of the offsets. Nothing is read at pixels
// beyond a truncated border.
#pragma once

#include <cstdint>

#include "../../common/geometry.h"
#include "../params.h"
#include "../simd/half.h"
#include "../simd/prefetch.h"
#include "broadcast.h"
#include "packing.h"
#include "rotation.h"
#include "row_block.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

// The weights of the columns of a work item; columns are counted from its first.
template <class S, bool transposed>
class Weights {
  using T = Compute<S>;

 public:
  // `geometry` relates y to the pixels in its windows: it is that of A, or transposed of A^T.
  Weights(const void* values, const Geometry& geometry, const WorkItem& item)
      : own_(geometry_of_classes(geometry, item)),
        matrix_(transposed ? geometry.transposed() : geometry),
        planes_{item.plane_class, matrix_.dims[0].dilation, matrix_.dims[0].size},
        rows_{item.row_class, matrix_.dims[1].dilation, matrix_.dims[1].size},
        columns_(item.columns),
        row_size_(matrix_.offsets()),
        values_(static_cast<const S*>(values) + item.group * matrix_.pixels() * row_size_) {}

  // The weights between row h of y, plane d, and the row of neighbours at offset (p, o): those of
  // the matrix's row of pixel 0, of y or transposed of the neighbours.
  const S* row(int64_t d, int64_t h, int64_t p, int64_t o) const {
    const Dim &planes = matrix_.dims[0], &rows = matrix_.dims[1], &columns = matrix_.dims[2];
    if (transposed) {
      d = own_.dims[0].neighbour(d, p);
      h = own_.dims[1].neighbour(h, o);
      p = planes.window - 1 - p;
      o = rows.window - 1 - o;
    }
    d = planes_.pixel(d);
    h = rows_.pixel(h);
    const int64_t slot = planes.slot_of_offset(d, p) * rows.window + rows.slot_of_offset(h, o);
    return values_ + (d * rows.size + h) * columns.size * row_size_ + slot * columns.window;
  }

  // The columns with all weights at `offsets` in rows of the matrix that are not rotated.
  Span unrotated_columns(const Span& offsets) const {
    const int64_t columns = columns_.size();
    const Dim& dim = own_.dims[2];
    if (!dim.circular) return {0, columns};
    auto [first, last] = unrotated(matrix_.dims[2]);
    if (transposed) {
      first -= dim.dilation * (offsets.begin - dim.before);
      last -= dim.dilation * (offsets.end - 1 - dim.before);
    }
    const int64_t begin = smaller(columns, larger(0, first - columns_.begin));
    return {begin, larger(begin, smaller(columns, last - columns_.begin))};
  }

  // The number of pixels whose rows of the matrix hold the weights of `columns` columns.
  int64_t pixels(int64_t columns, const Span& offsets) const {
    return columns + (transposed ? own_.dims[2].dilation * (offsets.size() - 1) : 0);
  }

  // Copies the weights of `columns` at `offsets`: pixel by pixel, in the order of the offsets of
  // these pixels. Of all rows: for_each_row(copy) calls copy(row, to) for each.
  template <class F>
  void copy(const Span& columns, const Span& offsets, F&& for_each_row) const {
    const Dim dim = own_.dims[2], matrix = matrix_.dims[2];
    const Span own =
        transposed ? Span{matrix.window - offsets.end, matrix.window - offsets.begin} : offsets;
    const auto copy_columns = [&](int64_t column, int64_t at, int64_t count) {
      const int64_t shift = at - column, end = column + count;
      for (Rotation rotation(matrix, column); column < end; rotation.next()) {
        const int64_t next = smaller(rotation.end, end);
        copy_alike({column, next}, rotation.first, own, (shift + column) * own.size(),
                   for_each_row);
        column = next;
      }
    };
    const int64_t begin = columns_.begin + columns.begin;
    if (!transposed) return copy_columns(begin, 0, columns.size());
    const Placement keys(begin + dim.dilation * (offsets.begin - dim.before),
                         pixels(columns.size(), offsets), 0, dim);
    keys.for_each_piece(copy_columns);
  }

  // Whether the weights are used in place, those near the border of a circle with `find_places`.
  static constexpr bool kInPlace = sizeof(S) == sizeof(T);
  bool finds_places() const { return kInPlace && own_.dims[2].circular; }

  // The number of places of a column at `offsets`. Transposed, there is one for each pixel of the
  // tile that it starts: the row of a pixel has the weights of the tile's columns side by side.
  static int64_t places(const Span& offsets) {
    return offsets.size() + (transposed ? kTileColumns - 1 : 0);
  }

  // Finds the places of the weights of `columns` at `offsets` in a row of the matrix:
  // to[column][place].
  void find_places(const Span& columns, const Span& offsets, int64_t* to) const {
    const Dim &own = own_.dims[2], &matrix = matrix_.dims[2];
    const Span in_order = unrotated(matrix);
    for (int64_t column = columns.begin; column < columns.end; ++column) {
      const int64_t w = columns_.begin + column, later = (columns_.end - 1 - w) / own.dilation;
      const int64_t stop = offsets.begin + smaller(places(offsets), offsets.size() + later);
      int64_t* next = to + column * places(offsets);
      for (int64_t o = offsets.begin; o < stop;) {
        const int64_t i = transposed ? own.neighbour(w, o) : w;
        // The pixels of later columns only have negative offsets. Runs that start there are those
        // of rotated rows, where the slots of lower offsets go on.
        const int64_t slot = matrix.slot_of_offset(i, transposed ? own.window - 1 - o : o);
        // Steps to the next offset: to the next slot. Transposed, to a pixel with the weight in the
        // slot before, or near a border, where the next row is rotated by one less, in this slot.
        int64_t step = 1, end = o + own.window - slot;
        if (transposed) {
          const int64_t last = i < in_order.begin ? in_order.begin
                               : i < in_order.end ? in_order.end
                                                  : matrix.size;
          step = own.dilation * row_size_ - (last == in_order.end);
          end = o + divide_up(last - i, own.dilation);
        }
        end = smaller(end, stop);
        for (int64_t place = i * row_size_ + slot; o < end; ++o, place += step) *next++ = place;
      }
    }
  }

  // The place of the first weight of column 0 at `offsets`: in a copy, and in a row of the matrix.
  // Transposed, the first weight of a column is the last one of a pixel before it.
  static int64_t first_in_copy(const Span& offsets) { return transposed ? offsets.size() - 1 : 0; }
  int64_t first_in_row(const Span& offsets) const {
    const Dim& dim = own_.dims[2];
    const int64_t column = columns_.begin * row_size_;
    if (!transposed) return column + offsets.begin;
    return column + dim.dilation * (offsets.begin - dim.before) * row_size_ + dim.window - 1 -
           offsets.begin;
  }

  // Prefetches the weights of `count` columns from column w on, of rows h.. of plane d. Of a
  // segment of the offsets, those of windows of one row.
  void prefetch(Prefetcher& prefetcher, int64_t d, int64_t h, int64_t rows, int64_t w,
                int64_t count, const Span& offsets) const {
    const Dim &row_dim = matrix_.dims[1], &column_dim = matrix_.dims[2];
    const int64_t row = planes_.pixel(d) * row_dim.size + rows_.pixel(h);
    const S* first = values_ + (row * column_dim.size + columns_.begin + w) * row_size_;
    if (offsets.size() == column_dim.window) {
      prefetcher.add(first, count * row_bytes(), row_dim.dilation * column_dim.size * row_bytes(),
                     rows);
    } else if (row_size_ == column_dim.window) {
      prefetcher.add(first + offsets.begin, offsets.size() * static_cast<int64_t>(sizeof(S)),
                     row_bytes(), count);
    }
  }

  // Transposed: prefetches the weights of rows h.. of plane d, those of `block`, and key row j, all
  // offsets along columns.
  void prefetch_key_row(Prefetcher& prefetcher, const RowBlock& block, int64_t d, int64_t h,
                        int64_t j) const {
    const Dim& dim = own_.dims[1];
    const int64_t p = j / block.plane_rows(), first = block.first_query(j);
    const int64_t o = block.in_plane(j) - first;
    const int64_t key_row = dim.neighbour(h + first, o);
    if (own_.dims[0].neighbour(d, p) < 0 || key_row < 0) return;
    // Seen from the key row, each next row of y is at the next offset. These are in adjacent slots,
    // up to the one that holds the lowest column.
    const int64_t turn = matrix_.dims[1].first_offset(rows_.pixel(key_row)) - (dim.window - 1 - o);
    const int64_t rows = block.queries(j);
    for (int64_t r = 0; r < rows;) {
      const int64_t end = r < turn ? smaller(turn, rows) : rows;
      prefetcher.add(row(d, h + first + r, p, o - r) + columns_.begin * row_size_,
                     (end - r) * matrix_.dims[2].window * static_cast<int64_t>(sizeof(S)),
                     row_bytes(), columns_.size());
      r = end;
    }
  }

 private:
  // Copies the weights of `columns` to `at`: all their rows start with offset `first`. Overwrites
  // up to a vector after the last one.
  template <class F>
  void copy_alike(const Span& columns, int64_t first, const Span& offsets, int64_t at,
                  F&& for_each_row) const {
    constexpr int64_t L = kLanes<T>;
    const int64_t size = offsets.size(), row_size = row_size_, begin = columns.begin * row_size;
    const int64_t count = columns.size();
    // The end first: the lanes after it are overwritten by the start of the next column.
    for (int64_t n = (size - 1) / L * L; n >= 0; n -= L) {
      const RotatedLanes<S> lanes(matrix_.dims[2].window, first, offsets.begin + n,
                                  smaller(L, size - n));
      for_each_row([=](const S* row, T* to) __attribute__((always_inline)) {
        const S* from = row + begin;
        T* place = to + at + n;
        for (int64_t i = 0; i < count; ++i, from += row_size, place += size) {
          store(place,
                lanes.split > 0 ? lanes.load(from) : load_first(from + lanes.after, lanes.count));
        }
      });
    }
  }

  int64_t row_bytes() const { return row_size_ * static_cast<int64_t>(sizeof(S)); }

  Geometry own_, matrix_;      // of the classes, and of the rows of the matrix
  ClassPixels planes_, rows_;  // of the rows of the matrix
  Span columns_;
  int64_t row_size_;  // K
  const S* values_;
};

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
