// Sums over the queries of each key: products with the transposed weights.
//
// Weights are computed for a vector of queries at a time and used for a vector of keys at a time.
// Offset o of query column w belongs to key column w + dilation (o - before), so the weights of
// offset o are stored shifted by dilation o (sheared), and the product reads aligned weights of
// adjacent keys.
//
// Sums are kept for the key rows in the windows of the current query rows. A row that no later
// query needs is added to the result. Adjacent work items add to the same rows: see
// csrc/cpu/schedule.h.
#pragma once

#include <cstdint>

#include "../params.h"
#include "key_columns.h"
#include "microkernels.h"
#include "packing.h"
#include "row_block.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

// The weights of a few key rows: [key row][offset][query row][key column].
template <class T>
class ShearedWeights {
 public:
  ShearedWeights(Arena& arena, const KeyColumns& columns, int64_t key_rows, int64_t rows)
      : queries_(columns.queries.size()),
        wrap_(columns.wrap()),
        first_key_(columns.first_key()),
        step_(columns.dim.dilation),
        window_(columns.window()),
        count_(columns.count()),
        rows_(rows),
        pitch_(columns.key_pitch<T>()),
        size_(key_rows * window_ * rows * pitch_),
        data_(arena.take<T>(size_)) {}

  // Sets the weights of queries outside of the item to zero. Nothing else is ever stored there.
  void clear() {
    for (int64_t i = 0; i < size_ / pitch_; ++i) {
      T* row = data_ + i * pitch_;
      const int64_t key = this->key(i / rows_ % window_, 0);
      const int64_t first = wrap_ ? 0 : smaller(larger(key, 0), count_);
      const int64_t last = wrap_ ? count_ : larger(smaller(key + queries_, count_), first);
      fill_zero(row, first);
      fill_zero(row + last, pitch_ - last);
    }
  }

  // The place of the weights of offset d of query row r from query w of the item on. A vector is
  // stored there if it is `whole`, and with `put` otherwise.
  T* place(int64_t j, int64_t d, int64_t r, int64_t w) const {
    return data_ + ((j * window_ + d) * rows_ + r) * pitch_ + key(d, w);
  }
  bool whole(int64_t d, int64_t w, int64_t lanes) const {
    const int64_t key = this->key(d, w);
    return lanes == kLanes<T> && key >= 0 && key + lanes <= count_;
  }
  // Lanes before the first or after the last key go to the other side of a circle, or are absent.
  void put(int64_t d, int64_t w, int64_t lanes, Vec<T> weights, T* place) const {
    const int64_t key = this->key(d, w);
    const int64_t first = smaller(lanes, larger(0, -key));
    const int64_t last = smaller(lanes, larger(0, count_ - key));
    if (wrap_ && first > 0) store_range(place + count_, weights, 0, first);
    if (first < last) store_range(place, weights, first, last);
    if (wrap_ && last < lanes) store_range(place - count_, weights, last, lanes);
  }

  // For `scatter`, from key row j and key `key` on.
  ScatterWeights<T> at(int64_t j, int64_t key) const {
    const int64_t key_row = window_ * rows_ * pitch_;
    return {data_ + j * key_row + key, key_row, rows_ * pitch_, pitch_};
  }

 private:
  // The key at offset d of query w.
  int64_t key(int64_t d, int64_t w) const { return first_key_ + w + d * step_; }

  int64_t queries_;
  bool wrap_;
  int64_t first_key_, step_, window_, count_, rows_, pitch_, size_;
  T* data_;
};

// A few packed rows of queries, all channels.
template <class T>
class QueryRows {
 public:
  QueryRows(Arena& arena, const KeyColumns& columns, int64_t channels, int64_t rows)
      : placement_(columns.packed_queries()),
        channels_(channels),
        pitch_(columns.query_pitch<T>()),
        size_(rows * channels * pitch_),
        data_(arena.take<T>(size_)) {}

  // Call this once, before all others.
  void clear() { fill_zero(data_, size_); }

  // Packs channel c of `rows` rows.
  template <class S>
  void pack(const RowsOfImage<const S>& image, int64_t c, int64_t rows) {
    for (int64_t r = 0; r < rows; ++r) {
      placement_.pack(image.row(c, r), data_ + (r * channels_ + c) * pitch_);
    }
  }

  void fill_channel(int64_t c, T value) {
    for (T* row = data_; row < data_ + size_; row += channels_ * pitch_) {
      for (int64_t i = 0; i < pitch_; ++i) row[c * pitch_ + i] = value;
    }
  }

  // For `scatter`, from key `key` on.
  ScatterQueries<T> at(int64_t key) const { return {data_ + key, channels_ * pitch_, pitch_}; }

 private:
  Placement placement_;
  int64_t channels_, pitch_, size_;
  T* data_;
};

