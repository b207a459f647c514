// Elimination of the fronts above the tiles: dense panels in global memory, level by level.
#include <algorithm>

#include "random_walk_stages.h"
#include "tile_geometry.h"

namespace usconf::cuda {
namespace {

// Position of a parent's column on a child's boundary; -1: not there.
__device__ __forceinline__ int child_position(const Node& node, const Child& child, int column) {
  if (column < node.pivots) return column;
  if (column >= node.source()) return child.boundary + column - node.source();
  for (int i = 0; i < child.runs; ++i) {
    const int along = column - child.run[i].to;
    if (along >= 0 && along < child.run[i].length) return child.run[i].from + along;
  }
  return -1;
}

// What the children left at (row, column) of the front, row < column.
__device__ __forceinline__ float from_children(const Node& node, const float* update, int row,
                                               int column) {
  float sum = 0;
  for (int k = 0; k < 2; ++k) {
    const Child& child = node.child[k];
    if (child.boundary < 0) continue;
    const int i = child_position(node, child, row), j = child_position(node, child, column);
    if (i >= 0 && j >= 0) sum += update[child.update + static_cast<long long>(i) * child.ld + j];
  }
  return sum;
}

// Weight that first enters here: along the separator, from its ends to the boundary, to the seeds.
__device__ float original(const Node& node, const Weights<float>& weights, int frame, int row,
                          int column) {
  const bool seed = column >= node.source(), end = row == 0 || row == node.pivots - 1;
  if (!seed && column != row + 1 && (column < node.pivots || !end)) return 0;
  const Spot here = pixel_at(node, row);
  if (seed)
    return weights.seed(frame, Weights<float>::source + column - node.source(), here.row,
                        here.column);
  const Spot there = pixel_at(node, column);
  for (int k = 0; k < 8; ++k) {
    const Step to = step_to(k);
    if (here.row + to.row == there.row && here.column + to.column == there.column)
      return weights.edge(frame, here.row, here.column, k);
  }
  return 0;
}

constexpr int sum_threads = 256, sum_rows = sum_threads / warp;

// The raw sums of every pivot's couplings, a warp per row.
__global__ void __launch_bounds__(sum_threads)
    sum_rows_kernel(Storage storage, Weights<float> weights, Level level, int chunks) {
  const Node& node = storage.nodes[level.first + blockIdx.x / chunks];
  const int frame = blockIdx.y, lane = threadIdx.x % warp;
  const int row = blockIdx.x % chunks * sum_rows + threadIdx.x / warp;
  if (row >= node.pivots) return;
  const float* update = storage.update + frame * storage.update_stride;
  float later = 0, boundary = 0;
  for (int column = (row / panel + 1) * panel + lane; column < node.pivots; column += warp)
    later += from_children(node, update, row, column);
  for (int column = node.pivots + lane; column < node.columns(); column += warp)
    boundary +=
        from_children(node, update, row, column) + original(node, weights, frame, row, column);
  // Of the separator's own edges only the one across the end of the panel lies behind it.
  if (lane == 0 && (row + 1) % panel == 0 && row + 1 < node.pivots)
    later += original(node, weights, frame, row, row + 1);
  later = warp_sum(later);
  boundary = warp_sum(boundary);
  float* z = storage.factor + frame * storage.factor_stride + node.factor +
             static_cast<long long>(row) * node.ld;
  if (lane == 0) {
    z[node.raw_tail()] = later + boundary;
    z[node.raw_boundary()] = boundary;
  }
}

constexpr int panel_chunk = 2 * panel, panel_threads = 256;
// Columns of a block's share: the panel's own pivots, the chunk; then two sums over columns,
// eliminated like columns: everything behind the panel, the boundary alone.
constexpr int share_tail = panel + panel_chunk, share_boundary = share_tail + 1;
constexpr int share_columns = share_boundary + 1, share_row = share_columns + 2;

// A block's share of the panel's columns.
struct PanelView {
  const Node& node;
  float* z;
  int first, pivots;  // the panel's pivots
  int chunk;          // first column of the chunk

