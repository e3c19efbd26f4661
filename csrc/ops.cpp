// The schemas of every native op.
//
// G        groups: one group is one (batch, head) pair
// C        channels of a group
// spatial  the sizes of 1 to 3 spatial dims, last dim fastest
// N        pixels, the product of spatial
// window   one odd number of pixels per spatial dim, at most the size of that dim
// K        offsets in a window, the product of window
// A        the (N, N) circulant matrix of a group: A_ij is stored where j = i + offset, modulo the
//          spatial size in each dim
// values   (G, N, K), the stored entries of A in CSR order: columns ascend in each row
// x, y     (G, C, *spatial)
// kind     0: dot, 1: distance
// q, k     (G, C, *spatial), and v, y with channels of their own
// S        scale * similarity(q, k), the scores
// lse      (G, N), log sum_j exp(S_ij); float32 for the half types, else of the dtype of q
//
// Tensors are float16, bfloat16 (both summed in float32), float32 or float64, all of one dtype, on
// one device. Outputs are new contiguous tensors. Complex tensors come as real ones of twice the
// channels.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(circulant_attention, m) {
  // values_ij = sum_c x[c, i] y[c, j] (dot) or -1/2 sum_c (x[c, i] - y[c, j])^2 (distance).
  m.def("similarity(Tensor x, Tensor y, int[] window, int kind) -> Tensor");
  // y_i = sum_j A_ij x_j.
  m.def("apply(Tensor values, Tensor x, int[] window) -> Tensor");
  // y_j = sum_i A_ij x_i.
  m.def("apply_transposed(Tensor values, Tensor x, int[] window) -> Tensor");
  // The values of the transposed matrix. Nothing is rounded.
  m.def("transpose(Tensor values, SymInt[] spatial_size, int[] window) -> Tensor");
  // y_i = sum_j exp(S_ij - lse_i) v_j and lse; S is never stored.
  m.def(
      "attention(Tensor q, Tensor k, Tensor v, int[] window, int kind, float scale) -> "
      "(Tensor y, Tensor lse)");
  // dq, dk, dv from dy and from what `attention` took and gave.
  m.def(
      "attention_backward(Tensor dy, Tensor q, Tensor k, Tensor v, Tensor y, Tensor lse, "
      "int[] window, int kind, float scale) -> (Tensor dq, Tensor dk, Tensor dv)");
}
