#include <algorithm>

#include "frame_range.h"

namespace usconf::cuda {
namespace {

constexpr int threads = 256;
constexpr unsigned most_blocks = 128;  // a frame: enough to fill a device with one

// Maxima of -pixel and of pixel, a frame.
__global__ void __launch_bounds__(threads)
    extremes_kernel(Frames f, unsigned long long* __restrict__ scratch) {
  const int frame = blockIdx.y;
  unsigned long long key[2] = {0, 0};
  for (long long i = own_item(); i < f.pixels; i += item_stride()) {
    if (!f.valid(frame, i)) continue;
    const double v = f.number(frame, i);
    key[0] = max(key[0], ordered(-v));
    key[1] = max(key[1], ordered(v));
  }
  for (int k = 0; k < 2; ++k) {
    for (int step = warp / 2; step > 0; step /= 2)
      key[k] = max(key[k], __shfl_xor_sync(all_lanes, key[k], step));
    if (threadIdx.x % warp == 0) atomicMax(&scratch[2 * frame + k], key[k]);
  }
}

// No finite number has the key 0 that an empty frame is left with.
__global__ void range_kernel(int frames, const unsigned long long* __restrict__ scratch,
                             Range* __restrict__ ranges) {
  for (long long i = own_item(); i < frames; i += item_stride()) {
    const bool any = scratch[2 * i + 1] != 0;
    ranges[i] = {any ? -unordered(scratch[2 * i]) : 0.0, any ? unordered(scratch[2 * i + 1]) : 0.0};
  }
}

}  // namespace

void find_ranges(const Frames& f, Range* ranges, unsigned long long* scratch, cudaStream_t stream) {
  check(cudaMemsetAsync(scratch, 0, 2 * sizeof(*scratch) * f.count, stream),
        "clearing the workspace");
  const dim3 grid(std::min(blocks_over_items(f.pixels, threads), most_blocks), f.count);
  USCONF_LAUNCH(extremes_kernel, grid, threads, 0, stream, f, scratch);
  USCONF_LAUNCH(range_kernel, blocks_over_items(f.count, threads), threads, 0, stream, f.count,
                scratch, ranges);
  check_launch("the range of each frame");
}

}  // namespace usconf::cuda
