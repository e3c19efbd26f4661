// The schemas of all native ops, and the legend of the symbols in csrc/.
//
// G        groups: one group is one (batch, head) pair
// C        channels of a group
// spatial  the sizes of 1 to 3 spatial dims, last dim fastest
// N        pixels, the product of spatial
// window   one odd number of pixels per spatial dim, at most the size of that dim; or four numbers
//          per spatial dim: the reaches before and after the pixel, the dilation, and the boundary:
//          0 circular, 1 truncated (keys outside of the grid are absent), 2 valid (the grid of the
//          keys is longer than that of the queries by dilation * (before + after))
// W        the window of one dim, mostly the last
// K        offsets in a window, the product of window
// d, h, w  a plane, a row and a column of the grid; p, o, n: an offset along each of them
// A        the (N, N) circulant matrix of a group: A_ij is stored where j = i + dilation * offset,
//          modulo the spatial size in each circular dim
// values   (G, N, K), the stored entries of A: in circular dims columns ascend in each row, in
// others
//          offsets do, and an absent key has a zero
// i, j     a row and a column of A: a query and a key; "key row" is a row of pixels of keys
// x, y     (G, C, *spatial); those of keys are on the grid of the keys
// kind     0: dot, 1: distance
// q, k     (G, C, *spatial); v, y: the same with C of their own
// S        scale * similarity(q, k), the scores
// bias     (H, K), added to the scores of each offset, in the order of the offsets; group g uses
// row
//          g % H
// key_bias (P, pixels of the keys), added to the scores of each key; group g uses row g / (G / P)
// P        exp(S - lse), the weights of attention
// lse      (G, N), log sum_j exp(S_ij); float32 for the half types, else of the dtype of q
// dx       the gradient of the loss with respect to x
// L        lanes of a vector of the CPU; S, T in kernels: the types of elements and of sums
//
// Tensors are float16, bfloat16 (sums of both in float32), float32 or float64, all of one dtype, on
// one device. Outputs are new contiguous tensors. Complex tensors enter as real ones with twice the
// channels.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(circulant_attention, m) {
  // values_ij = sum_c x[c, i] y[c, j] (dot) or -1/2 sum_c (x[c, i] - y[c, j])^2 (distance).
  m.def("similarity(Tensor x, Tensor y, int[] window, int kind) -> Tensor");
  // values_ij = exp(S_ij) / sum_k exp(S_ik) with S = scale * similarity(x, y).
  m.def("adjacency(Tensor x, Tensor y, int[] window, int kind, float scale) -> Tensor");
  // y_i = sum_j A_ij x_j.
  m.def("apply(Tensor values, Tensor x, int[] window) -> Tensor");
  // y_j = sum_i A_ij x_i.
  m.def("apply_transposed(Tensor values, Tensor x, int[] window) -> Tensor");
  // The values of the transposed matrix, which has the mirrored window, bit by bit.
  m.def("transpose(Tensor values, SymInt[] spatial_size, int[] window) -> Tensor");
  // y_i = sum_j P_ij v_j and lse, without storing S.
  m.def(
      "attention(Tensor q, Tensor k, Tensor v, int[] window, int kind, float scale) -> "
      "(Tensor y, Tensor lse)");
  // dq, dk, dv from dy and the inputs and outputs of `attention`.
  m.def(
      "attention_backward(Tensor dy, Tensor q, Tensor k, Tensor v, Tensor y, Tensor lse, "
      "int[] window, int kind, float scale) -> (Tensor dq, Tensor dk, Tensor dv)");
  // `attention` with S_ij = scale * similarity(q, k)_ij + bias_o + key_bias_j, o the offset of key
  // j. The biases have the dtype of lse. Where one is -infinity the key is absent; a row without
  // any key has y = 0, lse = -infinity and zero gradients.
  m.def(
      "biased_attention(Tensor q, Tensor k, Tensor v, Tensor? bias, Tensor? key_bias, "
      "int[] window, int kind, float scale) -> (Tensor y, Tensor lse)");
  // The gradients of `biased_attention` from those of y and lse; zero-sized for a missing bias.
  m.def(
      "biased_attention_backward(Tensor dy, Tensor q, Tensor k, Tensor v, Tensor? bias, "
      "Tensor? key_bias, Tensor y, Tensor lse, Tensor? dlse, int[] window, int kind, "
      "float scale) -> (Tensor dq, Tensor dk, Tensor dv, Tensor dbias, Tensor dkey_bias)");
  // The gradient of values from `weights` (..., K), their row softmax, and the gradient of these.
  m.def("softmax_backward(Tensor grad, Tensor weights) -> Tensor");
  // alpha a + beta b for a, b (G, n) in float32 or float64; alpha, beta: one factor or G.
  m.def("linear_combination(Tensor a, Tensor alpha, Tensor b, Tensor beta) -> Tensor");
  // An uninitialized tensor on the device of x; on Linux in huge pages. Of any dtype.
  m.def("new_values(Tensor x, SymInt[] size, ScalarType dtype) -> Tensor");
}
