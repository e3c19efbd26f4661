// Numbers that fused attention on every device computes with.
#pragma once

namespace circulant {

// Scores are taken in units of log 2, since 2^x and log2(x) are what processors compute.
constexpr double kLog2E = 1.4426950408889634, kLn2 = 0.6931471805599453;

}  // namespace circulant
