// Does this nvcc, with its host compiler, compile C++20?
#include <concepts>

template <std::floating_point T>
__global__ void probe_kernel(T* out) {
  *out = T(1);
}

template __global__ void probe_kernel<float>(float*);
