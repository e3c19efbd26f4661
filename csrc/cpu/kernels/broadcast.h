// Sums of pixels times weights, with channels in the lanes and a weight broadcast to all of them.
//
// A tile is a few rows and columns of results, in registers. A row of neighbours is gone through
// pixel by pixel: each is loaded once and multiplied by a weight for every result whose window it
// is in. No weight changes its place: what others spend on turning values from CSR order into
// vectors is not spent here.
#pragma once

#include <cstdint>

#include "microkernels.h"
#include "../simd/vector.h"

namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET {

// The columns of a tile, and its vectors of channels: so many sums stay in registers, beside as
// many pixels as it has vectors and one weight. A window of one column has one.
constexpr int kTileColumns = 3;
constexpr int kTileVectors = kRegisters == 32 ? 2 : 1;

// Where the weights of a tile are: of row r of neighbours, row i and column c of results and pixel
// n of the neighbours, counted from the first in the window of column 0, at first[r * kTileRows +
// i][at + c * column + n * pixel].
template <class T>
struct TileWeights {
  const T* const* first;
  int64_t at, column, pixel;
};

// sums[column][row][vector] += sum over `count` rows of neighbours and the pixels in the window of
// the column of weight * pixel. A pixel is at x[r] + at + pixel * channels. The sums of a row of a
// column are `channels` apart, those of a column kTileRows times as much.
template <class T, int rows, int columns, int vectors>
void add_products(TileWeights<T> weights, const T* const* x, int64_t at, int64_t count,
                  int64_t window, int64_t channels, T* sums) {
  constexpr int L = kLanes<T>;
  Vec<T> s[rows][columns][vectors];
  const auto place = [=](int row, int column, int v) {
    return sums + (column * kTileRows + row) * channels + v * L;
  };
  CIRCULANT_UNROLL for (int c = 0; c < columns; ++c) {
    CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) {
      CIRCULANT_UNROLL for (int v = 0; v < vectors; ++v) s[r][c][v] = load(place(r, c, v));
    }
  }
  for (int64_t n = 0; n < count; ++n) {
    const T* pixel = x[n] + at;
    const T* weight[rows];
    CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) {
      weight[r] = weights.first[n * kTileRows + r] + weights.at;
    }
    // One pixel, which is in the windows of columns first to last.
    const auto add = [&](int first, int last) __attribute__((always_inline)) {
      Vec<T> value[vectors];
      CIRCULANT_UNROLL for (int v = 0; v < vectors; ++v) {
        value[v] = load(pixel + v * L);
        pin(value[v]);
      }
      CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) {
        CIRCULANT_UNROLL for (int c = 0; c < columns; ++c) {
          if (c < first || c > last) continue;
          const Vec<T> factor = broadcast(weight[r][c * weights.column]);
          CIRCULANT_UNROLL for (int v = 0; v < vectors; ++v) {
            s[r][c][v] = fma(factor, value[v], s[r][c][v]);
          }
        }
        weight[r] += weights.pixel;
      }
      pixel += channels;
    };
    CIRCULANT_UNROLL for (int last = 0; last < columns - 1; ++last) add(0, last);
    for (int64_t d = columns - 1; d < window; ++d) add(0, columns - 1);
    CIRCULANT_UNROLL for (int first = 1; first < columns; ++first) add(first, columns - 1);
  }
  CIRCULANT_UNROLL for (int c = 0; c < columns; ++c) {
    CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) {
      CIRCULANT_UNROLL for (int v = 0; v < vectors; ++v) store(place(r, c, v), s[r][c][v]);
    }
  }
}

template <class T>
using AddProducts = void(TileWeights<T>, const T* const*, int64_t, int64_t, int64_t, int64_t, T*);

// The function above for a tile of any size.
template <class T>
inline AddProducts<T>* add_products_of(int64_t rows, int64_t columns, int64_t vectors) {
  static constexpr AddProducts<T>* functions[kTileRows][kTileColumns][2] = {
#define CIRCULANT_TILES(rows)                                                    \
  {                                                                              \
    {add_products<T, rows, 1, 1>, add_products<T, rows, 1, kTileVectors>},       \
        {add_products<T, rows, 2, 1>, add_products<T, rows, 2, kTileVectors>}, { \
      add_products<T, rows, 3, 1>, add_products<T, rows, 3, kTileVectors>        \
    }                                                                            \
  }
      CIRCULANT_TILES(1), CIRCULANT_TILES(2), CIRCULANT_TILES(3), CIRCULANT_TILES(4)
#undef CIRCULANT_TILES
  };
  return functions[rows - 1][columns - 1][vectors - 1];
}

}  // namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET
