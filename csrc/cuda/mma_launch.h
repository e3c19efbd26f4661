// Launches of the kernels on tensor cores.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "attention_mma.h"
#include "launch.h"

namespace circulant {

// The most neighbouring pixels, up to those of the plan, that begin at aligned addresses together.
template <class T>
int copied_together(const MmaPlan& p, std::initializer_list<const T*> arrays) {
  int granule = p.granule;
  const auto fits = [&] {
    for (const T* array : arrays) {
      if (reinterpret_cast<uintptr_t>(array) % (granule * sizeof(T)) != 0) return false;
    }
    return true;
  };
  while (granule > 1 && !fits()) granule /= 2;
  return granule;
}

// Runs `kernel(D)`, with D the number of channels as an integral constant, on a plan for `needs`.
// `arrays` are those that are copied in octets.
template <class T, class Kernel, class Arguments>
void launch_mma(const char* op, const AttentionProblem& problem, const MmaNeeds& needs,
                cudaStream_t stream, std::initializer_list<const T*> arrays, const Kernel& kernel,
                const Arguments& arguments) {
  MmaPlan p = plan_mma(problem, needs);
  p.granule = copied_together(p, arrays);
  const MmaLimits& columns = p.columns_present;
  p.granules = {-round_up(-columns.low, p.granule), columns.high / p.granule * p.granule};
  const Launch l{op, p.blocks(), p.groups, kMmaThreads, size_t(p.shared), stream};
  const int D = mma_channels(needs.channels);
  if (D == 32) launch(l, kernel(std::integral_constant<int, 32>()), arguments, p);
  if (D == 64) launch(l, kernel(std::integral_constant<int, 64>()), arguments, p);
  if (D == 128) launch(l, kernel(std::integral_constant<int, 128>()), arguments, p);
}

}  // namespace circulant
