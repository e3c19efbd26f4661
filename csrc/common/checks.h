// Checks of an op's arguments, shared by every device.
//
// Python validates first, with messages for users. These checks are the ones that keep the kernels
// inside their tensors.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include "dtype.h"
#include "geometry.h"

namespace circulant {

using torch::stable::Tensor;

enum Kind : int64_t { kDot = 0, kDistance = 1 };

inline Kind checked_kind(int64_t kind, const char* op) {
  STD_TORCH_CHECK(kind == kDot || kind == kDistance, op,
                  ": kind must be 0 (dot) or 1 (distance), got ", kind);
  return static_cast<Kind>(kind);
}

// The dim of a window given by its reaches, dilation and boundary: 0 circular, 1 truncated, 2
// valid. `size` is that of the queries, or of the keys if `of_keys`.
inline Dim checked_dim(int64_t size, bool of_keys, const int64_t* window, int64_t dim,
                       const char* op) {
  constexpr int64_t kMost = int64_t{1} << 30;
  const int64_t before = window[0], after = window[1], dilation = window[2], boundary = window[3];
  STD_TORCH_CHECK(0 <= before && before <= kMost && 0 <= after && after <= kMost, op,
                  ": reaches of the window of dim ", dim, " must be from 0 to 2^30, got ", before,
                  " and ", after);
  STD_TORCH_CHECK(1 <= dilation && dilation <= kMost, op, ": dilation of dim ", dim,
                  " must be from 1 to 2^30, got ", dilation);
  STD_TORCH_CHECK(0 <= boundary && boundary <= 2, op, ": boundary of dim ", dim,
                  " must be 0 (circular), 1 (truncated) or 2 (valid), got ", boundary);
  const int64_t count = before + after + 1, reach = dilation * (count - 1);
  if (boundary == 2) {
    const int64_t queries = of_keys ? size - reach : size;
    STD_TORCH_CHECK(queries >= 1, op, ": window of dim ", dim, " needs ", reach + 1, " keys, got ",
                    size);
    return {queries, queries + reach, 0, count, dilation, false};
  }
  STD_TORCH_CHECK(boundary == 1 || reach < size, op, ": window of dim ", dim, " spans ", reach + 1,
                  " pixels, more than the spatial size ", size);
  // From the size on, every dilation leaves the pixel alone; the memory of kernels grows with it.
  const int64_t step = std::min(dilation, std::max<int64_t>(size, 1));
  return {size, size, before, count, step, boundary == 0 || count == 1};
}

// The geometry of spatial sizes `size[0..dims)` and `window`: one odd length per dim, or four
// numbers per dim, see csrc/ops.cpp.
inline Geometry checked_geometry(const int64_t* size, int64_t dims,
                                 const std::vector<int64_t>& window, const char* op,
                                 bool of_keys = false) {
  STD_TORCH_CHECK(1 <= dims && dims <= kSpatialDims, op, ": expected 1 to 3 spatial dims, got ",
                  dims);
  const int64_t entries = static_cast<int64_t>(window.size());
  STD_TORCH_CHECK(entries == dims || entries == 4 * dims, op, ": window has ", entries,
                  " entries for ", dims, " spatial dims");
  Geometry geometry({1, 1, 1}, {1, 1, 1});
  int64_t offsets = 1;
  for (int64_t d = 0; d < dims; ++d) {
    const int64_t n = size[d];
    Dim& dim = geometry.dims[kSpatialDims - dims + d];
    if (entries == dims) {
      const int64_t w = window[d];
      STD_TORCH_CHECK(w >= 1 && w % 2 == 1, op, ": window[", d, "] must be odd and positive, got ",
                      w);
      STD_TORCH_CHECK(w <= n, op, ": window[", d, "] = ", w, " is larger than the spatial size ",
                      n);
      dim = {n, n, w / 2, w, 1, true};
    } else {
      dim = checked_dim(n, of_keys, window.data() + 4 * d, d, op);
    }
    STD_TORCH_CHECK(!__builtin_mul_overflow(offsets, dim.window, &offsets), op,
                    ": the window has too many offsets");
  }
  return geometry;
}

// The geometry of a tensor (G, C, *spatial).
inline Geometry checked_geometry(const Tensor& x, const std::vector<int64_t>& window,
                                 const char* op, bool of_keys = false) {
  STD_TORCH_CHECK(x.dim() >= 3 && x.dim() <= 2 + kSpatialDims, op,
                  ": expected (G, C, *spatial) with 1 to 3 spatial dims, got ", x.dim(), " dims");
  return checked_geometry(x.sizes().data() + 2, x.dim() - 2, window, op, of_keys);
}

// The sizes (groups, channels, *spatial) of a tensor like `x` on the grid of the queries, or on
// that of the keys.
inline std::vector<int64_t> image_sizes(const Tensor& x, const Geometry& g, bool of_keys) {
  std::vector<int64_t> sizes{x.size(0), x.size(1)};
  for (int64_t d = kSpatialDims + 2 - x.dim(); d < kSpatialDims; ++d) {
    sizes.push_back(of_keys ? g.dims[d].keys : g.dims[d].size);
  }
  return sizes;
}

inline void check_same_dtype(const Tensor& a, const Tensor& b, const char* op) {
  STD_TORCH_CHECK(a.scalar_type() == b.scalar_type(), op,
                  ": dtypes differ: ", torch::headeronly::toString(a.scalar_type()), " and ",
                  torch::headeronly::toString(b.scalar_type()));
}

inline void check_same_shape(const Tensor& a, const Tensor& b, const char* op) {
  STD_TORCH_CHECK(a.dim() == b.dim(), op, ": numbers of dims differ: ", a.dim(), " and ", b.dim());
  for (int64_t d = 0; d < a.dim(); ++d) {
    STD_TORCH_CHECK(a.size(d) == b.size(d), op, ": sizes of dim ", d, " differ: ", a.size(d),
                    " and ", b.size(d));
  }
}

inline void check_alike(const Tensor& a, const Tensor& b, const char* op) {
  check_same_dtype(a, b, op);
  check_same_shape(a, b, op);
}

// Checks that `values` is (G, N, K), with N and K of `geometry` and G = `groups` if that is given.
inline void check_values(const Tensor& values, std::optional<int64_t> groups,
                         const Geometry& geometry, const char* op) {
  STD_TORCH_CHECK(values.dim() == 3, op, ": values must be (G, N, K), got ", values.dim(), " dims");
  const int64_t expected = groups.value_or(values.size(0));
  STD_TORCH_CHECK(values.size(0) == expected && values.size(1) == geometry.pixels() &&
                      values.size(2) == geometry.offsets(),
                  op, ": values must be (", expected, ", ", geometry.pixels(), ", ",
                  geometry.offsets(), "), got (", values.size(0), ", ", values.size(1), ", ",
                  values.size(2), ")");
}

// Checks of all arguments of an op, which return their geometry.

// Checks that `y` has the groups and the dims of `x`, and the grid of the keys.
inline void check_keys(const Tensor& x, const Tensor& y, const Geometry& geometry, const char* op) {
  STD_TORCH_CHECK(x.dim() == y.dim(), op, ": numbers of dims differ: ", x.dim(), " and ", y.dim());
  STD_TORCH_CHECK(x.size(0) == y.size(0), op, ": sizes of dim 0 differ: ", x.size(0), " and ",
                  y.size(0));
  for (int64_t d = 2; d < x.dim(); ++d) {
    const int64_t expected = geometry.dims[kSpatialDims - x.dim() + d].keys;
    STD_TORCH_CHECK(y.size(d) == expected, op, ": sizes of dim ", d, " differ: ", expected, " and ",
                    y.size(d));
  }
}

inline Geometry checked_similarity(const Tensor& x, const Tensor& y,
                                   const std::vector<int64_t>& window, const char* op) {
  check_same_dtype(x, y, op);
  const Geometry geometry = checked_geometry(x, window, op);
  check_keys(x, y, geometry, op);
  STD_TORCH_CHECK(x.size(1) == y.size(1), op, ": sizes of dim 1 differ: ", x.size(1), " and ",
                  y.size(1));
  return geometry;
}

// x has the grid of the keys, in a transposed product that of the queries.
inline Geometry checked_product(const Tensor& values, const Tensor& x,
                                const std::vector<int64_t>& window, bool transposed,
                                const char* op) {
  check_same_dtype(values, x, op);
  const Geometry geometry = checked_geometry(x, window, op, !transposed);
  check_values(values, x.size(0), geometry, op);
  return geometry;
}

inline Geometry checked_transpose(const Tensor& values, const std::vector<int64_t>& spatial_size,
                                  const std::vector<int64_t>& window, const char* op) {
  const Geometry geometry =
      checked_geometry(spatial_size.data(), static_cast<int64_t>(spatial_size.size()), window, op);
  for (const Dim& dim : geometry.dims) {
    STD_TORCH_CHECK(dim.size == dim.keys, op, ": a valid window has no transposed one");
  }
  check_values(values, std::nullopt, geometry, op);
  return geometry;
}

inline Geometry checked_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                                  const std::vector<int64_t>& window, const char* op) {
  check_same_dtype(q, v, op);
  const Geometry geometry = checked_similarity(q, k, window, op);
  check_keys(q, v, geometry, op);
  STD_TORCH_CHECK(q.size(1) > 0 && v.size(1) > 0, op, ": expected channels, got none");
  return geometry;
}

// Checks dy, and y and lse as attention returns them for q and v.
inline void check_attended(const Tensor& dy, const Tensor& y, const Tensor& lse, const Tensor& q,
                           const Tensor& v, int64_t pixels, const char* op) {
  check_same_dtype(dy, v, op);
  check_alike(y, dy, op);
  STD_TORCH_CHECK(dy.dim() == q.dim() && dy.size(0) == q.size(0) && dy.size(1) == v.size(1), op,
                  ": dy must have the dims and the groups of q, and the channels of v");
  for (int64_t d = 2; d < q.dim(); ++d) {
    STD_TORCH_CHECK(dy.size(d) == q.size(d), op, ": dy must have the spatial size of q");
  }
  STD_TORCH_CHECK(lse.scalar_type() == sum_type(q) && lse.dim() == 2 && lse.size(0) == q.size(0) &&
                      lse.size(1) == pixels,
                  op, ": lse must be (G, N), as attention returns it");
}

// Checks the biases of q, (H, K) and (P, pixels of the keys), and dlse as lse.
inline void check_biases(const std::optional<Tensor>& bias, const std::optional<Tensor>& key_bias,
                         const Tensor& q, const Geometry& geometry, const char* op) {
  const auto check = [&](const Tensor& x, int64_t width, const char* name) {
    STD_TORCH_CHECK(x.scalar_type() == sum_type(q), op, ": ", name, " must be ",
                    torch::headeronly::toString(sum_type(q)), ", got ",
                    torch::headeronly::toString(x.scalar_type()));
    STD_TORCH_CHECK(x.dim() == 2 && x.size(1) == width, op, ": ", name, " must have ", width,
                    " columns");
    STD_TORCH_CHECK(x.size(0) > 0 && q.size(0) % x.size(0) == 0, op, ": the rows of ", name,
                    " must divide the ", q.size(0), " groups, got ", x.size(0));
  };
  if (bias) check(*bias, geometry.offsets(), "bias");
  if (key_bias) check(*key_bias, geometry.key_pixels(), "key_bias");
}

}  // namespace circulant
