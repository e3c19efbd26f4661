// The biases of attention, as the kernels take them.
#pragma once

#include <optional>

#include "params.h"
#include "tensors.h"

namespace circulant {

// Contiguous biases, checked for q.
struct BiasTensors {
  BiasTensors(const std::optional<Tensor>& bias, const std::optional<Tensor>& key_bias,
              const Tensor& q, const Geometry& geometry, const char* op) {
    check_biases(bias, key_bias, q, geometry, op);
    if (bias) offsets = contiguous_of(*bias);
    if (key_bias) keys = contiguous_of(*key_bias);
  }

  Biases params(int64_t groups) const {
    Biases biases;
    if (offsets) {
      biases.offsets = offsets->const_data_ptr();
      biases.heads = offsets->size(0);
    }
    if (keys) {
      biases.keys = keys->const_data_ptr();
      biases.groups_per_row = groups / keys->size(0);
    }
    return biases;
  }

  std::optional<Tensor> offsets, keys;
};

}  // namespace circulant
