// The classes of a pattern whose planes or rows are dilated.
#pragma once

#include <cstdint>

#include "params.h"

namespace circulant {

// Calls f(plane class, row class, geometry) for each pair of a class of planes and one of rows.
template <class F>
inline void for_each_class(const Geometry& g, F&& f) {
  WorkItem item{};
  for (item.plane_class = 0; item.plane_class < g.dims[0].classes(); ++item.plane_class) {
    for (item.row_class = 0; item.row_class < g.dims[1].classes(); ++item.row_class) {
      f(item.plane_class, item.row_class, geometry_of_classes(g, item));
    }
  }
}

}  // namespace circulant
