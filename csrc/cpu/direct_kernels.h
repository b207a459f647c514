// Numeric kernels of the direct solver, per instruction set. Float32, subtraction-free (Grassmann,
// Taksar, Heyman): couplings between remaining pixels only ever grow by positive terms, and a
// pivot's diagonal d is the sum of its couplings, so every entry keeps its relative accuracy.
#pragma once

#include "../solver/couplings.h"
#include "../solver/front.h"
#include "isa.h"

namespace usconf::cpu {

// Tiles side by side in the lanes: pixel (row[l], column[l]) is lane l's first one.
struct LaneTiles {
  const TileShape* shape;
  const int *row, *column;
  int count;
};

struct DirectKernels {
  int tile_lanes;

  // Tiles: factor (shape's factor entries x lanes); schur[l]: lane l's couplings
  // between ring pixels and to the seeds, both triangles, row distance schur_stride; null: not
  // wanted.
  void (*eliminate_tiles)(const LaneTiles&, const Couplings<float>&, float* work, float* factor,
                          float* const* schur);
  // Forward sweep: takes r, keeps the pivots' values in `saved`, writes what ring pixels receive.
  // cached: the factor was made or read just before.
  void (*forward_tiles)(const LaneTiles&, const float* factor, const float* r, long ld,
                        float* saved, float* const* ring, bool cached);
  // Backward sweep: fills x inside the tiles from x on their rings. saved null: right-hand side is
  // the source column.
  void (*backward_tiles)(const LaneTiles&, const float* factor, const float* saved, float* x,
                         long ld);

  // Nodes. z: working storage (Node::column), u: update matrix (block_triangle), factor: packed.
  void (*add_update)(const Node&, int child, const float* child_u, float* z, float* u,
                     bool to_update);
  void (*add_schur)(const Node&, int child, const float* schur, int stride, float* z, float* u,
                    bool to_update);
  // Eliminates the pivots in z; inverse_roots[padded] = 1/sqrt(d), 0 for dummies; scratch 2 padded.
  void (*eliminate)(const Node&, float* z, float* inverse_roots, float* scratch);
  void (*update)(const Node&, const float* z, float* u);  // u = Z^T Z over the boundary
  void (*pack)(const Node&, const float* z, float* factor_rows, bool streaming);
  // t: blocks * 16 values, pivots' right-hand sides and boundary sums; y: padded values kept.
  void (*forward)(const Node&, const float* factor, float* t, float* y);
  // x: blocks * 16 values, boundary (and source = 1) given, pivots found. y null: zero.
  void (*backward)(const Node&, const float* factor, const float* y, float* x);
};

USCONF_DECLARE_TABLE(DirectKernels, direct_kernels)

}  // namespace usconf::cpu
