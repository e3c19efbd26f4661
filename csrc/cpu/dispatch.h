// The seam between the ops and the code that computes them.
//
// An op checks its arguments, allocates the result, states a problem, cuts it into chunks and hands
// these, one at a time, to the engine of the chosen instruction set.
#pragma once

#include <cstdint>

#include "params.h"

namespace circulant {

// Works through one chunk. Returns the bytes of scratch memory that it takes, aligned to 64 bytes;
// with `scratch` null it does nothing else.
template <class Problem>
using Engine = int64_t (*)(const Problem& problem, const Chunk& chunk, void* scratch);

// The engines of one instruction set.
struct Engines {
  Engine<Similarity> similarity;
  Engine<Product> apply;
  Engine<Product> apply_transposed;
  Engine<Transpose> transpose;
  Engine<Attention> attention;
  Engine<AttentionBackward> attention_backward;
};

// Chosen on the first call. The environment variable CIRCULANT_ATTENTION_CPU (avx512, avx2 or
// plain) forces a choice; one that this processor or this build lacks is an error.
const Engines& engines();

}  // namespace circulant
