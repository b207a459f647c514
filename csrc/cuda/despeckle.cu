// Speckle-reducing anisotropic diffusion on the device: one launch an iteration for all frames. A
// block reads its tile of E once, with one pixel beyond it and two below and to the right, takes c
// there from shared memory, writes the new E, and adds up what the next step needs. The last block
// of a frame to finish closes the step: it adds up the change in the order of the blocks, takes the
// next q0, and marks the frame as done. Launches after that return at once, so that the host need
// not ask after every iteration: it asks every steps_unasked ones, and the iterate at which a frame
// stopped stays where it is.
#include <algorithm>
#include <cmath>
#include <vector>

#include "../math/despeckle.h"
#include "despeckle.h"
#include "rank_selection.h"

namespace usconf::cuda {
namespace {

// A thread a pixel of a tile; two tiles at a time on a multiprocessor.
constexpr int across_tile = 32, down_tile = 16;
constexpr int tile_threads = across_tile * down_tile, tile_warps = tile_threads / warp;
constexpr int across_reach = across_tile + 3, down_reach = down_tile + 3;  // 1 before, 2 after
constexpr int across_samples = across_tile / srad_block, down_samples = down_tile / srad_block;
static_assert(across_samples * down_samples <= tile_warps);
constexpr int steps_unasked = 16;
constexpr double region_pivot = 1.0;                     // the smallest E
constexpr double range_epsilon = 2.220446049250313e-16;  // added to the range, as everywhere

struct Control {
  double q0, pixels;  // valid ones
  unsigned arrived;   // blocks that have finished the step
  int samples;        // 8 x 8 blocks that q0 is the median of; 0: one region
  int steps;
  int done;
};

// What a block adds up.
enum Partial : int { change, region_pixels, region_sum, region_squares, partials };

template <class T>
struct Diffusion {
  Frames frames;
  int height, width;
  const Range* ranges;
  int roi[4];  // all zero: robust
  double tolerance;
  T rate;
  T* e[2];             // (frames, height, width)
  Control* control;    // (frames)
  double* partial;     // (frames, tiles, partials)
  double* speckle;     // (frames, blocks down, blocks across), below 0: no sample
  int* sample_pixels;  // likewise; 0: no sample

