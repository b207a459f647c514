// Forward and backward sweeps through the fronts above the tiles. Per level: the pivots of a front
// by one block, panel by panel; its boundary by as many blocks as it needs, or by the same block in
// small fronts.
#include "random_walk_stages.h"
#include "tile_geometry.h"

namespace usconf::cuda {
namespace {

constexpr int threads = 256, warps = threads / warp;
// Up to this many factor entries in a level's boundaries, one block per front reads them all.
constexpr long long small_boundary = 16384;

// A front of one frame.
struct FrontView {
  const Node& node;
  const float* factor;   // (pivots, ld)
  float* values;         // pivots, then boundary
  const float* vectors;  // the frame's: offsets of the children

  __device__ FrontView(const Storage& storage, const Node& node, int frame)
      : node(node),
        factor(storage.factor + frame * storage.factor_stride + node.factor),
        values(storage.vector + frame * storage.vector_stride + node.vector),
        vectors(storage.vector + frame * storage.vector_stride) {}

  __device__ const float* row(int k) const { return factor + static_cast<long long>(k) * node.ld; }
};

__device__ __forceinline__ long long pixel_index(const Node& node, int position, int columns) {
  const Spot s = pixel_at(node, position);
  return static_cast<long long>(s.row) * columns + s.column;
}

// What the children pass on to a boundary position of the front.
__device__ __forceinline__ float passed_on(const FrontView& f, int position) {
  float sum = 0;
  for (int k = 0; k < 2; ++k) {
    const Child& child = f.node.child[k];
    if (child.boundary < 0) continue;
    for (int i = 0; i < child.runs; ++i) {
      const int along = position - child.run[i].to;
      if (along >= 0 && along < child.run[i].length)
        sum += f.vectors[child.vector + child.run[i].from + along];
    }
  }
  return sum;
}

// A panel's inverse triangle, as the factor holds it (transposed), and two numbers per pivot.
struct PanelMemory {
  float inverse[panel][panel + 1];  // one more: a column's entries then lie in different banks
  float right[panel], solved[panel];
};

__device__ __forceinline__ void load_inverse(const FrontView& f, int first, int count,
                                             PanelMemory& memory) {
  const int lane = threadIdx.x % warp;
  for (int i = threadIdx.x / warp; i < panel; i += warps)
    memory.inverse[i][lane] = i < count && lane <= i ? f.row(first + i)[first + lane] : 0.0f;
}

// y_k = r_k / sqrt(d_k), r_i += z_ki y_k for the pivots.
__device__ __forceinline__ void forward_pivots(const FrontView& f, const float* residual,
                                               int columns, PanelMemory& memory) {
  const int s = f.node.pivots, self = threadIdx.x;
  for (int i = self; i < s; i += threads) {
    float r = residual[pixel_index(f.node, i, columns)];
    for (int k = 0; k < 2; ++k)
      if (f.node.child[k].boundary >= 0) r += f.vectors[f.node.child[k].vector + i];
    f.values[i] = r;
  }
  for (int first = 0; first < s; first += panel) {
    const int count = min(panel, s - first);
    load_inverse(f, first, count, memory);
    if (self < panel) memory.right[self] = self < count ? f.values[first + self] : 0.0f;
    __syncthreads();
    if (self < panel) {
      float y = 0;
#pragma unroll
      for (int k = 0; k < panel; ++k) y += memory.inverse[self][k] * memory.right[k];
      memory.solved[self] = y;
      if (self < count) f.values[first + self] = y;
    }
    __syncthreads();
    for (int j = first + count + self; j < s; j += threads) {
      float r = f.values[j];
#pragma unroll 8
      for (int k = 0; k < count; ++k) r += f.row(first + k)[j] * memory.solved[k];
      f.values[j] = r;
    }
    // No barrier: the next panel's numbers were written by the threads that read them back.
  }
}

// r_i += z_ki y_k for 32 boundary positions from `first` on; a warp takes every eighth pivot.
__device__ __forceinline__ void forward_boundary(const FrontView& f, int first,
                                                 float (*part)[warp]) {
  const int lane = threadIdx.x % warp, group = threadIdx.x / warp;
  const int position = f.node.pivots + first + lane;
  const bool there = first + lane < f.node.boundary;
  float sum = 0;
  if (there) {
#pragma unroll 4
    for (int k = group; k < f.node.pivots; k += warps) sum += f.row(k)[position] * f.values[k];
  }
  part[group][lane] = sum;
  __syncthreads();
  if (group == 0 && there) {
    sum = passed_on(f, position);
    for (int g = 0; g < warps; ++g) sum += part[g][lane];
    f.values[position] = sum;
  }
  __syncthreads();
}

__global__ void __launch_bounds__(threads)
    forward_pivots_kernel(Storage storage, const float* residual, Level level, int columns,
                          long long plane, bool whole) {
  __shared__ PanelMemory memory;
  __shared__ float part[warps][warp];
  const FrontView f(storage, storage.nodes[level.first + blockIdx.x], blockIdx.y);
  forward_pivots(f, residual + blockIdx.y * plane, columns, memory);
  for (int first = 0; whole && first < f.node.boundary; first += warp)
    forward_boundary(f, first, part);
}

__global__ void __launch_bounds__(threads)
    forward_boundary_kernel(Storage storage, Level level, int chunks) {
  __shared__ float part[warps][warp];
  const FrontView f(storage, storage.nodes[level.first + blockIdx.x / chunks], blockIdx.y);
  const int first = blockIdx.x % chunks * warp;
  if (first < f.node.boundary) forward_boundary(f, first, part);
}

// values_k = y_k + sum over the boundary of z_kj x_j for eight pivots from k0 on, a warp each;
// `around`: room for the boundary's x, a piece at a time.
__device__ __forceinline__ void backward_boundary(const FrontView& f, const float* x, int k0,
                                                  bool from_source, int columns, float* around) {
  const int self = threadIdx.x, lane = self % warp, k = k0 + self / warp;
  const float* row = f.row(min(k, f.node.pivots - 1));
  float sum = 0;
  for (int first = f.node.pivots; first < f.node.source(); first += threads) {
    const int count = min(threads, f.node.source() - first);
    if (self < count) around[self] = x[pixel_index(f.node, first + self, columns)];
    __syncthreads();
    for (int j = lane; j < count; j += warp) sum += row[first + j] * around[j];
    __syncthreads();
  }
  sum = warp_sum(sum);
  if (lane == 0 && k < f.node.pivots)
    f.values[k] = sum + (from_source ? row[f.node.source()] : f.values[k]);
}

// x_k = (values_k + sum over later pivots of z_kj x_j) / sqrt(d_k).
__device__ __forceinline__ void backward_pivots(const FrontView& f, float* x, int columns,
                                                PanelMemory& memory) {
  const int lane = threadIdx.x % warp, group = threadIdx.x / warp, s = f.node.pivots;
  for (int first = (s - 1) / panel * panel; first >= 0; first -= panel) {
    const int count = min(panel, s - first);
    load_inverse(f, first, count, memory);
    for (int i = group; i < panel; i += warps) {
      const float* row = f.row(first + min(i, count - 1));
      float sum = 0;
#pragma unroll 4
      for (int j = first + count + lane; j < s; j += warp) sum += row[j] * f.values[j];
      sum = warp_sum(sum);
      if (lane == 0) memory.right[i] = i < count ? sum + f.values[first + i] : 0.0f;
    }
    __syncthreads();
    if (group == 0 && lane < count) {
      float solved = 0;
#pragma unroll
      for (int j = 0; j < panel; ++j) solved += memory.inverse[j][lane] * memory.right[j];
      f.values[first + lane] = solved;
      x[pixel_index(f.node, first + lane, columns)] = solved;
    }
    __syncthreads();
  }
}

__global__ void __launch_bounds__(threads)
    backward_boundary_kernel(Storage storage, const float* x, Level level, int chunks, int columns,
                             long long plane, bool from_source) {
  __shared__ float around[threads];
  const FrontView f(storage, storage.nodes[level.first + blockIdx.x / chunks], blockIdx.y);
  const int k0 = blockIdx.x % chunks * warps;
  if (k0 < f.node.pivots)
    backward_boundary(f, x + blockIdx.y * plane, k0, from_source, columns, around);
}

__global__ void __launch_bounds__(threads)
    backward_pivots_kernel(Storage storage, float* x, Level level, int columns, long long plane,
                           bool from_source, bool whole) {
  __shared__ PanelMemory memory;
  __shared__ float around[threads];
  const FrontView f(storage, storage.nodes[level.first + blockIdx.x], blockIdx.y);
  x += blockIdx.y * plane;
  for (int k0 = 0; whole && k0 < f.node.pivots; k0 += warps)
    backward_boundary(f, x, k0, from_source, columns, around);
  __syncthreads();
  backward_pivots(f, x, columns, memory);
}

bool one_block(const Level& level) {
  return static_cast<long long>(level.pivots) * level.boundary <= small_boundary;
}

}  // namespace

void forward_fronts(const Dissection& tree, const Storage& storage, const float* residual,
                    int frames, cudaStream_t stream) {
  const long long plane = static_cast<long long>(tree.rows) * tree.columns;
  for (const Level& level : tree.levels) {
    const bool whole = one_block(level);
    USCONF_LAUNCH(forward_pivots_kernel, dim3(level.count, frames), threads, 0, stream, storage,
                  residual, level, tree.columns, plane, whole);
    const int chunks = (level.boundary + warp - 1) / warp;
    if (!whole)
      USCONF_LAUNCH(forward_boundary_kernel, dim3(level.count * chunks, frames), threads, 0, stream,
                    storage, level, chunks);
  }
  check_launch("the forward sweep of the fronts");
}

void backward_fronts(const Dissection& tree, const Storage& storage, float* x, bool from_source,
                     int frames, cudaStream_t stream) {
  const long long plane = static_cast<long long>(tree.rows) * tree.columns;
  for (auto level = tree.levels.rbegin(); level != tree.levels.rend(); ++level) {
    const bool whole = one_block(*level);
    const int chunks = (level->pivots + warps - 1) / warps;
    if (!whole)
      USCONF_LAUNCH(backward_boundary_kernel, dim3(level->count * chunks, frames), threads, 0,
                    stream, storage, x, *level, chunks, tree.columns, plane, from_source);
    USCONF_LAUNCH(backward_pivots_kernel, dim3(level->count, frames), threads, 0, stream, storage,
                  x, *level, tree.columns, plane, from_source, whole);
  }
  check_launch("the backward sweep of the fronts");
}

}  // namespace usconf::cuda
