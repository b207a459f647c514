// What the DAG's edges need to know about the image before any sweep: all rows and slots at once.
//
// Row means: a warp per row and frame, seven slots at a time in registers. 512 x 512 has 5.5
// million edges, each a load of the first cache and two additions: below 2 us on 132
// multiprocessors, where the sweep behind it takes a hundred times that.
#include <cmath>

#include "dag.h"

namespace usconf::cuda {
namespace {

constexpr int threads = 256;
// As in the random walk: what is added to a range before dividing by it.
constexpr double range_epsilon = 2.220446049250313e-16;
constexpr int row_threads = 128, row_warps = row_threads / warp;
constexpr int slots_at_once = 7;

template <class T>
__global__ void law_kernel(DagScene<T> s, bool normalise, const Range* __restrict__ ranges) {
  for (long long frame = own_item(); frame < s.frames; frame += item_stride()) {
    FrameLaw law{1.0, dag_epsilon, 0.0, ranges[frame]};
    const double width = law.range.high - law.range.low;
    if (normalise) {
      if (width > 0 && width < INFINITY) {
        int power;
        frexp(width, &power);
        law.unit = ldexp(1.0, 1 - power);
      }
      law.floor = dag_epsilon * (width + range_epsilon) * law.unit;
    }
    if (!(width < INFINITY)) law.unit = NAN;  // a pixel is NaN or infinite: so is all below row 0
    s.law[frame] = law;
  }
}

template <class T>
__global__ void scales_kernel(DagScene<T> s, double x, double alpha, double beam_scale) {
  for (long long i = own_item(); i < s.height - 1; i += item_stride())
    s.scale[i] = static_cast<T>(x * dag_depth(alpha, static_cast<int>(i), s.height));
  for (long long k = own_item(); k < s.slots(); k += item_stride())
    s.beam[k] = static_cast<T>(dag_bell(static_cast<int>(k), s.half_width, s.var) * beam_scale);
}

template <class T>
__global__ void __launch_bounds__(threads) pixels_kernel(DagScene<T> s, Frames frames) {
  const int frame = blockIdx.y;
  const double unit = s.law[frame].unit;
  for (long long i = own_item(); i < s.pixels(); i += item_stride())
    s.f[frame * s.pixels() + i] =
        frames.valid(frame, i) ? static_cast<T>(frames.number(frame, i) * unit) : T(0);
}

template <class T>
__global__ void __launch_bounds__(threads) first_valid_kernel(DagScene<T> s) {
  const int frame = blockIdx.y;
  for (long long c = own_item(); c < s.width; c += item_stride()) {
    int row = 0;
    while (row < s.height && !s.is_valid(frame, row, static_cast<int>(c))) ++row;
    s.first[frame * s.first_stride + c] = row;
  }
}

// Of a child whose edges do not all exist: g_k share over those that do adds up to 1.
template <class T>
__global__ void __launch_bounds__(threads) shares_kernel(DagScene<T> s) {
  const int frame = blockIdx.y;
  for (long long i = own_item(); i < s.pixels(); i += item_stride()) {
    const int row = static_cast<int>(i / s.width), column = static_cast<int>(i % s.width);
    double sum = 0, slope = 0;
    if (row > 0 && s.is_valid(frame, row, column))
      for (int k = 0; k < s.slots(); ++k) {
        if (!s.is_valid(frame, row - 1, mirrored(column + k - s.half_width, s.width))) continue;
        sum += s.beam[k];
        slope += s.beam[k] * dag_d_log_bell(k, s.half_width, s.var);
      }
    s.share[frame * s.valid_stride + i] = static_cast<T>(sum > 0 ? 1.0 / sum : 0.0);
    s.slope[frame * s.valid_stride + i] = static_cast<T>(sum > 0 ? slope / sum : 0.0);
  }
}

template <class T>
__device__ __forceinline__ T warp_largest(T v) {
  for (int step = warp / 2; step > 0; step /= 2) v = max(v, __shfl_xor_sync(all_lanes, v, step));
  return v;
}

template <class T>
__global__ void __launch_bounds__(row_threads, 1) row_means_kernel(DagScene<T> s) {
  const int row = blockIdx.x * row_warps + threadIdx.x / warp, lane = threadIdx.x % warp;
  const int frame = blockIdx.y;
  if (row >= s.height - 1) return;
  const T floor = static_cast<T>(s.law[frame].floor);
  T largest = 0, highest = 0;
  for (int base = 0; base < s.slots(); base += slots_at_once) {
    T sum[slots_at_once] = {}, most[slots_at_once] = {};
    int count[slots_at_once] = {};
    for (int c = lane; c < s.width; c += warp) {
      if (!s.is_valid(frame, row + 1, c)) continue;
#pragma unroll
      for (int j = 0; j < slots_at_once; ++j) {
        const int k = base + j;
        if (k >= s.slots()) continue;
        if (s.valid && !s.is_valid(frame, row, mirrored(c + k - s.half_width, s.width))) continue;
        const T d = absolute(gap(s, frame, row, c, k));
        sum[j] += d;
        most[j] = max(most[j], d);
        ++count[j];
      }
    }
#pragma unroll
    for (int j = 0; j < slots_at_once; ++j) {
      if (base + j >= s.slots()) continue;
      const double total = warp_sum(static_cast<double>(sum[j]));
      const T top = warp_largest(most[j]);
      const int edges = s.valid ? warp_sum(count[j]) : s.width;
      const T inverse = static_cast<T>(
          edges > 0 ? edges / (total + edges * static_cast<double>(s.law[frame].floor)) : 1.0);
      if (lane == 0) s.inverse[s.row_slots(frame, row) + base + j] = inverse;
      if (edges == 0) continue;
      largest = max(largest, (top + floor) * inverse);
      highest = max(highest, top + floor);
    }
  }
  if (lane) return;
  s.largest[static_cast<long long>(frame) * (s.height - 1) + row] = largest;
  s.top[static_cast<long long>(frame) * (s.height - 1) + row] = highest;
}

// A warp a frame.
template <class T>
__global__ void highest_kernel(DagScene<T> s) {
  const int frame = blockIdx.x;
  T most = 0;
  for (int row = threadIdx.x; row < s.height - 1; row += warp)
    most = max(most, s.top[static_cast<long long>(frame) * (s.height - 1) + row]);
  most = warp_largest(most);
  if (threadIdx.x == 0) s.law[frame].highest = most;
}

}  // namespace

template <class T>
void prepare_dag(const DagScene<T>& s, const Frames& frames, bool normalise, const DagDecay& decay,
                 double alpha, bool shares, unsigned long long* scratch, Range* ranges,
                 cudaStream_t stream) {
  find_ranges(frames, ranges, scratch, stream);
  USCONF_LAUNCH(law_kernel<T>, blocks_over_items(s.frames, threads), threads, 0, stream, s,
                normalise, ranges);
  const DagBeam beam = dag_beam(s.var, s.half_width, s.variant, nullptr);
  USCONF_LAUNCH(scales_kernel<T>, blocks_over_items(s.height, threads), threads, 0, stream, s,
                decay.x, alpha, beam.scale);
  const dim3 all(blocks_over_items(s.pixels(), threads), s.frames);
  USCONF_LAUNCH(pixels_kernel<T>, all, threads, 0, stream, s, frames);
  if (s.valid) {
    const unsigned planes = s.valid_stride ? s.frames : 1;
    USCONF_LAUNCH(first_valid_kernel<T>, dim3(blocks_over_items(s.width, threads), planes), threads,
                  0, stream, s);
    if (shares) USCONF_LAUNCH(shares_kernel<T>, dim3(all.x, planes), threads, 0, stream, s);
  }
  if (s.height > 1) {
    const dim3 rows((s.height - 1 + row_warps - 1) / row_warps, s.frames);
    USCONF_LAUNCH(row_means_kernel<T>, rows, row_threads, 0, stream, s);
    if (s.needle) USCONF_LAUNCH(highest_kernel<T>, s.frames, warp, 0, stream, s);
  }
  check_launch("the row means");
}

template void prepare_dag<float>(const DagScene<float>&, const Frames&, bool, const DagDecay&,
                                 double, bool, unsigned long long*, Range*, cudaStream_t);
template void prepare_dag<double>(const DagScene<double>&, const Frames&, bool, const DagDecay&,
                                  double, bool, unsigned long long*, Range*, cudaStream_t);

}  // namespace usconf::cuda
