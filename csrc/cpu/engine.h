// The seam between the ops and the code that computes them.
//
// An op checks its arguments, allocates the result, states a problem and hands it to the engine of
// the chosen instruction set. An engine splits the problem into tasks by the problem's shape alone,
// so that the result does not depend on the number of threads, and works through tasks until none
// is left.
#pragma once

#include <cstdint>

#include "../common/geometry.h"

namespace circulant {

enum class Dtype { kFloat16, kBFloat16, kFloat32, kFloat64 };

// All tensors are contiguous and there is at least one group; a dim of the geometry that is not the
// first has more than one pixel.
struct SimilarityProblem {
  Geometry geometry;
  int64_t groups, channels;
  Dtype dtype;
  bool distance;
  const void* x;
  const void* y;
  void* values;
};

struct ApplyProblem {
  Geometry geometry;
  int64_t groups, channels;
  Dtype dtype;
  const void* values;
  const void* x;
  void* y;
};

struct TransposeProblem {
  Geometry geometry;
  int64_t groups;
  int64_t element_bytes;  // 2, 4 or 8
  const void* values;
  void* result;
};

struct Work {
  int64_t tasks;
  int64_t scratch_bytes;  // for each thread
};

template <class Problem>
struct Engine {
  Work (*work)(const Problem& problem);
  // Does tasks until there are none left. `scratch` is zeroed and aligned to 64 bytes; `next` is
  // the number of the next task, shared by all threads, to be taken by an atomic increment.
  void (*run)(const Problem& problem, char* scratch, int64_t* next);
};

namespace fused {
struct Attention;
struct AttentionBackward;
struct Chunk;

// Works through one chunk of a fused problem (fused/problem.h). Returns the bytes of scratch memory
// that it takes, aligned to 64 bytes; with `scratch` null it does nothing else.
template <class Problem>
using ChunkEngine = int64_t (*)(const Problem& problem, const Chunk& chunk, void* scratch);
}  // namespace fused

// The engines of one instruction set. A faster engine for some problems takes the place of one of
// these and passes the others on to it.
struct Engines {
  Engine<SimilarityProblem> similarity;
  Engine<ApplyProblem> apply;
  Engine<ApplyProblem> apply_transposed;
  Engine<TransposeProblem> transpose;
  fused::ChunkEngine<fused::Attention> attention;
  fused::ChunkEngine<fused::AttentionBackward> attention_backward;
};

}  // namespace circulant
