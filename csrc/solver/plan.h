// The direct solver's elimination order: nested dissection of a rectangle of pixels, by formula
// from its shape alone (seeds and pixels outside a mask are dummies with zero couplings).
//
// The rectangle is cut into tiles with one-pixel separators between them; a binary tree over the
// tiles merges neighbours, each node eliminating the separator between its two children. What
// surrounds a node's region is at most four straight segments, each part of one ancestor's
// separator, so every index map is a few contiguous runs and planning touches nodes, never pixels.
#pragma once

#include <cstddef>
#include <vector>

#include "cuts.h"
#include "front.h"
#include "tile_plan.h"

namespace usconf {

struct Tile {
  int row, column;
  int shape;  // index of its TilePlan
  int group, lane;
};

// Tiles of one shape, eliminated side by side in the lanes of vectors.
struct TileGroup {
  int shape, count;
  std::vector<int> tiles;
  int slot;            // first of `count` slots for their Schur complements
  std::size_t factor;  // offset in the factor, floats
  std::size_t saved;   // offset of the forward sweep's values, floats
  bool stored;         // else the factor is made again in every sweep
};

// A subtree that one thread works through alone; groups never span two bundles.
struct Bundle {
  int root;  // node, or -1 - tile when there is a single tile
  int first_group, group_count;
  int first_tile, tile_count;
};

class Plan {
 public:
  // lanes: how many tiles a vector holds.
  Plan(int rows, int columns, int lanes);

  int rows, columns, lanes;
  int root;                 // node, or -1 - tile
  std::vector<Node> nodes;  // children before parents
  std::vector<Tile> tiles;  // in the order in which the tree needs them
  std::vector<TilePlan> shapes;
  std::vector<TileGroup> groups;
  std::vector<Bundle> bundles;   // in tree order
  std::size_t factor_size = 0;   // floats
  std::size_t saved_size = 0;    // floats kept between a forward and a backward sweep, tiles only
  std::size_t ring_stride = 0;   // floats of a tile's ring values in a sweep
  int slots = 0, slot_size = 0;  // Schur complements alive at once in one bundle; floats of one
  std::size_t max_work = 0, max_tile_front = 0, max_tile_factor = 0;
  bool compact = false;  // some tile factors are not stored

 private:
  struct Side {
    bool exists;
    int depth;
  };
  struct Region {
    int tile_row[2], tile_column[2];  // tile ranges
    Side top, bottom, left, right;
  };
  struct Box {
    int row[2], column[2];
  };
  int build(const Cuts& cuts, const Region& region, int depth, bool inside_bundle);
  Cuts::Cut cut(const Cuts& cuts, const Region& region, const Box& box) const;
  int add_tile(const Region& region);
  Box box(const Region& region) const;
  int border(const Region& region, const Box& box, Segment* out) const;
  void map_node_child(Node& node, int which);
  void map_tile_child(Node& node, int which);
  void group_tiles();
  void group_bundle(Bundle& bundle);
  void lay_out();

  std::vector<int> row_cuts_, column_cuts_;  // starts of tiles; last entry: one past the end + 1
  int bundle_tiles_;
};

}  // namespace usconf