// The sums of the key rows in the current windows, and the resulting tensor. Row i is the key row i
// above the first one in the windows of the item.
template <class T>
class SumRows {
 public:
  // The rows in `stored` are stored, and to the others the sums are added.
  SumRows(Arena& arena, const KeyColumns& columns, const Geometry& g, const Span& rows,
          int64_t channels, const Image<T>& result, const Span& stored)
      : plane_dim_(g.dims[0]),
        row_dim_(g.dims[1]),
        columns_(columns),
        first_row_(rows.begin - g.dims[1].before),
        channels_(channels),
        ring_(arena, g.dims[0].window, g.dims[1].window + kTileRows - 1, channels,
              columns.key_pitch<T>()),
        result_(result),
        keys_(columns.begin(), columns.count(), 0, columns.dim),
        stored_{stored.begin - first_row_, stored.end - first_row_} {}

  // Starts plane d of the queries at row `first`, with `planes` of the window. Planes and rows are
  // present.
  void start_plane(int64_t d, const Span& planes, int64_t first) {
    plane_ = d;
    planes_ = planes;
    entered_ = left_ = first;
  }

  // Starts the sums of the rows before `until`.
  void enter_until(int64_t until) {
    for (; entered_ < until; ++entered_) {
      for (int64_t p = planes_.begin; p < planes_.end; ++p) {
        fill_zero(ring_.row(p, entered_), ring_.row_size());
      }
    }
  }

  // Adds the rows before `until`, times `factor`, to the result. With one more channel than that,
  // the last one holds the sums of the weights. Then channel c gets sum_c - weight * subtract_c
  // unless `subtract` is null, and `weights` the sums unless it is.
  template <class S>
  void leave_until(int64_t until, T factor, const Image<const S>* subtract,
                   const Image<T>* weights) {
    const int64_t channels = result_.channels;
    for (int64_t p = planes_.begin; p < planes_.end; ++p) {
      const int64_t d = plane_dim_.neighbour(plane_, p);
      // Channel by channel: the rows of one channel are adjacent in memory.
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t i = left_; i < until; ++i) {
          const int64_t h = row_dim_.key(first_row_ + i);
          const T* row = ring_.row(p, i);
          add_row(row + c * pitch(), result_.row(c, d, h), is_added(i), factor,
                  row + channels * pitch(), subtract != nullptr ? subtract->row(c, d, h) : nullptr);
        }
      }
      for (int64_t i = left_; weights != nullptr && i < until; ++i) {
        add_row(ring_.row(p, i) + channels * pitch(),
                weights->row(0, d, row_dim_.key(first_row_ + i)), is_added(i), T(1),
                static_cast<const T*>(nullptr), static_cast<const S*>(nullptr));
      }
    }
    left_ = until;
  }

  T* row(int64_t plane, int64_t i) const { return ring_.row(plane, i); }
  int64_t pitch() const { return ring_.pitch(); }
  int64_t channels() const { return channels_; }
  int64_t keys() const { return columns_.count(); }

 private:
  bool is_added(int64_t i) const { return i < stored_.begin || i >= stored_.end; }

  // Adds one row of sums to a row of the result, or stores it there; both of one channel.
  template <class S>
  void add_row(const T* sums, T* result, bool add, T factor, const T* weights, const S* x) const {
    const auto add_lanes = [&](int64_t key, int64_t column, int64_t lanes) {
      Vec<T> sum = load_first(sums + key, lanes);
      if (x != nullptr) sum -= load_first(weights + key, lanes) * load_first(x + column, lanes);
      sum *= factor;
      if (add) sum += load_first(result + column, lanes);
      store_first(result + column, sum, lanes);
    };
    keys_.for_each_piece([&](int64_t column, int64_t key, int64_t count) {
      const int64_t end = key + count;
      for (; key + kLanes<T> <= end; key += kLanes<T>, column += kLanes<T>) {
        add_lanes(key, column, kLanes<T>);
      }
      if (key < end) add_lanes(key, column, end - key);
    });
  }

  Dim plane_dim_, row_dim_;
  KeyColumns columns_;
  int64_t first_row_, channels_;
  RowRing<T> ring_;
  Image<T> result_;
  Placement keys_;
  Span stored_;
  int64_t plane_ = 0, entered_ = 0, left_ = 0;
  Span planes_{};
};

// Adds the products of weights and queries to the sums of key rows [begin, end), all of one plane
// and at most kTileRows. `weights` starts at key row `begin`; the block's first key row is row i of
// the sums.
template <class T>
inline void scatter_key_rows(const RowBlock& block, int64_t begin, int64_t end, int64_t i,
                             const ShearedWeights<T>& weights, const QueryRows<T>& queries,
                             const SumRows<T>& sums, int64_t window, int64_t step) {
  const int64_t plane = begin / block.plane_rows();
  const int64_t first = block.in_plane(begin), last = first + end - begin;
  // Query rows with the same of these key rows in their windows are summed together.
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
                            weights.at(lo - first, key), queries.at(key), r, next - 1, window,
                            step);
      }
    }
    r = next;
  }
}

// The end of the key rows from `begin` on to scatter together: of one plane, at most kTileRows, and
// with as many as possible in the windows of all query rows.
inline int64_t scatter_end(const RowBlock& block, int64_t begin) {
  const int64_t j = block.in_plane(begin);
  int64_t end = smaller(j + kTileRows, block.plane_rows());
  if (j < block.rows - 1) end = smaller(end, block.rows - 1);
  if (j < block.window) end = smaller(end, block.window);
  return begin - j + end;
}

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
