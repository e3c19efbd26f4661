// The engines for the processor that we run on.
#pragma once

#include "engine.h"

namespace circulant {

// Chosen on the first call. The environment variable CIRCULANT_ATTENTION_CPU (avx512, avx2 or
// plain) forces a choice; one that this processor or this build lacks is an error.
const Engines& engines();

}  // namespace circulant
