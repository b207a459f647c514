// Rows of an image with margins that mirror them.
#pragma once

#include "../math/dag.h"

namespace usconf::cpu {

// Columns that a member of a team begins at, and margins, are multiples of this: a cache line.
constexpr int row_grain = 16;

// The first pixel of a row is 64-byte aligned.
template <class T>
struct MarginRows {
  T* first = nullptr;
  long stride = 0;
  int width = 0, margin = 0;

  static long stride_of(int width, int margin) {
    return (width + row_grain - 1) / row_grain * row_grain + 2 * margin;
  }
  T* row(long r) const { return first + r * stride; }

  // Fills the margins of a row from itself, or from another one.
  void mirror(T* row, const T* from) const {
    mirror_left(row, from);
    mirror_right(row, from);
  }
  void mirror_left(T* row, const T* from) const {
    if (margin <= width)
      for (int i = 0; i < margin; ++i) row[-1 - i] = from[i];
    else
      for (int i = 0; i < margin; ++i) row[-1 - i] = from[dag_mirror(-1 - i, width)];
  }
  void mirror_right(T* row, const T* from) const {
    const int n = static_cast<int>(stride) - margin - width;
    if (n <= width)
      for (int i = 0; i < n; ++i) row[width + i] = from[width - 1 - i];
    else
      for (int i = 0; i < n; ++i) row[width + i] = from[dag_mirror(width + i, width)];
  }
};

}  // namespace usconf::cpu
