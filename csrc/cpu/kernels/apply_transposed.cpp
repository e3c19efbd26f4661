#include "product.h"

#include "entry.h"

namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET {

int64_t apply_transposed(const Product& problem, const Chunk& chunk, void* scratch) {
  return run_for_dtype<ApplyTransposedEngine>(problem, chunk, scratch);
}

}  // namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET
