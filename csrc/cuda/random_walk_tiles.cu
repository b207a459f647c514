// Elimination of the tiles: one block of four warps per tile and frame, everything in shared
// memory.
#include "random_walk_stages.h"
#include "tile_geometry.h"

namespace usconf::cuda {
namespace {

// 1 / sqrt(d); pixels without couplings (seeds, pixels outside) keep out of everything with 0.
__device__ __forceinline__ float reciprocal_root(float d) { return d > 0 ? 1.0f / sqrtf(d) : 0.0f; }

struct TileView {
  Weights<float> weights;
  int frame, row, column;  // of the tile's first pixel

  __device__ float edge(Spot s, int k) const {
    return weights.edge(frame, row + s.row, column + s.column, k);
  }
  __device__ float seed(Spot s, int plane) const {
    return weights.seed(frame, plane, row + s.row, column + s.column);
  }
};

// Original couplings of a quadrant's pixels, each lane some rows.
__device__ void load_quadrant(const TileView& tile, int quadrant, float* z, int lane) {
  for (int i = lane; i < quadrant_size; i += warp) z[i] = 0;
  __syncwarp();
  const Spot origin = quadrant_spot(quadrant);
  for (int pixel = lane; pixel < quadrant_pixels; pixel += warp) {
    float* row = z + pixel * quadrant_row;
    const int r = pixel / quadrant_side, c = pixel % quadrant_side;
    const Spot here{origin.row + r, origin.column + c};
    for (int k = 0; k < 8; ++k) {
      const Step to = step_to(k);
      const int ring = ring_index(r + to.row, c + to.column, quadrant_side);
      const float w = tile.edge(here, k);
      if (ring >= 0)
        row[quadrant_band + ring] = w;
      else if (k < 4)
        row[to.row * quadrant_side + to.column - 1] = w;
    }
    row[quadrant_source] = tile.seed(here, Weights<float>::source);
    row[quadrant_sink] = tile.seed(here, Weights<float>::sink);
  }
  __syncwarp();
}

// Pixel after pixel; each updates the eight rows behind it.
__device__ void eliminate_quadrant(float* z, int lane) {
  for (int k = 0; k < quadrant_pixels; ++k) {
    float* row = z + k * quadrant_row;
    float ring = row[quadrant_band + lane];
    float band = lane < quadrant_band ? row[lane] : 0.0f;
    float seed = lane < 2 ? row[quadrant_source + lane] : 0.0f;
    const float root = reciprocal_root(warp_sum(ring + band + seed));
    ring *= root;
    band *= root;
    seed *= root;
    row[quadrant_band + lane] = ring;
    if (lane < quadrant_band) row[lane] = band;
    if (lane < 2) row[quadrant_source + lane] = seed;
    if (lane == 0) row[quadrant_root] = root;
    __syncwarp();
    const int behind = min(quadrant_band, quadrant_pixels - 1 - k);
    for (int m = 1; m <= behind; ++m) {
      float* target = row + m * quadrant_row;
      const float z_m = row[m - 1];
      target[quadrant_band + lane] += z_m * ring;
      if (lane + m < quadrant_band) target[lane] += z_m * row[lane + m];
      if (lane < 2) target[quadrant_source + lane] += z_m * seed;
    }
    // No barrier: lanes share a row only once it is a pivot's, and then it no longer changes.
  }
}

// What a quadrant leaves behind: lane j holds the couplings (i, j) of its ring and row j's to the
// seeds.
struct QuadrantUpdate {
  float ring[quadrant_ring];
  float source, sink;
};

__device__ __forceinline__ void sum_quadrant(const float* z, int lane, QuadrantUpdate& out) {
#pragma unroll
  for (int i = 0; i < quadrant_ring; ++i) out.ring[i] = 0;
  out.source = out.sink = 0;
  for (int k = 0; k < quadrant_pixels; ++k) {
    const float* row = z + k * quadrant_row;
    const float own = row[quadrant_band + lane];
    const float4* four = reinterpret_cast<const float4*>(row + quadrant_band);
#pragma unroll
    for (int i = 0; i < quadrant_ring / 4; ++i) {
      const float4 v = four[i];
      out.ring[4 * i] += v.x * own;
      out.ring[4 * i + 1] += v.y * own;
      out.ring[4 * i + 2] += v.z * own;
      out.ring[4 * i + 3] += v.w * own;
    }
    out.source += row[quadrant_source] * own;
    out.sink += row[quadrant_sink] * own;
  }
}

// Original couplings of the cross's pixels, each thread one row; the ring's rows start at zero.
__device__ void load_cross(const TileView& tile, float* front) {
  for (int i = threadIdx.x; i < cross_front * cross_row; i += tile_threads) front[i] = 0;
  __syncthreads();
  if (threadIdx.x < cross_pixels) {
    const int own = threadIdx.x;
    float* row = front + own * cross_row;
    const Spot here = cross_spot(own);
    for (int k = 0; k < 8; ++k) {
      const Step to = step_to(k);
      const int other = cross_position(here.row + to.row, here.column + to.column);
      if (other > own) row[other] = tile.edge(here, k);
    }
    row[cross_source] = tile.seed(here, Weights<float>::source);
    row[cross_sink] = tile.seed(here, Weights<float>::sink);
  }
  __syncthreads();
}

// One quadrant at a time, so that the sums have one order.
__device__ __forceinline__ void add_quadrants(const QuadrantUpdate& update, float* front) {
  const int lane = threadIdx.x % warp, own = threadIdx.x / warp;
  const Spot origin = quadrant_spot(own), spot = ring_spot(lane, quadrant_side);
  const int position = cross_position(origin.row + spot.row, origin.column + spot.column);
  for (int quadrant = 0; quadrant < quadrants; ++quadrant) {
    if (quadrant == own) {
#pragma unroll
      for (int i = 0; i < quadrant_ring; ++i) {
        const int other = __shfl_sync(all_lanes, position, i);
        if (i < lane)
          front[min(position, other) * cross_row + max(position, other)] += update.ring[i];
      }
      front[position * cross_row + cross_source] += update.source;
      front[position * cross_row + cross_sink] += update.sink;
    }
    __syncthreads();
  }
}

__device__ void eliminate_cross(float* front) {
  const int lane = threadIdx.x % warp, own = threadIdx.x / warp;
  for (int k = 0; k < cross_pixels; ++k) {
    const float* row = front + k * cross_row;
    float sum = 0;  // every warp for itself, the same bits in each: saves a barrier
    for (int j = lane; j <= cross_sink; j += warp) sum += j > k ? row[j] : 0.0f;
    sum = warp_sum(sum);
    const float reciprocal = sum > 0 ? 1.0f / sum : 0.0f;
    for (int i = k + 1 + own; i < cross_pixels; i += tile_threads / warp) {
      const float factor = row[i] * reciprocal;
      for (int j = lane; j <= cross_sink; j += warp)
        if (j > i) front[i * cross_row + j] += factor * row[j];
    }
    if (threadIdx.x == 0) front[k * cross_row + cross_root] = reciprocal_root(sum);
    __syncthreads();
  }
  for (int i = threadIdx.x; i < cross_pixels * cross_row; i += tile_threads) {
    const int k = i / cross_row, j = i % cross_row;
    if (j != cross_root) front[i] = j > k ? front[i] * front[k * cross_row + cross_root] : 0.0f;
  }
  __syncthreads();
}

// The tile's update matrix, in the order of its node's boundary. place: ring index -> position, or
// -1 for ring pixels outside the rectangle. A thread sums 4 rows x 8 columns.
__device__ __forceinline__ void write_update(const float* front, const int* place, const Node& node,
                                             float* update) {
  const int first_row = threadIdx.x / 8 * 4, first_column = threadIdx.x % 8 * 8;
  float sum[4][8] = {};
  if (first_column + 7 > first_row) {
    for (int k = 0; k < cross_pixels; ++k) {
      const float* row = front + k * cross_row + cross_pixels;
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 8; ++j) sum[i][j] += row[first_row + i] * row[first_column + j];
    }
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const int row = first_row + i, column = first_column + j;
        if (row >= column || place[row] < 0 || place[column] < 0) continue;
        const int low = min(place[row], place[column]), high = max(place[row], place[column]);
        update[static_cast<long long>(low) * node.update_ld + high] =
            front[(cross_pixels + row) * cross_row + cross_pixels + column] + sum[i][j];
      }
  }
  if (threadIdx.x >= tile_ring || place[threadIdx.x] < 0) return;
  const int own = cross_pixels + threadIdx.x;
  float source = front[own * cross_row + cross_source], sink = front[own * cross_row + cross_sink];
  for (int k = 0; k < cross_pixels; ++k) {
    const float* row = front + k * cross_row;
    source += row[own] * row[cross_source];
    sink += row[own] * row[cross_sink];
  }
  float* out = update + static_cast<long long>(place[threadIdx.x]) * node.update_ld + node.boundary;
  out[0] = source;
  out[1] = sink;
}

