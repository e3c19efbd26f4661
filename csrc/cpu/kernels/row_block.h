// A few adjacent rows of queries, at most kTileRows, and the key rows in their windows.
//
// Key rows are numbered from the top of the block's windows, plane after plane of the window. In a
// plane, the window of query row r holds the key rows r <= j < r + window, so that the first and
// the last key rows are in the windows of some of the query rows only.
#pragma once

#include <cstdint>

#include "../params.h"
#include "microkernels.h"
#include "packing.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

struct RowBlock {
  int64_t rows, planes, window;
  // Those of the planes of the window, and of the key rows of a plane, that are not absent.
  Span present_planes{0, planes}, present_rows{0, 0};

  // The key rows of one plane, and of all planes.
  int64_t plane_rows() const { return window + rows - 1; }
  int64_t key_rows() const { return planes * plane_rows(); }
  // The number of a key row in its plane. Most windows have one plane, and the branch is cheaper
  // than a division.
  int64_t in_plane(int64_t j) const { return planes == 1 ? j : j % plane_rows(); }
  // The first query row whose window holds key row j, and the number of these query rows.
  int64_t first_query(int64_t j) const { return larger(0, in_plane(j) - window + 1); }
  int64_t queries(int64_t j) const { return smaller(rows - 1, in_plane(j)) - first_query(j) + 1; }
  // The end of the key rows from j on, before `end`, that are in the windows of the same query
  // rows.
  int64_t same_queries_end(int64_t j, int64_t end) const {
    int64_t next = j + 1;
    while (next < end && first_query(next) == first_query(j) && queries(next) == queries(j)) ++next;
    return next;
  }
};

// `count` key rows from `key_row` on, all in the windows of `rows` query rows from `row` on.
struct RowsAlike {
  int64_t key_row, count, row, rows;
};

// Writes key rows [begin, end) to `parts`, at most `most` in each, and returns the end.
inline RowsAlike* find_parts(const RowBlock& block, int64_t begin, int64_t end, int64_t most,
                             RowsAlike* parts) {
  for (int64_t j = begin; j < end;) {
    const int64_t next = block.same_queries_end(j, smaller(j + most, end));
    *parts++ = {j, next - j, block.first_query(j), block.queries(j)};
    j = next;
  }
  return parts;
}

// The part of the key rows [begin, end), all of one plane, in the windows of query row r: offsets
// [first, last) of the window's rows, and the key row at the first of them.
struct RowOffsets {
  int64_t first, last, key_row;

  RowOffsets(const RowBlock& block, int64_t begin, int64_t end, int64_t r) {
    const int64_t top = begin - block.in_plane(begin);
    key_row = larger(begin, top + r);
    first = key_row - top - r;
    last = smaller(end - top - r, block.window);
  }
};

// Those of `count` adjacent keys from the first offset of query i on that are not absent.
inline Span present_of(const Dim& dim, int64_t i, int64_t count) {
  const int64_t first = i - dim.dilation * dim.before;
  const Span keys = present(dim, first, first + count);
  return {keys.begin - first, keys.end - first};
}

// Long windows are treated in segments of the offsets along columns, so that scratch memory does
// not grow with the window. Other windows are one segment.
inline int64_t segments(int64_t window) { return window <= 256 ? 1 : divide_up(window, 128); }
// The largest segment.
inline Span largest_segment(int64_t window) { return {0, divide_up(window, segments(window))}; }

// Calls f(offsets) for every segment.
template <class F>
inline void for_each_segment(int64_t window, F&& f) {
  const int64_t count = segments(window);
  for (int64_t i = 0; i < count; ++i) f(part_of(window, i, count));
}

// Calls plane(d) for every plane of a work item, then f(d, h, i) for every block of rows in it,
// with block.rows and what is present set: h is the block's first row, i its number in the item.
template <class Plane, class F>
inline void for_each_row_block(const Geometry& g, const WorkItem& item, RowBlock& block,
                               Plane&& plane, F&& f) {
  const Dim planes = g.dims[0], rows = g.dims[1];
  for (int64_t d = item.planes.begin; d < item.planes.end; ++d) {
    block.present_planes = present_of(planes, d, planes.window);
    plane(d);
    for (int64_t h = item.rows.begin; h < item.rows.end; h += kTileRows) {
      block.rows = smaller(kTileRows, item.rows.end - h);
      block.present_rows = present_of(rows, h, block.plane_rows());
      f(d, h, h - item.rows.begin);
    }
  }
}

// Calls f(begin, end) for key rows that are present, as many adjacent ones as possible.
template <class F>
inline void for_each_present(const RowBlock& block, F&& f) {
  const int64_t size = block.plane_rows();
  const Span planes = block.present_planes, rows = block.present_rows;
  if (rows.size() == size) return f(planes.begin * size, planes.end * size);
  for (int64_t p = planes.begin; p < planes.end; ++p) f(p * size + rows.begin, p * size + rows.end);
}

// Points rows[j] to the packed key row j of the block whose first row is number i of its item.
template <class S>
inline void point_to_key_rows(const RowsAround<S>& keys, const RowBlock& block, int64_t i,
                              const Compute<S>** rows) {
  for (int64_t p = 0; p < block.planes; ++p) {
    for (int64_t j = 0; j < block.plane_rows(); ++j) *rows++ = keys.row(p, i + j);
  }
}

// The elements of the scores of one key row: [offset][kTileRows][lanes].
template <class T>
inline int64_t scores_size(int64_t window) {
  return window * kTileRows * kLanes<T>;
}

// The number of key rows whose scores fit into the first-level cache together.
template <class T>
inline int64_t key_rows_at_a_time(int64_t window) {
  constexpr int64_t bytes = 24576;
  return larger(1, bytes / (scores_size<T>(window) * static_cast<int64_t>(sizeof(T))));
}

// y += weights of the key rows [begin, end) times their values, for the queries from column w on.
// `weights` starts at key row `begin`.
template <class T>
inline void gather_key_rows(const RowBlock& block, int64_t begin, int64_t end, const T* weights,
                            const T* const* values, int64_t w, int64_t step, int64_t pitch,
                            int64_t window, int64_t channels, T* y) {
  const int64_t size = scores_size<T>(window);
  for (int64_t j = begin; j < end;) {
    const int64_t next = block.same_queries_end(j, end);
    const int64_t skipped = block.first_query(j) * kLanes<T>;
    gather_channels<T>(block.queries(j), channels, weights + (j - begin) * size + skipped,
                       values + j, next - j, w, step, pitch, window, y + skipped);
    j = next;
  }
}

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
