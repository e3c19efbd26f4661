// Checks of an op's arguments, shared by every device.
//
// Python validates first, with messages for users. These checks are the ones that keep the kernels
// inside their tensors.
#pragma once

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

// The geometry of spatial sizes `size[0..dims)` and `window`.
inline Geometry checked_geometry(const int64_t* size, int64_t dims,
                                 const std::vector<int64_t>& window, const char* op) {
  STD_TORCH_CHECK(1 <= dims && dims <= kSpatialDims, op, ": expected 1 to 3 spatial dims, got ",
                  dims);
  STD_TORCH_CHECK(static_cast<int64_t>(window.size()) == dims, op, ": window has ", window.size(),
                  " entries for ", dims, " spatial dims");
  Geometry geometry{{1, 1, 1}, {1, 1, 1}};
  for (int64_t d = 0; d < dims; ++d) {
    const int64_t n = size[d];
    const int64_t w = window[d];
    STD_TORCH_CHECK(w >= 1 && w % 2 == 1, op, ": window[", d, "] must be odd and positive, got ",
                    w);
    STD_TORCH_CHECK(w <= n, op, ": window[", d, "] = ", w, " is larger than the spatial size ", n);
    geometry.size[kSpatialDims - dims + d] = n;
    geometry.window[kSpatialDims - dims + d] = w;
  }
  return geometry;
}

// The geometry of a tensor (G, C, *spatial).
inline Geometry checked_geometry(const Tensor& x, const std::vector<int64_t>& window,
                                 const char* op) {
  STD_TORCH_CHECK(x.dim() >= 3 && x.dim() <= 2 + kSpatialDims, op,
                  ": expected (G, C, *spatial) with 1 to 3 spatial dims, got ", x.dim(), " dims");
  return checked_geometry(x.sizes().data() + 2, x.dim() - 2, window, op);
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

inline Geometry checked_similarity(const Tensor& x, const Tensor& y,
                                   const std::vector<int64_t>& window, const char* op) {
  check_alike(x, y, op);
  return checked_geometry(x, window, op);
}

inline Geometry checked_product(const Tensor& values, const Tensor& x,
                                const std::vector<int64_t>& window, const char* op) {
  check_same_dtype(values, x, op);
  const Geometry geometry = checked_geometry(x, window, op);
  check_values(values, x.size(0), geometry, op);
  return geometry;
}

inline Geometry checked_transpose(const Tensor& values, const std::vector<int64_t>& spatial_size,
                                  const std::vector<int64_t>& window, const char* op) {
  const Geometry geometry =
      checked_geometry(spatial_size.data(), static_cast<int64_t>(spatial_size.size()), window, op);
  check_values(values, std::nullopt, geometry, op);
  return geometry;
}

inline Geometry checked_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                                  const std::vector<int64_t>& window, const char* op) {
  check_same_dtype(q, k, op);
  check_same_dtype(q, v, op);
  check_same_shape(q, k, op);
  const Geometry geometry = checked_geometry(q, window, op);
  STD_TORCH_CHECK(v.dim() == q.dim() && v.size(0) == q.size(0), op,
                  ": v must have the dims and the groups of q");
  for (int64_t d = 2; d < q.dim(); ++d) {
    STD_TORCH_CHECK(v.size(d) == q.size(d), op, ": v must have the spatial size of q");
  }
  STD_TORCH_CHECK(q.size(1) > 0 && v.size(1) > 0, op, ": expected channels, got none");
  return geometry;
}

// Checks dy, and y and lse as attention returns them for q and v.
inline void check_attended(const Tensor& dy, const Tensor& y, const Tensor& lse, const Tensor& q,
                           const Tensor& v, int64_t pixels, const char* op) {
  check_alike(dy, v, op);
  check_alike(y, v, op);
  STD_TORCH_CHECK(lse.scalar_type() == sum_type(q) && lse.dim() == 2 && lse.size(0) == q.size(0) &&
                      lse.size(1) == pixels,
                  op, ": lse must be (G, N), as attention returns it");
}

}  // namespace circulant
