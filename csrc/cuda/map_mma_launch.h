// Launches of the maps on tensor cores.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "launch.h"
#include "map_mma.h"

namespace circulant {

// Runs `kernel(D)`, with D the number of channels as an integral constant. `arrays` are those of
// features, which are copied in octets or parts of them: as many pixels as begin at aligned
// addresses together.
template <class T, class Kernel, class... Arguments>
void launch_map_mma(const char* name, MapOp op, MapMmaPlan p, cudaStream_t stream,
                    std::initializer_list<const T*> arrays, const Kernel& kernel,
                    Arguments... arguments) {
  const Axis w = p.pattern.w();
  const auto fits = [&](int granule) {
    if (w.size % granule != 0 || w.keys % granule != 0) return false;
    for (const T* array : arrays) {
      if (reinterpret_cast<uintptr_t>(array) % (granule * sizeof(T)) != 0) return false;
    }
    return true;
  };
  p.granule = kMapOctet;
  while (p.granule > 1 && !fits(p.granule)) p.granule /= 2;
  p.tile_granules = {0, w.size - p.granule};
  p.halo_granules = {0, w.keys - p.granule};
  if (w.circular) {
    p.halo_granules = {-round_up(w.before, p.granule),
                       (w.keys - 1 + w.after()) / p.granule * p.granule};
  }
  const Launch l{name, p.blocks(), p.groups, 32 * p.warps, size_t(p.shared), stream};
  const int D = map_channels(p.channels, op);
  if (D == 32) launch(l, kernel(std::integral_constant<int, 32>()), arguments..., p);
  if (D == 64) launch(l, kernel(std::integral_constant<int, 64>()), arguments..., p);
  if (D == 128) launch(l, kernel(std::integral_constant<int, 128>()), arguments..., p);
}

}  // namespace circulant
