// The gradient of the row softmax: result_ij = A_ij (g_ij - sum_k A_ik g_ik).
//
// A row at a time. The sum adds vectors in a fixed order, so that the bits of a row depend on the
// row alone, not on the threads.
#include <cstdint>

#include "../params.h"
#include "../simd/half.h"
#include "arena.h"
#include "entry.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

template <class S>
class SoftmaxBackward {
  using T = Compute<S>;
  static constexpr int64_t L = kLanes<T>;
  static constexpr int64_t kSums = 4;  // Independent sums hide the latency of the additions.

 public:
  SoftmaxBackward(const SoftmaxBackwardParams& a, const WorkItem& item, Arena&)
      : params_(a), rows_(item.rows) {}

  void run() {
    const int64_t width = params_.width;
    for (int64_t row = rows_.begin; row < rows_.end; ++row) {
      const S* grad = static_cast<const S*>(params_.grad) + row * width;
      const S* weights = static_cast<const S*>(params_.weights) + row * width;
      S* result = static_cast<S*>(params_.result) + row * width;
      const Vec<T> mean = broadcast(dot(grad, weights, width));
      for (int64_t k = 0; k < width; k += L) {
        const int64_t lanes = smaller(L, width - k);
        const Vec<T> g = load_first(grad + k, lanes), w = load_first(weights + k, lanes);
        store_first(result + k, w * (g - mean), lanes);
      }
    }
  }

 private:
  static T dot(const S* a, const S* b, int64_t width) {
    Vec<T> sums[kSums] = {};
    int64_t k = 0;
    for (; k + kSums * L <= width; k += kSums * L) {
      CIRCULANT_UNROLL for (int i = 0; i < kSums; ++i) {
        sums[i] = fma(load(a + k + i * L), load(b + k + i * L), sums[i]);
      }
    }
    for (; k < width; k += L) {
      const int64_t lanes = smaller(L, width - k);
      sums[0] = fma(load_first(a + k, lanes), load_first(b + k, lanes), sums[0]);
    }
    const Vec<T> sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    T total = 0;
    CIRCULANT_UNROLL for (int l = 0; l < L; ++l) total += sum[l];
    return total;
  }

  const SoftmaxBackwardParams& params_;
  Span rows_;
};

CIRCULANT_DEFINE_KERNEL(softmax_backward, SoftmaxBackwardParams, SoftmaxBackward)

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
