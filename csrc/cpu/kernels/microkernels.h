// The innermost loops with queries or keys in the lanes, on tiles whose sums fit the registers.
//
// A tile is kTileRows rows of queries by one vector of adjacent columns; a lane is a query. Its
// arrays are [...][kTileRows][lanes], aligned. `score` and `gather` read key rows: packed rows of
// pixels, `pitch` elements between channels, where lane l of offset d has its key at [d step + l]:
// `step` is the dilation. `scatter` is the transpose of `gather`: a lane is a key, and it reads
// rows of queries.
//
// A key row may be in the windows of some of the tile's rows only: `rows` is their number, and
// pointers into tile arrays point to the first of them.
//
// Loads per multiplication limit the speed: `rows` rows share every load of a key, `offsets`
// offsets (or channels) every load of a query, and rows * offsets sums stay in registers.
#pragma once

#include <cstdint>
#include <utility>

#include "../simd/vector.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

constexpr int kTileRows = 4;

// The largest number of offsets, or channels, with all sums of a tile of `rows` rows in registers.
constexpr int most_columns(int rows) {
  constexpr int wide[] = {16, 12, 8, 6}, narrow[] = {10, 5, 3, 2};
  return (kRegisters == 32 ? wide : narrow)[rows - 1];
}

// How many channels ahead `score` prefetches keys, from the second-level cache, which holds the key
// rows of a block. With few registers it reads every key more often, and this would not pay.
constexpr int64_t kAhead = kRegisters == 32 ? 8 : 0;

// What scores start at: keys[d step] + offsets[d - r row] for offset d and query row r; null for
// zero. A value of -infinity says that the key is absent.
template <class T>
struct ScoreStart {
  const T *keys, *offsets;
  int64_t row;

  bool any() const { return keys != nullptr || offsets != nullptr; }
  // From offset d on.
  ScoreStart from(int64_t d, int64_t step) const {
    return {keys == nullptr ? nullptr : keys + d * step, offsets == nullptr ? nullptr : offsets + d,
            row};
  }
};

// scores[d][row] = sum_c q[c][row] k[c][d], or factor sum_c (q[c][row] - k[c][d])^2 for a distance.
// Adds what `start` has unless it is null.
// Raises highest[row] to the highest of the scores, unless `highest` is null.
template <class T, bool distance, int rows, int offsets>
void score(const T* q, const T* k, int64_t step, int64_t pitch, int64_t channels, T factor,
           const ScoreStart<T>* start, T* scores, T* highest) {
  constexpr int L = kLanes<T>;
  Vec<T> sums[offsets][rows] = {};
  const auto add_start = [&]() __attribute__((always_inline)) {
    if (start == nullptr) return;
    if (start->keys != nullptr) {
      CIRCULANT_UNROLL for (int d = 0; d < offsets; ++d) {
        const Vec<T> bias = load(start->keys + d * step);
        CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) sums[d][r] += bias;
      }
    }
    if (start->offsets != nullptr) {
      CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) {
        const T* bias = start->offsets - r * start->row;
        CIRCULANT_UNROLL for (int d = 0; d < offsets; ++d) sums[d][r] += broadcast(bias[d]);
      }
    }
  };
  if constexpr (!distance) add_start();
  for (int64_t c = 0; c < channels; ++c) {
    Vec<T> query[rows];
    if constexpr (kAhead > 0) __builtin_prefetch(k + kAhead * pitch + (offsets - 1) * step + L - 1);
    CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) query[r] = load(q + r * L);
    if constexpr (offsets > 1) {
      CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) pin(query[r]);
    }
    CIRCULANT_UNROLL for (int d = 0; d < offsets; ++d) {
      Vec<T> key = load(k + d * step);
      if constexpr (rows > 1) pin(key);
      CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) {
        if constexpr (distance) {
          const Vec<T> difference = query[r] - key;
          sums[d][r] = fma(difference, difference, sums[d][r]);
        } else {
          sums[d][r] = fma(query[r], key, sums[d][r]);
        }
      }
    }
    q += kTileRows * L;
    k += pitch;
  }
  if constexpr (distance) {
    CIRCULANT_UNROLL for (int d = 0; d < offsets; ++d) {
      CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) sums[d][r] *= broadcast(factor);
    }
    add_start();
  }
  CIRCULANT_UNROLL for (int d = 0; d < offsets; ++d) {
    CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) {
      store(scores + (d * kTileRows + r) * L, sums[d][r]);
    }
  }
  if (highest == nullptr) return;
  CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) {
    Vec<T> m = load(highest + r * L);
    CIRCULANT_UNROLL for (int d = 0; d < offsets; ++d) m = maximum(m, sums[d][r]);
    store(highest + r * L, m);
  }
}

// y[c][row] += sum over `count` key rows j and all offsets d of weights[j][d][row] v[j][at + c
// pitch + d step].
template <class T, int rows, int channels>
void gather(const T* weights, const T* const* v, int64_t count, int64_t at, int64_t step,
            int64_t pitch, int64_t window, T* y) {
  constexpr int L = kLanes<T>;
  Vec<T> sums[channels][rows];
  CIRCULANT_UNROLL for (int c = 0; c < channels; ++c) {
    CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) sums[c][r] = load(y + (c * kTileRows + r) * L);
  }
  for (int64_t j = 0; j < count; ++j) {
    const T* key = v[j] + at;
    for (int64_t d = 0; d < window; ++d) {
      Vec<T> weight[rows];
      CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) weight[r] = load(weights + r * L);
      if constexpr (channels > 1) {
        CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) pin(weight[r]);
      }
      CIRCULANT_UNROLL for (int c = 0; c < channels; ++c) {
        Vec<T> value = load(key + c * pitch);
        if constexpr (rows > 1) pin(value);
        CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) sums[c][r] =
            fma(weight[r], value, sums[c][r]);
      }
      weights += kTileRows * L;
      key += step;
    }
  }
  CIRCULANT_UNROLL for (int c = 0; c < channels; ++c) {
    CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) store(y + (c * kTileRows + r) * L, sums[c][r]);
  }
}

// The strides of the weights of `scatter`: from one key row, offset or query row to the next.
template <class T>
struct ScatterWeights {
  const T* first;
  int64_t key_row;
  int64_t offset;
  int64_t query_row;
};

// The strides of the queries of `scatter`: from one row or channel to the next.
template <class T>
struct ScatterQueries {
  const T* first;
  int64_t row;
  int64_t channel;
};

// sums[j][at + c pitch] += sum over the rows of queries r and all offsets d of
// weights[j][d][r] x[r][c][(window - 1 - d) step], for `rows` rows j of keys.
template <class T, int rows, int channels>
void scatter(T* const* sums, int64_t at, int64_t pitch, ScatterWeights<T> weights,
             ScatterQueries<T> x, int64_t first_query, int64_t last_query, int64_t window,
             int64_t step) {
  Vec<T> s[rows][channels];
  CIRCULANT_UNROLL for (int j = 0; j < rows; ++j) {
    CIRCULANT_UNROLL for (int c = 0; c < channels; ++c) s[j][c] = load(sums[j] + at + c * pitch);
  }
  for (int64_t r = first_query; r <= last_query; ++r) {
    const T* w = weights.first + r * weights.query_row;
    const T* query = x.first + r * x.row + (window - 1) * step;
    for (int64_t d = 0; d < window; ++d) {
      Vec<T> weight[rows];
      CIRCULANT_UNROLL for (int j = 0; j < rows; ++j) weight[j] = load(w + j * weights.key_row);
      if constexpr (channels > 1) {
        CIRCULANT_UNROLL for (int j = 0; j < rows; ++j) pin(weight[j]);
      }
      CIRCULANT_UNROLL for (int c = 0; c < channels; ++c) {
        Vec<T> value = load(query + c * x.channel);
        if constexpr (rows > 1) pin(value);
        CIRCULANT_UNROLL for (int j = 0; j < rows; ++j) s[j][c] = fma(weight[j], value, s[j][c]);
      }
      w += weights.offset;
      query -= step;
    }
  }
  CIRCULANT_UNROLL for (int j = 0; j < rows; ++j) {
    CIRCULANT_UNROLL for (int c = 0; c < channels; ++c) store(sums[j] + at + c * pitch, s[j][c]);
  }
}

// Calls of the functions above for any number of rows, offsets and channels.

template <class T>
using Score = void(const T*, const T*, int64_t, int64_t, int64_t, T, const ScoreStart<T>*, T*, T*);
template <class T>
using Gather = void(const T*, const T* const*, int64_t, int64_t, int64_t, int64_t, int64_t, T*);
template <class T>
using Scatter = void(T* const*, int64_t, int64_t, ScatterWeights<T>, ScatterQueries<T>, int64_t,
                     int64_t, int64_t, int64_t);

