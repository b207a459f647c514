// What every CUDA operator needs of a device: launching, errors, memory that belongs to a stream,
// and sums in a fixed order.
#pragma once

#if defined(USCONF_EMULATE)
// The emulation header was included in front of this file and defines the macros below its own way.
#elif defined(__CUDACC__)
#include <cuda_runtime.h>
#define USCONF_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)
#else
#error "csrc/cuda is for nvcc, or for the emulation header of the tests"
#endif

#include <cstddef>
#include <cstdint>

#include "device.h"

namespace usconf::cuda {

constexpr int warp = 32;
constexpr unsigned all_lanes = 0xffffffffu;

// Throws for a failed call: std::bad_alloc for memory, else std::runtime_error with the versions of
// driver and runtime when the driver is the older one.
void check(cudaError_t error, const char* doing);
// After a launch.
inline void check_launch(const char* kernel) { check(cudaGetLastError(), kernel); }

int current_device();

// Device memory for the duration of one call, ordered by the call's stream: taken from and given
// back to a pool of this package, which keeps up to `pool_bytes` for the next call on that device.
// Inside a graph capture it becomes memory of the graph.
class Workspace {
 public:
  static constexpr std::size_t pool_bytes = std::size_t(4) << 30;

  Workspace(std::size_t bytes, cudaStream_t stream);
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
  cudaStream_t stream_;
  bool pooled_ = false;
};

// Gives the unused memory of every device's pool back to the driver.
void trim_pools();

// Cuts one block of memory into arrays. Without a base it only counts, so that one function lays
// out and measures.
class Layout {
 public:
  explicit Layout(void* base = nullptr) : base_(static_cast<char*>(base)) {}
  template <class T>
  T* take(std::size_t count) {
    const std::size_t at = bytes_;
    bytes_ += (count * sizeof(T) + 255) / 256 * 256;
    return base_ ? reinterpret_cast<T*>(base_ + at) : nullptr;
  }
  std::size_t bytes() const { return bytes_; }

 private:
  char* base_;
  std::size_t bytes_ = 0;
};

// Sum over a warp, the same bits in every lane: at each step both partners add the same two
// numbers.
template <class T>
__device__ __forceinline__ T warp_sum(T v) {
#pragma unroll
  for (int step = warp / 2; step > 0; step /= 2) v += __shfl_xor_sync(all_lanes, v, step);
  return v;
}

// Sum over a block of at most 1024 threads, valid in thread 0; `scratch` holds one value per warp.
__device__ __forceinline__ double block_sum(double v, double* scratch) {
  v = warp_sum(v);
  const int lane = threadIdx.x % warp, own = threadIdx.x / warp;
  if (lane == 0) scratch[own] = v;
  __syncthreads();
  double total = 0;
  if (threadIdx.x == 0)
    for (int i = 0; i < static_cast<int>(blockDim.x) / warp; ++i) total += scratch[i];
  __syncthreads();
  return total;
}

}  // namespace usconf::cuda
