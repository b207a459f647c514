// From the image to the weights of the random walk (steps 1 to 5 and 7).
#include <algorithm>
#include <cmath>

#include "intensity.h"
#include "random_walk_stages.h"

namespace usconf::cuda {
namespace {

constexpr int threads = 256;
constexpr int extreme_blocks = 128;  // at most, a frame: enough to fill a device with one frame

__device__ __forceinline__ unsigned long long warp_max(unsigned long long v) {
  for (int step = warp / 2; step > 0; step /= 2) {
    const unsigned long long other = __shfl_xor_sync(all_lanes, v, step);
    v = other > v ? other : v;
  }
  return v;
}

// A frame's scratch: maxima of -image, image, lateral and vertical differences, in ordered form.
enum : int { negated_low = 0, high = 1, lateral = 2, vertical = 3, scratch_numbers = 4 };

__global__ void start_extremes_kernel(unsigned long long* scratch, int frames) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= frames * scratch_numbers) return;
  scratch[i] = ordered(i % scratch_numbers < lateral ? -INFINITY : -1.0);
}

__global__ void extremes_kernel(Scene s, unsigned long long* scratch) {
  const int frame = blockIdx.y;
  unsigned long long low_key = ordered(-INFINITY), high_key = low_key;
  for (long long i = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x; i < s.pixels();
       i += static_cast<long long>(gridDim.x) * blockDim.x) {
    const int row = static_cast<int>(i / s.width), column = static_cast<int>(i % s.width);
    if (!s.valid(frame, row, column)) continue;
    const double v = intensity_at(s, frame, i);
    const unsigned long long below = ordered(-v), above = ordered(v);
    low_key = below > low_key ? below : low_key;
    high_key = above > high_key ? above : high_key;
  }
  low_key = warp_max(low_key);
  high_key = warp_max(high_key);
  if (threadIdx.x % warp) return;
  atomicMax(&scratch[frame * scratch_numbers + negated_low], low_key);
  atomicMax(&scratch[frame * scratch_numbers + high], high_key);
}

__global__ void extremes_found_kernel(Scene s, const unsigned long long* scratch,
                                      FrameFacts* facts) {
  const int frame = blockIdx.x * blockDim.x + threadIdx.x;
  if (frame >= s.frames) return;
  FrameFacts& f = facts[frame];
  f.low = -unordered(scratch[frame * scratch_numbers + negated_low]);
  f.high = unordered(scratch[frame * scratch_numbers + high]);
  if (f.low > f.high) f.low = f.high = 0;  // no valid pixel
}

__global__ void attenuate_kernel(Scene s, const FrameFacts* facts, double* attenuated) {
  __shared__ double weight;
  const int frame = blockIdx.z, row = blockIdx.y;
  if (threadIdx.x == 0) weight = attenuation(s.alpha, row, s.height);
  __syncthreads();
  const int column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= s.width) return;
  const long long i = static_cast<long long>(row) * s.width + column;
  const bool inside = s.valid(frame, row, column);
  attenuated[frame * s.pixels() + i] =
      inside ? normalised(s, facts[frame], intensity_at(s, frame, i)) * weight : 0.0;
}

__global__ void differences_kernel(Scene s, const double* attenuated, unsigned long long* scratch) {
  const int frame = blockIdx.y;
  const double* c = attenuated + frame * s.pixels();
  unsigned long long largest[2] = {ordered(-1.0), ordered(-1.0)};
  for (long long i = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x; i < s.pixels();
       i += static_cast<long long>(gridDim.x) * blockDim.x) {
    const int row = static_cast<int>(i / s.width), column = static_cast<int>(i % s.width);
    if (!s.valid(frame, row, column)) continue;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const Step to = step_to(k);
      if (!s.valid(frame, row + to.row, column + to.column)) continue;
      const unsigned long long d = ordered(fabs(c[i] - c[i + to.row * s.width + to.column]));
      unsigned long long& best = largest[kind_of(k)];
      best = d > best ? d : best;
    }
  }
  for (int kind = 0; kind < 2; ++kind) {
    const unsigned long long d = warp_max(largest[kind]);
    if (threadIdx.x % warp == 0) atomicMax(&scratch[frame * scratch_numbers + lateral + kind], d);
  }
}

__global__ void law_kernel(Scene s, const unsigned long long* scratch, FrameFacts* facts) {
  const int frame = blockIdx.x * blockDim.x + threadIdx.x;
  if (frame >= s.frames) return;
  FrameFacts& f = facts[frame];
  f.max_difference[0] = unordered(scratch[frame * scratch_numbers + lateral]);
  f.max_difference[1] = unordered(scratch[frame * scratch_numbers + vertical]);
  f.law = edge_law(f.max_difference[0], f.max_difference[1], s.beta, s.gamma, s.variant);
}

