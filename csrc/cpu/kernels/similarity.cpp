#include "../tiled/similarity.h"

#include "engines.h"

namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET {

int64_t similarity(const Similarity& problem, const Chunk& chunk, void* scratch) {
  return run_for_dtype<SimilarityEngine>(problem, chunk, scratch);
}

}  // namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET
