// Where nested dissection cuts: a region at the rectangle's edge has fewer neighbours than one
// inside, and its separators may lie further apart. The cheapest cuts by dynamic programming.
#pragma once

#include <vector>

namespace usconf {

class Cuts {
 public:
  // A rectangle of down x across units of `pixels` pixels a side, separator included.
  Cuts(int down, int across, int pixels);

  // Which sides of a region are separators: others lie at the rectangle's edge.
  enum Sides { top = 1, bottom = 2, left = 4, right = 8 };
  struct Cut {
    bool horizontal;
    int at;  // units before the separator, at least one on either side
  };
  // For a region of more than one unit. No part is less than a quarter of it along the cut side.
  Cut cut(int down, int across, int sides) const;

 private:
  std::size_t at(int down, int across, int sides) const {
    return (std::size_t(down) * (across_ + 1) + across) * 16 + sides;
  }
  int across_;
  std::vector<short> cuts_;  // > 0: horizontal; < 0: vertical
};

}  // namespace usconf
