#include "../tiled/transpose.h"

#include "engines.h"

namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET {

int64_t transpose(const Transpose& problem, const Chunk& chunk, void* scratch) {
  switch (problem.dtype) {
    case Dtype::kFloat16:
    case Dtype::kBFloat16:
      return run<TransposeEngine<Bits>>(problem, chunk, scratch);
    case Dtype::kFloat32:
      return run<TransposeEngine<float>>(problem, chunk, scratch);
    default:
      return run<TransposeEngine<double>>(problem, chunk, scratch);
  }
}

}  // namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET
