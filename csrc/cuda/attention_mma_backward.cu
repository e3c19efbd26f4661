// The gradients of fused attention of the half types on tensor cores, with the weights recomputed
// from the log-sum-exp. From sm_80 on. attention_backward.cu has the formulas.
//
// As there, the pixels i that have j in their window are those in the transposed window of j. So
// one kernel makes all gradients, with the pixels of the tile as rows of the products and those of
// the halo as columns:
//
//                tile: a, b   halo: x, z   sums         lse and delta of
//   dq           q, dy        k, v         dS x         the tile
//   dk and dv    k, v         q, dy        dS x, P z    the halo
//
// Both compute S = a x and dP = b z: 7 products, where the least is 5.
//
// P and dS are rounded to the half type before they are multiplied, sums are float32. No atomics
// and a fixed order of additions: results are bitwise reproducible. What is not finite spoils a
// little more than its windows, as in attention_mma.cu.
#include <cmath>

#include "../common/constants.h"
#include "mma_block.cuh"
#include "mma_launch.h"
#include "mma_products.cuh"
#include "mma_terms.cuh"

namespace circulant {
namespace {

template <class T>
struct MmaGradient {
  const T *a, *b, *x, *z;  // see the table
  const float *lse, *delta;
  const float *a_norms, *x_norms;  // for the distance
  T *x_result, *z_result;
  int channels, value_channels;  // of a and x, and of b and z
  float factor;                  // scale / log 2
  float scale;
  ScoreTerms<float> terms;
  ScoreTermSums<float> sums;  // with `terms`
};

// sum -= total * a, the part of the distance's gradient that is of the tile's own features.
template <class T, int D>
__device__ __forceinline__ void subtract_own(const uint32_t (&a)[D / 16][4],
                                             const float (&total)[2], float (&sum)[D / 8][4]) {
#pragma unroll
  for (int c = 0; c < D / 16; ++c) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 own = unpack_halves<T>(a[c][i]);
      sum[c * 2 + i / 2][i % 2 * 2] -= total[i % 2] * own.x;
      sum[c * 2 + i / 2][i % 2 * 2 + 1] -= total[i % 2] * own.y;
    }
  }
}

// Whether a thread has registers for the sums of keys and values, with terms.
template <int D>
constexpr bool kBoth = D < 128;

template <class T, int D, bool of_k, bool of_v, bool has_terms>
__global__ void __launch_bounds__(kMmaThreads, D <= 32 && !has_terms ? 2 : 1)
    attention_mma_backward_kernel(const MmaGradient<T> f, const MmaPlan p) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  constexpr bool of_keys = of_k || of_v, of_scores = of_k || !of_v;
  const MmaBlock<T, D> block(p);
  const MmaTerms<T, D, has_terms> terms{block, f.terms};
  MmaOffsetSums<T, D> offset_sums{block};
  const bool sums_offsets = !of_keys && terms.has_bias(), sums_keys = of_k && terms.has_keys();
  const bool distance = f.x_norms != nullptr;
  // In this order for each step: lse and delta, then the norms, then the biases of keys.
  constexpr int norms_at = of_keys ? 2 : 0;
  const int keys_at = norms_at + distance;
  const int numbers = keys_at + (!of_keys && terms.has_keys());
  const float inverse = 1 / f.scale;

  for (int g = blockIdx.z; g < p.groups; g += gridDim.z) {
    __syncthreads();  // the results of the group before have been read
    const int64_t rows = g * p.tile.pixels, halo_rows = g * p.halo.pixels;
    terms.stage(g, inverse, of_keys);
    if (sums_offsets) offset_sums.clear();
    uint32_t a[D / 16][4], b[D / 16][4];
    block.load_tile(f.a + rows * f.channels, f.channels, a);
    if (of_scores) block.load_tile(f.b + rows * f.value_channels, f.value_channels, b);
    block.fill_channels(f.channels, f.value_channels);
    // Of this thread's pixels; those beyond the grid have weights 0. Scores begin at `own`.
    float lse[2] = {}, delta[2] = {}, own[2] = {};
#pragma unroll
    for (int line = 0; line < 2; ++line) {
      const int64_t pixel = rows + block.some_pixel(line);
      if (!of_keys) {
        lse[line] = f.lse[pixel] * float(kLog2E);
        delta[line] = f.delta[pixel];
        if (sums_offsets && block.pixel(line) < 0) lse[line] = INFINITY;
      }
      if (distance) own[line] = -0.5f * f.a_norms[pixel];
      if (of_keys && terms.has_keys())
        own[line] += inverse * f.terms.key_bias_of(g)[block.some_pixel(line)];
    }

    MmaStep step{block.planes.low, block.bands.low}, ahead = step;
    const auto start_copies = [&] {
      if (ahead.plane <= block.planes.high) {
        block.copy_halo(f.x + halo_rows * f.channels, f.channels,
                        f.z + halo_rows * f.value_channels, f.value_channels, ahead);
#pragma unroll 1
        for (int i = 0; i < numbers; ++i) {
          const float* x = (i == norms_at ? f.x_norms : i == 0 ? f.lse : f.delta) + halo_rows;
          if (!of_keys && terms.has_keys() && i == keys_at) x = f.terms.key_bias_of(g);
          block.copy_numbers(x, ahead, block.numbers(ahead.stage, i, numbers));
        }
        ahead.advance(p, block.bands);
      }
      commit_copies();
    };
    for (int i = 0; i < p.stages - 1; ++i) start_copies();

    const uint32_t columns = block.columns(step, 0, 0);
    float x_sum[D / 8][4] = {}, z_sum[D / 8][4] = {}, total[2] = {};
#pragma unroll 1
    for (; step.plane <= block.planes.high; step.advance(p, block.bands)) {
      wait_for_step(p.stages);
      __syncthreads();  // the step is complete, and the one before has been read
      start_copies();
      if (!block.meets(step)) continue;
      const T* x = block.warp_halo(step.stage, 0);
      const T* z = block.warp_halo(step.stage, 1);
      const float* number = block.warp_numbers(step.stage, 0, numbers);
      const MmaWindow window = block.window(step, columns);
      const float* bias = terms.has_bias() ? terms.of_step(step) : nullptr;
      int offset = sums_offsets ? offset_sums.first(step) : 0;
      // The bit of the octet, which counts the loop.
      const auto end = static_cast<uint32_t>(uint64_t(1) << 2 * block.octets(step));
#pragma unroll 1
      for (uint32_t octet = 1; octet != end; octet <<= 2) {
        uint32_t weight[4], grad_score[4];  // P and dS, as left factors
        float grads[2][4] = {};
#pragma unroll
        for (int line = 0; line < 2; ++line) {
          const float* const of_line = number + line * kOctet;
          float s[4] = {};
          auto& ds = grads[line];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            if (has_terms) s[i] = own[i / 2];
            if (distance) s[i] = own[i / 2] - 0.5f * of_line[norms_at * p.step_numbers + i % 2];
            if (!of_keys && terms.has_keys())
              s[i] += inverse * of_line[keys_at * p.step_numbers + i % 2];
            if (terms.has_bias()) s[i] += terms.bias(bias, 0, line, i / 2, i % 2);
          }
          const int line_at = line * MmaBlock<T, D>::kLine;
          add_products<T, D>(rows_of_line<T, D>(x) + line_at, a, s);
          if (of_scores) add_products<T, D>(rows_of_line<T, D>(z) + line_at, b, ds);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const float l = of_keys ? of_line[i % 2] * float(kLog2E) : lse[i / 2];
            const float d = of_keys ? of_line[p.step_numbers + i % 2] : delta[i / 2];
            const bool outside = window.outside(octet << i % 2, line, i / 2);
            s[i] = fast_exp2(s[i] * f.factor - l);
            ds[i] = s[i] * (ds[i] - d);
            if (outside) s[i] = ds[i] = 0;
            if (sums_keys && !distance) total[i / 2] += ds[i];
          }
#pragma unroll
          for (int of_line = 0; of_line < 2; ++of_line) {
            if (of_v)
              weight[line * 2 + of_line] = pack_halves<T>(s[of_line * 2], s[of_line * 2 + 1]);
            grad_score[line * 2 + of_line] = pack_halves<T>(ds[of_line * 2], ds[of_line * 2 + 1]);
          }
        }
        if (of_scores && distance) {
          // Of what is multiplied: rounded.
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const float2 both = unpack_halves<T>(grad_score[i]);
            total[i % 2] += both.x + both.y;
          }
        }
        if (sums_offsets) {
          offset_sums.add(step, offset, {grads[0][2], grads[0][3]},
                          {grads[0][0] + grads[1][2], grads[0][1] + grads[1][3]},
                          {grads[1][0], grads[1][1]});
          offset += kOctet;
          // The octet between this one and the next.
          if (p.is_flat()) offset_sums.add(step, offset, {}, {}, {}), offset += kOctet;
        }
        if (of_scores) add_weighted<T, D>(rows_of_lines<T, D>(x), grad_score, x_sum);
        if (of_v) add_weighted<T, D>(rows_of_lines<T, D>(z), weight, z_sum);
        x += MmaBlock<T, D>::kPair;
        z += MmaBlock<T, D>::kPair;
        number += 2 * kOctet;
        bias += p.octet_step;
      }
      if (sums_offsets && !p.is_flat()) offset_sums.add(step, offset, {}, {}, {});
    }

    if (of_scores && (distance || sums_keys)) {
#pragma unroll
      for (int line = 0; line < 2; ++line) {
        total[line] += from_lane_xor(total[line], 1);
        total[line] += from_lane_xor(total[line], 2);
        const int pixel = block.pixel(line);
        if (sums_keys && block.t() == 0 && pixel >= 0) f.sums.keys[rows + pixel] = total[line];
      }
      if (distance) subtract_own<T, D>(a, total, x_sum);
    }
