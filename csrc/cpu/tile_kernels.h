// Kernels of the leaf tiles: equal tiles side by side, one to a vector lane. Included by
// direct_kernels.cpp only.
#pragma once

#include "../solver/couplings.h"
#include "../solver/front.h"
#include "direct_kernels.h"
#include "vectors.h"

namespace usconf::cpu::USCONF_ISA_NAMESPACE {
namespace {

#if defined(__AVX512F__)
constexpr int lane_rows = 6, lane_columns = 4;  // register tile of a lane front's update
#else
constexpr int lane_rows = 3, lane_columns = 3;
#endif
constexpr int max_tile = 20, max_pivots = 24;  // plan.cpp cuts tiles of at most 19 pixels a side

USCONF_INLINE long triangle(long i) { return i * (i + 1) / 2; }

USCONF_INLINE TileVec inverse_root(TileVec d) {
  alignas(64) float value[tile_lanes], root[tile_lanes];  // as arrays: this loop vectorises
  store(value, d);
#pragma omp simd
  for (int l = 0; l < tile_lanes; ++l) {
    const float q = 1.0f / __builtin_sqrtf(value[l]);
    root[l] = value[l] > 0 ? q : 0.0f;
  }
  return load<TileVec>(root);
}

// One value per lane.
USCONF_INLINE TileVec load_each(const float* const* at, long offset) {
  TileVec v;
  USCONF_UNROLL
  for (int l = 0; l < tile_lanes; ++l) v[l] = at[l][offset];
  return v;
}

// `width` consecutive values per lane, turned into one vector per column. Reads up to the next
// multiple of tile_lanes.
USCONF_INLINE void load_row(const float* const* at, int width, TileVec* out) {
  int c = 0;
  for (; c + tile_lanes / 4 < width; c += tile_lanes) {
    TileVec rows[tile_lanes];
    USCONF_UNROLL
    for (int l = 0; l < tile_lanes; ++l) rows[l] = load_unaligned<TileVec>(at[l] + c);
    transpose(rows);
    const int n = width - c < tile_lanes ? width - c : tile_lanes;
    for (int i = 0; i < n; ++i) out[c + i] = rows[i];
  }
  for (; c < width; ++c) out[c] = load_each(at, c);  // a few left: cheaper one by one
}

// A tile's original couplings, on the grid with the ring: kind k, pixel (r, c) at [k][r][c].
struct TileCouplings {
  static constexpr int side = max_tile + 2;
  const TileVec* plane[6];
  int width;
};

// ---- elimination
// ---------------------------------------------------------------------------------

// Pivot j's row of the front's factor: updates from the pivots before it, d, scaling.
USCONF_INLINE void eliminate_pivots(TileVec* f, int order, int pivots) {
  for (int j = 0; j < pivots; ++j) {
    TileVec* pivot = f + triangle(j);
    TileVec d[4] = {};
    int i = j + 1;
    for (; i + 3 <= order + 1; i += 4) {
      TileVec* row[4];
      TileVec x[4];
      USCONF_UNROLL
      for (int r = 0; r < 4; ++r) {
        row[r] = f + triangle(i + r);
        x[r] = row[r][j];
      }
      for (int k = 0; k < j; ++k) {
        const TileVec p = pivot[k];
        USCONF_UNROLL
        for (int r = 0; r < 4; ++r) x[r] += row[r][k] * p;
      }
      USCONF_UNROLL
      for (int r = 0; r < 4; ++r) {
        row[r][j] = x[r];
        d[r] += x[r];
      }
    }
    for (; i <= order + 1; ++i) {
      TileVec* row = f + triangle(i);
      TileVec x = row[j];
      for (int k = 0; k < j; ++k) x += row[k] * pivot[k];
      row[j] = x;
      d[0] += x;
    }
    const TileVec q = inverse_root((d[0] + d[1]) + (d[2] + d[3]));
    pivot[j] = q;
    for (i = j + 1; i <= order + 1; ++i) f[triangle(i) + j] *= q;
  }
}

// Couplings among the boundary and to the seeds: C[i][j] += sum over pivots k of z_ik z_jk, i > j.
USCONF_INLINE void update_boundary(TileVec* f, int order, int pivots) {
  for (int i = pivots; i <= order + 1; i += lane_rows) {
    TileVec* a[lane_rows];
    USCONF_UNROLL
    for (int r = 0; r < lane_rows; ++r) a[r] = f + triangle(i + r <= order + 1 ? i + r : order + 1);
    const int last = i + lane_rows - 1 < order - 1 ? i + lane_rows - 1 : order - 1;
    for (int j = pivots; j <= last; j += lane_columns) {
      const TileVec* b[lane_columns];
      USCONF_UNROLL
      for (int c = 0; c < lane_columns; ++c)
        b[c] = f + triangle(j + c <= order + 1 ? j + c : order + 1);
      TileVec sum[lane_rows][lane_columns] = {};
      for (int k = 0; k < pivots; ++k) {
        TileVec right[lane_columns];
        USCONF_UNROLL
        for (int c = 0; c < lane_columns; ++c) right[c] = b[c][k];
        USCONF_UNROLL
        for (int r = 0; r < lane_rows; ++r) {
          const TileVec left = a[r][k];
          USCONF_UNROLL
          for (int c = 0; c < lane_columns; ++c) sum[r][c] += left * right[c];
        }
      }
      if (i + lane_rows - 1 <= order + 1 && j + lane_columns - 1 < i && j + lane_columns <= order) {
        USCONF_UNROLL
        for (int r = 0; r < lane_rows; ++r) USCONF_UNROLL
        for (int c = 0; c < lane_columns; ++c) a[r][j + c] += sum[r][c];
      } else {
        USCONF_UNROLL
        for (int r = 0; r < lane_rows; ++r) USCONF_UNROLL
        for (int c = 0; c < lane_columns; ++c)
          if (i + r <= order + 1 && j + c < i + r && j + c < order) a[r][j + c] += sum[r][c];
      }
    }
  }
}

USCONF_INLINE void assemble(const TileFront& t, const TileCouplings& w, bool seeded,
                            TileVec* work) {
  TileVec* f = work + t.work;
  for (int i = 0; i < t.clear_count; ++i) f[t.clear[i]] = TileVec{};
  for (int i = 0; i < t.copy_count; ++i) f[t.copy[2 * i]] = work[t.copy[2 * i + 1]];
  for (int i = 0; i < t.add_count; ++i)
    f[t.add[3 * i]] = work[t.add[3 * i + 1]] + work[t.add[3 * i + 2]];
  for (int i = 0; i < t.coupling_count; ++i) {
    const TileCoupling& c = t.couplings[i];
    if (c.kind >= CouplingKind::source && !seeded) continue;
    f[c.entry] += w.plane[static_cast<int>(c.kind)][(c.row + 1) * w.width + c.column + 1];
  }
}

USCONF_INLINE void keep(const TileFront& t, const TileVec* f, TileVec* factor, bool streaming) {
  TileVec* out = factor + t.factor;
  for (int i = 0; i <= t.order(); ++i) {
    const TileVec* row = f + triangle(i);
    const int n = i < t.pivots ? i + 1 : t.pivots;
    if (streaming)
      for (int k = 0; k < n; ++k) stream(reinterpret_cast<float*>(out + k), row[k]);
    else
      for (int k = 0; k < n; ++k) out[k] = row[k];
    out += n;
  }
}

// The last front's boundary, turned from lanes into one matrix per tile, both triangles.
USCONF_INLINE void write_schur(const TileFront& t, const TileVec* f, int stride, int count,
                               float* const* schur) {
  const int n = t.boundary + 2;
  const auto entry = [&](int i, int j) {  // symmetric access, 0 outside and on the diagonal
    if (i == j || i >= n || j >= n || (i >= t.boundary && j >= t.boundary)) return TileVec{};
    return i > j ? f[triangle(t.pivots + i) + t.pivots + j]
                 : f[triangle(t.pivots + j) + t.pivots + i];
  };
  for (int i = 0; i < t.boundary; ++i)  // the seeds' rows are never asked for
    for (int j = 0; j < stride; j += tile_lanes) {
      TileVec columns[tile_lanes];
      if (j + tile_lanes <= i && j + tile_lanes <= t.boundary) {
        USCONF_UNROLL
        for (int l = 0; l < tile_lanes; ++l)
          columns[l] = f[triangle(t.pivots + i) + t.pivots + j + l];
      } else if (j > i && j + tile_lanes <= n) {
        USCONF_UNROLL
        for (int l = 0; l < tile_lanes; ++l)
          columns[l] = f[triangle(t.pivots + j + l) + t.pivots + i];
      } else {
        for (int l = 0; l < tile_lanes; ++l) columns[l] = entry(i, j + l);
      }
      transpose(columns);
      for (int l = 0; l < count; ++l) store(schur[l] + long(i) * stride + j, columns[l]);
    }
}

void eliminate_tiles(const LaneTiles& g, const Couplings<float>& w, float* work_floats,
                     float* factor_floats, float* const* schur, bool streaming) {
  const TileShape& shape = *g.shape;
  TileVec* work = reinterpret_cast<TileVec*>(work_floats);
  TileVec* factor = reinterpret_cast<TileVec*>(factor_floats);
  const int width = shape.width + 2;
  // Idle lanes repeat the last tile: their results go nowhere.
  int row[tile_lanes], column[tile_lanes];
  bool seeded = false;
  for (int l = 0; l < tile_lanes; ++l) {
    const int from = l < g.count ? l : g.count - 1;
    row[l] = g.row[from];
    column[l] = g.column[from];
    for (int r = row[l]; r < row[l] + shape.height && r < w.rows; ++r) seeded |= w.seeded[r] != 0;
  }
  TileVec grid[6][(max_tile + 2) * (max_tile + 2)];
  const float* planes[6] = {w.right, w.below, w.below_right, w.below_left, w.source, w.sink};
  TileCouplings couplings;
  couplings.width = width;
  for (int k = 0; k < 6; ++k) {
    couplings.plane[k] = grid[k];
    if (k >= 4 && !seeded) continue;
    // An edge is stored at its upper or left pixel: which pixels of the ring are needed depends on
    // the kind, and is never more than one row above and one column beside the tile.
    const auto kind = static_cast<CouplingKind>(k);
    const bool above = kind == CouplingKind::below || kind == CouplingKind::below_right ||
                       kind == CouplingKind::below_left;
    const bool left = kind == CouplingKind::right || kind == CouplingKind::below_right;
    const bool right = kind == CouplingKind::below_left;
    const int first = left ? -1 : 0, columns = shape.width + (left || right ? 1 : 0);
    for (int r = above ? -1 : 0; r < shape.height; ++r) {
      const float* at[tile_lanes];
      for (int l = 0; l < tile_lanes; ++l)
        at[l] = planes[k] + (row[l] + r) * w.ld + column[l] + first;
      load_row(at, columns, grid[k] + (r + 1) * width + first + 1);
    }
  }
  for (int i = 0; i < shape.front_count; ++i) {
    const TileFront& t = shape.fronts[i];
    TileVec* f = work + t.work;
    assemble(t, couplings, seeded, work);
    eliminate_pivots(f, t.order(), t.pivots);
    update_boundary(f, t.order(), t.pivots);
    if (factor) keep(t, f, factor, streaming);
  }
  if (streaming) stream_fence();
  const TileFront& last = shape.fronts[shape.front_count - 1];
  if (schur) write_schur(last, work + last.work, shape.schur_stride, g.count, schur);
}

// ---- sweeps
// --------------------------------------------------------------------------------------

void forward_tiles(const LaneTiles& g, const float* factor_floats, const float* r, long ld,
                   float* saved_floats, float* const* ring) {
  const TileShape& shape = *g.shape;
  const TileVec* factor = reinterpret_cast<const TileVec*>(factor_floats);
  TileVec* saved = reinterpret_cast<TileVec*>(saved_floats);
  const int width = shape.width + 2;
  TileVec value[(max_tile + 2) * (max_tile + 2)];
  for (int i = 0; i < shape.ring_size; ++i) value[shape.ring[i]] = TileVec{};
  for (int y = 0; y < shape.height; ++y) {
    const float* at[tile_lanes];
    for (int l = 0; l < tile_lanes; ++l) {
      const int from = l < g.count ? l : g.count - 1;
      at[l] = r + (g.row[from] + y) * ld + g.column[from];
    }
    load_row(at, shape.width, value + (y + 1) * width + 1);
  }
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
// the whole backward sweep reads the factor in one descending stream, asked for ahead of time.
template <int Count>
USCONF_INLINE void gather_boundary(const TileFront& t, const TileVec* rows, const TileVec* value,
                                   int first, TileVec* y) {
  constexpr int ahead = 48;  // vectors
  TileVec sum[Count];
  USCONF_UNROLL
  for (int j = 0; j < Count; ++j) sum[j] = y[first + j];
  const TileVec* row = rows + t.factor_row(t.order()) + first;
  for (int k = t.order() - 1; k >= t.pivots; --k) {
    row -= t.pivots;
    const TileVec v = value[t.pixels[k]];
    USCONF_UNROLL
    for (int j = 0; j < Count; ++j) {
      __builtin_prefetch(row + j - ahead);
      sum[j] += row[j] * v;
    }
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
  TileVec value[(max_tile + 2) * (max_tile + 2)];
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
