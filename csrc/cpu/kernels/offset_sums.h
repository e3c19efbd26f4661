// Sums over the queries of each offset.
#pragma once

#include <cstdint>

#include "arena.h"
#include "microkernels.h"
#include "packing.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

// A vector of sums for each of `count` offsets: those of a block of rows, and those of all blocks,
// so that errors grow with the number of blocks and the size of one, not with the product. The
// lanes are added last, which fixes the order of all additions.
template <class T>
class OffsetSums {
  static constexpr int64_t L = kLanes<T>;

 public:
  OffsetSums(Arena& arena, int64_t count)
      : size_(count * L), block_(arena.take<T>(size_)), all_(arena.take<T>(size_)) {}

  void clear() {
    fill_zero(block_, size_);
    fill_zero(all_, size_);
  }

  // The sums in the current block, from offset n on.
  T* at(int64_t n) const { return block_ + n * L; }

  void end_block() {
    for (int64_t i = 0; i < size_; i += L) {
      store(all_ + i, load(all_ + i) + load(block_ + i));
      store(block_ + i, Vec<T>{});
    }
  }

  // After the last block.
  void add_to(T* result) const {
    for (int64_t i = 0; i < size_; i += L) {
      T sum = 0;
      for (int64_t l = 0; l < L; ++l) sum += all_[i + l];
      result[i / L] += sum;
    }
  }

 private:
  int64_t size_;
  T *block_, *all_;
};

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
