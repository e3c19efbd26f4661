// The engines, which are compiled once per instruction set.
#pragma once

#include "../dispatch.h"
#include "packing.h"

namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET {

int64_t similarity(const Similarity& problem, const Chunk& chunk, void* scratch);
int64_t apply(const Product& problem, const Chunk& chunk, void* scratch);
int64_t apply_transposed(const Product& problem, const Chunk& chunk, void* scratch);
int64_t transpose(const Transpose& problem, const Chunk& chunk, void* scratch);
int64_t attention(const Attention& problem, const Chunk& chunk, void* scratch);
int64_t attention_backward(const AttentionBackward& problem, const Chunk& chunk, void* scratch);

extern const Engines kEngines;

// Works through a chunk with the engine of the problem, for elements of type S; without scratch
// memory it only says how many bytes of it are needed.
template <class E, class Problem>
inline int64_t run(const Problem& problem, const Chunk& chunk, void* scratch) {
  Arena arena(scratch);
  E engine(problem, chunk, arena);
  if (scratch != nullptr) engine.run();
  return arena.used();
}

// The same for the type of the problem's elements.
template <template <class> class E, class Problem>
inline int64_t run_for_dtype(const Problem& problem, const Chunk& chunk, void* scratch) {
  switch (problem.dtype) {
    case Dtype::kFloat16:
      return run<E<Half>>(problem, chunk, scratch);
    case Dtype::kBFloat16:
      return run<E<BFloat16>>(problem, chunk, scratch);
    case Dtype::kFloat32:
      return run<E<float>>(problem, chunk, scratch);
    default:
      return run<E<double>>(problem, chunk, scratch);
  }
}

}  // namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET
