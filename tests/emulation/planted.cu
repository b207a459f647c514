// Kernels with planted bugs, each what the emulator must catch, and a right one it must run in
// every thread order. Usage: planted NAME ORDER.
#include <cstdio>
#include <cstring>

namespace {

constexpr int threads = 96;

// Sum of all threads' numbers: tree in shared memory, then shuffles.
template <bool with_barrier>
__device__ int block_total(int* cell, int value) {
  const int self = static_cast<int>(threadIdx.x);
  cell[self] = value;
  __syncthreads();
  for (int half = 48; half >= 3; half /= 2) {
    if (self < half) cell[self] += cell[self + half];
    if (with_barrier) __syncthreads();
  }
  return cell[0] + cell[1] + cell[2];
}

__global__ void right_kernel(int* out) {
  __shared__ int cell[threads];
  const int self = static_cast<int>(threadIdx.x);
  const int total = block_total<true>(cell, self);
  int lanes = self;
  for (int step = 16; step > 0; step /= 2) lanes += __shfl_xor_sync(0xffffffffu, lanes, step);
  const int above = __shfl_down_sync(0xffffffffu, self, 1),
            below = __shfl_up_sync(0xffffffffu, self, 1);
  const int first = __shfl_sync(0xffffffffu, self, 0);
  atomicAdd(&out[threads], 1);
  atomicMax(&out[threads + 1], self);
  out[blockIdx.x * (threads + 2) + self] = total + lanes + above + below + first;
}

__global__ void missing_barrier_kernel(int* out) {
  __shared__ int cell[threads];
  out[threadIdx.x] = block_total<false>(cell, static_cast<int>(threadIdx.x));
}

__global__ void missing_warp_barrier_kernel(int* out) {
  __shared__ int cell[threads];
  cell[threadIdx.x] = static_cast<int>(threadIdx.x);
  out[threadIdx.x] = cell[threadIdx.x ^ 1];
}

__global__ void out_of_bounds_kernel(int* out, int past) {
  __shared__ int cell[threads];
  cell[threadIdx.x + past] = 1;
  __syncthreads();
  out[threadIdx.x] = cell[threadIdx.x];
}

__global__ void dynamic_out_of_bounds_kernel(int* out, int past) {
  USCONF_DYNAMIC_SHARED(int, cell);
  cell[threadIdx.x + past] = 1;
  __syncthreads();
  out[threadIdx.x] = cell[threadIdx.x];
}

__global__ void divergent_branch_kernel(int* out) {
  if (threadIdx.x % 2)
    __syncthreads();
  else
    __syncthreads();
  out[threadIdx.x] = 0;
}

__global__ void divergent_exit_kernel(int* out) {
  if (threadIdx.x >= 64) return;
  __syncthreads();
  out[threadIdx.x] = 0;
}

__global__ void deadlock_kernel(int* out) {
  if (threadIdx.x < 8) __syncwarp();
  __syncthreads();
  out[threadIdx.x] = 0;
}

__global__ void partial_mask_kernel(int* out) { out[threadIdx.x] = __shfl_sync(0xffffu, 1, 0); }

__global__ void uninitialised_kernel(int* out) {
  __shared__ float cell[threads];
  out[threadIdx.x] = cell[threadIdx.x] == cell[threadIdx.x];  // false for NaN
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const auto is = [&](const char* name) { return std::strcmp(argv[1], name) == 0; };
  emulation::machine().order = static_cast<emulation::Order>(argv[2][0] - '0');
  const int count = 2 * (threads + 2);
  int* out = nullptr;
  if (cudaMalloc(&out, count * sizeof(int)) != cudaSuccess) return 2;
  if (cudaMemsetAsync(out, 0, count * sizeof(int)) != cudaSuccess) return 2;
  cudaStream_t stream = nullptr;
  if (is("right")) USCONF_LAUNCH(right_kernel, 2, threads, 0, stream, out);
  if (is("missing_barrier")) USCONF_LAUNCH(missing_barrier_kernel, 1, threads, 0, stream, out);
  if (is("missing_warp_barrier"))
    USCONF_LAUNCH(missing_warp_barrier_kernel, 1, threads, 0, stream, out);
  if (is("out_of_bounds")) USCONF_LAUNCH(out_of_bounds_kernel, 1, threads, 0, stream, out, 1);
  if (is("dynamic_out_of_bounds"))
    USCONF_LAUNCH(dynamic_out_of_bounds_kernel, 1, threads, threads * sizeof(int), stream, out, 1);
  if (is("in_bounds")) {
    USCONF_LAUNCH(out_of_bounds_kernel, 1, threads, 0, stream, out, 0);
    USCONF_LAUNCH(dynamic_out_of_bounds_kernel, 1, threads, threads * sizeof(int), stream, out, 0);
  }
  if (is("divergent_branch")) USCONF_LAUNCH(divergent_branch_kernel, 1, threads, 0, stream, out);
  if (is("divergent_exit")) USCONF_LAUNCH(divergent_exit_kernel, 1, threads, 0, stream, out);
  if (is("deadlock")) USCONF_LAUNCH(deadlock_kernel, 1, threads, 0, stream, out);
  if (is("partial_mask")) USCONF_LAUNCH(partial_mask_kernel, 1, threads, 0, stream, out);
  if (is("uninitialised")) USCONF_LAUNCH(uninitialised_kernel, 1, threads, 0, stream, out);
  if (is("too_large")) USCONF_LAUNCH(right_kernel, 1, 2048, 0, stream, out);
  if (is("wild_free")) cudaFree(out + 1);
  for (int i = 0; i < count; ++i) std::printf("%d ", out[i]);
  std::printf("\n");
  return cudaFree(out);
}
