// The softmax of scores that come a few at a time. Exponentials and logarithms have base 2.
#pragma once

#include <cstdint>

#include "../simd/math.h"
#include "microkernels.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

// The running softmax of a tile: for every query, the reference that is subtracted from the scores,
// and the sum of the exponentials.
//
// References are integers: exponentials relative to another one differ by a power of two, exactly,
// and so do all sums. So the bits of the results do not depend on how many key rows come at a time,
// which follows from the place of a query in its block; weights below the least normal number are
// the exception.
template <class T>
class RunningSoftmax {
  static constexpr int L = kLanes<T>;

 public:
  // The elements of the state of one tile.
  static constexpr int64_t kSize = 3 * kTileRows * L;

  explicit RunningSoftmax(T* state)
      : reference_(state), sum_(state + kTileRows * L), highest_(state + 2 * kTileRows * L) {}

  void start() {
    for (int r = 0; r < kTileRows; ++r) {
      // Not -infinity: a score of -infinity would give NaN instead of weight zero.
      store(reference_ + r * L, broadcast(FloatFormat<T>::lowest));
      store(highest_ + r * L, broadcast(FloatFormat<T>::lowest));
      store(sum_ + r * L, Vec<T>{});
    }
  }

  // The highest score of every query so far; `score` raises it.
  T* highest() { return highest_; }

  // Raises the reference where a score exceeds it by more than `slack`, and rescales the sum and
  // the channels of y. Within the slack exponentials stay small enough, and skipping the rescaling
  // saves loads and stores of y.
  void raise_reference(int64_t rows, T slack, int64_t channels, T* y) {
    for (int64_t r = 0; r < rows; ++r) {
      const Vec<T> old = load(reference_ + r * L), highest = load(highest_ + r * L);
      const auto exceeded = highest > old + slack;
      if (!any<T>(exceeded)) continue;
      const Vec<T> raised = exceeded ? round(highest) : old;
      const Vec<T> factor = exp2<T>(old - raised);
      store(reference_ + r * L, raised);
      store(sum_ + r * L, load(sum_ + r * L) * factor);
      for (int64_t c = 0; c < channels; ++c) {
        T* yc = y + (c * kTileRows + r) * L;
        store(yc, load(yc) * factor);
      }
    }
  }

  // Replaces the scores of one key row with their exponentials.
  void exponentiate(int64_t first, int64_t rows, int64_t window, T* scores) {
    with_rows(rows, [=](auto n) {
      constexpr int rows = decltype(n)::value;
      // Sums of their own: errors grow with the key rows and their offsets, not with the product.
      Vec<T> reference[rows], sum[rows] = {};
      CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) {
        reference[r] = load(reference_ + (first + r) * L);
      }
      T* s = scores + first * L;
      for (int64_t d = 0; d < window; ++d, s += kTileRows * L) {
        CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) {
          const Vec<T> weight = exp2<T>(load(s + r * L), reference[r]);
          sum[r] += weight;
          store(s + r * L, weight);
        }
      }
      CIRCULANT_UNROLL for (int r = 0; r < rows; ++r) {
        T* total = sum_ + (first + r) * L;
        store(total, load(total) + sum[r]);
      }
    });
  }

  // Keeps 1 / sum, in the place of the highest scores.
  void finish() {
    for (int r = 0; r < kTileRows; ++r) store(highest_ + r * L, T(1) / load(sum_ + r * L));
  }
  // After `finish`.
  Vec<T> inverse_sum(int64_t r) const { return load(highest_ + r * L); }

  Vec<T> reference(int64_t r) const { return load(reference_ + r * L); }
  // The logarithm, in base e, of the sum of exponentials of base e.
  Vec<T> log_sum(int64_t r) const { return T(kLn2) * log2<T>(load(sum_ + r * L), reference(r)); }

 private:
  T *reference_, *sum_, *highest_;
};

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
