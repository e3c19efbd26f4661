// The innermost loop with channels in the lanes: sums of pixels times weights, each weight
// broadcast.
//
// A tile is a few rows and columns of results, in registers. The loop goes through a row of
// neighbours pixel by pixel: each is loaded once and multiplied by a weight for every result with
// this pixel in its window. Weights are read in CSR order; no transpose. The columns of a tile, and
// the pixels, are `step` apart, the dilation: so their windows share pixels.
#pragma once

#include <cstdint>

#include "../params.h"
#include "../simd/vector.h"
#include "microkernels.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

// The columns and the vectors of channels of a tile: its sums stay in registers, with a pixel and a
// weight. A tile of a window of one column has one column.
constexpr int kTileColumns = 3;
constexpr int kTileVectors = kRegisters == 32 ? 2 : 1;

// Calls f(w, width) for the tiles of those of `columns` that are in one of the `classes`, the
// columns modulo `step`: column w and those `step` apart, `width` of them, at most `most`. Adjacent
// tiles of a class follow each other, because they share neighbours.
template <class F>
inline void for_each_tile(const Span& columns, const Span& classes, int64_t most, int64_t step,
                          F&& f) {
  for (int64_t c = classes.begin; c < classes.end; ++c) {
    const int64_t first = c + round_up(larger(columns.begin - c, 0), step);
    for (int64_t w = first; w < columns.end; w += most * step) {
      f(w, smaller(most, divide_up(columns.end - w, step)));
    }
  }
}

// How the places of weights are given: by strides, by a list with one for each pixel, where those
// of a tile's columns are adjacent, or by a list with one for each pixel and column.
enum class Places { kStrides, kOfPixels, kOfWeights };

// The weights of a tile, and which of its pixels are present. That of row r and pixel n of the
// neighbours, n = 0 at the first one in the window of column 0, and row i and column c of the
// results is first[r * kTileRows + i][place]:
//   kStrides:   place = at + c * column + n * pixel
//   kOfPixels:  place = places[at + n * pixel] + c
//   kOfWeights: place = places[at + c * column + n * pixel]
template <class T>
struct TileWeights {
  const T* const* first;
  int64_t at, column, pixel;
  const int64_t* places;  // null with strides
  Span pixels;            // present
};

// sums[column][row][vector] += sum over `count` rows of neighbours and the present pixels in the
// window of the column of weight * pixel. If the tile is `whole`, all of its pixels are present. A
// pixel is at x[r] + at + pixel * channels. The sums of the rows of a column are `channels` apart,
// those of columns kTileRows * channels.
template <class T, int rows, int columns, int vectors, Places places, bool whole>
void add_products(const TileWeights<T>& weights, const T* const* x, int64_t at, int64_t count,
                  int64_t window, int64_t channels, T* sums) {
  constexpr int L = kLanes<T>;
  constexpr bool listed = places != Places::kStrides;
  Vec<T> s[rows][columns][vectors];
  const auto sum = [=](int row, int column, int v) {
    return sums + (column * kTileRows + row) * channels + v * L;
  };
  CIRCULANT_UNROLL for (int c = 0; c < columns; ++c) {
    CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) {
      CIRCULANT_UNROLL for (int v = 0; v < vectors; ++v) s[r][c][v] = load(sum(r, c, v));
    }
  }
  const int64_t begin = whole ? 0 : weights.pixels.begin;
  const int64_t end = whole ? window + columns - 1 : weights.pixels.end;
  const int64_t first_place = weights.at + begin * weights.pixel;
  for (int64_t n = 0; n < count; ++n) {
    const T* pixel = x[n] + at + begin * channels;
    const T* weight[rows];
    CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) {
      weight[r] = weights.first[n * kTileRows + r] + (listed ? 0 : first_place);
    }
    const int64_t* list = listed ? weights.places + first_place : nullptr;
    // Adds one pixel to the columns first to last, with it in their windows.
    const auto add = [&](int first, int last) __attribute__((always_inline)) {
      Vec<T> value[vectors];
      CIRCULANT_UNROLL for (int v = 0; v < vectors; ++v) {
        value[v] = load(pixel + v * L);
        pin(value[v]);
      }
      int64_t from[columns];
      CIRCULANT_UNROLL for (int c = 0; c < columns; ++c) {
        if (c < first || c > last) continue;
        from[c] = places == Places::kStrides    ? c * weights.column
                  : places == Places::kOfPixels ? *list + c
                                                : list[c * weights.column];
      }
      CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) {
        CIRCULANT_UNROLL for (int c = 0; c < columns; ++c) {
          if (c < first || c > last) continue;
          const Vec<T> factor = broadcast(weight[r][from[c]]);
          CIRCULANT_UNROLL for (int v = 0; v < vectors; ++v) {
            s[r][c][v] = fma(factor, value[v], s[r][c][v]);
          }
        }
        if constexpr (!listed) weight[r] += weights.pixel;
      }
      if constexpr (listed) list += weights.pixel;
      pixel += channels;
    };
    const auto is_present = [=](int64_t i) { return whole || (begin <= i && i < end); };
    CIRCULANT_UNROLL for (int last = 0; last < columns - 1; ++last) {
      if (is_present(last)) add(0, last);
    }
    const int64_t whole_end = smaller(window, end);
    for (int64_t i = larger(columns - 1, begin); i < whole_end; ++i) add(0, columns - 1);
    CIRCULANT_UNROLL for (int first = 1; first < columns; ++first) {
      if (is_present(window - 1 + first)) add(first, columns - 1);
    }
  }
  CIRCULANT_UNROLL for (int c = 0; c < columns; ++c) {
    CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) {
      CIRCULANT_UNROLL for (int v = 0; v < vectors; ++v) store(sum(r, c, v), s[r][c][v]);
    }
  }
}

template <class T>
using AddProducts = void(const TileWeights<T>&, const T* const*, int64_t, int64_t, int64_t, int64_t,
                         T*);

// The function above for a tile of any size.
template <class T, Places places, bool whole>
inline AddProducts<T>* add_products_of(int64_t rows, int64_t columns, int64_t vectors) {
  constexpr int most = kTileVectors;
  static constexpr AddProducts<T>* functions[kTileRows][kTileColumns][2] = {
#define CIRCULANT_TILE(rows, columns)                \
  {add_products<T, rows, columns, 1, places, whole>, \
   add_products<T, rows, columns, most, places, whole>}
#define CIRCULANT_TILES(rows) \
  {CIRCULANT_TILE(rows, 1), CIRCULANT_TILE(rows, 2), CIRCULANT_TILE(rows, 3)}
      CIRCULANT_TILES(1), CIRCULANT_TILES(2), CIRCULANT_TILES(3), CIRCULANT_TILES(4)
#undef CIRCULANT_TILES
#undef CIRCULANT_TILE
  };
  return functions[rows - 1][columns - 1][vectors - 1];
}

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
