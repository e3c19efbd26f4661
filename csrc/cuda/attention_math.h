// Functions and constants of fused attention, in the type that is summed in.
#pragma once

#include <cfloat>
#include <cmath>

#include <cuda_runtime.h>

namespace circulant {

constexpr double kLog2E = 1.4426950408889634, kLn2 = 0.6931471805599453;

template <class A>
constexpr A kLowest = A(-FLT_MAX);
template <>
constexpr double kLowest<double> = -DBL_MAX;

__device__ __forceinline__ float power_of_two(float x) { return exp2f(x); }
__device__ __forceinline__ double power_of_two(double x) { return exp2(x); }
__device__ __forceinline__ float log_two(float x) { return log2f(x); }
__device__ __forceinline__ double log_two(double x) { return log2(x); }

}  // namespace circulant
