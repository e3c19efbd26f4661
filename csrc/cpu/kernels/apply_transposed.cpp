#include "../tiled/apply_transposed.h"

#include "engines.h"

namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET {

int64_t apply_transposed(const ApplyTransposed& problem, const Chunk& chunk, void* scratch) {
  return run_for_dtype<ApplyTransposedEngine>(problem, chunk, scratch);
}

}  // namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET
