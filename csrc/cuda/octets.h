// Octets on tensor cores: 8 neighbouring pixels of a grid row, from a multiple of 8 positions on.
//
// granule   8, 4, 2 or 1 neighbouring pixels that are copied at a time: as many as have an aligned
//           address in each row of the grids
#pragma once

#include <cstdint>
#include <initializer_list>

#include "../common/integers.h"
#include "problem.h"

namespace circulant {

// In shared memory, an octet is [channel][8 pixels].
constexpr int kOctet = 8;

// The first and the last position in a dim.
struct Limits {
  int low, high;
};

// The positions of neighbours that exist, in the longest classes. On a circle all that windows
// reach, before they are wrapped.
inline Limits present(const Axis& dim, const Classes& classes) {
  if (dim.circular) return {-dim.before, classes.length - 1 + dim.after()};
  return {0, classes.key_length - 1};
}

// The largest granule that begins at a multiple of its pixels in each row of both grids.
inline int granule_of(const Pattern& p) {
  if (p.dilation.w > 1) return 1;
  int granule = kOctet;
  while (p.size.w % granule != 0 || p.keys.w % granule != 0) granule /= 2;
  return granule;
}

// The largest granule, up to `most`, for which all arrays are aligned.
template <class T>
int aligned_granule(int most, std::initializer_list<const T*> arrays) {
  int granule = most;
  for (const T* array : arrays) {
    while (reinterpret_cast<uintptr_t>(array) % (granule * sizeof(T)) != 0) granule /= 2;
  }
  return granule;
}

// The first and the last position where a granule begins.
inline Limits granules(const Limits& positions, int granule) {
  return {-round_up(-positions.low, granule), positions.high / granule * granule};
}

// Issue slots of a warp, counted for sm_90, to copy an octet of a channel for each thread.
inline double copy_slots(int granule) {
  return granule == 8 ? 12 : granule == 4 ? 15 : granule == 2 ? 21 : 35;
}

}  // namespace circulant