__global__ void __launch_bounds__(tile_threads)
    eliminate_tiles_kernel(Storage storage, Weights<float> weights) {
  // The quadrants' rows first, then in the same place the cross's front.
  __shared__ __align__(16) float memory[cross_front * cross_row];
  __shared__ int place[tile_ring];
  static_assert(quadrants * quadrant_size <= cross_front * cross_row);
  const int frame = blockIdx.y, lane = threadIdx.x % warp, quadrant = threadIdx.x / warp;
  const Node& node = storage.nodes[blockIdx.x];
  float* kept = storage.factor + frame * storage.factor_stride + node.factor;
  const TileView tile{weights, frame, node.row, node.column};
  if (threadIdx.x < tile_ring) {
    const Spot s = ring_spot(threadIdx.x, tile_side);
    place[threadIdx.x] = boundary_position(node, node.row + s.row, node.column + s.column);
  }
  float* z = memory + quadrant * quadrant_size;
  load_quadrant(tile, quadrant, z, lane);
  eliminate_quadrant(z, lane);
  QuadrantUpdate update;
  sum_quadrant(z, lane, update);
  __syncthreads();
  for (int i = threadIdx.x; i < quadrants * quadrant_size; i += tile_threads) kept[i] = memory[i];
  __syncthreads();
  load_cross(tile, memory);
  add_quadrants(update, memory);
  eliminate_cross(memory);
  kept += quadrants * quadrant_size;
  for (int i = threadIdx.x; i < cross_pixels * cross_row; i += tile_threads) kept[i] = memory[i];
  write_update(memory, place, node, storage.update + frame * storage.update_stride + node.update);
}

}  // namespace

void eliminate_tiles(const Dissection& tree, const Storage& storage, Weights<float> weights,
                     int frames, cudaStream_t stream) {
  USCONF_LAUNCH(eliminate_tiles_kernel, dim3(tree.tiles, frames), tile_threads, 0, stream, storage,
                weights);
  check_launch("the elimination of the tiles");
}

}  // namespace usconf::cuda
