// Plain descriptions of the direct solver's fronts, as the kernels see them.
#pragma once

#include <cstddef>

#include "../math/exponential.h"

namespace usconf {

// `length` consecutive positions: source + i of a child go to target + i of its parent's front.
struct Run {
  int source, target, length;
};

// Pixels from (row, column) on, one step down or right at a time.
struct Segment {
  int row, column, length;
  bool vertical;
  int depth;  // of the node whose separator it is part of
};

constexpr int block = 16;  // fronts are stored in blocks of this many columns

USCONF_HD int round_up(int n) { return (n + block - 1) / block * block; }

// Upper block triangle: block column j holds rows 0 .. 16 (j + 1).
USCONF_HD std::size_t block_triangle(int j) { return std::size_t(128) * j * (j + 1); }

// A node of the tree. Positions of its front: 0..pivots-1 the separator's pixels, then dummies up
// to `padded`; then the boundary's pixels, the source and the sink column, dummies up to a multiple
// of 16.
struct Node {
  int pivots, padded, boundary;
  int pivot_blocks, blocks;    // of the pivots; of the whole front
  int depth, parent;           // parent -1: the root
  int child[2];                // node index, or -1 - tile index
  int first;                   // the subtree is nodes first..this one
  int first_group, end_group;  // groups of tiles of the bundles inside; empty inside a bundle
  int rows[2], columns[2];     // pixels [begin, end) the subtree covers
  Segment separator, segments[4];
  int segment_count;
  Run runs[2][9];  // from child 0, 1; the last run is the pair (source, sink)
  int run_count[2];
  std::size_t factor;   // offset in the factor, floats
  std::size_t peak[2];  // floats its subtree needs on either update stack
  int bundle;           // >= 0: the root of that bundle

  USCONF_HD int update_blocks() const { return blocks - pivot_blocks; }
  USCONF_HD std::size_t update_size() const {
    return boundary ? block_triangle(update_blocks()) : 0;
  }
  // Working storage by block columns: rows up to the diagonal block, or all pivot rows.
  USCONF_HD std::size_t column(int j) const {
    return j <= pivot_blocks
               ? block_triangle(j)
               : block_triangle(pivot_blocks) + std::size_t(j - pivot_blocks) * padded * block;
  }
  USCONF_HD std::size_t work_size() const { return column(blocks); }
  // Factor storage: `padded` reciprocal roots of the pivots, then block rows from the diagonal on.
  USCONF_HD std::size_t factor_row(int k) const {
    return padded +
           std::size_t(256) * (std::size_t(k) * blocks - std::size_t(k) * (k > 0 ? k - 1 : 0) / 2);
  }
  USCONF_HD std::size_t factor_size() const { return factor_row(pivot_blocks); }
};

enum class CouplingKind : int { right, below, below_right, below_left, source, sink };

// One original coupling added to an entry of a tile front's factor; (row, column) from the tile's
// first pixel.
struct TileCoupling {
  int entry;
  short row, column;
  CouplingKind kind;
};

// A front of a tile's own small tree: `pivots` pixels, `boundary` pixels, then the seeds as rows
// order() (source) and order() + 1 (sink). The pivots' columns lie in the factor from the start.
// Couplings among the boundary that come from its children wait in the working storage: entry
// (i, j), j <= i, counted from the first boundary pixel, at i (i + 1) / 2 + j.
struct TileFront {
  int pivots, boundary;
  const int* pixels;  // on the (height + 2) x (width + 2) grid with the ring
  const TileCoupling* couplings;
  int coupling_count;
  int parent;          // -1: the last front
  const int* targets;  // boundary pixels and seeds: positions in the parent's front, ascending
  int to_pivots;       // how many of them are pivots of the parent
  bool leaf, first;    // has no children; is its parent's first child
  std::size_t work;    // of the boundary's couplings, entries; not of leaves
  std::size_t factor;  // entries

  USCONF_HD int order() const { return pivots + boundary; }
  USCONF_HD std::size_t work_size() const { return std::size_t(boundary + 2) * (boundary + 3) / 2; }
  // Factor rows: lower triangle of the pivots with 1/sqrt(d) on the diagonal, then full rows of the
  // boundary, the source and the sink.
  USCONF_HD std::size_t factor_row(int i) const {
    return i < pivots ? std::size_t(i) * (i + 1) / 2
                      : std::size_t(pivots) * (pivots + 1) / 2 + std::size_t(i - pivots) * pivots;
  }
  USCONF_HD std::size_t factor_size() const { return factor_row(order() + 2); }
};

struct TileShape {
  int height, width;
  const TileFront* fronts;  // children before parents; the last one's boundary is the ring
  int front_count;
  const int* ring;
  int ring_size;
  const int* schur;  // (ring_size, schur_stride) the last front's entry of every coupling; 0: none
  int schur_stride;
  std::size_t factor_size;  // entries, of all fronts
};

}  // namespace usconf
