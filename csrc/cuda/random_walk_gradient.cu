// From the adjoint to the derivatives of image, alpha, beta and gamma. Every pixel gathers from its
// own edges; sums over a frame go through partial sums in a fixed order.
#include <algorithm>

#include "intensity.h"
#include "random_walk_stages.h"

namespace usconf::cuda {
namespace {

constexpr int threads = 256, warps = threads / warp;
constexpr long long most_blocks = 256;  // a frame, so that the final sum stays short

// Sums over a frame's edges, then over its pixels.
enum EdgeSum : int {
  sum_beta,          // dLoss/dbeta
  sum_gamma,         // dLoss/du over the edges that carry gamma, M2 held fixed
  sum_m2,            // dLoss/dM2
  sum_u_difference,  // dLoss/du times d, M2 held fixed
  ties_m,            // edges that attain M
  ties_m2_lateral,   // lateral, vertical edges that attain the largest difference of their kind
  ties_m2_vertical,
  edge_sums
};
enum PixelSum : int { sum_alpha, sum_g, sum_g_value, ties_low, ties_high, pixel_sums };
static_assert(edge_sums <= chain_numbers / 2 && pixel_sums <= chain_numbers / 2);

// A frame's chain_numbers: what the edge sums imply, then what the pixel sums imply.
enum Chain : int {
  d_m,           // per edge that attains M
  d_m2_lateral,  // to u, per lateral or vertical edge that attains M2
  d_m2_vertical,
  d_beta,
  d_gamma,
  d_alpha = chain_numbers / 2,
  d_low,  // per pixel that attains the minimum, the maximum
  d_high
};

unsigned blocks_of(long long n) { return static_cast<unsigned>((n + threads - 1) / threads); }

unsigned sampled_blocks(const Scene& s) {
  return static_cast<unsigned>(std::min<long long>(blocks_of(s.pixels()), most_blocks));
}

__device__ __forceinline__ double map_at(const GradientWork& w, long long i) {
  return w.is_double ? static_cast<const double*>(w.map)[i] : static_cast<const float*>(w.map)[i];
}

__device__ __forceinline__ double adjoint_at(const Scene& s, const GradientWork& w, int frame,
                                             int row, int column) {
  row -= s.top;
  if (row < 0 || row >= s.rows) return 0;
  return w.adjoint[frame * s.unknowns() + static_cast<long long>(row) * s.width + column];
}

struct EdgeView {
  bool there;
  int kind;
  double slope;  // c here - c there
  EdgeDerivative d;
};

// The edge from a pixel to its neighbour k.
__device__ __forceinline__ EdgeView edge_view(const Scene& s, const GradientWork& w, int frame,
                                              int row, int column, int k) {
  EdgeView e{};
  const Step to = step_to(k);
  e.there = s.valid(frame, row + to.row, column + to.column);
  if (!e.there) return e;
  e.kind = kind_of(k);
  const long long i = frame * s.pixels() + static_cast<long long>(row) * s.width + column;
  const long long j = i + static_cast<long long>(to.row) * s.width + to.column;
  e.slope = w.attenuated[i] - w.attenuated[j];
  const double d_w = -(adjoint_at(s, w, frame, row, column) -
                       adjoint_at(s, w, frame, row + to.row, column + to.column)) *
                     (map_at(w, i) - map_at(w, j));
  e.d = edge_derivative(fabs(e.slope), e.kind, d_w, w.facts[frame].law);
  return e;
}

__device__ __forceinline__ bool carries_gamma(const Scene& s, int kind) {
  return (s.variant == 0) == (kind == static_cast<int>(EdgeKind::lateral));
}

// Calls work(row, column, pixel) for this thread's valid pixels of the frame.
template <class Work>
__device__ __forceinline__ void each_pixel(const Scene& s, int frame, Work&& work) {
  for (long long i = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x; i < s.pixels();
       i += static_cast<long long>(gridDim.x) * blockDim.x) {
    const int row = static_cast<int>(i / s.width), column = static_cast<int>(i % s.width);
    if (s.valid(frame, row, column)) work(row, column, i);
  }
}

// partial (frames, blocks, chain_numbers / 2)
template <int N>
__device__ __forceinline__ void store_partial(const double (&sum)[N], double* partial,
                                              double* scratch) {
  double* out =
      partial + (static_cast<long long>(blockIdx.y) * gridDim.x + blockIdx.x) * (chain_numbers / 2);
  for (int i = 0; i < N; ++i) {
    const double total = block_sum(sum[i], scratch);
    if (threadIdx.x == 0) out[i] = total;
  }
}

__global__ void __launch_bounds__(threads) sum_edges_kernel(Scene s, GradientWork w) {
  __shared__ double scratch[warps];
  const int frame = blockIdx.y;
  const FrameFacts& f = w.facts[frame];
  const double largest = fmax(f.max_difference[0], f.max_difference[1]);
  double sum[edge_sums] = {};
  each_pixel(s, frame, [&](int row, int column, long long) {
    for (int k = 0; k < 4; ++k) {
      const EdgeView e = edge_view(s, w, frame, row, column, k);
      if (!e.there) continue;
      const double d = fabs(e.slope);
      sum[sum_beta] += e.d.d_beta;
      if (carries_gamma(s, e.kind)) sum[sum_gamma] += e.d.d_u;
      sum[sum_m2] += e.d.d_m2;
      sum[sum_u_difference] += e.d.d_u * d;
      if (d == largest) sum[ties_m] += 1;
      if (d == f.max_difference[e.kind]) sum[ties_m2_lateral + e.kind] += 1;
    }
  });
  store_partial(sum, w.partial, scratch);
}

// Total of one of a frame's partial sums, in order of the blocks.
__device__ __forceinline__ double total(const double* partial, int frame, int blocks, int which) {
  double t = 0;
  for (int b = 0; b < blocks; ++b)
    t += partial[(static_cast<long long>(frame) * blocks + b) * (chain_numbers / 2) + which];
  return t;
}

// A frame a block, a thread per sum.
__global__ void edge_chain_kernel(Scene s, GradientWork w, int blocks) {
  __shared__ double sum[edge_sums];
  const int frame = blockIdx.x;
  if (threadIdx.x < edge_sums) sum[threadIdx.x] = total(w.partial, frame, blocks, threadIdx.x);
  __syncthreads();
  if (threadIdx.x) return;
  const FrameFacts& f = w.facts[frame];
  double* chain = w.chain + static_cast<long long>(frame) * chain_numbers;
  // Which kinds attain M2 = max of d / (M + eps) + gamma of the kind.
  double reached[2], highest = -1;
  for (int kind = 0; kind < 2; ++kind) {
    reached[kind] =
        f.max_difference[kind] < 0 ? -1 : f.max_difference[kind] * f.law.scale1 + f.law.gamma[kind];
    highest = fmax(highest, reached[kind]);
  }
  double ties = 0;
  for (int kind = 0; kind < 2; ++kind)
    if (reached[kind] == highest) ties += sum[ties_m2_lateral + kind];
  const double share = ties > 0 ? sum[sum_m2] / ties : 0.0;
  double gamma = sum[sum_gamma], u_difference = sum[sum_u_difference];
  for (int kind = 0; kind < 2; ++kind) {
    const bool attains = reached[kind] == highest;
    chain[d_m2_lateral + kind] = attains ? share : 0.0;
    if (!attains) continue;
    const double all = share * sum[ties_m2_lateral + kind];
    if (carries_gamma(s, kind)) gamma += all;
    u_difference += all * f.max_difference[kind];
  }
  chain[d_beta] = sum[sum_beta];
  chain[d_gamma] = gamma;
  const double to_m = -u_difference * f.law.scale1 * f.law.scale1;
  chain[d_m] = sum[ties_m] > 0 ? to_m / sum[ties_m] : 0.0;
}

__global__ void __launch_bounds__(threads) gather_edges_kernel(Scene s, GradientWork w) {
  __shared__ double scratch[warps];
  const int frame = blockIdx.y;
  const FrameFacts& f = w.facts[frame];
  const double* chain = w.chain + static_cast<long long>(frame) * chain_numbers;
  const double largest = fmax(f.max_difference[0], f.max_difference[1]);
  double sum[pixel_sums] = {};
  each_pixel(s, frame, [&](int row, int column, long long i) {
    double d_c = 0;
    for (int k = 0; k < 8; ++k) {
      const EdgeView e = edge_view(s, w, frame, row, column, k);
      if (!e.there || e.slope == 0) continue;  // |0| has derivative 0
      const double d = fabs(e.slope);
      double d_u = e.d.d_u;
      if (d == f.max_difference[e.kind]) d_u += chain[d_m2_lateral + e.kind];
      double d_d = d_u * f.law.scale1;
      if (d == largest) d_d += chain[d_m];
      d_c += e.slope > 0 ? d_d : -d_d;
    }
    const double value = intensity_at(s, frame, i), g = normalised(s, f, value);
    const double d_g = d_c * attenuation(s.alpha, row, s.height);
    w.d_intensity[frame * s.pixels() + i] = d_g;
    sum[sum_alpha] += d_c * g * d_attenuation(s.alpha, row, s.height);
    sum[sum_g] += d_g;
    sum[sum_g_value] += d_g * g;
    if (value == f.low) sum[ties_low] += 1;
    if (value == f.high) sum[ties_high] += 1;
  });
  store_partial(sum, w.partial, scratch);
}

// g = (I - low) / R with R = high - low + eps: the minimum and the maximum get their shares.
__global__ void pixel_chain_kernel(GradientWork w, int blocks) {
  __shared__ double sum[pixel_sums];
  const int frame = blockIdx.x;
  if (threadIdx.x < pixel_sums) sum[threadIdx.x] = total(w.partial, frame, blocks, threadIdx.x);
  __syncthreads();
  if (threadIdx.x) return;
  const FrameFacts& f = w.facts[frame];
  double* chain = w.chain + static_cast<long long>(frame) * chain_numbers;
  const double range = (f.high - f.low) + random_walk_epsilon;
  const double to_range = -sum[sum_g_value] / range;
  chain[d_alpha] = sum[sum_alpha];
  chain[d_low] = sum[ties_low] > 0 ? (-sum[sum_g] / range - to_range) / sum[ties_low] : 0.0;
  chain[d_high] = sum[ties_high] > 0 ? to_range / sum[ties_high] : 0.0;
}

__global__ void write_d_image_kernel(Scene s, GradientWork w, void* d_image) {
  const int frame = blockIdx.z, row = blockIdx.y;
  const int column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= s.width) return;
  const FrameFacts& f = w.facts[frame];
  const double* chain = w.chain + static_cast<long long>(frame) * chain_numbers;
  const long long pixel = static_cast<long long>(row) * s.width + column;
  const long long i = frame * s.pixels() + pixel;
  double d = 0;
  if (s.valid(frame, row, column)) {
    d = w.d_intensity[i];
    if (s.normalise) {
      const double value = intensity_at(s, frame, pixel);
      d /= (f.high - f.low) + random_walk_epsilon;
      if (value == f.low) d += chain[d_low];
      if (value == f.high) d += chain[d_high];
    }
  }
  if (w.is_double)
    static_cast<double*>(d_image)[i] = d;
  else
    static_cast<float*>(d_image)[i] = static_cast<float>(d);
}

__global__ void add_parameters_kernel(const double* chain, int frames, double* d_parameters) {
  constexpr int place[3] = {d_alpha, d_beta, d_gamma};
  if (threadIdx.x >= 3) return;
  double sum = d_parameters[threadIdx.x];
  for (int frame = 0; frame < frames; ++frame)
    sum += chain[static_cast<long long>(frame) * chain_numbers + place[threadIdx.x]];
  d_parameters[threadIdx.x] = sum;
}

}  // namespace

std::size_t gradient_partials(const Scene& s) {
  return static_cast<std::size_t>(s.frames) * sampled_blocks(s) * (chain_numbers / 2);
}

void differentiate(const Scene& s, const GradientWork& w, void* d_image, double* d_parameters,
                   cudaStream_t stream) {
  const unsigned blocks = sampled_blocks(s);
  const dim3 sampled(blocks, s.frames);
  USCONF_LAUNCH(sum_edges_kernel, sampled, threads, 0, stream, s, w);
  USCONF_LAUNCH(edge_chain_kernel, s.frames, warp, 0, stream, s, w, static_cast<int>(blocks));
  USCONF_LAUNCH(gather_edges_kernel, sampled, threads, 0, stream, s, w);
  USCONF_LAUNCH(pixel_chain_kernel, s.frames, warp, 0, stream, w, static_cast<int>(blocks));
  if (d_image) {
    const dim3 rows(blocks_of(s.width), s.height, s.frames);
    USCONF_LAUNCH(write_d_image_kernel, rows, threads, 0, stream, s, w, d_image);
  }
  USCONF_LAUNCH(add_parameters_kernel, 1, warp, 0, stream, w.chain, s.frames, d_parameters);
  check_launch("the gradient");
}

}  // namespace usconf::cuda
