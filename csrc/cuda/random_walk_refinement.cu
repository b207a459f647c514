// Refinement in flux form: x in double, residuals as sums of flows, no diagonal anywhere.
#include <cmath>

#include "random_walk_stages.h"

namespace usconf::cuda {
namespace {

constexpr int threads = 256;

unsigned blocks_of(long long n) { return static_cast<unsigned>((n + threads - 1) / threads); }

__global__ void advance_kernel(double* x, const float* step, bool first, long long count) {
  const long long i = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
  if (i < count) x[i] = (first ? 0.0 : x[i]) + step[i];
}

template <class T>
__global__ void flux_residual_kernel(Weights<T> weights, const double* x, const double* right,
                                     float* residual) {
  const int frame = blockIdx.z, row = blockIdx.y;
  const int column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= weights.columns) return;
  const long long plane = static_cast<long long>(weights.rows) * weights.columns;
  const long long i = frame * plane + static_cast<long long>(row) * weights.columns + column;
  const double own = x[i];
  double flow = 0;
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    const Step to = step_to(k);
    if (!weights.inside(row + to.row, column + to.column)) continue;
    const double w = weights.edge(frame, row, column, k);
    flow += w * (x[i + to.row * weights.columns + to.column] - own);
  }
  const double source = weights.seed(frame, Weights<T>::source, row, column);
  const double sink = weights.seed(frame, Weights<T>::sink, row, column);
  // Without a right-hand side of its own: the forward problem, whose source pixels hold 1.
  flow += right ? right[i] - source * own : source * (1.0 - own);
  residual[i] = static_cast<float>(flow - sink * own);
}

__global__ void gather_upstream_kernel(Scene s, const void* d_map, bool is_double, double* right) {
  const int frame = blockIdx.z, row = blockIdx.y;
  const int column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= s.width) return;
  const long long from =
      frame * s.pixels() + static_cast<long long>(row + s.top) * s.width + column;
  const bool unknown = s.label(frame, row + s.top, column) == Label::free;
  double g = 0;
  if (unknown)
    g = is_double ? static_cast<const double*>(d_map)[from]
                  : static_cast<const float*>(d_map)[from];
  right[frame * s.unknowns() + static_cast<long long>(row) * s.width + column] = g;
}

// NaN where the frame's range is none: a pixel is NaN or infinite.
__global__ void write_map_kernel(Scene s, const FrameFacts* facts, const double* x, void* map,
                                 bool is_double) {
  const int frame = blockIdx.z, row = blockIdx.y;
  const int column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= s.width) return;
  const Label label = s.label(frame, row, column);
  double v = label == Label::source ? 1.0 : 0.0;
  if (label == Label::free && row >= s.top && row < s.top + s.rows) {
    v = x[frame * s.unknowns() + static_cast<long long>(row - s.top) * s.width + column];
    v = v < 0 ? 0 : v > 1 ? 1 : v;  // rounding may leave the maximum principle by 2e-7
  }
  if (!(facts[frame].high - facts[frame].low < INFINITY)) v = NAN;
  const long long to = frame * s.pixels() + static_cast<long long>(row) * s.width + column;
  if (is_double)
    static_cast<double*>(map)[to] = v;
  else
    static_cast<float*>(map)[to] = static_cast<float>(v);
}

}  // namespace

void advance(double* x, const float* step, bool first, long long count, cudaStream_t stream) {
  USCONF_LAUNCH(advance_kernel, blocks_of(count), threads, 0, stream, x, step, first, count);
  check_launch("a refinement step");
}

void flux_residual(Weights<float> weights, const Weights<double>* exact, const double* x,
                   const double* right, float* residual, int frames, cudaStream_t stream) {
  const dim3 grid(blocks_of(weights.columns), weights.rows, frames);
  if (exact)
    USCONF_LAUNCH(flux_residual_kernel<double>, grid, threads, 0, stream, *exact, x, right,
                  residual);
  else
    USCONF_LAUNCH(flux_residual_kernel<float>, grid, threads, 0, stream, weights, x, right,
                  residual);
  check_launch("the residual");
}

void gather_upstream(const Scene& s, const void* d_map, bool is_double, double* right,
                     cudaStream_t stream) {
  const dim3 grid(blocks_of(s.width), s.rows, s.frames);
  USCONF_LAUNCH(gather_upstream_kernel, grid, threads, 0, stream, s, d_map, is_double, right);
  check_launch("reading the upstream gradient");
}

void write_map(const Scene& s, const FrameFacts* facts, const double* x, void* map, bool is_double,
               cudaStream_t stream) {
  const dim3 grid(blocks_of(s.width), s.height, s.frames);
  USCONF_LAUNCH(write_map_kernel, grid, threads, 0, stream, s, facts, x, map, is_double);
  check_launch("writing the map");
}

}  // namespace usconf::cuda
