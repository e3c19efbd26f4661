// What attention is computed of.
#pragma once

#include <cstdint>

#include "tile.cuh"

namespace circulant {

struct AttentionShape {
  int channels, value_channels;
  bool distance;
  double scale;   // of the similarity, to give scores
  double factor;  // of the sums over channels, to give scores in units of log 2
};

struct AttentionProblem {
  int64_t groups;
  Pattern pattern;
  AttentionShape shape;
};

}  // namespace circulant
