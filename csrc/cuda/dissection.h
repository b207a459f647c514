// The elimination tree of a rectangle of pixels as the GPU works through it: level by level, all
// nodes of a level and all frames of a batch at once. Everything follows from the rectangle's
// shape.
//
// The rectangle is cut into tiles of 15 x 15 pixels, 16 apart (the last ones may be cut short),
// with one-pixel separators between them. A binary tree over the tiles halves the longer side;
// every node eliminates the separator between its two children. A node's region is surrounded by at
// most four straight segments, each part of one ancestor's separator; a corner pixel belongs to the
// separator that was cut first. Segments are kept deepest ancestor first, the order of elimination:
// so a child's positions keep their order in its parent, its first segment is the parent's
// separator, and an index map is a handful of runs.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "launch.h"

namespace usconf::cuda {

constexpr int tile_side = 15, tile_pitch = 16;

// `length` pixels from `start` on along column (vertical) or row `line`; the first one has this
// `position` in the node's front.
struct Segment {
  int vertical, line, start, length, position;
};

// Positions to .. to + length - 1 of the parent's front are from .. of the child's boundary.
struct Run {
  int from, to, length;
};

// Where a node finds a child's results; boundary -1: no such child.
struct Child {
  long long update, vector;  // offsets of its update matrix and of its boundary's values
  int boundary, ld;          // pixels on its boundary; leading dimension of the update matrix
  int runs;
  Run run[3];  // beside the separator's pixels, which are the child's first ones
};

// Pivots eliminated together.
constexpr int panel = 32;

// A front. Positions: the separator's pixels (pivots), the boundary's pixels, then source and sink.
// Its factor is pivots x ld: a row holds z to all later positions, the reciprocal root of the pivot
// on the diagonal, the inverse of each panel's triangle, transposed, below it, and behind the
// sink's column the sums that make d_k known before the columns it sums: the couplings to
// everything behind the row's panel and to the boundary alone, both before the elimination; z
// summed over the boundary; z summed over each panel of later pivots. Its update matrix is boundary
// x update_ld: couplings (i, j), i < j, then source and sink.
struct Node {
  long long factor, update, vector;  // offsets, floats
  int pivots, boundary, ld, update_ld;
  int row, column;  // a tile's first pixel
  int segments;
  Segment separator, segment[4];
  Child child[2];

  __host__ __device__ int source() const { return pivots + boundary; }
  __host__ __device__ int columns() const { return pivots + boundary + 2; }
  __host__ __device__ int raw_tail() const { return columns(); }
  __host__ __device__ int raw_boundary() const { return columns() + 1; }
  __host__ __device__ int z_boundary() const { return columns() + 2; }
  __host__ __device__ int panels() const { return (pivots + panel - 1) / panel; }
  __host__ __device__ int z_panel(int p) const { return columns() + 3 + p; }
};

// Nodes worked on together, and the largest of them.
struct Level {
  int first, count;
  int pivots, boundary;
};

struct Dissection {
  Dissection(int rows, int columns);

  int rows, columns;
  int tiles = 0;              // nodes[0 .. tiles) are single tiles
  std::vector<Node> nodes;    // children before parents
  std::vector<Level> levels;  // without the tiles, deepest first
  // Floats per frame: factors; update matrices, those of every second level in the same place;
  // values of a sweep (pivots then boundary of every node).
  long long factor = 0, update = 0, vector = 0;
};

// The tree and its copy on the current device.
class DevicePlan {
 public:
  DevicePlan(int rows, int columns);
  ~DevicePlan();
  DevicePlan(const DevicePlan&) = delete;
  DevicePlan& operator=(const DevicePlan&) = delete;

  const Dissection tree;
  const Node* nodes() const { return nodes_; }

 private:
  int device_;
  Node* nodes_ = nullptr;
};

// Cached per device and shape, the least recently used one dropped first.
std::shared_ptr<const DevicePlan> plan_for(int rows, int columns);
std::shared_ptr<const Dissection> dissection_for(int rows, int columns);  // without a device
void clear_plans();

}  // namespace usconf::cuda
