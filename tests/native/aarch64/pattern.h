// The pattern of the matrix, from its definition.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../../../csrc/common/geometry.h"

namespace circulant {

// A slot of a row: its column, -1 if it is absent, and its offset.
struct Slot {
  int64_t column, offset;
};
using Row = std::vector<Slot>;

// The slots of pixel i of one dim, from the definition: in a circle by ascending columns.
inline Row slots(const Dim& dim, int64_t i) {
  Row row;
  for (int64_t o = 0; o < dim.window; ++o) {
    int64_t column = i + dim.dilation * (o - dim.before);
    if (dim.circular) column = (column % dim.size + dim.size) % dim.size;
    row.push_back({column < dim.size ? std::max<int64_t>(column, -1) : -1, o});
  }
  if (dim.circular) {
    std::sort(row.begin(), row.end(), [](Slot x, Slot y) { return x.column < y.column; });
  }
  return row;
}

inline std::vector<Row> rows_of(const Geometry& g) {
  std::vector<Row> rows;
  const auto& d = g.dims;
  for (int64_t i = 0; i < g.pixels(); ++i) {
    Row row{{0, 0}};
    int64_t inner = g.pixels(), rest = i;
    for (const Dim& dim : d) {
      inner /= dim.size;
      Row longer;
      for (const Slot& left : row) {
        for (const Slot& right : slots(dim, rest / inner)) {
          const bool absent = left.column < 0 || right.column < 0;
          longer.push_back({absent ? -1 : left.column * dim.size + right.column,
                            left.offset * dim.window + right.offset});
        }
      }
      row = longer;
      rest %= inner;
    }
    rows.push_back(row);
  }
  return rows;
}

}  // namespace circulant
