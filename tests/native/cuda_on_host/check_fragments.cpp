// The instructions of csrc/cuda/warp.cuh against their definitions: on a GPU, and their twins.
//
// Compiled by nvcc with -DCIRCULANT_FRAGMENTS this is a program by itself.
#include "../../../csrc/cuda/warp.cuh"
#include "check.h"

namespace check {
namespace {

constexpr int kChannels = 32;
constexpr int kA = 0, kB = kA + 256, kQ = kB + 128, kK = kQ + 16 * kChannels,
              kV = kK + 16 * kChannels, kInputs = kV + 256;
constexpr int kD = 0, kS = kD + 128, kY = kS + 256, kShuffled = kY + 256, kResults = kShuffled + 64;

// One warp: a product of fragments that are read from the tables in warp.cuh; then S = Q K^T and
// Y = S V with 16 queries and keys, as in attention_mma.cu; then an exchange and an exponential.
template <class T>
__global__ void fragments_kernel(const T* __restrict__ inputs, float* __restrict__ results) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  T* const shared = reinterpret_cast<T*>(circulant::dynamic_shared_memory);
  const int lane = threadIdx.x, r = lane / 4, t = lane % 4;

  const auto pair = [](const T& low, const T& high) {
    return circulant::pack_halves<T>(float(low), float(high));
  };
  // [row][column] of a (16 x 16) and b (16 x 8).
  const T *const a = inputs + kA, *const b = inputs + kB;
  const uint32_t of_a[4] = {
      pair(a[r * 16 + 2 * t], a[r * 16 + 2 * t + 1]),
      pair(a[(r + 8) * 16 + 2 * t], a[(r + 8) * 16 + 2 * t + 1]),
      pair(a[r * 16 + 8 + 2 * t], a[r * 16 + 8 + 2 * t + 1]),
      pair(a[(r + 8) * 16 + 8 + 2 * t], a[(r + 8) * 16 + 8 + 2 * t + 1]),
  };
  float d[4] = {1, 2, 3, 4};
  circulant::multiply_add<T>(d, of_a, pair(b[2 * t * 8 + r], b[(2 * t + 1) * 8 + r]),
                             pair(b[(2 * t + 8) * 8 + r], b[(2 * t + 9) * 8 + r]));
  for (int i = 0; i < 4; ++i)
    results[kD + (r + i / 2 * 8) * 8 + 2 * t + i % 2] = d[i] - float(i + 1);

  // Copies of each size: q and k [line][channel][8], v [line][16 channels][8].
  for (int i = lane * 8; i < kInputs; i += 256) {
    if (i / 8 % 3 == 0) circulant::copy_async<16>(shared + i, inputs + i);
    if (i / 8 % 3 == 1) {
      for (int j = 0; j < 8; j += 4) circulant::copy_async<8>(shared + i + j, inputs + i + j);
    }
    if (i / 8 % 3 == 2) {
      for (int j = 0; j < 8; j += 2) circulant::copy_async<4>(shared + i + j, inputs + i + j);
    }
  }
  circulant::commit_copies();
  circulant::wait_copies<0>();
  __syncthreads();
  float s[2][4] = {};
  for (int c = 0; c < kChannels; c += 32) {
    uint32_t query[2][4];
    for (int half = 0; half < 2; ++half) {
      const int channel = c + half * 16 + lane / 16 * 8 + lane % 8;
      circulant::load_matrices<true>(query[half],
                                     shared + kQ + (lane / 8 % 2 * kChannels + channel) * 8);
    }
    for (int line = 0; line < 2; ++line) {
      uint32_t key[4];
      circulant::load_matrices<true>(key, shared + kK + (line * kChannels + c + lane) * 8);
      circulant::multiply_add<T>(s[line], query[0], key[0], key[1]);
      circulant::multiply_add<T>(s[line], query[1], key[2], key[3]);
    }
  }
  uint32_t weight[4];
  for (int line = 0; line < 2; ++line) {
    for (int half = 0; half < 2; ++half) {
      weight[line * 2 + half] = circulant::pack_halves<T>(s[line][half * 2], s[line][half * 2 + 1]);
      const float2 both = circulant::unpack_halves<T>(weight[line * 2 + half]);
      const int at = (r + half * 8) * 16 + line * 8 + 2 * t;
      results[kS + at] = both.x;
      results[kS + at + 1] = both.y;
    }
  }
  uint32_t value[4];
  circulant::load_matrices<false>(value,
                                  shared + kV + (lane / 8 % 2 * 16 + lane / 16 * 8 + lane % 8) * 8);
  for (int half = 0; half < 2; ++half) {
    float y[4] = {};
    circulant::multiply_add<T>(y, weight, value[half * 2], value[half * 2 + 1]);
    for (int i = 0; i < 4; ++i)
      results[kY + (r + i / 2 * 8) * 16 + half * 8 + 2 * t + i % 2] = y[i];
  }

  results[kShuffled + lane] = circulant::from_lane_xor(float(lane), 5);
  results[kShuffled + 32 + lane] = circulant::fast_exp2(float(lane - 16));
#endif
}

// Small integers: products and sums are exact in every type.
template <class T>
void check_type(const char* name) {
  std::vector<double> x(kInputs);
  for (double& one : x) one = static_cast<double>(static_cast<int>(randomness() % 5) - 2);
  std::vector<double> expected(kResults);
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 8; ++j) {
      for (int k = 0; k < 16; ++k)
        expected[kD + i * 8 + j] += x[kA + i * 16 + k] * x[kB + k * 8 + j];
    }
    // Pixel i is in line i / 8, column i % 8.
    const auto at = [&](int begin, int channels, int channel, int pixel) {
      return x[begin + (pixel / 8 * channels + channel) * 8 + pixel % 8];
    };
    for (int j = 0; j < 16; ++j) {
      double& s = expected[kS + i * 16 + j];
      for (int c = 0; c < kChannels; ++c) s += at(kQ, kChannels, c, i) * at(kK, kChannels, c, j);
      for (int c = 0; c < 16; ++c) expected[kY + i * 16 + c] += s * at(kV, 16, c, j);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    expected[kShuffled + lane] = lane ^ 5;
    expected[kShuffled + 32 + lane] = std::exp2(lane - 16);
  }
  ++comparisons;
  const Case c{1, kChannels, {1, 1, 16}, {1, 1, 1}};
  try {
    const Array<T> inputs(rounded<T>(x));
    const Array<float> results(kResults);
    circulant::launch({"fragments", 1, 1, 32, kInputs * sizeof(T), nullptr}, fragments_kernel<T>,
                      inputs.at, results.at);
    const std::vector<float> got = results.read(0, kResults);
    for (int i = 0; i < kResults; ++i) {
      if (std::abs(got[i] - expected[i]) <= 1e-6 * std::abs(expected[i])) continue;
      return report(c, std::string("fragments ") + name,
                    "result " + std::to_string(i) + " is " + std::to_string(got[i]) +
                        " instead of " + std::to_string(expected[i]));
    }
  } catch (const std::exception& error) {
    report(c, std::string("fragments ") + name, error.what());
  }
}

}  // namespace

void check_fragments() {
  if (circulant::current_device().major < 8) return;
  check_type<c10::Half>("float16");
  check_type<c10::BFloat16>("bfloat16");
}

}  // namespace check

#ifdef CIRCULANT_FRAGMENTS
namespace circulant {
void check_cuda(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}
}  // namespace circulant

int main() {
  check::check_fragments();
  std::printf("%d comparisons, %d failures\n", check::comparisons, check::failures);
  return check::failures != 0;
}
#endif
