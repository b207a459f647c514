// The median of a window on the device: one launch for all frames.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "despeckle.h"

namespace usconf::cuda {
namespace {

// Pixels as unsigned numbers of the same order; the largest stands for an invalid one.
template <class K>
struct Number;
template <>
struct Number<std::uint32_t> {
  using type = float;
};
template <>
struct Number<std::uint64_t> {
  using type = double;
};
template <class K>
__device__ __forceinline__ K key_of(double pixel) {
  constexpr K sign = K(1) << (8 * sizeof(K) - 1);
  const auto v = static_cast<typename Number<K>::type>(pixel);
  K bits;
  memcpy(&bits, &v, sizeof(K));
  return bits & sign ? ~bits : bits | sign;
}
template <class K>
__device__ __forceinline__ double pixel_of(K key) {
  constexpr K sign = K(1) << (8 * sizeof(K) - 1);
  const K bits = key & sign ? key & ~sign : ~key;
  typename Number<K>::type v;
  memcpy(&v, &bits, sizeof(K));
  return v;
}

constexpr int median_across = 32, median_down = 8, most_median = 15;
constexpr int median_threads = median_across * median_down;

// Bit by bit from the top: how many keys lie below the candidate says which way to go. `size` > 0:
// the window stays in registers, two instructions a key and bit, 3200 for 7 x 7 floats: some 30 us
// for 512 x 512 on 132 multiprocessors. 0: any size, through shared memory.
template <class K, int size>
__global__ void __launch_bounds__(median_threads)
    median_kernel(Frames frames, int height, int width, int any_size, void* result,
                  bool is_double) {
  constexpr int most = size ? size : most_median;
  __shared__ K tile[median_down + most - 1][median_across + most - 1];
  const int window = size ? size : any_size, half = window / 2, frame = blockIdx.z;
  const int top = blockIdx.y * median_down, left = blockIdx.x * median_across;
  const int tile_width = median_across + window - 1;
  const int cells = tile_width * (median_down + window - 1);
  for (int i = threadIdx.x; i < cells; i += median_threads) {
    const int r = min(max(top + i / tile_width - half, 0), height - 1);
    const int c = min(max(left + i % tile_width - half, 0), width - 1);
    const long long at = static_cast<long long>(r) * width + c;
    tile[i / tile_width][i % tile_width] =
        frames.valid(frame, at) ? key_of<K>(frames.number(frame, at)) : ~K(0);
  }
  __syncthreads();
  const int y = threadIdx.x / median_across, x = threadIdx.x % median_across;
  const int row = top + y, column = left + x;
  if (row >= height || column >= width) return;
  K keys[size ? size * size : 1];
  if constexpr (size > 0) {
#pragma unroll
    for (int i = 0; i < size * size; ++i) keys[i] = tile[y + i / size][x + i % size];
  }
  const auto below = [&](K candidate) {
    int count = 0;
    if constexpr (size > 0) {
#pragma unroll
      for (int i = 0; i < size * size; ++i) count += keys[i] < candidate;
    } else {
      for (int r = 0; r < window; ++r)
        for (int c = 0; c < window; ++c) count += tile[y + r][x + c] < candidate;
    }
    return count;
  };
  double v = 0;
  if (tile[y + half][x + half] != ~K(0)) {
    const int rank = (below(~K(0)) - 1) / 2;
    K found = 0;
    for (int bit = 8 * sizeof(K) - 1; bit >= 0; --bit) {
      const K candidate = found | K(1) << bit;
      if (below(candidate) <= rank) found = candidate;
    }
    v = pixel_of(found);
  }
  const long long at = frame * frames.pixels + static_cast<long long>(row) * width + column;
  if (is_double)
    static_cast<double*>(result)[at] = v;
  else
    static_cast<float*>(result)[at] = static_cast<float>(v);
}

template <class K>
void take_median(const DespeckleProblem& p, const Frames& frames, int size, void* result,
                 cudaStream_t stream) {
  const dim3 grid((p.width + median_across - 1) / median_across,
                  (p.height + median_down - 1) / median_down, frames.count);
  const auto launch = [&](auto kernel) {
    USCONF_LAUNCH(kernel, grid, median_threads, 0, stream, frames, p.height, p.width, size, result,
                  p.double_result);
  };
  if (size == 3)
    launch(median_kernel<K, 3>);
  else if (size == 5)
    launch(median_kernel<K, 5>);
  else if (size == 7)
    launch(median_kernel<K, 7>);
  else
    launch(median_kernel<K, 0>);
  check_launch("the median");
}

}  // namespace

void median(const DespeckleProblem& p, int size, void* result, void* stream) {
  if (empty(p)) return;
  const auto queue = static_cast<cudaStream_t>(stream);
  const int most = std::min(p.frames, 65535);
  for (int first = 0; first < p.frames; first += most) {
    const Frames frames = frames_of(p, first, std::min(most, p.frames - first));
    void* part = result_at(result, p, first);
    p.scalar == Scalar::f64 ? take_median<std::uint64_t>(p, frames, size, part, queue)
                            : take_median<std::uint32_t>(p, frames, size, part, queue);
  }
}

}  // namespace usconf::cuda
