// Software prefetching, spread over the arithmetic: a few cache lines per step.
//
// The hardware prefetcher does not follow rows of channels that are a whole image apart.
// Prefetching all lines at once would fill the queue of outstanding loads and stall like plain
// loads.
#pragma once

#include <cstdint>

#include "vector.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

class Prefetcher {
 public:
  // Drops all requests.
  void clear() { size_ = current_ = 0; }

  // Requests `count` ranges of `bytes`, `stride` bytes apart. Requests beyond the capacity are
  // dropped.
  void add(const void* first, int64_t bytes, int64_t stride, int64_t count, bool to_write = false) {
    if (size_ < kStreams && bytes > 0 && count > 0)
      streams_[size_++] = {static_cast<const char*>(first), bytes, stride, count, to_write};
  }

  // Spreads the requests evenly over `steps` calls of step().
  void spread(int64_t steps) {
    int64_t lines = 0;
    for (int64_t s = 0; s < size_; ++s) lines += streams_[s].count * streams_[s].lines();
    lines_per_step_ = divide_up(lines, steps);
    line_ = range_ = 0;
  }

  void step() {
    for (int64_t n = 0; n < lines_per_step_ && current_ < size_; ++n) {
      const Stream& s = streams_[current_];
      const char* p = s.first + range_ * s.stride + line_ * kLine;
      // Into the second-level cache: the first is full of the current tile.
      if (s.to_write)
        __builtin_prefetch(p, 1, 2);
      else
        __builtin_prefetch(p, 0, 2);
      if (++line_ < s.lines()) continue;
      line_ = 0;
      if (++range_ < s.count) continue;
      range_ = 0;
      ++current_;
    }
  }

 private:
  static constexpr int64_t kLine = 64;
  static constexpr int kStreams = 32;

  struct Stream {
    const char* first;
    int64_t bytes, stride, count;
    bool to_write;
    int64_t lines() const { return divide_up(bytes, kLine); }
  };

  Stream streams_[kStreams];
  int64_t size_ = 0, current_ = 0, line_ = 0, range_ = 0, lines_per_step_ = 0;
};

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
