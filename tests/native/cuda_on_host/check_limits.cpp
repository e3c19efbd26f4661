// The largest problems: pixels of long dims, and problems that a device cannot run, which are
// refused with the op, the sizes and the limit.
#include "../../../csrc/cuda/tile.cuh"
#include "check.h"

namespace check {
namespace {

// Runs `op`, which has to throw `expected`.
template <class Op>
void check_refused(const Case& c, const std::string& expected, const Op& op) {
  ++comparisons;
  try {
    op();
    report(c, "limits", "not refused: " + expected);
  } catch (const std::exception& error) {
    if (error.what() != expected) report(c, "limits", error.what());
  }
}

}  // namespace

// Only long circles have positions where the first estimate of the turns is one less.
void check_positions() {
#ifdef CUDA_ON_HOST
  for (int n = 0; n < 20000; ++n) {
    Case c{1,
           1,
           {1, 1, 1 + static_cast<int64_t>(randomness() % (n % 2 ? circulant::kMaxPixels : 99))},
           {1, 1, 2}};
    if (c.size[2] == 1) continue;
    c.dilation[2] = 1 + static_cast<int64_t>(randomness() % (c.size[2] - 1));
    c.boundary[2] = n % 4 < 2 ? kCircular : kTruncated;
    const circulant::Dim dim = c.dim(2);
    const Pattern pattern(c.geometry());
    const int number = static_cast<int>(randomness() % dim.classes());
    const int64_t length = dim.of_class(number).size;
    const int64_t t = n % 8 ? static_cast<int64_t>(randomness() % length) : length - 1;
    const circulant::Place place(pattern, {{0, 0, static_cast<int>(t)}, {0, 0, number}});
    const int64_t pixel = (number + t * dim.dilation) % dim.size;
    ++comparisons;
    if (place.w.pixel(0) != pixel || place.w.pixel(static_cast<int>(length - t)) != -1) {
      report(c, "positions",
             "position " + std::to_string(t) + " of class " + std::to_string(number) +
                 " is not pixel " + std::to_string(pixel));
    }
  }
#endif
}

void check_limits() {
#ifdef CUDA_ON_HOST
  const Case c{1, 20, {1, 16, 24}, {1, 5, 7}};
  const Problem p = c.problem();
  const circulant::AttentionProblem attention{1, p.pattern, {20, 20, false, 1.0, 1.0}};
  const std::string grid =
      "no tile of a grid of 1 x 16 x 24 pixels with window 1 x 5 x 7 and 20 channels of 4 bytes "
      "fits "
      "2048 bytes of shared memory";
  float* const none = nullptr;
  cuda_on_host::settings().shared_memory = 2048;
  for (const bool transposed : {false, true}) {
    check_refused(c, std::string(transposed ? "apply_transposed: " : "apply: ") + grid,
                  [&] { circulant::apply(none, none, none, p, transposed, nullptr); });
  }
  check_refused(c, "similarity: " + grid,
                [&] { circulant::similarity(none, none, none, p, false, nullptr); });
  check_refused(c, "attention: " + grid, [&] {
    circulant::attention(none, none, none, none, none, none, {}, attention, nullptr);
  });
  const float term = 0;
  const circulant::ScoreTerms<float> terms{&term, &term, 1, 1, 35, 384};
  check_refused(c, "biased_attention: " + grid, [&] {
    circulant::attention(none, none, none, none, none, none, terms, attention, nullptr);
  });
  check_refused(c, "biased_attention_backward: " + grid,
                [&] { circulant::attention_tiles<float>(attention); });

  // More blocks per group than a launch can have, in a transpose: one per tile and window row.
  const Case many{1, 1, {1, 32768, 32768}, {1, 255, 1}};
  check_refused(
      many, "transpose: needs 4278190080 blocks per group, a launch can have 2147483647", [&] {
        const uint32_t* const values = nullptr;
        circulant::transpose(values, static_cast<uint32_t*>(nullptr), many.problem(), nullptr);
      });

  // A failed launch.
  cuda_on_host::settings().shared_memory = 1024;
  const circulant::Launch too_large{"similarity", 3, 2, 2048, 16, nullptr};
  void (*const kernel)(int) = [](int) {};
  check_refused(c,
                "similarity: the launch of 3 x 2 blocks of 2048 threads with 16 bytes of shared "
                "memory failed: invalid configuration argument",
                [&] { circulant::launch(too_large, kernel, 0); });
#endif
}

}  // namespace check
