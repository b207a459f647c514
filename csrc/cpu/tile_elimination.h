// Elimination of the leaf tiles. Included by direct_kernels.cpp only.
#pragma once

#include <algorithm>

#include "direct_kernels.h"
#include "tile_lanes.h"

namespace usconf::cpu::USCONF_ISA_NAMESPACE {
namespace {

// Register tiles of a lane front: of its pivots' columns, and of its boundary's couplings. A ring's
// length is a multiple of four where height + width is even.
#if defined(__AVX512F__)
constexpr int lane_rows = 6, lane_square = 4;
#else
constexpr int lane_rows = 3, lane_square = 3;
#endif

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

// The rows of a front's pivot columns: pixels, the source, the sink. Pivots: how many there are, 0
// if that is known at run time only.
template <int Pivots>
struct PivotRows {
  TileVec* factor;  // the front's own
  int known;

  USCONF_INLINE_MEMBER int pivots() const { return Pivots ? Pivots : known; }
  USCONF_INLINE_MEMBER TileVec* pivot(int i) const { return factor + triangle(i); }
  // Row i of those behind the pivots'.
  USCONF_INLINE_MEMBER TileVec* boundary(int i) const {
    return factor + triangle(pivots()) + long(i) * pivots();
  }
};

// A panel of pivots among themselves: z and 1/sqrt(d). sums: each pivot's couplings to rows below
// the panel; x[i][j], j < i, comes in as couplings, goes out as z.
template <int Width>
USCONF_INLINE void eliminate_panel(TileVec (*x)[Width], TileVec* sums, TileVec* roots) {
  USCONF_UNROLL
  for (int j = 0; j < Width; ++j) {
    TileVec d = sums[j];
    USCONF_UNROLL
    for (int i = j + 1; i < Width; ++i) d += x[i][j];
    const TileVec q = roots[j] = inverse_root(d);
    const TileVec below = sums[j] * q;
    USCONF_UNROLL
    for (int i = j + 1; i < Width; ++i) x[i][j] *= q;
    USCONF_UNROLL
    for (int i = j + 1; i < Width; ++i) {
      sums[i] += below * x[i][j];
      USCONF_UNROLL
      for (int k = i + 1; k < Width; ++k) x[k][i] += x[k][j] * x[i][j];
    }
  }
}

// Rows [i, i + n) below the panel of pivots [at, at + Width): updates from the pivots before it;
// sums: of the columns.
template <int Width>
USCONF_INLINE void update_columns(TileVec* const* pivot, int at, TileVec* const* row, int n,
                                  TileVec* sums) {
  TileVec sum[lane_rows][Width];
  USCONF_UNROLL
  for (int r = 0; r < lane_rows; ++r) USCONF_UNROLL
  for (int c = 0; c < Width; ++c) sum[r][c] = row[r][at + c];
  for (int k = 0; k < at; ++k) {
    TileVec right[Width];
    USCONF_UNROLL
    for (int c = 0; c < Width; ++c) right[c] = pivot[c][k];
    USCONF_UNROLL
    for (int r = 0; r < lane_rows; ++r) {
      const TileVec left = row[r][k];
      USCONF_UNROLL
      for (int c = 0; c < Width; ++c) sum[r][c] += left * right[c];
    }
  }
  USCONF_UNROLL
  for (int r = 0; r < lane_rows; ++r) {
    if (r >= n) break;
    USCONF_UNROLL
    for (int c = 0; c < Width; ++c) {
      row[r][at + c] = sum[r][c];
      sums[c] += sum[r][c];
    }
  }
}

// Pivots [at, at + Width) of a front with `end` rows behind its pivots: d, z.
template <int Width, int Pivots>
USCONF_INLINE void eliminate_columns(const PivotRows<Pivots>& rows, int at, int end) {
  TileVec* pivot[Width];
  TileVec x[Width][Width], sums[Width] = {}, roots[Width];
  USCONF_UNROLL
  for (int i = 0; i < Width; ++i) pivot[i] = rows.pivot(at + i);
  USCONF_UNROLL
  for (int i = 1; i < Width; ++i) USCONF_UNROLL
  for (int j = 0; j < i; ++j) x[i][j] = pivot[i][at + j];
  for (int k = 0; k < at; ++k) USCONF_UNROLL
  for (int i = 1; i < Width; ++i) USCONF_UNROLL
  for (int j = 0; j < i; ++j) x[i][j] += pivot[i][k] * pivot[j][k];
  // Rows of pivots behind the panel, of growing length; then the others.
  const auto each_row = [&](auto f) USCONF_INLINE_LAMBDA {
    for (int i = at + Width; i < rows.pivots(); ++i) f(rows.pivot(i));
    for (int i = 0; i < end; ++i) f(rows.boundary(i));
  };
  if (at == 0) {
    each_row([&](const TileVec* row) USCONF_INLINE_LAMBDA {
      USCONF_UNROLL
      for (int c = 0; c < Width; ++c) sums[c] += row[c];
    });
  } else {
    TileVec* row[lane_rows];
    for (int i = at + Width; i < rows.pivots(); i += lane_rows) {
      USCONF_UNROLL
      for (int r = 0; r < lane_rows; ++r)
        row[r] = rows.pivot(i + r < rows.pivots() ? i + r : rows.pivots() - 1);
      update_columns<Width>(pivot, at, row, rows.pivots() - i, sums);
    }
    for (int i = 0; i < end; i += lane_rows) {
      USCONF_UNROLL
      for (int r = 0; r < lane_rows; ++r) row[r] = rows.boundary(i + r < end ? i + r : end - 1);
      update_columns<Width>(pivot, at, row, end - i, sums);
    }
  }
  eliminate_panel<Width>(x, sums, roots);
  USCONF_UNROLL
  for (int j = 0; j < Width; ++j) {
    pivot[j][at + j] = roots[j];
    USCONF_UNROLL
    for (int i = j + 1; i < Width; ++i) pivot[i][at + j] = x[i][j];
  }
  each_row([&](TileVec* row) USCONF_INLINE_LAMBDA {
    TileVec z[Width];
    USCONF_UNROLL
    for (int c = 0; c < Width; ++c) {
      z[c] = row[at + c];
      USCONF_UNROLL
      for (int k = 0; k < c; ++k) z[c] += z[k] * x[c][k];
      row[at + c] = z[c] *= roots[c];
    }
  });
}

template <int Pivots>
USCONF_INLINE void eliminate_pivots(const PivotRows<Pivots>& rows, int end) {
  const int p = rows.pivots();
  int at = 0;
  if (p % 3 == 0) {
    for (; at < p; at += 3) eliminate_columns<3>(rows, at, end);
    return;
  }
  for (; at + 4 <= p; at += 4) eliminate_columns<4>(rows, at, end);
  switch (p - at) {
    case 3:
      eliminate_columns<3>(rows, at, end);
      break;
    case 2:
      eliminate_columns<2>(rows, at, end);
      break;
    case 1:
      eliminate_columns<1>(rows, at, end);
      break;
  }
}

// Where a front's couplings among its boundary go: entry (i, j) is added to entry target[j] of row
// target[i] of the parent's front.
struct Extension {
  const int* target;
  int to_pivots;        // target[j] is a pivot of the parent for j < to_pivots
  PivotRows<0> pivots;  // the parent's
  TileVec* boundary;    // the parent's couplings among its boundary
  const TileVec* own;   // what the front's children have added; null: nothing
  int columns, end;     // boundary pixels; with the seeds, which are rows only
};

// Couplings of boundary rows [i, i + lane_square) to columns [j, j + lane_square): sum over the
// pivots k of z_ik z_jk. Diagonal: i = j, only entries below it. Own: what the children have added.
template <bool Diagonal, bool Own, int Pivots>
USCONF_INLINE void extend_square(const PivotRows<Pivots>& rows, const Extension& e, int i, int j,
                                 TileVec* const (*target)[lane_square]) {
  constexpr int n = lane_square;
  const TileVec *left[n], *right[n];
  TileVec sum[n][n] = {};
  USCONF_UNROLL
  for (int r = 0; r < n; ++r) left[r] = rows.boundary(i + r < e.end ? i + r : e.end - 1);
  USCONF_UNROLL
  for (int c = 0; c < n; ++c) right[c] = rows.boundary(j + c < e.end ? j + c : e.end - 1);
  for (int k = 0; k < rows.pivots(); ++k) {
    TileVec z[n];
    USCONF_UNROLL
    for (int c = 0; c < n; ++c) z[c] = right[c][k];
    USCONF_UNROLL
    for (int r = Diagonal ? 1 : 0; r < n; ++r) {
      const TileVec own = Diagonal ? z[r] : left[r][k];
      USCONF_UNROLL
      for (int c = 0; c < (Diagonal ? r : n); ++c) sum[r][c] += own * z[c];
    }
  }
  const bool whole = i + n <= e.end && j + n <= e.columns;
  USCONF_UNROLL
  for (int r = Diagonal ? 1 : 0; r < n; ++r) {
    if (!whole && i + r >= e.end) return;
    const TileVec* own = Own ? e.own + triangle(i + r) + j : nullptr;
    USCONF_UNROLL
    for (int c = 0; c < (Diagonal ? r : n); ++c) {
      if (!whole && j + c >= e.columns) break;
      TileVec* to = target[j + c >= e.to_pivots][r] + e.target[j + c];
      *to += Own ? sum[r][c] + own[c] : sum[r][c];
    }
  }
}

template <bool Own, int Pivots>
USCONF_INLINE void extend(const PivotRows<Pivots>& rows, const Extension& e) {
  for (int i = 0; i < e.end; i += lane_square) {
    TileVec* target[2][lane_square];
    const int p = e.pivots.pivots();
    USCONF_UNROLL
    for (int r = 0; r < lane_square; ++r) {
      const int row = e.target[i + r < e.end ? i + r : e.end - 1];
      target[0][r] = row < p ? e.pivots.pivot(row) : e.pivots.boundary(row - p);
      target[1][r] = e.boundary + triangle(row - p) - p;
    }
    for (int j = 0; j < i && j < e.columns; j += lane_square)
      extend_square<false, Own>(rows, e, i, j, target);
    if (i < e.columns) extend_square<true, Own>(rows, e, i, i, target);
  }
}

// A front with all its couplings: its pivots' rows, then, if wanted, what it adds to its parent's
// front.
template <int Pivots, bool Own>
USCONF_INLINE void eliminate_front(const PivotRows<Pivots>& rows, const Extension& e,
                                   bool extended = true) {
  eliminate_pivots(rows, e.end);
  if (extended) extend<Own>(rows, e);
}

// The last front's boundary, turned from lanes into one matrix per tile, both triangles.
USCONF_INLINE void write_schur(const TileShape& shape, const TileVec* f, int count,
                               float* const* schur) {
  const int n = shape.ring_size + 2;
  for (int i = 0; i < shape.ring_size; ++i)  // the seeds' rows are never asked for
    for (int j = 0; j < n; j += tile_lanes) {
      const int* entry = shape.schur + long(i) * shape.schur_stride + j;
      TileVec columns[tile_lanes];
      USCONF_UNROLL
      for (int l = 0; l < tile_lanes; ++l) columns[l] = f[entry[l]];
      transpose(columns);
      if (count == tile_lanes) {
        USCONF_UNROLL
        for (int l = 0; l < tile_lanes; ++l)
          store(schur[l] + long(i) * shape.schur_stride + j, columns[l]);
      } else {
        for (int l = 0; l < count; ++l)
          store(schur[l] + long(i) * shape.schur_stride + j, columns[l]);
      }
    }
}

// Original couplings of the tiles' pixels and of the ring around them, one vector per pixel.
USCONF_INLINE void load_couplings(const LaneTiles& g, const Couplings<float>& w, bool seeded,
                                  TileVec (*grid)[grid_size]) {
  const TileShape& shape = *g.shape;
  const int width = shape.width + 2;
  const float* planes[6] = {w.right, w.below, w.below_right, w.below_left, w.source, w.sink};
  // The rows' ends asked for first, before any is waited for.
  for (int k = 0; k < 4; ++k)
    for (int l = 0; l < g.count; ++l)
      for (int r = -1; r < shape.height; ++r) {
        const float* row = planes[k] + (g.row[l] + r) * w.ld + g.column[l];
        fetch(row - 1, 1);
        fetch(row + shape.width, 1);
      }
  for (int k = 0; k < (seeded ? 6 : 4); ++k) {
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
      for (int l = 0; l < tile_lanes; ++l) {
        const int from = l < g.count ? l : g.count - 1;  // idle lanes repeat the last tile
        at[l] = planes[k] + (g.row[from] + r) * w.ld + g.column[from] + first;
      }
      load_row(at, columns, grid[k] + (r + 1) * width + first + 1);
    }
  }
}

void eliminate_tiles(const LaneTiles& g, const Couplings<float>& w, float* work_floats,
                     float* factor_floats, float* const* schur) {
  const TileShape& shape = *g.shape;
  TileVec* work = reinterpret_cast<TileVec*>(work_floats);
  TileVec* factor = reinterpret_cast<TileVec*>(factor_floats);
  bool seeded = false;
  for (int l = 0; l < g.count; ++l)
    for (int r = g.row[l]; r < g.row[l] + shape.height && r < w.rows; ++r)
      seeded |= w.seeded[r] != 0;
  TileVec grid[6][grid_size];
  load_couplings(g, w, seeded, grid);
  const auto clear = [](TileVec* at, std::size_t n) { std::fill_n(at, n, TileVec{}); };
  // The factor at once: memory that no cache holds is filled faster in one piece than front by
  // front.
  clear(factor, shape.factor_size);
  for (int i = 0; i < shape.front_count; ++i) {
    const TileFront& t = shape.fronts[i];
    const bool last = t.parent < 0;
    if (last && t.leaf) clear(work + t.work, t.work_size());
    if (t.first) clear(work + shape.fronts[t.parent].work, shape.fronts[t.parent].work_size());
    for (int k = 0; k < t.coupling_count; ++k) {
      const TileCoupling& c = t.couplings[k];
      if (c.kind >= CouplingKind::source && !seeded) break;
      factor[t.factor + c.entry] +=
          grid[static_cast<int>(c.kind)][(c.row + 1) * (shape.width + 2) + c.column + 1];
    }
    const TileFront& parent = shape.fronts[last ? i : t.parent];
    const Extension e{t.targets,
                      t.to_pivots,
                      {factor + parent.factor, last ? 0 : parent.pivots},
                      work + parent.work,
                      work + t.work,
                      t.boundary,
                      t.boundary + (seeded ? 2 : 0)};
    TileVec* own = factor + t.factor;
    // The counts of a tile of 15 x 15 pixels, then any.
    if (t.pivots == 9 && t.leaf && !last)
      eliminate_front<9, false>({own, 9}, e);
    else if (t.pivots == 3 && !t.leaf && !last)
      eliminate_front<3, true>({own, 3}, e);
    else if (t.pivots == 7 && !t.leaf && !last)
      eliminate_front<7, true>({own, 7}, e);
    else if (t.pivots == 15 && last)
      eliminate_front<15, false>({own, 15}, e, schur != nullptr);
    else if (t.leaf || last)
      eliminate_front<0, false>({own, t.pivots}, e, !last || schur);
    else
      eliminate_front<0, true>({own, t.pivots}, e);
  }
  if (schur) write_schur(shape, work + shape.fronts[shape.front_count - 1].work, g.count, schur);
}

}  // namespace
}  // namespace usconf::cpu::USCONF_ISA_NAMESPACE