  __host__ __device__ int tiles_across() const { return (width + across_tile - 1) / across_tile; }
  __host__ __device__ int tiles() const {
    return tiles_across() * ((height + down_tile - 1) / down_tile);
  }
  __host__ __device__ int across() const { return width / srad_block; }
  __host__ __device__ int blocks() const { return across() * (height / srad_block); }
  __host__ __device__ bool robust() const { return roi[1] == 0; }
  __device__ long long at(int row, int column) const {
    return static_cast<long long>(row) * width + column;
  }
  __device__ bool valid(int frame, int row, int column) const {
    return row >= 0 && row < height && column >= 0 && column < width &&
           frames.valid(frame, at(row, column));
  }
  __device__ bool in_region(int row, int column) const {
    return robust() || (row >= roi[0] && row < roi[1] && column >= roi[2] && column < roi[3]);
  }
  __device__ double intensity(int frame, int row, int column) const {
    const Range r = ranges[frame];
    return (frames.number(frame, at(row, column)) - r.low) / ((r.high - r.low) + range_epsilon);
  }
};

// Sum over a frame's tiles of one of their partial sums, in every thread; the same order always.
__device__ double sum_of(const double* partial, int tiles, int which, double* scratch) {
  __shared__ double total;
  double sum = 0;
  for (int i = threadIdx.x; i < tiles; i += blockDim.x) sum += partial[i * partials + which];
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) total = sum;
  __syncthreads();
  const double found = total;
  __syncthreads();
  return found;
}

// By the last block of a frame to arrive: the next q0 and, after a step, whether to stop.
template <class T>
__device__ void close_step(const Diffusion<T>& d, int frame, bool start, double* scratch) {
  Control& control = d.control[frame];
  const double* partial = d.partial + static_cast<long long>(frame) * d.tiles() * partials;
  const double* speckle = d.speckle + static_cast<long long>(frame) * d.blocks();
  int samples = control.samples;
  if (start) {
    double own = 0;
    for (int i = threadIdx.x; i < d.blocks(); i += blockDim.x) own += speckle[i] >= 0 ? 1 : 0;
    __shared__ int counted;
    own = block_sum(own, scratch);
    if (threadIdx.x == 0) counted = d.robust() ? static_cast<int>(own) : 0;
    __syncthreads();
    samples = counted;
  }
  double q0;
  if (samples > 0) {
    __shared__ Selection selection;
    q0 = select(selection, speckle, d.blocks(), (samples - 1) / 2);
  } else {
    const double pixels = sum_of(partial, d.tiles(), region_pixels, scratch);
    const double sum = sum_of(partial, d.tiles(), region_sum, scratch);
    const double squares = sum_of(partial, d.tiles(), region_squares, scratch);
    q0 = srad_speckle(sum, squares, pixels, region_pivot);
  }
  // At the start `change` counts the valid pixels.
  const double changed = sum_of(partial, d.tiles(), change, scratch);
  if (threadIdx.x) return;
  control.q0 = q0;
  control.samples = samples;
  control.arrived = 0;
  if (start) {
    control.pixels = changed;
    control.done = changed == 0;
    return;
  }
  ++control.steps;
  control.done = changed <= d.tolerance * control.pixels;
}

// A tile's pixels as the block sees them: E, and whether a pixel counts.
template <class T>
struct Tile {
  T e[down_reach][across_reach];
  bool valid[down_reach][across_reach];
  T c[down_tile + 1][across_tile + 1];
};

// Adds up what the new E of a tile contributes. `inside` is set where the thread's pixel is valid.
template <class T>
__device__ void add_up(const Diffusion<T>& d, Tile<T>& tile, double* scratch, int frame, int row,
                       int column, bool inside, T value, double changed, bool start) {
  const int y = threadIdx.x / across_tile, x = threadIdx.x % across_tile;
  const Control& control = d.control[frame];
  double* out = d.partial + (static_cast<long long>(frame) * d.tiles() + blockIdx.x) * partials;
  const double sum = block_sum(changed, scratch);
  if (threadIdx.x == 0) out[change] = sum;
  if (start || control.samples == 0) {
    const bool counts = inside && d.in_region(row, column);
    const double v = counts ? static_cast<double>(value) - region_pivot : 0.0;
    const double pixels = block_sum(counts, scratch), total = block_sum(v, scratch);
    const double squares = block_sum(v * v, scratch);
    if (threadIdx.x == 0)
      out[region_pixels] = pixels, out[region_sum] = total, out[region_squares] = squares;
  }
  if (!d.robust() || (!start && control.samples == 0)) return;
  // Block_sum's barriers lie between the last use of the tile and this one.
  tile.e[y][x] = value;
  tile.valid[y][x] = inside;
  __syncthreads();
  const int own = threadIdx.x / warp, lane = threadIdx.x % warp;
  if (own >= across_samples * down_samples) return;
  const int top = own / across_samples * srad_block, left = own % across_samples * srad_block;
  const int block_row = (row - y + top) / srad_block,
            block_column = (column - x + left) / srad_block;
  if (block_row >= d.height / srad_block || block_column >= d.across()) return;
  const long long at =
      static_cast<long long>(frame) * d.blocks() + block_row * d.across() + block_column;
  const double pivot = tile.e[top][left];  // any of its values, so that the sums stay small
  double pixels = 0, total = 0, squares = 0, bright = 0;
  for (int i = lane; i < srad_block * srad_block; i += warp) {
    const int r = top + i / srad_block, c = left + i % srad_block;
    if (!tile.valid[r][c]) continue;
    const double v = static_cast<double>(tile.e[r][c]) - pivot;
    pixels += 1, total += v, squares += v * v;
    if (start && d.intensity(frame, row - y + r, column - x + c) > srad_bright) bright = 1;
  }
  pixels = warp_sum(pixels), total = warp_sum(total), squares = warp_sum(squares);
  if (start) bright = warp_sum(bright);
  if (lane) return;
  if (start) d.sample_pixels[at] = pixels >= srad_least_pixels && bright > 0;
  d.speckle[at] = d.sample_pixels[at] ? srad_speckle(total, squares, pixels, pivot) : -1.0;
}

// start: E = exp(I) into e[0]. Else one iteration from e[from] to the other one.
template <class T, bool start>
__global__ void __launch_bounds__(tile_threads, 2) srad_kernel(Diffusion<T> d, int from) {
  __shared__ Tile<T> tile;
  __shared__ double scratch[tile_warps];
  __shared__ bool last;
  const int frame = blockIdx.y;
  if (!start && d.control[frame].done) return;
  const int y = threadIdx.x / across_tile, x = threadIdx.x % across_tile;
  const int top = static_cast<int>(blockIdx.x) / d.tiles_across() * down_tile;
  const int left = static_cast<int>(blockIdx.x) % d.tiles_across() * across_tile;
  const int row = top + y, column = left + x;
  const bool inside = d.valid(frame, row, column);
  const long long base = frame * d.frames.pixels, own = base + d.at(row, column);
  T value = 1;
  double changed = 0;
  if (start) {
    if (inside) value = static_cast<T>(exp(d.intensity(frame, row, column)));
    if (row < d.height && column < d.width) d.e[0][own] = value;
    changed = inside;
  } else {
    const T* e = d.e[from];
    for (int i = threadIdx.x; i < down_reach * across_reach; i += tile_threads) {
      const int r = i / across_reach, c = i % across_reach;
      const bool there = d.valid(frame, top + r - 1, left + c - 1);
      tile.valid[r][c] = there;
      tile.e[r][c] = there ? e[base + d.at(top + r - 1, left + c - 1)] : T(1);
    }
    __syncthreads();
    const T q0 = static_cast<T>(d.control[frame].q0);
    const T sharpness = static_cast<T>(srad_sharpness(d.control[frame].q0));
    const auto difference = [&](int r, int c, int down, int right) {
      return tile.valid[r + down][c + right] ? tile.e[r + down][c + right] - tile.e[r][c] : T(0);
    };
    for (int i = threadIdx.x; i < (down_tile + 1) * (across_tile + 1); i += tile_threads) {
      const int r = i / (across_tile + 1) + 1, c = i % (across_tile + 1) + 1;
      tile.c[r - 1][c - 1] =
          srad_coefficient(tile.e[r][c], difference(r, c, -1, 0), difference(r, c, 1, 0),
                           difference(r, c, 0, -1), difference(r, c, 0, 1), q0, sharpness);
    }
    __syncthreads();
    if (inside) {
      const int r = y + 1, c = x + 1;
      const T here = tile.c[y][x];
      const T south = tile.valid[r + 1][c] ? tile.c[y + 1][x] : here;
      const T east = tile.valid[r][c + 1] ? tile.c[y][x + 1] : here;
      const T step = srad_change(here, south, east, difference(r, c, -1, 0), difference(r, c, 1, 0),
                                 difference(r, c, 0, -1), difference(r, c, 0, 1), d.rate);
      value = tile.e[r][c] + step;
      const double moved = static_cast<double>(value) - static_cast<double>(tile.e[r][c]);
      changed = moved * moved;
      d.e[1 - from][own] = value;
    }
  }
  add_up(d, tile, scratch, frame, row, column, inside, value, changed, start);
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(&d.control[frame].arrived, 1u) == gridDim.x - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  close_step(d, frame, start, scratch);
}

template <class T>
__global__ void __launch_bounds__(256)
    diffused_kernel(Diffusion<T> d, void* result, bool is_double) {
  const int frame = blockIdx.y;
  const Range range = d.ranges[frame];
  const T* e = d.e[d.control[frame].steps % 2];
  for (long long i = own_item(); i < d.frames.pixels; i += item_stride()) {
    const long long at = frame * d.frames.pixels + i;
    double v = 0;
    if (d.frames.valid(frame, i))
      v = range.low + log(static_cast<double>(e[at])) * ((range.high - range.low) + range_epsilon);
    if (is_double)
      static_cast<double*>(result)[at] = v;
    else
      static_cast<float*>(result)[at] = static_cast<float>(v);
  }
}

template <class T>
std::size_t lay_out(Diffusion<T>& d, Range*& ranges, unsigned long long*& extremes, void* base) {
  Layout l(base);
  const std::size_t frames = d.frames.count, pixels = d.frames.pixels * frames;
  d.control = l.take<Control>(frames);
  ranges = l.take<Range>(frames);
  extremes = l.take<unsigned long long>(2 * frames);
  d.partial = l.take<double>(frames * d.tiles() * partials);
  d.speckle = l.take<double>(frames * d.blocks());
  d.sample_pixels = l.take<int>(frames * d.blocks());
  for (T*& e : d.e) e = l.take<T>(pixels);
  d.ranges = ranges;
  return l.bytes();
}

template <class T>
void diffuse(const DespeckleProblem& p, int first, int count, void* result, int* steps,
             cudaStream_t stream) {
  Diffusion<T> d{};
  d.frames = frames_of(p, first, count);
  d.height = p.height, d.width = p.width;
  std::copy(p.roi, p.roi + 4, d.roi);
  d.tolerance = p.tolerance;
  d.rate = static_cast<T>(p.step / 4);
  Range* ranges = nullptr;
  unsigned long long* extremes = nullptr;
  const Workspace workspace(lay_out(d, ranges, extremes, nullptr), stream);
  lay_out(d, ranges, extremes, workspace.data());
  find_ranges(d.frames, ranges, extremes, stream);
  check(cudaMemsetAsync(d.control, 0, count * sizeof(Control), stream), "clearing the workspace");
  const dim3 grid(d.tiles(), count);
  USCONF_LAUNCH((srad_kernel<T, true>), grid, tile_threads, 0, stream, d, 0);
  std::vector<Control> seen(count);
  const auto ask = [&] {
    check(cudaMemcpyAsync(seen.data(), d.control, count * sizeof(Control), cudaMemcpyDeviceToHost,
                          stream),
          "reading the iterations");
    check(cudaStreamSynchronize(stream), "reading the iterations");
    return std::all_of(seen.begin(), seen.end(), [](const Control& c) { return c.done != 0; });
  };
  for (int i = 0; i < p.iterations; ++i) {
    USCONF_LAUNCH((srad_kernel<T, false>), grid, tile_threads, 0, stream, d, i % 2);
    if ((i + 1) % steps_unasked == 0 && i + 1 < p.iterations && ask()) break;
  }
  const dim3 pixels(blocks_over_items(d.frames.pixels, 256), count);
  USCONF_LAUNCH(diffused_kernel<T>, pixels, 256, 0, stream, d, result, p.double_result);
  check_launch("speckle reduction");
  ask();
  for (int i = 0; i < count; ++i) steps[i] = seen[i].steps;
}

// Frames at once: what a grid takes, and a workspace of 2 GiB for the diffusion.
int frames_at_once(const DespeckleProblem& p, std::size_t bytes_a_pixel) {
  const std::size_t frame = static_cast<std::size_t>(p.height) * p.width * bytes_a_pixel;
  const std::size_t fit =
      std::max<std::size_t>(1, (std::size_t(2) << 30) / std::max<std::size_t>(1, frame));
  return static_cast<int>(std::min<std::size_t>({fit, static_cast<std::size_t>(p.frames), 65535}));
}

}  // namespace

void srad(const DespeckleProblem& p, void* result, int* iterations_done, void* stream) {
  if (empty(p)) {
    std::fill(iterations_done, iterations_done + p.frames, 0);
    return;
  }
  const auto queue = static_cast<cudaStream_t>(stream);
  const bool in_double = p.double_result || p.scalar == Scalar::f64;
  const int most = frames_at_once(p, 2 * (in_double ? sizeof(double) : sizeof(float)));
  for (int first = 0; first < p.frames; first += most) {
    const int count = std::min(most, p.frames - first);
    void* part = result_at(result, p, first);
    in_double ? diffuse<double>(p, first, count, part, iterations_done + first, queue)
              : diffuse<float>(p, first, count, part, iterations_done + first, queue);
  }
}

}  // namespace usconf::cuda
