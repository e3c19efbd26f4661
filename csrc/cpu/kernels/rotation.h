// Rows of the matrix near the borders of a circular dim: rotated, so that they begin with the
// lowest column.
#pragma once

#include <cstdint>

#include "../../common/geometry.h"
#include "../simd/half.h"
#include "../simd/permute.h"
#include "microkernels.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

// Rows of adjacent columns, up to `end`, begin with offset `first`. Steps to the next columns,
// where rows begin with another offset, without the division of Dim::first_offset.
class Rotation {
 public:
  // That of `column`.
  Rotation(const Dim& dim, int64_t column)
      : first(dim.first_offset(column)),
        end(in_order_end(dim)),
        dilation_(dim.dilation),
        window_(dim.window),
        in_order_end_(end) {
    if (first == 0) return;
    end = column < dim.dilation * dim.before ? dim.dilation * (dim.before - first + 1)
                                             : dim.size - dim.dilation * (first - dim.before - 1);
  }

  void next() {
    first = first > 0 ? first - 1 : window_ - 1;
    end = first > 0 ? end + dilation_ : in_order_end_;
  }

  int64_t first, end;

 private:
  static int64_t in_order_end(const Dim& dim) {
    return dim.circular ? dim.size - dim.dilation * dim.after() : dim.size;
  }

  int64_t dilation_, window_, in_order_end_;
};

// Offsets [begin, begin + count) of a row, at most a vector: lane l is offset begin + l, and lanes
// from `count` on are zero. `first` is the offset at the start of the row, and the offsets before
// it are at its end.
template <class S>
struct RotatedLanes {
  int64_t before, after, split, count;

  RotatedLanes(int64_t window, int64_t first, int64_t begin, int64_t count)
      : before(window - first + begin),
        after(begin - first),
        split(smaller(larger(first - begin, 0), count)),
        count(count) {}

  Vec<Compute<S>> load(const S* row) const {
    using Bits = Vec<Int<Compute<S>>>;
    const auto a = load_range(row + before, 0, split), b = load_range(row + after, split, count);
    return bit_cast<Vec<Compute<S>>>(bit_cast<Bits>(a) | bit_cast<Bits>(b));
  }
  void store(S* row, Vec<Compute<S>> v) const {
    if (split > 0) store_range(row + before, v, 0, split);
    if (split < count) store_range(row + after, v, split, count);
  }
};

// Rotates windows of at most a vector in registers.
template <class T>
class WindowRotation {
  static constexpr int64_t L = kLanes<T>;

 public:
  explicit WindowRotation(int64_t window) : window_(window) {
    if (!possible()) return;
    for (int64_t i = 0; i < 2 * L; ++i) {
      lanes_[i] = static_cast<Int<T>>(i < window ? i : lanes_[i - window]);
    }
  }

  bool possible() const { return kPermutes<T> && window_ <= L; }
  // From CSR order, which begins with offset `first`, to the order of the offsets, and back. Lanes
  // from the window on have any values.
  Vec<T> in_order(Vec<T> v, int64_t first) const { return permute<T>(v, lanes_ + window_ - first); }
  Vec<T> rotated(Vec<T> v, int64_t first) const { return permute<T>(v, lanes_ + first); }

 private:
  int64_t window_;
  Int<T> lanes_[2 * L];  // i modulo the window
};

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
