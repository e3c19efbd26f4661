#include <torch/csrc/stable/library.h>

#include <tuple>
#include <vector>

#include "chunks.h"
#include "op.h"

namespace circulant {
namespace {

using fused::Chunk;
using fused::part_of;

constexpr int64_t kTasks = 16;  // a problem is cut into so many chunks, if they are not too small

// An even number of parts of at least `smallest`, or one part.
int64_t even_parts(int64_t size, int64_t smallest, int64_t wanted) {
  const int64_t parts = std::min(size / smallest, wanted) / 2 * 2;
  return std::max<int64_t>(parts, 1);
}

// Chunks add to the sums of their neighbours, half a window beyond their own queries. So they run
// in phases: of an even number of parts, each at least a window long, every second one touches
// nothing that another of the same phase does. The order of additions is that of the phases, which
// makes the sums the same for any number of threads.
std::tuple<Tensor, Tensor, Tensor> attention_backward(const Tensor& dy_, const Tensor& q_,
                                                      const Tensor& k_, const Tensor& v_,
                                                      const Tensor& y_, const Tensor& lse_,
                                                      std::vector<int64_t> window, int64_t kind_,
                                                      double scale) {
  const char* op = "attention_backward";
  const Kind kind = checked_kind(kind_, op);
  const FusedShape shape = checked_fused(q_, k_, v_, window, op);
  check_same_dtype(dy_, v_, op);
  check_same_shape(dy_, v_, op);
  check_same_dtype(y_, v_, op);
  check_same_shape(y_, v_, op);
  const int64_t groups = shape.groups, pixels = shape.geometry.pixels();
  STD_TORCH_CHECK(lse_.scalar_type() == sum_type(q_) && lse_.dim() == 2 && lse_.size(0) == groups &&
                      lse_.size(1) == pixels,
                  op, ": lse must be what attention gave");
  const Tensor dy = contiguous_of(dy_), q = contiguous_of(q_), k = contiguous_of(k_);
  const Tensor v = contiguous_of(v_), y = contiguous_of(y_), lse = contiguous_of(lse_);
  Tensor dq = torch::stable::new_empty(q, q.sizes());

  const Geometry g = simplified(shape.geometry);
  const int64_t rows = g.size[1], columns = g.size[2];
  const int64_t wanted = (kTasks + groups - 1) / std::max<int64_t>(groups, 1);
  const bool is_signal = g.size[0] * rows == 1;
  const int64_t down = even_parts(rows, std::max<int64_t>(8, g.window[1]), wanted);
  const int64_t across =
      is_signal ? even_parts(columns, std::max<int64_t>(256, g.window[2]), wanted) : 1;
  // Parts of a row all add to it, so it must hold zeros before; whole rows can be written.
  const bool adds = across > 1;
  const auto sums = [&](const Tensor& x) {
    return adds ? torch::stable::new_zeros(x, x.sizes(), sum_type(q))
                : torch::stable::new_empty(x, x.sizes(), sum_type(q));
  };
  Tensor dk = sums(k), dv = sums(v);
  if (groups == 0)
    return {dq, torch::stable::to(dk, k.scalar_type()), torch::stable::to(dv, v.scalar_type())};
  std::vector<uint8_t> dk_touched(groups * g.size[0] * rows, adds), dv_touched(dk_touched);
  const fused::AttentionBackward problem{g,
                                         shape.dtype,
                                         shape.channels,
                                         shape.value_channels,
                                         kind == kDistance,
                                         scale,
                                         dy.const_data_ptr(),
                                         q.const_data_ptr(),
                                         k.const_data_ptr(),
                                         v.const_data_ptr(),
                                         y.const_data_ptr(),
                                         lse.const_data_ptr(),
                                         dq.mutable_data_ptr(),
                                         dk.mutable_data_ptr(),
                                         dv.mutable_data_ptr(),
                                         dk_touched.data(),
                                         dv_touched.data()};
  for (int64_t phase = 0; phase < (down * across > 1 ? 2 : 1); ++phase) {
    std::vector<Chunk> chunks;
    for (int64_t group = 0; group < groups; ++group) {
      // Only one of the two numbers of parts is larger than one.
      for (int64_t i = down > 1 ? phase : 0; i < down; i += 2) {
        for (int64_t j = across > 1 ? phase : 0; j < across; j += 2) {
          chunks.push_back(
              {group, {0, g.size[0]}, part_of(rows, i, down), part_of(columns, j, across)});
        }
      }
    }
    fused::run_chunks(engines().attention_backward, problem, chunks);
  }
  return {dq, torch::stable::to(dk, k.scalar_type()), torch::stable::to(dv, v.scalar_type())};
}

}  // namespace
}  // namespace circulant

STABLE_TORCH_LIBRARY_IMPL(circulant_attention, CPU, m) {
  m.impl("attention_backward", TORCH_BOX(&circulant::attention_backward));
}
