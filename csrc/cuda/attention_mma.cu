// Fused attention of the half types on tensor cores: y_i = sum_j exp(S_ij - lse_i) v_j and lse_i =
// log sum_j exp(S_ij), with S = scale * similarity(q, k) never stored. From sm_80 on.
//
// attention_mma.h has the figure of grid, block and warp. Channels first is what the loads of
// fragments want: x[c][pixel] gives, transposed, queries (left) and keys (right) of S = Q K^T, and
// not transposed the values (right) of Y = P V. The scores of an octet in both lines are, as they
// lie in registers, a left factor of the second product. The distance is q k - (|q|^2 + |k|^2) / 2:
// sums of products begin at the norms.
//
// Scores and sums are float32; the weights, relative to about the largest score so far, are rounded
// to the half type. No atomics and a fixed order of additions: results are bitwise reproducible.
//
// Of the octets that a warp meets, some neighbours lie outside of the window, with weight 0. 0 *
// inf is NaN: a value that is not finite spoils pixels of its class up to 14 columns and a row
// beyond its windows (30 columns in a flat grid). The other kernels do not have that.
#include <cmath>

#include "../common/constants.h"
#include "mma_block.cuh"
#include "mma_launch.h"
#include "mma_products.cuh"
#include "mma_terms.cuh"

namespace circulant {
namespace {

// How many blocks a multiprocessor has registers for.
constexpr int forward_blocks(int D, bool has_terms) { return D <= (has_terms ? 32 : 64) ? 2 : 1; }

template <class T>
struct MmaArguments {
  const T *q, *k, *v;
  const float *q_norms, *k_norms;  // for the distance
  T* y;
  float* lse;
  int channels, value_channels;
  float factor;  // |scale| / log 2
  bool negative;
  float inverse;  // 1 / |scale|
  ScoreTerms<float> terms;
};

// Turns scores into weights relative to about the largest score so far, to which totals and sums
// are rescaled when it has grown.
template <class T, int D>
__device__ __forceinline__ void online_softmax(const MmaWindow& window, float factor,
                                               float (&score)[kTogether][2][4],
                                               uint32_t (&weight)[kTogether][4],
                                               float (&largest)[2], float (&total)[2],
                                               float (&sum)[D / 8][4]) {
  float most[2] = {largest[0], largest[1]};
#pragma unroll
  for (int o = 0; o < kTogether; ++o) {
#pragma unroll
    for (int line = 0; line < 2; ++line) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (window.outside(1u << (2 * o + i % 2), line, i / 2)) score[o][line][i] = -INFINITY;
        most[i / 2] = fmaxf(most[i / 2], score[o][line][i]);
      }
    }
  }
#pragma unroll
  for (int of_line = 0; of_line < 2; ++of_line) {
    most[of_line] = fmaxf(most[of_line], from_lane_xor(most[of_line], 1));
    most[of_line] = fmaxf(most[of_line], from_lane_xor(most[of_line], 2));
    // Rarely after the first octets: weights may be up to 2^8.
    if ((most[of_line] - largest[of_line]) * factor > 8) {
      const float shrink = fast_exp2((largest[of_line] - most[of_line]) * factor);
      largest[of_line] = most[of_line];
      total[of_line] *= shrink;
#pragma unroll
      for (int c = 0; c < D / 8; ++c) {
        sum[c][of_line * 2] *= shrink;
        sum[c][of_line * 2 + 1] *= shrink;
      }
    }
    const float zero = largest[of_line] * factor;
#pragma unroll
    for (int o = 0; o < kTogether; ++o) {
#pragma unroll
      for (int line = 0; line < 2; ++line) {
        const float* const x = score[o][line] + of_line * 2;
        const float a = fast_exp2(x[0] * factor - zero), b = fast_exp2(x[1] * factor - zero);
        total[of_line] += a + b;
        weight[o][line * 2 + of_line] = pack_halves<T>(a, b);
      }
    }
  }
}

template <class T, int D, bool has_terms>
__global__ void __launch_bounds__(kMmaThreads, forward_blocks(D, has_terms))
    attention_mma_kernel(const MmaArguments<T> f, const MmaPlan p) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  const MmaBlock<T, D> block(p);
  const MmaTerms<T, D, has_terms> terms{block, f.terms};
  for (int g = blockIdx.z; g < p.groups; g += gridDim.z) {
    __syncthreads();  // the results of the group before have been read
    const T* const k = f.k + int64_t(g) * f.channels * p.halo.pixels;
    const T* const v = f.v + int64_t(g) * f.value_channels * p.halo.pixels;
    const bool distance = f.k_norms != nullptr;
    const float* const norms = distance ? f.k_norms + g * p.halo.pixels : nullptr;
    const int numbers = distance + terms.has_keys();
    terms.stage(g, f.inverse, false);

    uint32_t query[D / 16][4];
    block.load_tile(f.q + int64_t(g) * f.channels * p.tile.pixels, f.channels, query);
    block.fill_channels(f.channels, f.value_channels);
    // Scores are computed with the sign of the scale.
    const uint32_t sign = f.negative ? 0x80008000u : 0;
    const float half = f.negative ? 0.5f : -0.5f;
#pragma unroll
    for (int c = 0; c < D / 16; ++c) {
#pragma unroll
      for (int i = 0; i < 4; ++i) query[c][i] ^= sign;
    }
    float norm[2] = {};
    if (distance) {
#pragma unroll
      for (int line = 0; line < 2; ++line)
        norm[line] = half * f.q_norms[g * p.tile.pixels + block.some_pixel(line)];
    }

    MmaStep step{block.planes.low, block.bands.low}, ahead = step;
    const auto start_copies = [&] {
      if (ahead.plane <= block.planes.high) {
        block.copy_halo(k, f.channels, v, f.value_channels, ahead);
        if (distance) block.copy_numbers(norms, ahead, block.numbers(ahead.stage, 0, numbers));
        if (terms.has_keys()) {
          block.copy_numbers(f.terms.key_bias_of(g), ahead,
                             block.numbers(ahead.stage, distance, numbers));
        }
        ahead.advance(p, block.bands);
      }
      commit_copies();
    };
    for (int i = 0; i < p.stages - 1; ++i) start_copies();

    // The largest score before the first: finite, so that its difference to a score is not NaN.
    constexpr float lowest = -1e30f;
    const uint32_t columns = block.columns(step, 0, 0);
    float sum[D / 8][4] = {}, total[2] = {}, largest[2] = {lowest, lowest};
#pragma unroll 1
    for (; step.plane <= block.planes.high; step.advance(p, block.bands)) {
      wait_for_step(p.stages);
      __syncthreads();  // the step is complete, and the one before has been read
      start_copies();
      if (!block.meets(step)) continue;
      const int octets = block.octets(step);
      const T* keys = block.warp_halo(step.stage, 0);
      const float* number = block.warp_numbers(step.stage, 0, numbers);
      const float* bias = terms.has_bias() ? terms.of_step(step) : nullptr;
      MmaWindow window = block.window(step, columns);
#pragma unroll 1
      for (int first = 0; first < octets; first += kTogether) {
        const int count = octets - first;
        float score[kTogether][2][4] = {};
        // f(o, line, i, what is added to a score), for the first `count` octets.
        const auto each_score = [&](const auto& f) {
#pragma unroll
          for (int o = 0; o < kTogether; ++o) {
            if (o >= count) break;
#pragma unroll
            for (int i = 0; i < 8; ++i) f(o, i / 4, i % 4, score[o][i / 4][i % 4]);
          }
        };
        if (distance) {
          each_score([&](int o, int line, int i, float& s) {
            s = norm[i / 2] + half * number[(o * 2 + line) * kOctet + i % 2];
          });
        }
        if (terms.has_keys()) {
          const float* const of_keys = number + (distance ? p.step_numbers : 0);
          each_score([&](int o, int line, int i, float& s) {
            s += f.inverse * of_keys[(o * 2 + line) * kOctet + i % 2];
          });
        }
        if (terms.has_bias()) {
          each_score([&](int o, int line, int i, float& s) {
            s += terms.bias(bias, o, line, i / 2, i % 2);
          });
          bias += kTogether * p.octet_step;
        }
        const T* const rows = rows_of_line<T, D>(keys);
#pragma unroll
        for (int o = 0; o < kTogether; ++o) {
          if (o >= count) break;
#pragma unroll
          for (int line = 0; line < 2; ++line) {
            add_products<T, D>(rows + o * MmaBlock<T, D>::kPair + line * MmaBlock<T, D>::kLine,
                               query, score[o][line]);
          }
        }
        uint32_t weight[kTogether][4];
        online_softmax<T, D>(window, f.factor, score, weight, largest, total, sum);
        const T* const value_rows = rows_of_lines<T, D>(keys + p.half);
#pragma unroll
        for (int o = 0; o < kTogether; ++o) {
          if (o >= count) break;
          add_weighted<T, D>(value_rows + o * MmaBlock<T, D>::kPair, weight[o], sum);
        }
        keys += kTogether * MmaBlock<T, D>::kPair;
        number += kTogether * 2 * kOctet;
        window.advance(kTogether);
      }
    }

#pragma unroll
    for (int line = 0; line < 2; ++line) {
      float all = total[line];
      all += from_lane_xor(all, 1);
      all += from_lane_xor(all, 2);
      const int pixel = block.pixel(line);
      if (block.t() == 0 && pixel >= 0) {
        f.lse[g * p.tile.pixels + pixel] = (largest[line] * f.factor + log2f(all)) * float(kLn2);
      }
      const float inverse = 1 / all;
#pragma unroll
      for (int c = 0; c < D / 8; ++c) {
        sum[c][line * 2] *= inverse;
        sum[c][line * 2 + 1] *= inverse;
        // Without any key, even where the values of absent keys are infinite.
        if (has_terms && all == 0) sum[c][line * 2] = sum[c][line * 2 + 1] = 0;
      }
    }
    block.store_tile(f.y + int64_t(g) * f.value_channels * p.tile.pixels, f.value_channels, sum);
  }
