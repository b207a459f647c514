// Forward and backward sweeps through the tiles: one block per tile and frame, a warp per quadrant.
#include "random_walk_stages.h"
#include "tile_geometry.h"

namespace usconf::cuda {
namespace {

// A plane of the rectangle, zero outside.
template <class T>
struct Plane {
  T* data;
  int rows, columns;

  __device__ bool inside(int row, int column) const {
    return row >= 0 && row < rows && column >= 0 && column < columns;
  }
  __device__ float at(int row, int column) const {
    return inside(row, column) ? data[static_cast<long long>(row) * columns + column] : 0.0f;
  }
  __device__ void set(int row, int column, float value) const {
    if (inside(row, column)) data[static_cast<long long>(row) * columns + column] = value;
  }
};

__device__ __forceinline__ Spot quadrant_pixel(const Node& node, int quadrant, int pixel) {
  const Spot origin = quadrant_spot(quadrant);
  return {node.row + origin.row + pixel / quadrant_side,
          node.column + origin.column + pixel % quadrant_side};
}

// y_k = r_k / sqrt(d_k), r_i += z_ki y_k. value: r in, y out. Returns the lane's share of the ring.
__device__ float forward_quadrant(const float* z, float* value, int lane) {
  for (int k = 0; k < quadrant_pixels; ++k) {
    const float* row = z + k * quadrant_row;
    const float y = value[k] * row[quadrant_root];
    if (lane >= 1 && lane <= quadrant_band && k + lane < quadrant_pixels)
      value[k + lane] += row[lane - 1] * y;
    __syncwarp();
  }
  for (int k = lane; k < quadrant_pixels; k += warp)
    value[k] *= z[k * quadrant_row + quadrant_root];
  __syncwarp();
  float ring = 0;
  for (int k = 0; k < quadrant_pixels; ++k)
    ring += z[k * quadrant_row + quadrant_band + lane] * value[k];
  return ring;
}

// The cross's own square: upper triangle, reciprocal roots on the diagonal.
__device__ void load_cross_square(const float* cross, float* square) {
  for (int i = threadIdx.x; i < cross_pixels * cross_pixels; i += tile_threads) {
    const int k = i / cross_pixels, j = i % cross_pixels;
    square[i] = cross[k * cross_row + (j == k ? cross_root : j)];
  }
}

// The first warp: the cross's pixels among themselves.
__device__ void forward_cross(const float* square, float* value, int lane) {
  float r = lane < cross_pixels ? value[lane] : 0.0f;
  for (int k = 0; k < cross_pixels; ++k) {
    const float y = __shfl_sync(all_lanes, r, k) * square[k * cross_pixels + k];
    if (lane > k && lane < cross_pixels) r += square[k * cross_pixels + lane] * y;
  }
  if (lane < cross_pixels) value[lane] = r * square[lane * cross_pixels + lane];
}

__global__ void __launch_bounds__(tile_threads)
    forward_tiles_kernel(Storage storage, const float* residual, int rows, int columns) {
  __shared__ float z[quadrants * quadrant_size];
  __shared__ float square[cross_pixels * cross_pixels];
  __shared__ float value[quadrants][quadrant_pixels];
  __shared__ float ring[quadrants][quadrant_ring];
  __shared__ float front[cross_front];
  const int frame = blockIdx.y, lane = threadIdx.x % warp, own = threadIdx.x / warp;
  const Node& node = storage.nodes[blockIdx.x];
  const float* kept = storage.factor + frame * storage.factor_stride + node.factor;
  const float* cross = kept + quadrants * quadrant_size;
  float* vector = storage.vector + frame * storage.vector_stride + node.vector;
  const Plane<const float> r{residual + static_cast<long long>(frame) * rows * columns, rows,
                             columns};
  for (int i = threadIdx.x; i < quadrants * quadrant_size; i += tile_threads) z[i] = kept[i];
  load_cross_square(cross, square);
  for (int pixel = lane; pixel < quadrant_pixels; pixel += warp) {
    const Spot s = quadrant_pixel(node, own, pixel);
    value[own][pixel] = r.at(s.row, s.column);
  }
  __syncthreads();
  ring[own][lane] = forward_quadrant(z + own * quadrant_size, value[own], lane);
  for (int pixel = lane; pixel < quadrant_pixels; pixel += warp)
    vector[own * quadrant_pixels + pixel] = value[own][pixel];
  __syncthreads();
  if (threadIdx.x < cross_front) {
    const Spot s = cross_position_spot(threadIdx.x);
    float sum = threadIdx.x < cross_pixels ? r.at(node.row + s.row, node.column + s.column) : 0.0f;
    for (int q = 0; q < quadrants; ++q) {
      const Spot origin = quadrant_spot(q);
      const int i = ring_index(s.row - origin.row, s.column - origin.column, quadrant_side);
      if (i >= 0) sum += ring[q][i];
    }
    front[threadIdx.x] = sum;
  }
  // No barrier: the first warp reads back what the same threads wrote.
  if (own == 0) forward_cross(square, front, lane);
  __syncthreads();
  if (threadIdx.x < cross_pixels)
    vector[quadrants * quadrant_pixels + threadIdx.x] = front[threadIdx.x];
  if (threadIdx.x >= tile_ring) return;
  const Spot s = ring_spot(threadIdx.x, tile_side);
  const int place = boundary_position(node, node.row + s.row, node.column + s.column);
  if (place < 0) return;
  float sum = front[cross_pixels + threadIdx.x];
  for (int k = 0; k < cross_pixels; ++k)
    sum += cross[k * cross_row + cross_pixels + threadIdx.x] * front[k];
  vector[tile_pixels + place] = sum;
}

// x_k = (y_k + sum_j z_kj x_j) / sqrt(d_k), the cross's pixels in shared memory: value is y plus
// the ring's share, x after it.
__device__ void backward_cross(const float* square, float* value, int lane) {
  float v = lane < cross_pixels ? value[lane] : 0.0f;
  for (int k = cross_pixels - 1; k >= 0; --k) {
    const float x = __shfl_sync(all_lanes, v, k) * square[k * cross_pixels + k];
    if (lane < k) v += square[lane * cross_pixels + k] * x;
  }
  if (lane < cross_pixels) value[lane] = v * square[lane * cross_pixels + lane];
}

// The same for a quadrant, its share of cross and ring added here.
__device__ void backward_quadrant(const float* z, const float* around, float* value, int lane) {
  for (int k = lane; k < quadrant_pixels; k += warp) {
    float sum = value[k];
    for (int j = 0; j < quadrant_ring; ++j)
      sum += z[k * quadrant_row + quadrant_band + j] * around[j];
    value[k] = sum;
  }
  __syncwarp();
  for (int k = quadrant_pixels - 1; k >= 0; --k) {
    const float x = value[k] * z[k * quadrant_row + quadrant_root];
    const int row = k - lane;
    if (lane >= 1 && lane <= quadrant_band && row >= 0)
      value[row] += z[row * quadrant_row + lane - 1] * x;
    __syncwarp();
  }
  for (int k = lane; k < quadrant_pixels; k += warp)
    value[k] *= z[k * quadrant_row + quadrant_root];
}

__global__ void __launch_bounds__(tile_threads)
    backward_tiles_kernel(Storage storage, float* x, bool from_source, int rows, int columns) {
  __shared__ float z[quadrants * quadrant_size];
  __shared__ float square[cross_pixels * cross_pixels];
  __shared__ float value[quadrants][quadrant_pixels];
  __shared__ float around[quadrants][quadrant_ring];
  __shared__ float front[cross_front];
  const int frame = blockIdx.y, lane = threadIdx.x % warp, own = threadIdx.x / warp;
  const Node& node = storage.nodes[blockIdx.x];
  const float* kept = storage.factor + frame * storage.factor_stride + node.factor;
  const float* cross = kept + quadrants * quadrant_size;
  const float* vector = storage.vector + frame * storage.vector_stride + node.vector;
  const Plane<float> out{x + static_cast<long long>(frame) * rows * columns, rows, columns};
  for (int i = threadIdx.x; i < quadrants * quadrant_size; i += tile_threads) z[i] = kept[i];
  load_cross_square(cross, square);
  if (threadIdx.x < tile_ring) {
    const Spot s = ring_spot(threadIdx.x, tile_side);
    front[cross_pixels + threadIdx.x] = out.at(node.row + s.row, node.column + s.column);
  }
  __syncthreads();
  for (int k = own; k < cross_pixels; k += quadrants) {
    const float* row = cross + k * cross_row;
    float sum = 0;
    for (int j = lane; j < tile_ring; j += warp)
      sum += row[cross_pixels + j] * front[cross_pixels + j];
    sum = warp_sum(sum);
    if (lane == 0)
      front[k] = sum + (from_source ? row[cross_source] : vector[quadrants * quadrant_pixels + k]);
  }
  for (int k = lane; k < quadrant_pixels; k += warp)
    value[own][k] = from_source ? z[own * quadrant_size + k * quadrant_row + quadrant_source]
                                : vector[own * quadrant_pixels + k];
  __syncthreads();
  if (own == 0) backward_cross(square, front, lane);
  __syncthreads();
  if (threadIdx.x < cross_pixels) {
    const Spot s = cross_spot(threadIdx.x);
    out.set(node.row + s.row, node.column + s.column, front[threadIdx.x]);
  }
  const Spot origin = quadrant_spot(own), spot = ring_spot(lane, quadrant_side);
  around[own][lane] = front[cross_position(origin.row + spot.row, origin.column + spot.column)];
  __syncwarp();
  backward_quadrant(z + own * quadrant_size, around[own], value[own], lane);
  for (int pixel = lane; pixel < quadrant_pixels; pixel += warp) {
    const Spot s = quadrant_pixel(node, own, pixel);
    out.set(s.row, s.column, value[own][pixel]);
  }
}

}  // namespace

void forward_tiles(const Dissection& tree, const Storage& storage, const float* residual,
                   int frames, cudaStream_t stream) {
  USCONF_LAUNCH(forward_tiles_kernel, dim3(tree.tiles, frames), tile_threads, 0, stream, storage,
                residual, tree.rows, tree.columns);
  check_launch("the forward sweep of the tiles");
}

void backward_tiles(const Dissection& tree, const Storage& storage, float* x, bool from_source,
                    int frames, cudaStream_t stream) {
  USCONF_LAUNCH(backward_tiles_kernel, dim3(tree.tiles, frames), tile_threads, 0, stream, storage,
                x, from_source, tree.rows, tree.columns);
  check_launch("the backward sweep of the tiles");
}

}  // namespace usconf::cuda
