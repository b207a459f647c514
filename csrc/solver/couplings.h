// The random walk's sparse system in coupling form: nonnegative edge weights between the unknown
// pixels of a rectangle, and each pixel's coupling to the seeds. Diagonals are never stored.
#pragma once

#include <cstdint>

namespace usconf {

// Pixels of the rectangle that are seeds or outside a mask are dummies: all their couplings are 0.
// Every plane may be read one row above, `pad_rows` rows below, one column left and `ld - columns -
// 1` columns right of the rectangle: it holds zeros there.
template <class T>
struct Couplings {
  static constexpr int pad_rows = 17;  // a tile may reach this far below the last row
  int rows, columns;
  long ld;               // distance between rows, a multiple of 16, >= columns + 32
  T* right;              // (r, c) - (r, c + 1)
  T* below;              // (r, c) - (r + 1, c)
  T* below_right;        // (r, c) - (r + 1, c + 1)
  T* below_left;         // (r, c) - (r + 1, c - 1)
  T* source;             // sum of weights to source pixels (map value 1)
  T* sink;               // sum of weights to sink pixels (map value 0)
  std::uint8_t* seeded;  // (rows) 1 where the row of source or sink has a nonzero
};

}  // namespace usconf
