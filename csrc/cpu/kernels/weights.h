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

  // The columns with weights that are used in place.
  Span in_place() const {
    const int64_t columns = columns_.size();
    if constexpr (sizeof(S) != sizeof(T)) return {columns, columns};
    const int64_t margin = geometry_.window[2] / 2 * (transposed ? 2 : 1);
    const int64_t last = geometry_.size[2] - margin - columns_.begin;
    const int64_t begin = smaller(columns, larger(0, margin - columns_.begin));
    return {begin, larger(begin, smaller(columns, last))};
  }

  // The number of pixels with weights of `columns` columns in their rows of the matrix.
  int64_t pixels(int64_t columns) const {
    return columns + (transposed ? geometry_.window[2] - 1 : 0);
  }

  // Copies the weights of `columns` from `row` on: pixel by pixel, in the order of the offsets.
  void copy(const S* row, const Span& columns, T* to) const {
    const int64_t size = geometry_.size[2], window = geometry_.window[2];
    const int64_t offsets = geometry_.offsets(), count = pixels(columns.size());
    const int64_t begin = columns_.begin + columns.begin - (transposed ? window / 2 : 0);
    int64_t column = wrap(begin, size);
    for (int64_t i = 0; i < count; ++i, to += window) {
      const S* weights = row + column * offsets;
      const int64_t first = first_offset(column, size, window);
      // Offsets before the first are at the end of the row.
      if (first > 0) copy_elements(weights + window - first, to, first);
      copy_elements(weights, to + first, window - first);
      column = column + 1 == size ? 0 : column + 1;
    }
  }

  // Prefetches all weights of `count` columns from column w on, of rows h.. of plane d.
  void prefetch(Prefetcher& prefetcher, int64_t d, int64_t h, int64_t rows, int64_t w,
                int64_t count) const {
    const int64_t* n = geometry_.size;
    const int64_t pixel = (d * n[1] + h) * n[2] + columns_.begin + w;
    prefetcher.add(values_ + pixel * geometry_.offsets(), count * row_bytes(), n[2] * row_bytes(),
                   rows);
  }

  // Transposed: prefetches the weights of rows h.. of plane d, those of `block`, and key row j.
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
