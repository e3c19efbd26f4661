#include <torch/csrc/stable/library.h>

#include <tuple>
#include <vector>

#include "chunks.h"
#include "op.h"

namespace circulant {
namespace {

using fused::Chunk;
using fused::part_of;

constexpr int64_t kTasks = 8;  // a problem is cut into so many chunks, if they are not too small

int64_t divided_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Long rows are cut so that what a chunk packs stays in a cache; rows are shared out in blocks that
// are large against the rows around them, which every chunk packs for itself.
std::vector<Chunk> forward_chunks(const Geometry& g, int64_t groups) {
  const int64_t planes = g.size[0], rows = g.size[1], columns = g.size[2];
  const int64_t across = divided_up(columns, std::max<int64_t>(512, 2 * g.window[2]));
  const int64_t wanted = divided_up(kTasks, groups * planes * across);
  const int64_t down = std::max(divided_up(rows, std::max<int64_t>(32, g.window[1] - 1)),
                                std::min(divided_up(rows, 8), wanted));
  std::vector<Chunk> chunks;
  for (int64_t group = 0; group < groups; ++group) {
    for (int64_t d = 0; d < planes; ++d) {
      for (int64_t i = 0; i < down; ++i) {
        for (int64_t j = 0; j < across; ++j) {
          chunks.push_back(
              {group, {d, d + 1}, part_of(rows, i, down), part_of(columns, j, across)});
        }
      }
    }
  }
  return chunks;
}

std::tuple<Tensor, Tensor> attention(const Tensor& q_, const Tensor& k_, const Tensor& v_,
                                     std::vector<int64_t> window, int64_t kind_, double scale) {
  const char* op = "attention";
  const Kind kind = checked_kind(kind_, op);
  const FusedShape shape = checked_fused(q_, k_, v_, window, op);
  const Tensor q = contiguous_of(q_), k = contiguous_of(k_), v = contiguous_of(v_);
  const int64_t rows[] = {shape.groups, shape.geometry.pixels()};
  Tensor y = torch::stable::new_empty(v, v.sizes());
  Tensor lse = torch::stable::new_empty(q, rows, sum_type(q));
  if (shape.groups == 0) return {y, lse};
  const Geometry geometry = simplified(shape.geometry);
  const fused::Attention problem{geometry,
                                 shape.dtype,
                                 shape.channels,
                                 shape.value_channels,
                                 kind == kDistance,
                                 scale,
                                 q.const_data_ptr(),
                                 k.const_data_ptr(),
                                 v.const_data_ptr(),
                                 y.mutable_data_ptr(),
                                 lse.mutable_data_ptr()};
  fused::run_chunks(engines().attention, problem, forward_chunks(geometry, shape.groups));
  return {y, lse};
}

}  // namespace
}  // namespace circulant

STABLE_TORCH_LIBRARY_IMPL(circulant_attention, CPU, m) {
  m.impl("attention", TORCH_BOX(&circulant::attention));
}
