// How one tile of pixels is eliminated inside: its own small nested dissection, as index lists that
// all tiles of the shape share.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "front.h"

namespace usconf {

class TilePlan {
 public:
  TilePlan(int height, int width);

  int height, width;
  std::vector<int> ring;        // canonical order: top row with corners, bottom row, left, right
  std::vector<int> schur;       // see TileShape
  std::size_t work_size = 0;    // entries
  std::size_t factor_size = 0;  // entries
  int pixels() const { return height * width; }
  int ring_size() const { return 2 * (height + width) + 4; }
  // Rows of a Schur complement in memory: ring, source, sink, padded to vectors.
  int schur_stride() const { return round_up(ring_size() + 2); }
  TileShape shape() const;  // valid as long as this plan

 private:
  struct Front {
    int pivots = 0, boundary = 0;
    std::vector<int> pixels;
    std::vector<TileCoupling> couplings;
    std::vector<int> targets;  // positions in the parent's front
    std::vector<int> children;
    int parent = -1;
    int order() const { return pivots + boundary; }
  };
  struct Box {
    int row0, row1, column0, column1;
  };
  int build(const Box& box);
  void couple(Front& front, const std::vector<int>& position) const;
  void map_children(const Front& front, const std::vector<int>& position);
  void describe();
  void place();
  void order_schur();
  int grid(int row, int column) const { return row * (width + 2) + column; }

  std::vector<Front> lists_;                        // children before parents
  std::shared_ptr<std::vector<TileFront>> fronts_;  // the same, as the kernels see them
  std::vector<int> elimination_;                    // order of elimination by grid pixel
  int eliminated_ = 0;
};

}  // namespace usconf