#endif
}

}  // namespace

template <class T>
void attention_mma(const T* q, const T* k, const T* v, T* y, float* lse, float* norms,
                   const ScoreTerms<float>& terms, const AttentionProblem& problem,
                   cudaStream_t stream) {
  const char* op = terms.any() ? "biased_attention" : "attention";
  const AttentionShape& shape = problem.shape;
  const int channels = std::max(shape.channels, shape.value_channels);
  const int64_t sums = problem.groups * problem.pattern.pixels();
  MmaArguments<T> f{q,
                    k,
                    v,
                    nullptr,
                    nullptr,
                    y,
                    lse,
                    shape.channels,
                    shape.value_channels,
                    float(std::abs(shape.scale) * kLog2E),
                    shape.scale < 0,
                    float(1 / std::abs(shape.scale)),
                    terms};
  if (shape.distance) {
    sum_products(op, q, q, norms, shape.channels, problem, stream);
    sum_products(op, k, k, norms + sums, shape.channels, transposed(problem), stream);
    f.q_norms = norms;
    f.k_norms = norms + sums;
  }
  const bool has_terms = terms.any();
  const MmaNeeds needs{channels, shape.distance + has_terms,
                       forward_blocks(mma_channels(channels), has_terms), terms.bias != nullptr};
  launch_mma<T>(
      op, problem, needs, stream, {q, k, v, y},
      [has_terms](auto D) {
        constexpr int channels = decltype(D)::value;
        return has_terms ? attention_mma_kernel<T, channels, true>
                         : attention_mma_kernel<T, channels, false>;
      },
      f);
}

#define CIRCULANT_INSTANTIATE_MMA(T)                                            \
  template void attention_mma(const T*, const T*, const T*, T*, float*, float*, \
                              const ScoreTerms<float>&, const AttentionProblem&, cudaStream_t);
CIRCULANT_INSTANTIATE_MMA(c10::Half)
CIRCULANT_INSTANTIATE_MMA(c10::BFloat16)

}  // namespace circulant
