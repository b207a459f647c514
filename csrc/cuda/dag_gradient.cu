// From what reaches every child from below to the derivatives of the image, xi, alpha, var and
// power. Rows no longer depend on each other here: sums over a row by a warp, then every pixel
// gathers from its own edges; all sums have a fixed order.
#include <algorithm>

#include "dag.h"

namespace usconf::cuda {
namespace {

constexpr int threads = 256, warps = threads / warp;
constexpr int row_threads = 128, row_warps = row_threads / warp;
constexpr int slots_at_once = 7;
constexpr double range_epsilon = 2.220446049250313e-16;  // as where the range is divided by

// Sums over a row's edges: by x d_r, power, var, the largest D; edges that attain the largest D.
enum RowSum : int { by_scale, by_power, by_var, by_highest, ties_highest };
// Of a frame: the parameters, the share of each edge that attains the largest D, then what the
// pixels that attain the minimum and the maximum get.
enum Chain : int { of_xi, of_alpha, of_var, of_power, highest_share, low_share, high_share };
enum PixelSum : int { sum_d, sum_d_value, ties_low, ties_high };
static_assert(ties_highest < dag_row_sums && high_share < dag_chain &&
              ties_high < dag_partial_sums);

template <class T>
__device__ __forceinline__ long long step_index(const DagScene<T>& s, int frame, int row) {
  return static_cast<long long>(frame) * (s.height - 1) + row;
}

__device__ __forceinline__ float exp_of(float v) { return expf(v); }
__device__ __forceinline__ double exp_of(double v) { return exp(v); }
__device__ __forceinline__ float log_of(float v) { return logf(v); }
__device__ __forceinline__ double log_of(double v) { return log(v); }

// What the edges into one child share. d: d loss / d C of the child times what its mask does to g.
template <class T>
struct Child {
  T d, model, scale;
};

template <class T>
__device__ __forceinline__ Child<T> child_of(const DagScene<T>& s, const DagGradient<T>& g,
                                             int frame, int row, int c) {
  const T d = g.above[frame * s.pixels() + s.at(row + 1, c)] * s.share_of(frame, row + 1, c);
  return {d, s.model_of(frame, row, c), s.scale[row]};
}

template <class T>
struct EdgeTerms {
  T rel, raised, w, d_w, d_t;  // d_w with the child's d and the parent's C; d_t = -w d_w
};

// difference: one - other of the edge.
template <class T>
__device__ __forceinline__ EdgeTerms<T> terms_of(const DagScene<T>& s, const DagGradient<T>& g,
                                                 const EdgeRules<T>& rules, const Child<T>& child,
                                                 int frame, int row, int k, int parent,
                                                 T difference, T inverse) {
  EdgeTerms<T> e;
  e.rel = relative(rules, difference, child.model, inverse);
  e.raised = raised(e.rel, rules.power);
  const T t = child.scale > 0 ? child.scale * e.raised : T(0);
  e.w = s.beam[k] * exp_of(-t);
  e.d_w = child.d * g.c.template get<T>(frame * s.pixels() + s.at(row, parent));
  e.d_t = -e.w * e.d_w;
  return e;
}

// d_rel rel of an edge; an artifact holds rel at 1.
template <class T>
__device__ __forceinline__ T by_log_rel(const EdgeTerms<T>& e, const Child<T>& child, T power) {
  // An exponent that overflows is flat.
  return e.d_t == 0 || child.model != child.model ? T(0) : e.d_t * child.scale * power * e.raised;
}

template <class T>
__device__ __forceinline__ bool attains_highest(const EdgeRules<T>& rules, T difference) {
  return absolute(difference) + rules.floor == rules.highest;
}

// A warp a row.
template <class T>
__global__ void __launch_bounds__(row_threads) row_sums_kernel(DagScene<T> s, DagGradient<T> g) {
  const int row = blockIdx.x * row_warps + threadIdx.x / warp, lane = threadIdx.x % warp;
  const int frame = blockIdx.y;
  if (row >= s.height - 1) return;
  const EdgeRules<T> rules = edges_of(s, frame);
  double total[dag_row_sums] = {};
  for (int base = 0; base < s.slots(); base += slots_at_once) {
    T sum[slots_at_once] = {};
    int count[slots_at_once] = {};
    T inverse[slots_at_once];
#pragma unroll
    for (int j = 0; j < slots_at_once; ++j)
      inverse[j] = s.inverse[s.row_slots(frame, row) + min(base + j, s.slots() - 1)];
    for (int c = lane; c < s.width; c += warp) {
      if (!s.is_valid(frame, row + 1, c)) continue;
      const Child<T> child = child_of(s, g, frame, row, c);
      const double slope = s.valid ? s.slope[frame * s.valid_stride + s.at(row + 1, c)] : g.slope;
      T part[dag_row_sums] = {};
#pragma unroll
      for (int j = 0; j < slots_at_once; ++j) {
        const int k = base + j;
        if (k >= s.slots()) continue;
        const int parent = mirrored(c + k - s.half_width, s.width);
        if (s.valid && !s.is_valid(frame, row, parent)) continue;
        ++count[j];
        const T difference = gap(s, frame, row, c, k);
        if (s.needle && attains_highest(rules, difference)) part[ties_highest] += 1;
        const EdgeTerms<T> e =
            terms_of(s, g, rules, child, frame, row, k, parent, difference, inverse[j]);
        if (e.d_t == 0) continue;
        const T d_log = by_log_rel(e, child, rules.power);
        sum[j] += d_log;
        part[by_scale] += e.d_t * e.raised;
        part[by_power] += e.d_t * child.scale * e.raised * log_of(e.rel);
        part[by_var] -= e.d_t * static_cast<T>(dag_d_log_bell(k, s.half_width, s.var) - slope);
        if (isinf(child.model)) part[by_highest] += d_log / e.rel * inverse[j];
      }
#pragma unroll
      for (int i = 0; i < dag_row_sums; ++i) total[i] += part[i];
    }
#pragma unroll
    for (int j = 0; j < slots_at_once; ++j) {
      if (base + j >= s.slots()) continue;
      const double slot = warp_sum(static_cast<double>(sum[j]));
      const int edges = s.valid ? warp_sum(count[j]) : s.width;
      if (lane == 0)
        g.slot_sums[s.row_slots(frame, row) + base + j] = edges > 0 ? slot / edges : 0.0;
    }
  }
#pragma unroll
  for (int i = 0; i < dag_row_sums; ++i) {
    const double sum = warp_sum(total[i]);
    if (lane == 0) g.row_sums[step_index(s, frame, row) * dag_row_sums + i] = sum;
  }
}

// A warp a frame.
template <class T>
__global__ void row_chain_kernel(DagScene<T> s, DagGradient<T> g) {
  const int frame = blockIdx.x;
  double sum[dag_row_sums + 1] = {};  // xi, alpha, var, power, largest D, its ties
  for (int row = threadIdx.x; row < s.height - 1; row += warp) {
    const double* of = g.row_sums + step_index(s, frame, row) * dag_row_sums;
    const double depth = dag_depth(g.alpha, row, s.height);
    sum[0] += of[by_scale] * g.decay.d_xi * depth;
    sum[1] += of[by_scale] * (g.decay.d_alpha - g.decay.x * dag_reach(row, s.height)) * depth;
    sum[2] += of[by_var];
    sum[3] += of[by_power];
    sum[4] += of[by_highest];
    sum[5] += of[ties_highest];
  }
  for (double& v : sum) v = warp_sum(v);
  if (threadIdx.x) return;
  double* chain = g.chain + static_cast<long long>(frame) * dag_chain;
  chain[of_xi] = sum[0], chain[of_alpha] = sum[1], chain[of_var] = sum[2], chain[of_power] = sum[3];
  chain[highest_share] = sum[5] > 0 ? sum[4] / sum[5] : 0.0;
}

// What an edge adds to the derivative of its pixel `one`; `other` gets the negative.
template <class T>
__device__ T by_one(const DagScene<T>& s, const DagGradient<T>& g, const EdgeRules<T>& rules,
                    int frame, int row, int c, int k) {
  const int parent = mirrored(c + k - s.half_width, s.width);
  if (s.valid && (!s.is_valid(frame, row, parent) || !s.is_valid(frame, row + 1, c))) return 0;
  const T difference = gap(s, frame, row, c, k);
  if (difference == 0) return 0;
  const long long slot = s.row_slots(frame, row) + k;
  const T inverse = s.inverse[slot];
  const Child<T> child = child_of(s, g, frame, row, c);
  T d = -static_cast<T>(g.slot_sums[slot]) * inverse;
  if (!isinf(child.model) && child.d != 0) {
    const EdgeTerms<T> e = terms_of(s, g, rules, child, frame, row, k, parent, difference, inverse);
    d += by_log_rel(e, child, rules.power) / e.rel * inverse;
  }
  if (s.needle && attains_highest(rules, difference))
    d += static_cast<T>(g.chain[static_cast<long long>(frame) * dag_chain + highest_share]);
  return difference > 0 ? d : -d;
}

// The edges that compare a pixel with another one, `variant` 0: those that end and begin there.
template <class T>
__device__ T gather_ends(const DagScene<T>& s, const DagGradient<T>& g, const EdgeRules<T>& rules,
                         int frame, int row, int c) {
  const int last = 2 * s.half_width;
  T sum = 0;
  if (row > 0)
    for (int k = 0; k <= last; ++k) sum -= by_one(s, g, rules, frame, row - 1, c, k);
  if (row < s.height - 1)
    for (int q = 0; q <= last; ++q) {
      const int v = c - s.half_width + q;
      sum += by_one(s, g, rules, frame, row, mirrored(v, s.width),
                    backwards(v, s.width) ? q : last - q);
    }
  return sum;
}

// `variant` 1: as `one` of the edges of its own row and column; as `other` of those that reach it
// across the row above, and, mirrored and flipped, of those of row H - 1 - row.
template <class T>
__device__ T gather_published(const DagScene<T>& s, const DagGradient<T>& g,
                              const EdgeRules<T>& rules, int frame, int row, int c) {
  const int last = 2 * s.half_width, flipped = s.height - 1 - row;
  T sum = 0;
  for (int k = 0; k <= last && row < s.height - 1; ++k)
    sum += by_one(s, g, rules, frame, row, c, k);
  for (int k = 0; k <= last && row > 0; ++k) {
    const int from = c - s.half_width + k;
    if (from >= 0 && from < s.width) sum -= by_one(s, g, rules, frame, row - 1, from, k);
  }
  if (row == 0) return sum;
  for (int v = -s.half_width; v < s.width + s.half_width; ++v) {
    if (v == 0) v = s.width;
    if (mirrored(v, s.width) != c) continue;
    for (int k = 0; k <= last; ++k) {
      const int from = v - s.half_width + k;
      if (from >= 0 && from < s.width) sum -= by_one(s, g, rules, frame, flipped, from, k);
    }
  }
  return sum;
}

template <class T>
__global__ void __launch_bounds__(threads) gather_kernel(DagScene<T> s, DagGradient<T> g) {
  const int frame = blockIdx.y;
  const EdgeRules<T> rules = edges_of(s, frame);
  const double unit = s.law[frame].unit;
  for (long long i = own_item(); i < s.pixels(); i += item_stride()) {
    const int row = static_cast<int>(i / s.width), c = static_cast<int>(i % s.width);
    T sum = 0;
    if (s.is_valid(frame, row, c))
      sum = s.variant == 0 ? gather_ends(s, g, rules, frame, row, c)
                           : gather_published(s, g, rules, frame, row, c);
    g.d_plain[frame * s.pixels() + i] = sum * unit;
  }
}

template <class T>
__global__ void __launch_bounds__(threads)
    pixel_sums_kernel(DagScene<T> s, Frames frames, DagGradient<T> g) {
  __shared__ double scratch[warps];
  const int frame = blockIdx.y;
  const Range range = s.law[frame].range;
  double sum[dag_partial_sums] = {};
  for (long long i = own_item(); i < s.pixels(); i += item_stride()) {
    if (!frames.valid(frame, i)) continue;
    const double value = frames.number(frame, i), d = g.d_plain[frame * s.pixels() + i];
    sum[sum_d] += d;
    sum[sum_d_value] += d * (value - range.low);
    if (value == range.low) sum[ties_low] += 1;
    if (value == range.high) sum[ties_high] += 1;
  }
  double* out =
      g.partial + (static_cast<long long>(frame) * dag_partials + blockIdx.x) * dag_partial_sums;
  for (int k = 0; k < dag_partial_sums; ++k) {
    const double total = block_sum(sum[k], scratch);
    if (threadIdx.x == 0) out[k] = total;
  }
}

// f = (I - low) / R, R = high - low + eps: the minimum and the maximum get their shares.
template <class T>
__global__ void pixel_chain_kernel(DagScene<T> s, DagGradient<T> g) {
  for (long long frame = own_item(); frame < s.frames; frame += item_stride()) {
    double sum[dag_partial_sums] = {};
    for (int b = 0; b < dag_partials; ++b)
      for (int k = 0; k < dag_partial_sums; ++k)
        sum[k] += g.partial[(frame * dag_partials + b) * dag_partial_sums + k];
    const Range range = s.law[frame].range;
    const double to_range = -sum[sum_d_value] / ((range.high - range.low) + range_epsilon);
    double* chain = g.chain + frame * dag_chain;
    chain[low_share] = sum[ties_low] > 0 ? (-sum[sum_d] - to_range) / sum[ties_low] : 0.0;
    chain[high_share] = sum[ties_high] > 0 ? to_range / sum[ties_high] : 0.0;
  }
}

template <class T>
__global__ void __launch_bounds__(threads)
    write_d_image_kernel(DagScene<T> s, Frames frames, bool normalise, DagGradient<T> g,
                         Plane d_image) {
  const int frame = blockIdx.y;
  const Range range = s.law[frame].range;
  const double* chain = g.chain + static_cast<long long>(frame) * dag_chain;
  for (long long i = own_item(); i < s.pixels(); i += item_stride()) {
    double d = g.d_plain[frame * s.pixels() + i];
    if (normalise && frames.valid(frame, i)) {
      const double value = frames.number(frame, i);
      if (value == range.low) d += chain[low_share];
      if (value == range.high) d += chain[high_share];
    }
    d_image.put(frame * s.pixels() + i, d);
  }
}

__global__ void add_parameters_kernel(const double* __restrict__ chain, int frames,
                                      double* __restrict__ d_parameters) {
  constexpr int place[4] = {of_xi, of_alpha, of_var, of_power};
  if (threadIdx.x >= 4) return;
  double sum = d_parameters[threadIdx.x];
  for (int frame = 0; frame < frames; ++frame)
    sum += chain[static_cast<long long>(frame) * dag_chain + place[threadIdx.x]];
  d_parameters[threadIdx.x] = sum;
}

}  // namespace

template <class T>
void differentiate_dag(const DagScene<T>& s, const Frames& frames, bool normalise,
                       const DagGradient<T>& g, Plane d_image, double* d_parameters,
                       cudaStream_t stream) {
  const dim3 pixels(blocks_over_items(s.pixels(), threads), s.frames);
  if (s.height > 1) {
    const dim3 rows((s.height - 1 + row_warps - 1) / row_warps, s.frames);
    USCONF_LAUNCH(row_sums_kernel<T>, rows, row_threads, 0, stream, s, g);
  }
  USCONF_LAUNCH(row_chain_kernel<T>, s.frames, warp, 0, stream, s, g);
  if (d_parameters)
    USCONF_LAUNCH(add_parameters_kernel, 1, warp, 0, stream, g.chain, s.frames, d_parameters);
  if (d_image.data) {
    USCONF_LAUNCH(gather_kernel<T>, pixels, threads, 0, stream, s, g);
    if (normalise) {
      USCONF_LAUNCH(pixel_sums_kernel<T>, dim3(dag_partials, s.frames), threads, 0, stream, s,
                    frames, g);
      USCONF_LAUNCH(pixel_chain_kernel<T>, blocks_over_items(s.frames, threads), threads, 0, stream,
                    s, g);
    }
    USCONF_LAUNCH(write_d_image_kernel<T>, pixels, threads, 0, stream, s, frames, normalise, g,
                  d_image);
  }
  check_launch("the gradient");
}

template void differentiate_dag<float>(const DagScene<float>&, const Frames&, bool,
                                       const DagGradient<float>&, Plane, double*, cudaStream_t);
template void differentiate_dag<double>(const DagScene<double>&, const Frames&, bool,
                                        const DagGradient<double>&, Plane, double*, cudaStream_t);

}  // namespace usconf::cuda
