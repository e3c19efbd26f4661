// The products of a matrix and an image, y_i = sum_j A_ij x_j, and of its transpose,
// y_j = sum_i A_ij x_i.
//
// Both sum over the pixels of x in the window around a pixel of y, since windows are odd. A weight
// comes from the row of the matrix of y's pixel, or, transposed, of x's. A few rows of y at a time,
// and for these the weights of a few rows of neighbours at a time; most are used where they are.
// Near a border the rows of the matrix are rotated, and those of the half types have to be widened:
// these are copied before, in the order of the offsets.
#pragma once

#include <cstdint>

#include "../../common/geometry.h"
#include "../params.h"
#include "broadcast.h"
#include "channel_rows.h"
#include "packing.h"
#include "../simd/prefetch.h"
#include "row_block.h"

namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET {

// Copies `count` elements. Up to a vector behind the last is overwritten, but nothing read.
template <class S>
inline void copy_elements(const S* from, Compute<S>* to, int64_t count) {
  constexpr int64_t L = kLanes<Compute<S>>;
  int64_t i = 0;
  for (; i + L <= count; i += L) store(to + i, load(from + i));
  if (i < count) store(to + i, load_range(from + i, 0, count - i));
}

template <class S, bool transposed>
class ProductEngine {
  using T = Compute<S>;
  static constexpr int64_t L = kLanes<T>;

 public:
  ProductEngine(const Product& a, const Chunk& chunk, Arena& arena)
      : geometry_(a.geometry),
        chunk_(chunk),
        values_(static_cast<const S*>(a.values) +
                chunk.group * a.geometry.pixels() * a.geometry.offsets()),
        y_(image_of_group<S>(a.y, chunk.group, a.channels, a.geometry)),
        channels_(padded_channels<T>(a.channels)),
        x_(arena, image_of_group<S>(a.x, chunk.group, a.channels, a.geometry), chunk.rows,
           chunk.columns),
        sums_(arena, chunk.columns, a.channels),
        block_{kTileRows, a.geometry.window[0], a.geometry.window[1]},
        together_(neighbours_together()),
        most_columns_(columns_together()),
        row_size_(copied_columns(most_columns_) * a.geometry.window[2] + L),
        units_(arena.take<const T*>(block_.units())),
        runs_(arena.take<Run>(together_)),
        weights_(arena.take<const T*>(together_ * kTileRows)),
        copies_(arena.take<T>(together_ * kTileRows * row_size_)) {}

  void run() {
    for_each_row_block(
        chunk_, block_, [this](int64_t d) { x_.start_plane(d); },
        [this](int64_t d, int64_t h, int64_t i) {
          x_.pack_until(i + block_.key_rows());
          for (int64_t u = 0; u < block_.units(); ++u) {
            units_[u] = x_.row(u / block_.key_rows(), i + block_.key_row(u));
          }
          sums_.clear();
          prefetch_rows(h);
          for (int64_t p = 0; p < block_.planes; ++p) {
            const int64_t last = (p + 1) * block_.key_rows();
            for (int64_t u = p * block_.key_rows(); u < last; u += together_) {
              add_units({d, h, p, u, smaller(u + together_, last)});
            }
          }
          sums_.store(y_, d, h, block_.rows);
        });
  }

 private:
  // The rows of neighbours to treat together. The rows of the matrix of y's pixels are best read
  // from end to end; of those of x's pixels, a row of y needs a part.
  int64_t neighbours_together() const {
    if (!transposed) return block_.key_rows();
    constexpr int64_t bytes = 131072;
    const int64_t one = kTileRows * copied_columns(chunk_.columns.size()) * geometry_.window[2] *
                        static_cast<int64_t>(sizeof(T));
    return smaller(block_.key_rows(), larger(1, bytes / one));
  }
  // The columns to copy the weights of at a time.
  int64_t columns_together() const {
    if (transposed) return chunk_.columns.size();
    constexpr int64_t bytes = 131072;
    const int64_t tile = kTileColumns * kTileRows * together_ * geometry_.window[2] *
                         static_cast<int64_t>(sizeof(T));
    return smaller(chunk_.columns.size(), kTileColumns * larger(1, bytes / tile));
  }
  // The pixels whose rows of the matrix hold the weights of so many columns.
  int64_t copied_columns(int64_t columns) const {
    return columns + (transposed ? geometry_.window[2] - 1 : 0);
  }

  // The neighbours in units [begin, end), all of plane p of the window, of rows h.. of plane d.
  struct Units {
    int64_t d, h, p, begin, end;
  };

  // `count` units from `unit` on that are all in the windows of `rows` rows of the block from `row`
  // on.
  struct Run {
    int64_t unit, count, row, rows;
  };

  void find_runs(const Units& units) {
    runs_end_ = runs_;
    for (int64_t u = units.begin; u < units.end;) {
      // Not too many at a time, so that what is asked for ahead is spread.
      const int64_t next = block_.run_end(u, smaller(u + 4, units.end));
      *runs_end_++ = {u, next - u, block_.first(u), block_.count(u)};
      u = next;
    }
  }

  void add_units(const Units& units) {
    const int64_t columns = chunk_.columns.size();
    // The columns whose weights are used where they are: in the order of the offsets, and of the
    // type to compute with.
    Span in_place{columns, columns};
    if constexpr (sizeof(S) == sizeof(T)) {
      const int64_t margin = geometry_.window[2] / 2 * (transposed ? 2 : 1);
      const int64_t last = geometry_.size[2] - margin - chunk_.columns.begin;
      in_place.begin = smaller(columns, larger(0, margin - chunk_.columns.begin));
      in_place.end = larger(in_place.begin, smaller(columns, last));
    }
    find_runs(units);
    if (transposed) prefetch_next_units(units);
    add_copied(units, {0, in_place.begin}, in_place.size() > 0 ? kTileColumns : most_columns_);
    add_in_place(units, in_place);
    add_copied(units, {in_place.end, columns}, most_columns_);
  }

  // Adds to `columns` with copies of the weights, for some columns at a time. Behind the last,
  // `next` columns come.
  void add_copied(const Units& units, const Span& columns, int64_t next) {
    const int64_t window = geometry_.window[2];
    for (int64_t w = columns.begin; w < columns.end; w += most_columns_) {
      const Span part{w, smaller(w + most_columns_, columns.end)};
      if (!transposed) {
        prefetch_columns(units, part, part.end < columns.end ? most_columns_ : next);
      }
      for_each_weights(units, [&](const S* line, const T*& weights, T* copy) {
        copy_weights(line, part, copy);
        weights = copy + (transposed ? window / 2 * window : 0);
      });
      add_tiles(units, part, -w, window);
    }
  }

  void add_in_place(const Units& units, const Span& columns) {
    if (columns.size() == 0) return;
    for_each_weights(units, [](const S* line, const T*& weights, T*) {
      if constexpr (sizeof(S) == sizeof(T)) weights = line;
    });
    for (int64_t w = columns.begin; w < columns.end; w += kTileColumns) {
      const Span part{w, smaller(w + kTileColumns, columns.end)};
      if (!transposed) {
        prefetch_columns(units, part, part.end < columns.end ? kTileColumns : most_columns_);
      }
      add_tiles(units, part, chunk_.columns.begin, geometry_.offsets());
    }
  }

  // Calls f(line, weights, copy) for every unit and row: the line of the values is that of the
  // pixel in column 0, from the offsets of the unit on; the others are parts of our memory.
  template <class F>
  void for_each_weights(const Units& units, F&& f) {
    for (int64_t u = units.begin; u < units.end; ++u) {
      const int64_t first = block_.first(u);
      for (int64_t r = first; r < first + block_.count(u); ++r) {
        const int64_t place = (u - units.begin) * kTileRows + r;
        f(values_at(units.d, units.h + r, units.p, block_.key_row(u) - r), weights_[place],
          copies_ + place * row_size_);
      }
    }
  }

  // The values between row h of y, plane d, and the neighbours at offset (p, o), from column 0 on:
  // in the rows of the matrix of y's pixels, or of x's.
  const S* values_at(int64_t d, int64_t h, int64_t p, int64_t o) const {
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

  // Copies the weights of a row for `columns`, pixel by pixel, each in the order of the offsets.
  void copy_weights(const S* line, const Span& columns, T* to) const {
    const int64_t size = geometry_.size[2], window = geometry_.window[2];
    const int64_t offsets = geometry_.offsets(), count = copied_columns(columns.size());
    const int64_t begin = chunk_.columns.begin + columns.begin - (transposed ? window / 2 : 0);
    int64_t column = wrap(begin, size);
    for (int64_t i = 0; i < count; ++i, to += window) {
      const S* row = line + column * offsets;
      const int64_t first = first_offset(column, size, window);
      // Offsets before the first are at the end of the row.
      if (first > 0) copy_elements(row + window - first, to, first);
      copy_elements(row, to + first, window - first);
      column = column + 1 == size ? 0 : column + 1;
    }
  }

  // Adds units to `columns`. The weights of column w begin at (shift + w) * offsets.
  void add_tiles(const Units& units, const Span& columns, int64_t shift, int64_t offsets) {
    const int64_t window = geometry_.window[2], most = smaller(kTileColumns, window);
    // Transposed, the first weight of a key is the last of the query half a window before it.
    const int64_t first = transposed ? window - 1 - window / 2 * offsets : 0;
    for (int64_t w = columns.begin; w < columns.end; w += most) {
      const int64_t width = smaller(most, columns.end - w);
      for (const Run* run = runs_; run < runs_end_; ++run) {
        const TileWeights<T> part{weights_ + (run->unit - units.begin) * kTileRows + run->row,
                                  first + (shift + w) * offsets, transposed ? 1 : offsets - 1,
                                  transposed ? offsets - 1 : 1};
        for (int64_t c = 0; c < channels_;) {
          const int64_t vectors = smaller(kTileVectors, (channels_ - c) / L);
          add_products_of<T>(run->rows, width, vectors)(part, units_ + run->unit, w * channels_ + c,
                                                        run->count, window, channels_,
                                                        sums_.at(w, run->row) + c);
          for (int64_t n = 0; n < run->count; ++n) {
            values_ahead_.step();
            rows_ahead_.step();
          }
          c += vectors * L;
        }
      }
    }
  }

  // The rows of x that the next rows of y need.
  void prefetch_rows(int64_t h) {
    const int64_t rows = smaller(kTileRows, chunk_.rows.end - h - block_.rows);
    rows_ahead_.clear();
    if (rows > 0) x_.prefetch(rows_ahead_, rows);
    rows_ahead_.spread(steps(block_.units(), chunk_.columns.size()));
  }

  // During `part`: the rows of the matrix of the `next` columns, or of the next rows of y.
  void prefetch_columns(const Units& units, const Span& part, int64_t next) {
    const int64_t offsets = geometry_.offsets(), query = offsets * static_cast<int64_t>(sizeof(S));
    const int64_t* n = geometry_.size;
    int64_t w = part.end, h = units.h, rows = block_.rows;
    if (w == chunk_.columns.size()) {
      w = 0;
      h += rows;
      rows = smaller(kTileRows, chunk_.rows.end - h);
    }
    const int64_t pixel = (units.d * n[1] + h) * n[2] + chunk_.columns.begin + w;
    values_ahead_.clear();
    values_ahead_.add(values_ + pixel * offsets, smaller(next, chunk_.columns.size() - w) * query,
                      n[2] * query, rows);
    values_ahead_.spread(steps(units.end - units.begin, part.size()));
  }

  // Transposed: the next units' parts of the rows of the matrix.
  void prefetch_next_units(const Units& units) {
    const int64_t *n = geometry_.size, *window = geometry_.window;
    const int64_t offsets = geometry_.offsets(), query = offsets * static_cast<int64_t>(sizeof(S));
    // The next of the plane, or the first of the next plane, or those of the next rows of y.
    RowBlock block = block_;
    int64_t h = units.h, begin = units.end;
    if (begin == block.units()) {
      h += block.rows;
      block.rows = smaller(kTileRows, chunk_.rows.end - h);
      begin = 0;
    }
    values_ahead_.clear();
    if (block.rows <= 0) return;
    const int64_t p = begin / block.key_rows();
    const int64_t end = smaller(begin + together_, (p + 1) * block.key_rows());
    for (int64_t u = begin; u < end; ++u) {
      const int64_t first = block.first(u), o = block.key_row(u) - first;
      // Seen from the row of neighbours, each of our rows is at an offset more, in the next slots
      // until these begin anew.
      const int64_t row = neighbour(h + first, o, n[1], window[1]);
      const int64_t turn = first_offset(row, n[1], window[1]) - (window[1] - 1 - o);
      for (int64_t r = 0; r < block.count(u);) {
        const int64_t last = r < turn ? smaller(turn, block.count(u)) : block.count(u);
        const S* line = values_at(units.d, h + first + r, p, o - r);
        values_ahead_.add(line + chunk_.columns.begin * offsets,
                          (last - r) * window[2] * static_cast<int64_t>(sizeof(S)), query,
                          chunk_.columns.size());
        r = last;
      }
    }
    values_ahead_.spread(steps(units.end - units.begin, chunk_.columns.size()));
  }

  // The steps of the prefetchers during so many units and columns.
  int64_t steps(int64_t units, int64_t columns) const {
    return units * divide_up(channels_, kTileVectors * L) * divide_up(columns, kTileColumns);
  }

  Geometry geometry_;
  const Chunk& chunk_;
  const S* values_;
  Image<S> y_;
  int64_t channels_;
  ChannelRows<S> x_;
  ChannelSums<T> sums_;
  RowBlock block_;
  int64_t together_, most_columns_, row_size_;
  const T** units_;
  Run *runs_, *runs_end_ = nullptr;
  const T** weights_;
  T* copies_;
  Prefetcher values_ahead_, rows_ahead_;
};

template <class S>
using ApplyEngine = ProductEngine<S, false>;
template <class S>
using ApplyTransposedEngine = ProductEngine<S, true>;

}  // namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET
