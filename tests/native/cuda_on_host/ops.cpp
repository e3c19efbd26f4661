// The CUDA ops of csrc/cuda as CPU ops, and the parts of a CUDA torch that they call.
//
// Everything that these include is included here first, so that CUDA can be renamed for the
// registration.
#include <cstring>

#include <cuda_runtime.h>

#define USE_CUDA
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>

extern "C" {

AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void** stream) {
  *stream = nullptr;
  return AOTI_TORCH_SUCCESS;
}

AOTITorchError aoti_torch_create_device_guard(int32_t, DeviceGuardHandle* guard) {
  *guard = nullptr;
  return AOTI_TORCH_SUCCESS;
}

AOTITorchError aoti_torch_delete_device_guard(DeviceGuardHandle) { return AOTI_TORCH_SUCCESS; }

AOTITorchError torch_c10_cuda_check_msg(int32_t error, const char*, const char*, uint32_t, bool,
                                        char** text) {
  *text =
      error == cudaSuccess ? nullptr : strdup(cudaGetErrorString(static_cast<cudaError_t>(error)));
  return AOTI_TORCH_SUCCESS;
}

void torch_c10_cuda_free_error_msg(char* text) { free(text); }

}  // extern "C"

#define CUDA CPU
#include "../../../csrc/cuda/attention_ops.cu"
#include "../../../csrc/cuda/ops.cu"
