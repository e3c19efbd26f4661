// Constants of fused attention.
#pragma once

namespace circulant {

// Scores are multiplied by log2(e): processors compute 2^x and log2(x).
constexpr double kLog2E = 1.4426950408889634, kLn2 = 0.6931471805599453;

}  // namespace circulant