#pragma unroll
    for (int c = 0; c < D / 8; ++c) {
#pragma unroll
      for (int i = 0; i < 4; ++i) x_sum[c][i] *= f.scale;
    }
    if (of_scores) block.store_tile(f.x_result + rows * f.channels, f.channels, x_sum);
    // After the barriers of the result.
    if (sums_offsets) offset_sums.write(f.sums.offsets_of(f.terms, p.groups, g, blockIdx.x));
    if (of_v) block.store_tile(f.z_result + rows * f.value_channels, f.value_channels, z_sum);
  }
#endif
}

}  // namespace

template <class T>
void attention_mma_backward(const T* dy, const T* q, const T* k, const T* v, const float* lse,
                            const float* delta, float* norms, T* dq, T* dk, T* dv,
                            const ScoreTerms<float>& terms, const ScoreTermSums<float>& sums,
                            const AttentionProblem& problem, cudaStream_t stream) {
  const bool has_terms = terms.any(), has_bias = terms.bias != nullptr;
  const char* op = has_terms ? "biased_attention_backward" : "attention_backward";
  const AttentionShape& shape = problem.shape;
  const int channels = std::max(shape.channels, shape.value_channels);
  const int distance = shape.distance, blocks = channels <= 32 && !has_terms ? 2 : 1;
  const AttentionProblem mirrored = transposed(problem);
  float *q_norms = nullptr, *k_norms = nullptr;
  if (distance) {
    q_norms = norms;
    k_norms = norms + problem.groups * problem.pattern.pixels();
    sum_products(op, q, q, q_norms, shape.channels, problem, stream);
    sum_products(op, k, k, k_norms, shape.channels, mirrored, stream);
  }
  const float factor = float(shape.scale * kLog2E), scale = float(shape.scale);
  const int C = shape.channels, C_v = shape.value_channels;
  const MmaGradient<T> of_queries{q,  dy,      k, v,   lse,    delta, q_norms, k_norms,
                                  dq, nullptr, C, C_v, factor, scale, terms,   sums};
  const MmaGradient<T> of_keys{k,  v,  q, dy,  lse,    delta, k_norms, q_norms,
                               dk, dv, C, C_v, factor, scale, terms,   sums};
  const auto arrays = {
      dy, q, k, v, static_cast<const T*>(dq), static_cast<const T*>(dk), static_cast<const T*>(dv)};
  const MmaNeeds needs{channels, distance + 2, blocks, has_bias};
  launch_mma<T>(
      op, problem, queries_needs(shape, has_terms, has_bias), stream, arrays,
      [has_terms](auto D) {
        constexpr int channels = decltype(D)::value;
        return has_terms ? attention_mma_backward_kernel<T, channels, false, false, true>
                         : attention_mma_backward_kernel<T, channels, false, false, false>;
      },
      of_queries);
  launch_mma<T>(
      op, mirrored, needs, stream, arrays,
      [has_terms](auto D) {
        constexpr int channels = decltype(D)::value;
        constexpr bool both = kBoth<channels>;
        return has_terms ? attention_mma_backward_kernel<T, channels, true, both, true>
                         : attention_mma_backward_kernel<T, channels, true, true, false>;
      },
      of_keys);
  if (!has_terms || channels <= 64) return;
  launch_mma<T>(
      op, mirrored, needs, stream, arrays,
      [](auto D) {
        constexpr bool both = kBoth<decltype(D)::value>;
        return attention_mma_backward_kernel<T, decltype(D)::value, both, true, true>;
      },
      of_keys);
}

#define CIRCULANT_INSTANTIATE_MMA(T)                                                               \
  template void attention_mma_backward(const T*, const T*, const T*, const T*, const float*,       \
                                       const float*, float*, T*, T*, T*, const ScoreTerms<float>&, \
                                       const ScoreTermSums<float>&, const AttentionProblem&,       \
                                       cudaStream_t);
CIRCULANT_INSTANTIATE_MMA(c10::Half)
CIRCULANT_INSTANTIATE_MMA(c10::BFloat16)

}  // namespace circulant
