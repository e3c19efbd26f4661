#include "dispatch.h"

#include <cstdlib>
#include <cstring>
#include <string>

#if defined(CIRCULANT_WITH_AVX2)
#include <cpuid.h>
#endif

#include <torch/headeronly/util/Exception.h>

namespace circulant {

namespace simd::plain {
extern const Kernels kKernels;
}
#if defined(CIRCULANT_WITH_AVX2)
namespace simd::avx2 {
extern const Kernels kKernels;
}
#endif
#if defined(CIRCULANT_WITH_AVX512)
namespace simd::avx512 {
extern const Kernels kKernels;
}
#endif

namespace {

struct InstructionSet {
  const char* name;
  const Kernels* kernels;
  bool available;
};

#if defined(CIRCULANT_WITH_AVX2)
// AVX2, FMA and F16C (conversions of float16), which not every compiler knows by name.
bool has_avx2() {
  unsigned a, b, c, d;
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

const InstructionSet& choose() {
  // Fastest first.
  static const InstructionSet sets[] = {
#if defined(CIRCULANT_WITH_AVX512)
      {"avx512", &simd::avx512::kKernels,
       has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")},
#endif
#if defined(CIRCULANT_WITH_AVX2)
      {"avx2", &simd::avx2::kKernels, has_avx2()},
#endif
      {"plain", &simd::plain::kKernels, true},
  };
  const char* wanted = std::getenv("CIRCULANT_ATTENTION_CPU");
  const bool any = wanted == nullptr || *wanted == '\0';
  std::string names;
  for (const InstructionSet& set : sets) {
    if (!set.available) continue;
    if (any || std::strcmp(wanted, set.name) == 0) return set;
    names += (names.empty() ? "" : ", ") + std::string(set.name);
  }
  STD_TORCH_CHECK(
      false, "CIRCULANT_ATTENTION_CPU=", wanted,
      " is not an instruction set of this processor that the library has code for: ", names);
}

}  // namespace

const Kernels& kernels() {
  static const InstructionSet& chosen = choose();
  return *chosen.kernels;
}

}  // namespace circulant