template <class T, bool distance, int rows, int... n>
Score<T>* score_of(int64_t offsets, std::integer_sequence<int, n...>) {
  static constexpr Score<T>* functions[] = {score<T, distance, rows, n + 1>...};
  return functions[offsets - 1];
}
template <class T, int rows, int... n>
Gather<T>* gather_of(int64_t channels, std::integer_sequence<int, n...>) {
  static constexpr Gather<T>* functions[] = {gather<T, rows, n + 1>...};
  return functions[channels - 1];
}
template <class T, int rows, int... n>
Scatter<T>* scatter_of(int64_t channels, std::integer_sequence<int, n...>) {
  static constexpr Scatter<T>* functions[] = {scatter<T, rows, n + 1>...};
  return functions[channels - 1];
}

template <int rows>
using ColumnNumbers = std::make_integer_sequence<int, most_columns(rows)>;

// Calls f(begin, size) for parts of [0, total) of nearly equal size, none larger than `most`.
template <class F>
inline void for_equal_parts(int64_t total, int64_t most, F&& f) {
  const int64_t parts = divide_up(total, most);
  if (parts == 1) return f(0, total);
  const int64_t size = total / parts, longer = total % parts;
  for (int64_t n = 0, begin = 0; n < parts; ++n) {
    f(begin, size + (n < longer));
    begin += size + (n < longer);
  }
}

// Calls f(std::integral_constant<int, rows>) for 1 <= rows <= kTileRows.
template <class F>
inline void with_rows(int64_t rows, F&& f) {
  static_assert(kTileRows == 4, "one case per number of rows");
  switch (rows) {
    case 1:
      return f(std::integral_constant<int, 1>{});
    case 2:
      return f(std::integral_constant<int, 2>{});
    case 3:
      return f(std::integral_constant<int, 3>{});
    default:
      return f(std::integral_constant<int, 4>{});
  }
}

// `score` for a whole window of offsets.
template <class T>
void score_window(bool distance, int64_t rows, int64_t window, const T* q, const T* k, int64_t step,
                  int64_t pitch, int64_t channels, T factor, const ScoreStart<T>& start, T* scores,
                  T* highest) {
  with_rows(rows, [&](auto n) {
    constexpr int rows = decltype(n)::value;
    for_equal_parts(window, most_columns(rows), [&](int64_t d, int64_t offsets) {
      const ScoreStart<T> part = start.from(d, step);
      Score<T>* f = distance ? score_of<T, true, rows>(offsets, ColumnNumbers<rows>{})
                             : score_of<T, false, rows>(offsets, ColumnNumbers<rows>{});
      f(q, k + d * step, step, pitch, channels, factor, part.any() ? &part : nullptr,
        scores + d * kTileRows * kLanes<T>, highest);
    });
  });
}

// `gather` for all channels.
template <class T>
void gather_channels(int64_t rows, int64_t channels, const T* weights, const T* const* v,
                     int64_t count, int64_t at, int64_t step, int64_t pitch, int64_t window, T* y) {
  with_rows(rows, [=](auto n) {
    constexpr int rows = decltype(n)::value;
    for_equal_parts(channels, most_columns(rows), [=](int64_t c, int64_t size) {
      gather_of<T, rows>(size, ColumnNumbers<rows>{})(weights, v, count, at + c * pitch, step,
                                                      pitch, window, y + c * kTileRows * kLanes<T>);
    });
  });
}

// `scatter` for all channels.
template <class T>
void scatter_channels(int64_t rows, int64_t channels, T* const* sums, int64_t at, int64_t pitch,
                      ScatterWeights<T> weights, ScatterQueries<T> x, int64_t first_query,
                      int64_t last_query, int64_t window, int64_t step) {
  with_rows(rows, [=](auto n) {
    constexpr int rows = decltype(n)::value;
    for_equal_parts(channels, most_columns(rows), [=](int64_t c, int64_t size) {
      const ScatterQueries<T> part{x.first + c * x.channel, x.row, x.channel};
      scatter_of<T, rows>(size, ColumnNumbers<rows>{})(sums, at + c * pitch, pitch, weights, part,
                                                       first_query, last_query, window, step);
    });
  });
}

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