  // Column of the front for column j < share_tail of the share; -1: none.
  __device__ int column(int j) const {
    if (j < panel) return j < pivots ? first + j : -1;
    const int c = chunk + j - panel;
    return c < node.columns() ? c : -1;
  }
};

// Rows k0 .. k0 + 31 of the factor, as far as the share needs them.
__device__ __forceinline__ void load_rows(const PanelView& v, int k0, float (*tile)[share_row]) {
  const int lane = threadIdx.x % warp;
  for (int k = threadIdx.x / warp; k < panel; k += panel_threads / warp) {
    const float* row = v.z + static_cast<long long>(k0 + k) * v.node.ld;
    for (int j = lane; j < share_tail; j += warp) {
      const int column = v.column(j);
      tile[k][j] = column >= 0 ? row[column] : 0.0f;
    }
    float tail = 0;
    for (int p = v.first / panel + 1 + lane; p < v.node.panels(); p += warp)
      tail += row[v.node.z_panel(p)];
    tail = warp_sum(tail);
    if (lane == 0) {
      tile[k][share_tail] = tail + row[v.node.z_boundary()];
      tile[k][share_boundary] = row[v.node.z_boundary()];
    }
  }
}

// share = sum over earlier pivots k of z_k,row z_k,column; a thread sums 4 rows x 3 columns, two
// warps one of the sums each.
__device__ __forceinline__ void sum_earlier(const PanelView& v, float (*share)[share_row],
                                            float (*tile)[share_row]) {
  const int lane = threadIdx.x % warp, group = threadIdx.x / warp;
  float sum[4][3] = {}, extra = 0;
  for (int k0 = 0; k0 < v.first; k0 += panel) {
    load_rows(v, k0, tile);
    __syncthreads();
#pragma unroll 8
    for (int k = 0; k < panel; ++k) {
      const float4 a = *reinterpret_cast<const float4*>(&tile[k][group * 4]);
#pragma unroll
      for (int j = 0; j < 3; ++j) {
        const float b = tile[k][lane + j * warp];
        sum[0][j] += a.x * b;
        sum[1][j] += a.y * b;
        sum[2][j] += a.z * b;
        sum[3][j] += a.w * b;
      }
      if (group < 2) extra += tile[k][lane] * tile[k][share_tail + group];
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 3; ++j) share[group * 4 + i][lane + j * warp] = sum[i][j];
  if (group < 2) share[lane][share_tail + group] = extra;
  __syncthreads();
}

// Adds what the children and the image give; zero where there is no entry.
__device__ __forceinline__ void assemble_panel(const PanelView& v, const Weights<float>& weights,
                                               const float* update, int frame,
                                               float (*share)[share_row]) {
  const int lane = threadIdx.x % warp;
  for (int i = threadIdx.x / warp; i < panel; i += panel_threads / warp) {
    const int row = v.first + i;
    for (int j = lane; j < share_tail; j += warp) {
      const int column = v.column(j);
      const bool entry = i < v.pivots && column > row;
      share[i][j] = entry ? share[i][j] + from_children(v.node, update, row, column) +
                                original(v.node, weights, frame, row, column)
                          : 0.0f;
    }
    if (lane < 2) {
      const float raw =
          i < v.pivots ? v.z[static_cast<long long>(row) * v.node.ld + v.node.raw_tail() + lane]
                       : 0.0f;
      share[i][share_tail + lane] += raw;
    }
  }
  __syncthreads();
}

// Eliminates the panel's pivots from the share.
__device__ __forceinline__ void eliminate_panel(const PanelView& v, float (*share)[share_row],
                                                float* root) {
  const int lane = threadIdx.x % warp, group = threadIdx.x / warp;
  for (int k = 0; k < v.pivots; ++k) {
    // Every warp for itself, the same bits in each: saves a barrier.
    const float d = warp_sum(lane > k ? share[k][lane] : 0.0f) + share[k][share_tail];
    const float reciprocal = d > 0 ? 1.0f / d : 0.0f;
    for (int i = k + 1 + group; i < v.pivots; i += panel_threads / warp) {
      const float factor = share[k][i] * reciprocal;
      if (lane > i) share[i][lane] += factor * share[k][lane];
      share[i][lane + warp] += factor * share[k][lane + warp];
      share[i][lane + 2 * warp] += factor * share[k][lane + 2 * warp];
      if (lane < 2) share[i][share_tail + lane] += factor * share[k][share_tail + lane];
    }
    if (threadIdx.x == 0) root[k] = d > 0 ? 1.0f / sqrtf(d) : 0.0f;
    __syncthreads();
  }
}

// Writes z = share / root: the chunk with its sums over panels of later pivots; with the first
// chunk also the panel's own square.
__device__ __forceinline__ void write_panel(const PanelView& v, const float (*share)[share_row],
                                            const float* root, bool first_chunk) {
  const int lane = threadIdx.x % warp;
  for (int i = threadIdx.x / warp; i < v.pivots; i += panel_threads / warp) {
    float* row = v.z + static_cast<long long>(v.first + i) * v.node.ld;
    for (int j = panel; j < share_tail; j += panel) {
      const int column = v.column(j + lane);
      const float z = share[i][j + lane] * root[i];
      if (column >= 0) row[column] = z;
      const float sum = warp_sum(column >= 0 && column < v.node.pivots ? z : 0.0f);
      const int start = v.chunk + j - panel;
      if (lane == 0 && start < v.node.pivots) row[v.node.z_panel(start / panel)] = sum;
    }
    if (!first_chunk) continue;
    if (lane >= i && lane < v.pivots)
      row[v.first + lane] = lane == i ? root[i] : share[i][lane] * root[i];
    if (lane == 0) row[v.node.z_boundary()] = share[i][share_boundary] * root[i];
  }
}

// One panel of 32 pivots of every node of a level. A block takes 64 of the columns right of the
// panel and does the panel's own square again for itself: one launch a panel instead of two.
__global__ void __launch_bounds__(panel_threads)
    eliminate_panel_kernel(Storage storage, Weights<float> weights, Level level, int first,
                           int chunks) {
  __shared__ __align__(16) float share[panel][share_row];
  __shared__ __align__(16) float tile[panel][share_row];
  __shared__ float root[panel];
  const Node& node = storage.nodes[level.first + blockIdx.x / chunks];
  const int frame = blockIdx.y, own_chunk = blockIdx.x % chunks;
  if (first >= node.pivots) return;
  const int pivots = min(panel, node.pivots - first);
  const PanelView v{node, storage.factor + frame * storage.factor_stride + node.factor, first,
                    pivots, first + pivots + own_chunk * panel_chunk};
  if (v.chunk >= node.columns()) return;
  sum_earlier(v, share, tile);
  assemble_panel(v, weights, storage.update + frame * storage.update_stride, frame, share);
  eliminate_panel(v, share, root);
  write_panel(v, share, root, own_chunk == 0);
}

// The triangle T of a panel, T_kk = sqrt(d_k), T_kj = -z_kj, has an inverse without negative
// entries, which turns the 32 dependent steps of a sweep into one product. Column j by lane j: v_k
// = (e_j + sum_m z_km v_m) / sqrt(d_k) from the last pivot up, kept below the diagonal.
__global__ void __launch_bounds__(warp)
    invert_panels_kernel(Storage storage, int first_node, int chunks) {
  __shared__ float z[panel][panel + 1], inverse[panel][panel + 1];
  const Node& node = storage.nodes[first_node + blockIdx.x / chunks];
  const int first = blockIdx.x % chunks * panel, lane = threadIdx.x;
  if (first >= node.pivots) return;
  const int count = min(panel, node.pivots - first);
  float* square = storage.factor + blockIdx.y * storage.factor_stride + node.factor +
                  static_cast<long long>(first) * node.ld + first;
  for (int k = 0; k < count; ++k)
    z[k][lane] = lane < count ? square[static_cast<long long>(k) * node.ld + lane] : 0.0f;
  __syncwarp();
  for (int k = count - 1; k >= 0; --k) {
    float sum = lane == k ? 1.0f : 0.0f;
    for (int m = k + 1; m < count; ++m) sum += z[k][m] * inverse[m][lane];
    inverse[k][lane] = sum * z[k][k];
  }
  __syncwarp();
  for (int j = 1; j < count; ++j)
    if (lane < j) square[static_cast<long long>(j) * node.ld + lane] = inverse[lane][j];
}

constexpr int update_tile = 64, update_depth = 16, update_threads = 128;

// Which tile of the upper triangle, counted column by column, and where it starts.
struct UpdateTile {
  int row, column;
};
__device__ __forceinline__ UpdateTile update_tile_at(int index) {
  int column = 0;
  while (index > column) index -= ++column;
  return {index * update_tile, column * update_tile};
}

// Update matrix = what the children left + Z^T Z: 64 x 64 entries a block, 8 x 4 a thread.
__global__ void __launch_bounds__(update_threads)
    update_kernel(Storage storage, Level level, int tiles) {
  __shared__ __align__(16) float left[update_depth][update_tile];
  __shared__ __align__(16) float right[update_depth][update_tile];
  __shared__ int place[2][2][update_tile];  // of the tile's rows and columns in either child
  const Node& node = storage.nodes[level.first + blockIdx.x / tiles];
  const UpdateTile at = update_tile_at(blockIdx.x % tiles);
  const int frame = blockIdx.y, boundary = node.boundary;
  if (at.row >= boundary || at.column >= boundary + 2) return;
  const float* z = storage.factor + frame * storage.factor_stride + node.factor + node.pivots;
  float* update = storage.update + frame * storage.update_stride;
  for (int i = threadIdx.x; i < 4 * update_tile; i += update_threads) {
    const int child = i / (2 * update_tile), side = i / update_tile % 2, along = i % update_tile;
    const int position = (side ? at.column : at.row) + along;
    place[child][side][along] =
        position < boundary + 2 && node.child[child].boundary >= 0
            ? child_position(node, node.child[child], node.pivots + position)
            : -1;
  }
  const int load_column = threadIdx.x % update_tile, load_row = threadIdx.x / update_tile;
  const bool row_there = at.row + load_column < boundary;
  const bool column_there = at.column + load_column < boundary + 2;
  const int first_row = threadIdx.x / 16 * 8, first_column = threadIdx.x % 16 * 4;
  constexpr int loads = update_depth * update_tile / update_threads;
  float next_left[loads], next_right[loads], sum[8][4] = {};
  const auto fetch = [&](int k0) {
#pragma unroll
    for (int i = 0; i < loads; ++i) {
      const int k = k0 + load_row + i * (update_threads / update_tile);
      const float* row = z + static_cast<long long>(k) * node.ld + load_column;
      next_left[i] = k < node.pivots && row_there ? row[at.row] : 0.0f;
      next_right[i] = k < node.pivots && column_there ? row[at.column] : 0.0f;
    }
  };
  fetch(0);
  for (int k0 = 0; k0 < node.pivots; k0 += update_depth) {
#pragma unroll
    for (int i = 0; i < loads; ++i) {
      left[load_row + i * (update_threads / update_tile)][load_column] = next_left[i];
      right[load_row + i * (update_threads / update_tile)][load_column] = next_right[i];
    }
    __syncthreads();
    fetch(k0 + update_depth);  // in flight during the products
#pragma unroll
    for (int k = 0; k < update_depth; ++k) {
      const float4 a0 = *reinterpret_cast<const float4*>(&left[k][first_row]);
      const float4 a1 = *reinterpret_cast<const float4*>(&left[k][first_row + 4]);
      const float4 b0 = *reinterpret_cast<const float4*>(&right[k][first_column]);
      const float a[8] = {a0.x, a0.y, a0.z, a0.w, a1.x, a1.y, a1.z, a1.w};
      const float b[4] = {b0.x, b0.y, b0.z, b0.w};
#pragma unroll
      for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] += a[i] * b[j];
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 8; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int row = at.row + first_row + i, column = at.column + first_column + j;
      if (row >= column || row >= boundary || column >= boundary + 2) continue;
      float value = sum[i][j];
      for (int k = 0; k < 2; ++k) {
        const int p = place[k][0][first_row + i], q = place[k][1][first_column + j];
        const Child& child = node.child[k];
        if (p >= 0 && q >= 0)
          value += update[child.update + static_cast<long long>(p) * child.ld + q];
      }
      update[node.update + static_cast<long long>(row) * node.update_ld + column] = value;
    }
}

}  // namespace

void eliminate_fronts(const Dissection& tree, const Storage& storage, Weights<float> weights,
                      int frames, cudaStream_t stream) {
  for (const Level& level : tree.levels) {
    const int row_chunks = (level.pivots + sum_rows - 1) / sum_rows;
    USCONF_LAUNCH(sum_rows_kernel, dim3(level.count * row_chunks, frames), sum_threads, 0, stream,
                  storage, weights, level, row_chunks);
    for (int first = 0; first < level.pivots; first += panel) {
      // The last panel's columns start right behind its pivots, however few they are.
      const int columns = level.pivots + level.boundary + 2 - first;
      const int chunks = (columns + panel_chunk - 1) / panel_chunk;
      USCONF_LAUNCH(eliminate_panel_kernel, dim3(level.count * chunks, frames), panel_threads, 0,
                    stream, storage, weights, level, first, chunks);
    }
    if (level.boundary == 0) continue;
    const int side = (level.boundary + 2 + update_tile - 1) / update_tile;
    const int tiles = side * (side + 1) / 2;
    USCONF_LAUNCH(update_kernel, dim3(level.count * tiles, frames), update_threads, 0, stream,
                  storage, level, tiles);
  }
  if (!tree.levels.empty()) {
    int chunks = 0;
    for (const Level& level : tree.levels)
      chunks = std::max(chunks, (level.pivots + panel - 1) / panel);
    const int nodes = static_cast<int>(tree.nodes.size()) - tree.tiles;
    USCONF_LAUNCH(invert_panels_kernel, dim3(nodes * chunks, frames), warp, 0, stream, storage,
                  tree.tiles, chunks);
  }
  check_launch("the elimination of the fronts");
}

}  // namespace usconf::cuda
