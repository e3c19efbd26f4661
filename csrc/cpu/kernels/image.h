// The images of a group, as an item's classes of planes and rows see them.
#pragma once

#include <cstdint>

#include "../../common/geometry.h"
#include "../params.h"
#include "../simd/prefetch.h"
#include "microkernels.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

// The pixels of a class of a dim: pixel t is (first + t step) mod size.
struct ClassPixels {
  int64_t first, step, size;

  int64_t pixel(int64_t t) const {
    const int64_t i = first + t * step;
    return i < size ? i : i % size;
  }
};

// One group's image: (channels, *spatial), or the planes and rows of one class each. S is const if
// it is only read.
template <class S>
struct Image {
  S* data;
  int64_t channels;
  ClassPixels planes, rows;
  int64_t columns;

  int64_t pixels() const { return planes.size * rows.size * columns; }
  S* row(int64_t c, int64_t d, int64_t h) const {
    return data + ((c * planes.size + planes.pixel(d)) * rows.size + rows.pixel(h)) * columns;
  }
  // Prefetches `count` rows from h on, all channels.
  void prefetch(Prefetcher& prefetcher, int64_t d, int64_t h, int64_t count) const {
    const int64_t together = rows.step == 1 ? count : 1;
    for (int64_t r = 0; r < count; r += together) {
      prefetcher.add(row(0, d, h + r), together * columns * sizeof(S), pixels() * sizeof(S),
                     channels);
    }
  }
};

// A few rows of one plane of an image, at most kTileRows.
template <class S>
class RowsOfImage {
 public:
  RowsOfImage(const Image<S>& image, int64_t d, int64_t h, int64_t rows) : pixels_(image.pixels()) {
    for (int64_t r = 0; r < rows; ++r) first_[r] = image.row(0, d, h + r);
  }
  S* row(int64_t c, int64_t r) const { return first_[r] + c * pixels_; }

 private:
  int64_t pixels_;
  S* first_[kTileRows];
};

// The images of the queries, or of the keys, in the classes of a work item.
template <class S>
inline Image<S> query_image(const void* tensor, const WorkItem& item, int64_t channels,
                            const Geometry& g) {
  const Dim* dims = g.dims;
  return {static_cast<S*>(const_cast<void*>(tensor)) + item.group * channels * g.pixels(),
          channels,
          {item.plane_class, dims[0].dilation, dims[0].size},
          {item.row_class, dims[1].dilation, dims[1].size},
          dims[2].size};
}
template <class S>
inline Image<S> key_image(const void* tensor, const WorkItem& item, int64_t channels,
                          const Geometry& g) {
  return query_image<S>(tensor, item, channels, g.transposed());
}

// i modulo n, for -n <= i < 2n.
inline int64_t wrap(int64_t i, int64_t n) { return i < 0 ? i + n : (i >= n ? i - n : i); }

// Those of positions [begin, end) that have a key.
inline Span present(const Dim& dim, int64_t begin, int64_t end) {
  if (dim.circular) return {begin, end};
  const int64_t first = smaller(larger(begin, 0), end);
  return {first, larger(first, smaller(end, dim.keys))};
}

// The pixels whose entries are stored in the order of the offsets.
inline Span unrotated(const Dim& dim) {
  if (!dim.circular) return {0, dim.size};
  return {dim.dilation * dim.before, dim.size - dim.dilation * dim.after()};
}

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
