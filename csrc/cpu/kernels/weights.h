// The weights of a product with the matrix or its transpose: where they are in the rows of the
// matrix.
//
// Pixel i of y and the pixel at offset o in its window have the weight A_ij, in the matrix's row of
// i, or in the transposed product A_ji, in the row of j at the opposite offset. Away from the
// border a row holds its weights in the order of the offsets and is used in place. Near a border it
// is rotated, and the half types have to be widened: such rows are copied, in the order of the
// offsets.
#pragma once

#include <cstdint>

#include "../../common/geometry.h"
#include "../params.h"
#include "../simd/half.h"
#include "../simd/prefetch.h"
#include "packing.h"
#include "row_block.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

// Copies `count` elements, and overwrites up to a vector after the last one.
template <class S>
inline void copy_elements(const S* from, Compute<S>* to, int64_t count) {
  constexpr int64_t L = kLanes<Compute<S>>;
  int64_t i = 0;
  for (; i + L <= count; i += L) store(to + i, load(from + i));
  if (i < count) store(to + i, load_range(from + i, 0, count - i));
}

// The weights of the columns of a work item; columns are counted from its first.
template <class S, bool transposed>
class Weights {
  using T = Compute<S>;

 public:
  Weights(const void* values, const Geometry& geometry, const WorkItem& item)
      : geometry_(geometry),
        columns_(item.columns),
        values_(static_cast<const S*>(values) +
                item.group * geometry.pixels() * geometry.offsets()) {}

  // The weights between row h of y, plane d, and the row of neighbours at offset (p, o): those of
  // the matrix's row of pixel 0, of y or transposed of the neighbours.
  const S* row(int64_t d, int64_t h, int64_t p, int64_t o) const {
    const int64_t *n = geometry_.size, *w = geometry_.window;
    if (transposed) {
      d = neighbour(d, p, n[0], w[0]);
      h = neighbour(h, o, n[1], w[1]);
      p = w[0] - 1 - p;
      o = w[1] - 1 - o;
    }
    const int64_t slot = slot_of_offset(d, p, n[0], w[0]) * w[1] + slot_of_offset(h, o, n[1], w[1]);
    return values_ + (d * n[1] + h) * n[2] * geometry_.offsets() + slot * w[2];
  }

  // The columns with weights at `offsets` that are used in place: the rows of the matrix that hold
  // them are not rotated.
  Span in_place(const Span& offsets) const {
    const int64_t columns = columns_.size(), window = geometry_.window[2], halo = window / 2;
    if constexpr (sizeof(S) != sizeof(T)) return {columns, columns};
    const int64_t first = transposed ? window - 1 - offsets.begin : halo;
    const int64_t last = geometry_.size[2] - (transposed ? offsets.end - 1 : halo);
    const int64_t begin = smaller(columns, larger(0, first - columns_.begin));
    return {begin, larger(begin, smaller(columns, last - columns_.begin))};
  }

  // The number of pixels whose rows of the matrix hold the weights of `columns` columns.
  static int64_t pixels(int64_t columns, const Span& offsets) {
    return columns + (transposed ? offsets.size() - 1 : 0);
  }

  // Copies the weights of `columns` at `offsets`, from `row` on: pixel by pixel, in the order of
  // the offsets of these pixels.
  void copy(const S* row, const Span& columns, const Span& offsets, T* to) const {
    const int64_t size = geometry_.size[2], window = geometry_.window[2];
    const int64_t row_size = geometry_.offsets(), count = pixels(columns.size(), offsets);
    const Span own = transposed ? Span{window - offsets.end, window - offsets.begin} : offsets;
    const int64_t begin =
        columns_.begin + columns.begin + (transposed ? offsets.begin - window / 2 : 0);
    int64_t column = wrap(begin, size);
    for (int64_t i = 0; i < count; ++i, to += own.size()) {
      const S* weights = row + column * row_size;
      const int64_t first = first_offset(column, size, window);
      // Offsets before the first are at the end of the row.
      const int64_t split = smaller(larger(first, own.begin), own.end);
      if (split > own.begin) {
        copy_elements(weights + window - first + own.begin, to, split - own.begin);
      }
      copy_elements(weights + split - first, to + split - own.begin, own.end - split);
      column = column + 1 == size ? 0 : column + 1;
    }
  }

  // The place of the first weight of column 0 at `offsets`: in a copy, and in a row of the matrix.
  // Transposed, the first weight of a column is the last one of a pixel before it.
  static int64_t first_in_copy(const Span& offsets) { return transposed ? offsets.size() - 1 : 0; }
  int64_t first_in_row(const Span& offsets) const {
    const int64_t column = columns_.begin * geometry_.offsets();
    if (!transposed) return column + offsets.begin;
    const int64_t window = geometry_.window[2];
    return column + (offsets.begin - window / 2) * geometry_.offsets() + window - 1 - offsets.begin;
  }

  // Prefetches the weights of `count` columns from column w on, of rows h.. of plane d. Of a
  // segment of the offsets, those of windows of one row.
  void prefetch(Prefetcher& prefetcher, int64_t d, int64_t h, int64_t rows, int64_t w,
                int64_t count, const Span& offsets) const {
    const int64_t* n = geometry_.size;
    const int64_t pixel = (d * n[1] + h) * n[2] + columns_.begin + w;
    const S* first = values_ + pixel * geometry_.offsets();
    if (offsets.size() == geometry_.window[2]) {
      prefetcher.add(first, count * row_bytes(), n[2] * row_bytes(), rows);
    } else if (geometry_.offsets() == geometry_.window[2]) {
      prefetcher.add(first + offsets.begin, offsets.size() * static_cast<int64_t>(sizeof(S)),
                     row_bytes(), count);
    }
  }

  // Transposed: prefetches the weights of rows h.. of plane d, those of `block`, and key row j, all
  // offsets along columns.
  void prefetch_key_row(Prefetcher& prefetcher, const RowBlock& block, int64_t d, int64_t h,
                        int64_t j) const {
    const int64_t *n = geometry_.size, *window = geometry_.window;
    const int64_t p = j / block.plane_rows(), first = block.first_query(j);
    const int64_t o = block.in_plane(j) - first;
    // Seen from the key row, each next row of y is at the next offset. These are in adjacent slots,
    // up to the one that holds the lowest column.
    const int64_t row_of_keys = neighbour(h + first, o, n[1], window[1]);
    const int64_t turn = first_offset(row_of_keys, n[1], window[1]) - (window[1] - 1 - o);
    const int64_t rows = block.queries(j);
    for (int64_t r = 0; r < rows;) {
      const int64_t end = r < turn ? smaller(turn, rows) : rows;
      prefetcher.add(row(d, h + first + r, p, o - r) + columns_.begin * geometry_.offsets(),
                     (end - r) * window[2] * static_cast<int64_t>(sizeof(S)), row_bytes(),
                     columns_.size());
      r = end;
    }
  }

 private:
  int64_t row_bytes() const { return geometry_.offsets() * static_cast<int64_t>(sizeof(S)); }

  Geometry geometry_;
  Span columns_;
  const S* values_;
};

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
