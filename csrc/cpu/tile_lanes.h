// Leaf tiles side by side, one to a vector lane: how planes of pixels get into the lanes.
#pragma once

#include "vectors.h"

namespace usconf::cpu::USCONF_ISA_NAMESPACE {
namespace {

constexpr int max_tile = 20, max_pivots = 24;  // plan.cpp cuts tiles of at most 19 pixels a side
// With room behind the last row for a whole vector of lanes.
constexpr int grid_size = (max_tile + 2) * (max_tile + 2) + tile_lanes;

// One value per lane.
USCONF_INLINE TileVec load_each(const float* const* at, long offset) {
  TileVec v;
  USCONF_UNROLL
  for (int l = 0; l < tile_lanes; ++l) v[l] = at[l][offset];
  return v;
}

// `width` consecutive values per lane, turned into one vector per column. Reads and writes up to
// the next multiple of tile_lanes: rows of a grid are taken from the first to the last.
USCONF_INLINE void load_row(const float* const* at, int width, TileVec* out) {
  int c = 0;
  for (; c + tile_lanes / 4 < width; c += tile_lanes) {
    TileVec rows[tile_lanes];
    USCONF_UNROLL
    for (int l = 0; l < tile_lanes; ++l) rows[l] = load_unaligned<TileVec>(at[l] + c);
    transpose(rows);
    USCONF_UNROLL
    for (int i = 0; i < tile_lanes; ++i) out[c + i] = rows[i];
  }
  for (; c < width; ++c) out[c] = load_each(at, c);  // a few left: cheaper one by one
}

}  // namespace
}  // namespace usconf::cpu::USCONF_ISA_NAMESPACE
