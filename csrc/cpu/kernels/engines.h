// The engines, which are compiled once per instruction set.
#pragma once

#include "../engine.h"
#include "convert.h"
#include "vector.h"

namespace circulant::fused::CIRCULANT_INSTRUCTION_SET {

int64_t attention(const Attention& problem, const Chunk& chunk, void* scratch);
int64_t attention_backward(const AttentionBackward& problem, const Chunk& chunk, void* scratch);

}  // namespace circulant::fused::CIRCULANT_INSTRUCTION_SET

namespace circulant::CIRCULANT_INSTRUCTION_SET {

Work similarity_work(const SimilarityProblem& problem);
void similarity_run(const SimilarityProblem& problem, char* scratch, int64_t* next);
Work apply_work(const ApplyProblem& problem);
void apply_run(const ApplyProblem& problem, char* scratch, int64_t* next);
Work apply_transposed_work(const ApplyProblem& problem);
void apply_transposed_run(const ApplyProblem& problem, char* scratch, int64_t* next);
Work transpose_work(const TransposeProblem& problem);
void transpose_run(const TransposeProblem& problem, char* scratch, int64_t* next);

extern const Engines kEngines;

// f(T{}) with the type T that tensors of `dtype` are stored in.
template <class F>
CIRCULANT_ALWAYS_INLINE auto visit(Dtype dtype, const F& f) {
  switch (dtype) {
    case Dtype::kFloat16:
      return f(Float16{});
    case Dtype::kBFloat16:
      return f(BFloat16{});
    case Dtype::kFloat32:
      return f(float{});
    default:
      return f(double{});
  }
}

}  // namespace circulant::CIRCULANT_INSTRUCTION_SET
