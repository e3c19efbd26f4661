// Sums over the queries of a key: the transposed products, without writing to shared memory.
//
// Weights are computed a vector of queries at a time and needed a vector of keys at a time. Offset
// d of query column w belongs to key column w + d - window / 2, so the weights of one offset are
// stored shifted by d: sheared. After that a product with them reads aligned weights of adjacent
// keys.
//
// Sums are kept for the key rows that the current rows of queries touch and are added to the result
// when a row leaves. Rows at the ends of a chunk are shared with its neighbours: see
// csrc/cpu/chunks.h.
#pragma once

#include <cstdint>

#include "../params.h"
#include "packing.h"
#include "row_block.h"
#include "microkernels.h"

namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET {

// How the columns of keys are numbered where sums are kept.
//
// A chunk as wide as the grid numbers them as the grid does, and what reaches over a border goes to
// the other side. A narrower one keeps half a window more on both sides.
struct KeyColumns {
  Span queries;
  int64_t size, window;

  bool wrap() const { return queries.size() == size; }
  int64_t halo() const { return window / 2; }
  int64_t count() const { return wrap() ? size : queries.size() + window - 1; }
  // The column of the grid of key 0; may be negative.
  int64_t begin() const { return wrap() ? 0 : queries.begin - halo(); }
  // The key of offset 0 of query w of the chunk.
  int64_t first_key(int64_t w) const { return wrap() ? w - halo() : w; }
  // Where rows of queries are packed, so that offset d of key n has its query at [n + window - 1 -
  // d]. There are zeros where the query is not in the chunk.
  Placement packed_queries() const {
    return wrap() ? Placement(-halo(), size + window - 1, 0, size)
                  : Placement(queries.begin, queries.size(), window - 1, size);
  }
  // Where query w of the chunk is in such a row.
  int64_t packed_query(int64_t w) const { return w + (wrap() ? halo() : window - 1); }
  template <class T>
  int64_t query_pitch() const {
    return odd_pitch<T>(round_up(count(), kLanes<T>) + window - 1);
  }
  template <class T>
  int64_t key_pitch() const {
    return odd_pitch<T>(round_up(count(), kLanes<T>));
  }
};

// The weights of a few units, each with all offsets, rows of queries and columns of keys.
template <class T>
class ShearedWeights {
 public:
  ShearedWeights(Arena& arena, const KeyColumns& columns, int64_t units, int64_t rows)
      : columns_(columns),
        count_(columns.count()),
        rows_(rows),
        pitch_(columns.key_pitch<T>()),
        size_(units * columns.window * rows * pitch_),
        data_(arena.take<T>(size_)) {}

  // Keys whose query is not in the chunk have weight zero; nothing else is ever written there.
  void clear() { fill_zero(data_, size_); }

  // The weights of offset d of the queries of row r that start at query w of the chunk. They can be
  // stored there if they are `whole`, and must be `put` there otherwise.
  T* place(int64_t unit, int64_t d, int64_t r, int64_t w) const {
    return data_ + ((unit * columns_.window + d) * rows_ + r) * pitch_ + columns_.first_key(w) + d;
  }
  bool whole(int64_t d, int64_t w, int64_t lanes) const {
    const int64_t key = columns_.first_key(w) + d;
    return lanes == kLanes<T> && key >= 0 && key + lanes <= count_;
  }
  // Lanes before the first key or behind the last go to the other side of the grid.
  void put(int64_t d, int64_t w, int64_t lanes, Vec<T> weights, T* place) const {
    const int64_t key = columns_.first_key(w) + d;
    const int64_t first = smaller(lanes, larger(0, -key));
    const int64_t last = smaller(lanes, larger(0, count_ - key));
    if (first > 0) store_range(place + count_, weights, 0, first);
    if (first < last) store_range(place, weights, first, last);
    if (last < lanes) store_range(place - count_, weights, last, lanes);
  }

  // For `scatter`, from unit `unit` and key `key` on.
  ScatterWeights<T> at(int64_t unit, int64_t key) const {
    const int64_t key_row = columns_.window * rows_ * pitch_;
    return {data_ + unit * key_row + key, key_row, rows_ * pitch_, pitch_};
  }

 private:
  KeyColumns columns_;
  int64_t count_, rows_, pitch_, size_;
  T* data_;
};

// A few packed rows of queries, all channels.
template <class T>
class QueryRows {
 public:
  QueryRows(Arena& arena, const KeyColumns& columns, int64_t channels, int64_t rows)
      : columns_(columns),
        placement_(columns.packed_queries()),
        channels_(channels),
        pitch_(columns.query_pitch<T>()),
        size_(rows * channels * pitch_),
        data_(arena.take<T>(size_)) {}

  // To be called once, before all others.
  void clear() { fill_zero(data_, size_); }

  // Packs channel c of rows h.. of plane d.
  template <class S>
  void pack(const Image<const S>& image, int64_t c, int64_t d, int64_t h, int64_t rows) {
    for (int64_t r = 0; r < rows; ++r) {
      placement_.pack(image.row(c, d, h + r), data_ + (r * channels_ + c) * pitch_);
    }
  }

  void fill_channel(int64_t c, T value) {
    for (T* row = data_; row < data_ + size_; row += channels_ * pitch_) {
      for (int64_t i = 0; i < pitch_; ++i) row[c * pitch_ + i] = value;
    }
  }

  // The queries of the chunk.
  const T* queries(int64_t c, int64_t r) const {
    return data_ + (r * channels_ + c) * pitch_ + columns_.packed_query(0);
  }

  // For `scatter`, from key `key` on.
  ScatterQueries<T> at(int64_t key) const { return {data_ + key, channels_ * pitch_, pitch_}; }

 private:
  KeyColumns columns_;
  Placement placement_;
  int64_t channels_, pitch_, size_;
  T* data_;
};

// The rows of keys that sums are kept for, numbered as in KeyRows, and the tensor that they end in.
template <class T>
class SumRows {
 public:
  // `touched` has a byte for every row of the group's grid, set once the row of `result` holds a
  // sum.
  SumRows(Arena& arena, const KeyColumns& columns, const Span& rows, int64_t channels,
          const Image<T>& result, uint8_t* touched)
      : geometry_(result.geometry),
        columns_(columns),
        first_row_(rows.begin - geometry_.window[1] / 2),
        channels_(channels),
        ring_(arena, geometry_.window[0], geometry_.window[1] + kTileRows - 1, channels,
              columns.key_pitch<T>()),
        result_(result.data),
        touched_(touched) {}

  void start_plane(int64_t d) {
    plane_ = d;
    entered_ = left_ = 0;
  }

  void enter_until(int64_t until) {
    for (; entered_ < until; ++entered_) {
      for (int64_t p = 0; p < geometry_.window[0]; ++p) {
        fill_zero(ring_.row(p, entered_), ring_.row_size());
      }
    }
  }

  // Adds the rows before `until` to the result. With `subtract` the last channel holds the sums of
  // the weights alone, and what is added to channel c is sum_c - weight * subtract_c.
  template <class S>
  void leave_until(int64_t until, const Image<const S>* subtract) {
    const int64_t* n = geometry_.size;
    const int64_t channels = channels_ - (subtract != nullptr);
    for (int64_t p = 0; p < geometry_.window[0]; ++p) {
      const int64_t d = neighbour(plane_, p, n[0], geometry_.window[0]);
      // Channel by channel, since the rows of a channel are adjacent in memory.
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t i = left_; i < until; ++i) {
          const int64_t h = wrap(first_row_ + i, n[1]);
          const T* row = ring_.row(p, i);
          // On a grid of few rows, one that leaves together with this may be the same row.
          const bool touched = touched_[d * n[1] + h] != 0 || i - n[1] >= left_;
          add_row(row + c * pitch(), (c * n[0] + d) * n[1] + h, touched, row + channels * pitch(),
                  subtract);
        }
      }
      for (int64_t i = left_; i < until; ++i) touched_[d * n[1] + wrap(first_row_ + i, n[1])] = 1;
    }
    left_ = until;
  }

  T* row(int64_t plane, int64_t i) const { return ring_.row(plane, i); }
  int64_t pitch() const { return ring_.pitch(); }
  int64_t channels() const { return channels_; }
  int64_t keys() const { return columns_.count(); }

 private:
  // Adds one row of sums to row `image_row` of the group's image, both of one channel.
  template <class S>
  void add_row(const T* sums, int64_t image_row, bool touched, const T* weights,
               const Image<const S>* subtract) const {
    const int64_t size = geometry_.size[2], keys = columns_.count();
    T* result = result_ + image_row * size;
    const S* x = subtract != nullptr ? subtract->data + image_row * size : nullptr;
    const auto add = [&](int64_t key, int64_t column, int64_t lanes) {
      Vec<T> sum = load_first(sums + key, lanes);
      if (x != nullptr) sum -= load_first(weights + key, lanes) * load_first(x + column, lanes);
      if (touched) sum += load_first(result + column, lanes);
      store_first(result + column, sum, lanes);
    };
    // In runs that stay inside the grid.
    int64_t column = wrap(columns_.begin(), size);
    for (int64_t key = 0; key < keys; column = 0) {
      const int64_t end = key + smaller(keys - key, size - column);
      for (; key + kLanes<T> <= end; key += kLanes<T>, column += kLanes<T>) {
        add(key, column, kLanes<T>);
      }
      if (key < end) add(key, column, end - key);
      key = end;
    }
  }

  Geometry geometry_;
  KeyColumns columns_;
  int64_t first_row_, channels_;
  RowRing<T> ring_;
  T* result_;
  uint8_t* touched_;
  int64_t plane_ = 0, entered_ = 0, left_ = 0;
};

// Adds to the key rows of units [begin, end), all of one plane and few enough for one tile, what
// the block's rows of queries give them. Unit `begin` is the first of `weights`, row i of the sums
// is the block's first key row.
template <class T>
inline void scatter_units(const RowBlock& block, int64_t begin, int64_t end, int64_t i,
                          const ShearedWeights<T>& weights, const QueryRows<T>& queries,
                          const SumRows<T>& sums, int64_t window) {
  const int64_t plane = begin / block.key_rows();
  const int64_t first = block.key_row(begin), last = first + end - begin;
  // Rows of queries whose windows hold the same of these key rows go together.
  for (int64_t r = 0; r < block.rows;) {
    const int64_t lo = larger(first, r), hi = smaller(last, r + block.window);
    int64_t next = r + 1;
    while (next < block.rows && larger(first, next) == lo &&
           smaller(last, next + block.window) == hi)
      ++next;
    if (lo < hi) {
      T* rows[kTileRows];
      for (int64_t j = lo; j < hi; ++j) rows[j - lo] = sums.row(plane, i + j);
      for (int64_t key = 0; key < sums.keys(); key += kLanes<T>) {
        scatter_channels<T>(hi - lo, sums.channels(), rows, key, sums.pitch(),
                            weights.at(lo - first, key), queries.at(key), r, next - 1, window);
      }
    }
    r = next;
  }
}

// The end of the units from `begin` on that are scattered together: of one plane, at most
// kTileRows, and cut where the windows of the queries begin to leave key rows out, so that most are
// in all of them.
inline int64_t scatter_end(const RowBlock& block, int64_t begin) {
  const int64_t j = block.key_row(begin);
  int64_t end = smaller(j + kTileRows, block.key_rows());
  if (j < block.rows - 1) end = smaller(end, block.rows - 1);
  if (j < block.window) end = smaller(end, block.window);
  return begin - j + end;
}

}  // namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET
