// Functions and constants of fused attention, in the type that is summed in.
#pragma once

#include <cfloat>
#include <cmath>

#include <cuda_runtime.h>

#include "../common/constants.h"

namespace circulant {

template <class A>
constexpr A kLowest = A(-FLT_MAX);
template <>
constexpr double kLowest<double> = -DBL_MAX;

__device__ __forceinline__ float power_of_two(float x) { return exp2f(x); }
__device__ __forceinline__ double power_of_two(double x) { return exp2(x); }
__device__ __forceinline__ float log_two(float x) { return log2f(x); }
__device__ __forceinline__ double log_two(double x) { return log2(x); }

}  // namespace circulant
