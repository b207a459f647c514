// Frames as they come: pixels of any scalar type under a mask, and the range of each frame.
#pragma once

#include "pixel.h"

namespace usconf::cuda {

struct Frames {
  const void* image;  // (count, pixels) of `scalar`
  Scalar scalar;
  int count;
  long long pixels;
  const std::uint8_t* mask;  // (count or 1, pixels), nonzero = valid; null: all
  long long mask_stride;     // 0: one plane for all frames

  __device__ bool valid(int frame, long long pixel) const {
    return !mask || mask[frame * mask_stride + pixel];
  }
  __device__ double number(int frame, long long pixel) const {
    return number_at(image, scalar, frame * pixels + pixel);
  }
};

inline std::size_t bytes_of(Scalar s) {
  constexpr std::size_t bytes[] = {1, 2, 2, 2, 4, 8};
  return bytes[static_cast<int>(s)];
}

// The frames first .. first + count - 1 of a DagProblem or a DespeckleProblem.
template <class Problem>
Frames frames_of(const Problem& p, int first, int count) {
  Frames f{};
  f.pixels = static_cast<long long>(p.height) * p.width;
  f.image = static_cast<const char*>(p.image) + first * f.pixels * bytes_of(p.scalar);
  f.scalar = p.scalar;
  f.count = count;
  f.mask_stride = p.valid_shared ? 0 : f.pixels;
  f.mask = p.valid ? p.valid + first * f.mask_stride : nullptr;
  return f;
}

// Extremes of a frame's valid pixels; 0 and 0 where there is none.
struct Range {
  double low, high;
};

// Scratch: two numbers a frame. The extremes do not depend on the order of threads.
void find_ranges(const Frames& frames, Range* ranges, unsigned long long* scratch,
                 cudaStream_t stream);

// Blocks of `threads` over n items, as far as a grid goes; kernels stride over the rest.
inline unsigned blocks_over_items(long long n, int threads) {
  constexpr long long most = 1 << 20;
  const long long blocks = (n + threads - 1) / threads;
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks < most ? blocks : most);
}

__device__ __forceinline__ long long own_item() {
  return blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
}
__device__ __forceinline__ long long item_stride() {
  return gridDim.x * static_cast<long long>(blockDim.x);
}

}  // namespace usconf::cuda
