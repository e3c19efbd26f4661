// Asks for memory that is needed soon, a few cache lines between one piece of arithmetic and the
// next.
//
// The processor finds no pattern in rows of channels that are an image apart. Asked for all at
// once, the lines would wait for each other as if they were read.
#pragma once

#include <cstdint>

#include "vector.h"

namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET {

class Prefetcher {
 public:
  // Forgets what is left.
  void clear() { size_ = current_ = 0; }

  // Adds `count` stretches of `bytes`, `stride` bytes apart. Beyond the capacity nothing is asked
  // for: it is then read when it is needed.
  void add(const void* first, int64_t bytes, int64_t stride, int64_t count, bool to_write = false) {
    if (size_ < kStreams && bytes > 0 && count > 0)
      streams_[size_++] = {static_cast<const char*>(first), bytes, stride, count, to_write};
  }

  // Spreads what was added evenly over `steps` calls of step().
  void spread(int64_t steps) {
    int64_t lines = 0;
    for (int64_t s = 0; s < size_; ++s) lines += streams_[s].count * streams_[s].lines();
    lines_per_step_ = divide_up(lines, steps);
    line_ = stretch_ = 0;
  }

  void step() {
    for (int64_t n = 0; n < lines_per_step_ && current_ < size_; ++n) {
      const Stream& s = streams_[current_];
      const char* p = s.first + stretch_ * s.stride + line_ * kLine;
      // To the second-level cache: the first has no room to spare.
      if (s.to_write)
        __builtin_prefetch(p, 1, 2);
      else
        __builtin_prefetch(p, 0, 2);
      if (++line_ < s.lines()) continue;
      line_ = 0;
      if (++stretch_ < s.count) continue;
      stretch_ = 0;
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
  int64_t size_ = 0, current_ = 0, line_ = 0, stretch_ = 0, lines_per_step_ = 0;
};

}  // namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET
