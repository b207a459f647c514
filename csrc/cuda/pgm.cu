// The annotation model's loss in one launch: value, derivative and maps.
//
// A warp walks down a strip of rows, a lane a column, and keeps one row in registers. Its outer
// lanes are the neighbours of the inner ones and write nothing; so no pixel waits for another warp,
// and the derivative is a gather. Sums: lanes, warps, blocks in their order; the last block to
// arrive adds up what all have left.
#include <cmath>

#include "../math/pgm.h"
#include "frame_range.h"

namespace usconf::cuda {
namespace {

constexpr int threads = 256, warps = threads / warp, columns = warp - 2;
// A row more above and below is looked at: longer strips waste less, shorter ones fill the device.
constexpr int strip_rows = 16;
constexpr int sums = 5;  // as in PgmResult

template <class T>
struct Scene {
  int frames, height, width;
  const T* given;
  const std::uint8_t *labels, *valid;
  long long valid_stride;
  PgmUnary<T> law;
  T gamma, s, sigma, d_scale;
  bool mean;
  T *loss, *d_given, *map;
  const T* d_map;
  bool parts;
  double* sums;
  double* partial;  // (blocks, sums)
  unsigned* arrived;

  __host__ __device__ long long across() const { return (width + columns - 1) / columns; }
  __host__ __device__ long long down() const { return (height + strip_rows - 1) / strip_rows; }
  __host__ __device__ long long strips() const { return frames * across() * down(); }
};

// What a lane knows of its pixel of a row; `own`: weight of the terms, 0 where there is no pixel.
template <class T>
struct Pixel {
  T x, l, d_l, own, g;
  bool valid;
};

// Terms of one pixel.
template <class T>
struct Terms {
  T unary = 0, vertical = 0, horizontal = 0;
  int valid = 0, wrong = 0;
};

template <class T, bool Logits>
__device__ __forceinline__ Pixel<T> pixel_at(const Scene<T>& s, long long base, long long mask_base,
                                             int row, int column, Terms<T>& t) {
  Pixel<T> p{T(0), T(0), T(0), T(0), T(0), false};
  if (column < 0 || column >= s.width || row < 0 || row >= s.height) return p;
  const long long at = static_cast<long long>(row) * s.width + column;
  p.valid = !s.valid || s.valid[mask_base + at];
  const T given = p.valid ? s.given[base + at] : T(Logits ? 0 : 0.5);
  const int y = s.labels[base + at];
  const PgmPixel<T> q = pgm_pixel<Logits>(given);
  p.x = q.x, p.l = q.l, p.d_l = q.d_l;
  t.valid = p.valid;
  t.wrong = (y > 2) + (!Logits && !(given >= 0 && given <= 1));
  if (!p.valid) return p;
  p.own = s.d_map ? s.d_map[base + at] : T(1);
  const int label = y > 2 ? 2 : y;
  const T a = label == 0 ? s.law.a[0] : label == 1 ? s.law.a[1] : s.law.a[2];
  const T b = label == 0 ? s.law.b[0] : label == 1 ? s.law.b[1] : s.law.b[2];
  const T c = label == 0 ? s.law.c[0] : label == 1 ? s.law.c[1] : s.law.c[2];
  t.unary = p.own * (a * q.l + b * q.m + c);
  p.g = p.own * (a * q.d_l - b * q.d_minus_m);
  return p;
}

// The pairs of the row and with the row above; adds to both derivatives. Every lane takes part.
template <class T, bool Logits>
__device__ __forceinline__ void pair_up(const Scene<T>& s, Pixel<T>& above, Pixel<T>& p,
                                        Terms<T>& t) {
  const T before = __shfl_up_sync(all_lanes, p.x, 1), after = __shfl_down_sync(all_lanes, p.x, 1);
  const int left = __shfl_up_sync(all_lanes, static_cast<int>(p.valid), 1);
  const int right = __shfl_down_sync(all_lanes, static_cast<int>(p.valid), 1);
  const T own_after = __shfl_down_sync(all_lanes, p.own, 1);
  if (!p.valid) return;
  T pull = 0;
  if (left) {
    const T step = p.x - before;
    pull = step * p.own;
    t.horizontal = s.sigma * step * step * p.own;
  }
  if (right) pull -= (after - p.x) * own_after;
  p.g += 2 * s.sigma * pgm_d_x<Logits>(p.x, p.d_l) * pull;
  if (!above.valid) return;
  const T rise = pgm_rise(p.l, above.l, s.s);
  if (!(rise > 0)) return;
  const T hinge = s.gamma * p.own;
  t.vertical = hinge * rise;
  p.g += hinge * p.d_l;
  above.g -= hinge * above.d_l;
}

// A warp's strip.
template <class T, bool Logits>
__device__ void walk(const Scene<T>& s, long long strip, double (&total)[sums]) {
  const int lane = threadIdx.x % warp;
  const long long rest = strip / s.across();
  const int column = static_cast<int>(strip % s.across()) * columns + lane - 1;
  const int begin = static_cast<int>(rest % s.down()) * strip_rows;
  const int end = begin + strip_rows < s.height ? begin + strip_rows : s.height;
  const long long frame = rest / s.down();
  const long long pixels = static_cast<long long>(s.height) * s.width;
  const long long base = frame * pixels, mask_base = frame * s.valid_stride;
  const bool writes = lane > 0 && lane < warp - 1 && column < s.width;
  Terms<T> none;
  Pixel<T> above = pixel_at<T, Logits>(s, base, mask_base, begin - 1, column, none);
  for (int row = begin; row <= end; ++row) {
    Terms<T> t;
    Pixel<T> p = pixel_at<T, Logits>(s, base, mask_base, row, column, t);
    pair_up<T, Logits>(s, above, p, t);
    const long long at = base + static_cast<long long>(row) * s.width + column;
    if (writes && row > begin && s.d_given) s.d_given[at - s.width] = above.g * s.d_scale;
    if (writes && row < end) {
      if (s.map && s.parts) {
        s.map[at] = t.unary;
        s.map[at + s.frames * pixels] = t.vertical;
        s.map[at + 2 * s.frames * pixels] = t.horizontal;
      } else if (s.map) {
        s.map[at] = t.unary + t.vertical + t.horizontal;
      }
      const double terms[] = {static_cast<double>(t.unary), static_cast<double>(t.vertical),
                              static_cast<double>(t.horizontal), static_cast<double>(t.valid),
                              static_cast<double>(t.wrong)};
      for (int k = 0; k < sums; ++k) total[k] += terms[k];
    }
    above = p;
  }
}

// By the last block: what all have left, in their order.
template <class T>
__device__ void finish(const Scene<T>& s, double* scratch) {
  double total[sums];
  for (int k = 0; k < sums; ++k) {
    double own = 0;
    for (unsigned block = threadIdx.x; block < gridDim.x; block += threads)
      own += s.partial[static_cast<long long>(block) * sums + k];
    total[k] = block_sum(own, scratch);
  }
  if (threadIdx.x != 0) return;
  for (int k = 0; k < sums; ++k) s.sums[k] = total[k];
  if (!s.loss) return;
  const double by = s.mean && total[3] > 1 ? total[3] : 1.0;
  // Nobody waits for the device to complain.
  *s.loss =
      total[4] > 0 ? static_cast<T>(NAN) : static_cast<T>((total[0] + total[1] + total[2]) / by);
}

template <class T, bool Logits>
__global__ void __launch_bounds__(threads) pgm_kernel(Scene<T> s) {
  __shared__ double scratch[warps];
  __shared__ bool last;
  double total[sums] = {};
  const long long stride = static_cast<long long>(gridDim.x) * warps;
  for (long long strip = blockIdx.x * static_cast<long long>(warps) + threadIdx.x / warp;
       strip < s.strips(); strip += stride)
    walk<T, Logits>(s, strip, total);
  for (int k = 0; k < sums; ++k) {
    const double sum = block_sum(total[k], scratch);
    if (threadIdx.x == 0) s.partial[static_cast<long long>(blockIdx.x) * sums + k] = sum;
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(s.arrived, 1u) == gridDim.x - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  finish(s, scratch);
}

template <class T>
void run_pgm(const PgmProblem& p, const PgmResult& result, cudaStream_t stream) {
  Scene<T> s{};
  s.frames = p.frames, s.height = p.height, s.width = p.width;
  s.given = static_cast<const T*>(p.confidence);
  s.labels = p.labels;
  s.valid = p.valid;
  s.valid_stride = p.valid_shared ? 0 : static_cast<long long>(p.height) * p.width;
  s.law = pgm_unary<T>(p.label_weights, p.constants);
  s.gamma = static_cast<T>(p.gamma);
  s.s = static_cast<T>(p.s);
  s.sigma = static_cast<T>(p.sigma);
  s.d_scale = pgm_d_scale<T>(p.mean, p.valid, static_cast<double>(p.frames) * p.height * p.width);
  s.mean = p.mean;
  s.loss = static_cast<T*>(result.loss);
  s.d_given = static_cast<T*>(result.d_confidence);
  s.map = static_cast<T*>(result.map);
  s.d_map = static_cast<const T*>(result.d_map);
  s.parts = result.parts;
  s.sums = result.sums;
  const unsigned blocks = blocks_over_items(s.strips() * warp, threads);
  const auto lay_out = [&](Layout l) {
    s.arrived = l.take<unsigned>(1);
    s.partial = l.take<double>(static_cast<std::size_t>(blocks) * sums);
    return l.bytes();
  };
  const Workspace workspace(lay_out(Layout()), stream);
  lay_out(Layout(workspace.data()));
  check(cudaMemsetAsync(s.arrived, 0, sizeof(unsigned), stream), "clearing the workspace");
  if (p.logits)
    USCONF_LAUNCH((pgm_kernel<T, true>), blocks, threads, 0, stream, s);
  else
    USCONF_LAUNCH((pgm_kernel<T, false>), blocks, threads, 0, stream, s);
  check_launch("the annotation model's loss");
}

// The scale is read here: to read it on the host would make it wait.
template <class T>
__global__ void __launch_bounds__(threads)
    scale_kernel(T* __restrict__ gradient, long long count, const T* __restrict__ scale) {
  const T by = *scale;
  if (by == T(1)) return;
  for (long long i = own_item(); i < count; i += item_stride()) gradient[i] *= by;
}

template <class T>
void run_scale(void* gradient, long count, const void* scale, cudaStream_t stream) {
  USCONF_LAUNCH(scale_kernel<T>, blocks_over_items(count, threads), threads, 0, stream,
                static_cast<T*>(gradient), count, static_cast<const T*>(scale));
  check_launch("scaling the loss's gradient");
}

}  // namespace

void pgm_scale(void* gradient, bool in_double, long count, const void* scale, int, void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  if (count == 0) return;
  in_double ? run_scale<double>(gradient, count, scale, queue)
            : run_scale<float>(gradient, count, scale, queue);
}

void pgm(const PgmProblem& p, const PgmResult& result, void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  p.in_double ? run_pgm<double>(p, result, queue) : run_pgm<float>(p, result, queue);
}

}  // namespace usconf::cuda
