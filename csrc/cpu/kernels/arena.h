// Scratch memory of a work item.
#pragma once

#include <cstdint>

#include "../../common/integers.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

constexpr int64_t kCacheLine = 64;

// Hands out parts of a block of memory, aligned to cache lines. Without memory it counts the bytes.
class Arena {
 public:
  Arena() = default;
  explicit Arena(void* memory) : memory_(static_cast<char*>(memory)) {}

  template <class T>
  T* take(int64_t count) {
    char* part = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += round_up(count * static_cast<int64_t>(sizeof(T)), kCacheLine);
    return reinterpret_cast<T*>(part);
  }
  int64_t used() const { return used_; }

 private:
  char* memory_ = nullptr;
  int64_t used_ = 0;
};

// The distance between rows of at least `columns` elements: an odd number of cache lines, so that
// rows do not share the same set of the cache.
template <class T>
inline int64_t odd_pitch(int64_t columns) {
  constexpr int64_t line = kCacheLine / sizeof(T);
  return (divide_up(columns, line) | 1) * line;
}

// The same for vectors that need not be aligned. Where it would add a line, this adds quarters of
// one: shorter rows need less of the cache, and fewer pages.
template <class T>
inline int64_t odd_unaligned_pitch(int64_t columns) {
  constexpr int64_t line = kCacheLine / sizeof(T), quarter = line / 4;
  if (divide_up(columns, line) % 2 == 1) return odd_pitch<T>(columns);
  return (divide_up(columns, quarter) | 1) * quarter;
}

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