// Differences are taken and scaled in double also for float weights: cheap next to the elimination,
// more exact than fixed point, and safe where a constant image makes the slope exceed the floats.
template <class T>
__device__ __forceinline__ T weight_of(const EdgeLaw& law, double difference, int kind) {
  return edge_weight(static_cast<T>(law.slope * fabs(difference)), T(1),
                     static_cast<T>(law.offset[kind]), static_cast<T>(law.floor));
}

// T: type in which the weights are computed and, in double, also kept.
template <class T>
__global__ void weigh_kernel(Scene s, const double* attenuated, const FrameFacts* facts,
                             Weights<float> weights, Weights<T> exact) {
  const int frame = blockIdx.z, row = blockIdx.y;
  const int column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= s.width) return;
  const EdgeLaw& law = facts[frame].law;
  const int image_row = row + s.top;
  const double* c =
      attenuated + frame * s.pixels() + static_cast<long long>(image_row) * s.width + column;
  const bool unknown = s.label(frame, image_row, column) == Label::free;
  T value[Weights<T>::planes] = {};
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    const Step to = step_to(k);
    if (!unknown || !s.valid(frame, image_row + to.row, column + to.column)) continue;
    const Label other = s.label(frame, image_row + to.row, column + to.column);
    if (other == Label::free && k >= 4) continue;
    const T w = weight_of<T>(law, c[0] - c[to.row * s.width + to.column], kind_of(k));
    if (other == Label::free) value[k] = w;
    if (other == Label::source) value[Weights<T>::source] += w;
    if (other == Label::sink) value[Weights<T>::sink] += w;
  }
  for (int plane = 0; plane < Weights<T>::planes; ++plane) {
    const long long at = weights.index(frame, plane, row, column);
    weights.data[at] = static_cast<float>(value[plane]);
    if (sizeof(T) == sizeof(double)) exact.data[at] = value[plane];
  }
}

__global__ void weigh_edges_kernel(Scene s, const double* attenuated, const FrameFacts* facts,
                                   double* edges) {
  const int frame = blockIdx.z, row = blockIdx.y;
  const int column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= s.width) return;
  const long long i = static_cast<long long>(row) * s.width + column;
  const double* c = attenuated + frame * s.pixels() + i;
  const bool here = s.valid(frame, row, column);
  for (int k = 0; k < 4; ++k) {
    const Step to = step_to(k);
    double w = 0;
    if (here && s.valid(frame, row + to.row, column + to.column))
      w = weight_of<double>(facts[frame].law, c[0] - c[to.row * s.width + to.column], kind_of(k));
    edges[(static_cast<long long>(frame) * 4 + k) * s.pixels() + i] = w;
  }
}

unsigned blocks_of(long long n) { return static_cast<unsigned>((n + threads - 1) / threads); }

}  // namespace

void attenuate(const Scene& s, double* attenuated, FrameFacts* facts, unsigned long long* scratch,
               cudaStream_t stream) {
  const dim3 sampled(std::min<unsigned>(blocks_of(s.pixels()), extreme_blocks), s.frames);
  const dim3 rows(blocks_of(s.width), s.height, s.frames);
  const unsigned per_frame = blocks_of(s.frames);
  USCONF_LAUNCH(start_extremes_kernel, blocks_of(4ll * s.frames), threads, 0, stream, scratch,
                s.frames);
  USCONF_LAUNCH(extremes_kernel, sampled, threads, 0, stream, s, scratch);
  USCONF_LAUNCH(extremes_found_kernel, per_frame, threads, 0, stream, s, scratch, facts);
  USCONF_LAUNCH(attenuate_kernel, rows, threads, 0, stream, s, facts, attenuated);
  USCONF_LAUNCH(differences_kernel, sampled, threads, 0, stream, s, attenuated, scratch);
  USCONF_LAUNCH(law_kernel, per_frame, threads, 0, stream, s, scratch, facts);
  check_launch("the attenuation of the image");
}

void weigh(const Scene& s, const double* attenuated, const FrameFacts* facts,
           Weights<float> weights, const Weights<double>* exact, cudaStream_t stream) {
  const dim3 grid(blocks_of(s.width), s.rows, s.frames);
  if (exact)
    USCONF_LAUNCH(weigh_kernel<double>, grid, threads, 0, stream, s, attenuated, facts, weights,
                  *exact);
  else
    USCONF_LAUNCH(weigh_kernel<float>, grid, threads, 0, stream, s, attenuated, facts, weights,
                  weights);
  check_launch("the weights");
}

void weigh_edges(const Scene& s, const double* attenuated, const FrameFacts* facts, double* edges,
                 cudaStream_t stream) {
  const dim3 grid(blocks_of(s.width), s.height, s.frames);
  USCONF_LAUNCH(weigh_edges_kernel, grid, threads, 0, stream, s, attenuated, facts, edges);
  check_launch("the weights of all edges");
}

}  // namespace usconf::cuda
