// Launches of the kernels on tensor cores.
#pragma once

#include <initializer_list>
#include <type_traits>

#include "attention_mma.h"
#include "launch.h"
#include "map_mma.h"
#include "octets.h"

namespace circulant {

// Runs `kernel(D)`, with D the number of channels as an integral constant.
template <class Kernel, class... Arguments>
void launch_channels(const Launch& l, int D, const Kernel& kernel, const Arguments&... arguments) {
  if (D == 32) launch(l, kernel(std::integral_constant<int, 32>()), arguments...);
  if (D == 64) launch(l, kernel(std::integral_constant<int, 64>()), arguments...);
  if (D == 128) launch(l, kernel(std::integral_constant<int, 128>()), arguments...);
}

// Runs a kernel of fused attention on a plan for `needs`. `arrays` are those that are copied in
// octets.
template <class T, class Kernel, class Arguments>
void launch_mma(const char* op, const AttentionProblem& problem, const MmaNeeds& needs,
                cudaStream_t stream, std::initializer_list<const T*> arrays, const Kernel& kernel,
                const Arguments& arguments) {
  MmaPlan p = plan_mma(problem, needs);
  p.granule = aligned_granule(p.granule, arrays);
  p.granules = granules(p.columns_present, p.granule);
  const Launch l{op, p.blocks(), p.groups, kMmaThreads, size_t(p.shared), stream};
  launch_channels(l, mma_channels(needs.channels), kernel, arguments, p);
}

// Runs a kernel of a map, in the same way.
template <class T, class Kernel, class... Arguments>
void launch_map_mma(const char* name, MapOp op, MapMmaPlan p, cudaStream_t stream,
                    std::initializer_list<const T*> arrays, const Kernel& kernel,
                    const Arguments&... arguments) {
  p.granule = aligned_granule(p.granule, arrays);
  p.tile_granules = granules({0, p.pattern.size.w - 1}, p.granule);
  p.halo_granules = granules(p.columns_present, p.granule);
  const Launch l{name, p.blocks(), p.groups, 32 * p.warps, size_t(p.shared), stream};
  launch_channels(l, map_channels(p.channels, op), kernel, arguments..., p);
}

}  // namespace circulant
