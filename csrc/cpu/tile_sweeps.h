// Sweeps through the leaf tiles' factors. Included by direct_kernels.cpp only.
#pragma once

#include "direct_kernels.h"
#include "tile_lanes.h"

namespace usconf::cpu::USCONF_ISA_NAMESPACE {
namespace {

void forward_tiles(const LaneTiles& g, const float* factor_floats, const float* r, long ld,
                   float* saved_floats, float* const* ring, bool cached) {
  const TileShape& shape = *g.shape;
  if (!cached) fetch(factor_floats, shape.factor_size * tile_lanes);
  const TileVec* factor = reinterpret_cast<const TileVec*>(factor_floats);
  TileVec* saved = reinterpret_cast<TileVec*>(saved_floats);
  const int width = shape.width + 2;
  TileVec value[grid_size];
  for (int y = 0; y < shape.height; ++y) {
    const float* at[tile_lanes];
    for (int l = 0; l < tile_lanes; ++l) {
      const int from = l < g.count ? l : g.count - 1;
      at[l] = r + (g.row[from] + y) * ld + g.column[from];
    }
    load_row(at, shape.width, value + (y + 1) * width + 1);
  }
  for (int i = 0; i < shape.ring_size; ++i) value[shape.ring[i]] = TileVec{};
  for (int i = 0; i < shape.front_count; ++i) {
    const TileFront& t = shape.fronts[i];
    const TileVec* row = factor + t.factor;
    TileVec y[max_pivots];
    for (int j = 0; j < t.pivots; ++j) {
      TileVec v = value[t.pixels[j]];
      for (int k = 0; k < j; ++k) v += row[k] * y[k];
      y[j] = v * row[j];
      *saved++ = y[j];
      row += j + 1;
    }
    for (int j = t.pivots; j < t.order(); ++j) {
      TileVec v = value[t.pixels[j]];
      for (int k = 0; k < t.pivots; ++k) v += row[k] * y[k];
      value[t.pixels[j]] = v;
      row += t.pivots;
    }
  }
  for (int i = 0; i < shape.ring_size; i += tile_lanes) {
    TileVec out[tile_lanes];
    for (int l = 0; l < tile_lanes; ++l)
      out[l] = i + l < shape.ring_size ? value[shape.ring[i + l]] : TileVec{};
    transpose(out);
    for (int l = 0; l < g.count; ++l) store(ring[l] + i, out[l]);
  }
}

// y[first ..] += the boundary's couplings to `Count` pivots times its values. From the last row up:
// the whole backward sweep reads the factor in one descending stream.
template <int Count>
USCONF_INLINE void gather_boundary(const TileFront& t, const TileVec* rows, const TileVec* value,
                                   int first, TileVec* y) {
  TileVec sum[Count];
  USCONF_UNROLL
  for (int j = 0; j < Count; ++j) sum[j] = y[first + j];
  const TileVec* row = rows + t.factor_row(t.order()) + first;
  for (int k = t.order() - 1; k >= t.pivots; --k) {
    row -= t.pivots;
    const TileVec v = value[t.pixels[k]];
    USCONF_UNROLL
    for (int j = Count - 1; j >= 0; --j) sum[j] += row[j] * v;
  }
  USCONF_UNROLL
  for (int j = 0; j < Count; ++j) y[first + j] = sum[j];
}

void backward_tiles(const LaneTiles& g, const float* factor_floats, const float* saved_floats,
                    float* x, long ld) {
  const TileShape& shape = *g.shape;
  const TileVec* factor = reinterpret_cast<const TileVec*>(factor_floats);
  const TileVec* saved = reinterpret_cast<const TileVec*>(saved_floats);
  const int width = shape.width + 2, height = shape.height + 2;
  TileVec value[grid_size];
  const float* corner[tile_lanes];
  for (int l = 0; l < tile_lanes; ++l) {
    const int from = l < g.count ? l : g.count - 1;
    corner[l] = x + (g.row[from] - 1) * ld + g.column[from] - 1;
  }
  for (int y = 0; y < height; ++y) {
    if (y > 0 && y + 1 < height) {
      value[y * width] = load_each(corner, y * ld);
      value[y * width + width - 1] = load_each(corner, y * ld + width - 1);
      continue;
    }
    const float* at[tile_lanes];
    for (int l = 0; l < tile_lanes; ++l) at[l] = corner[l] + y * ld;
    load_row(at, width, value + y * width);
  }
  fetch(factor_floats, shape.factor_size * tile_lanes);
  int taken = shape.height * shape.width;
  for (int i = shape.front_count - 1; i >= 0; --i) {
    const TileFront& t = shape.fronts[i];
    const TileVec* rows_of = factor + t.factor;
    taken -= t.pivots;
    TileVec y[max_pivots];
    const TileVec* source = rows_of + t.factor_row(t.order());
    for (int j = 0; j < t.pivots; ++j) y[j] = saved ? saved[taken + j] : source[j];
    // Counts of a 15 x 15 tile's fronts in one pass, others in pieces.
    int j = t.pivots;
    if (t.pivots == 15)
      gather_boundary<15>(t, rows_of, value, 0, y);
    else if (t.pivots == 9)
      gather_boundary<9>(t, rows_of, value, 0, y);
    else if (t.pivots == 7)
      gather_boundary<7>(t, rows_of, value, 0, y);
    else
      j = 0;
    for (; j + 8 <= t.pivots; j += 8) gather_boundary<8>(t, rows_of, value, j, y);
    for (; j + 3 <= t.pivots; j += 3) gather_boundary<3>(t, rows_of, value, j, y);
    for (; j < t.pivots; ++j) gather_boundary<1>(t, rows_of, value, j, y);
    for (int k = t.pivots - 1; k >= 0; --k) {
      const TileVec* row = rows_of + t.factor_row(k);
      const TileVec v = y[k] * row[k];
      value[t.pixels[k]] = v;
      for (int j = 0; j < k; ++j) y[j] += row[j] * v;
    }
  }
  for (int y = 1; y <= shape.height; ++y)
    for (int c = 0; c < shape.width; c += tile_lanes) {
      TileVec out[tile_lanes];
      for (int l = 0; l < tile_lanes; ++l)
        out[l] = c + l < shape.width ? value[y * width + c + l + 1] : TileVec{};
      transpose(out);
      const int n = shape.width - c < tile_lanes ? shape.width - c : tile_lanes;
      for (int l = 0; l < g.count; ++l) {
        float* to = x + (g.row[l] + y - 1) * ld + g.column[l] + c;
        for (int i = 0; i < n; ++i) to[i] = out[l][i];
      }
    }
}

}  // namespace
}  // namespace usconf::cpu::USCONF_ISA_NAMESPACE
