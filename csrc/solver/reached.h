// Which pixels are connected to a seed. The system is singular on the other pieces of a mask.
#pragma once

#include <cstdint>

#include "couplings.h"

namespace usconf {

// Marks of one row are `columns + 2` bytes, one zero at either end; row -1 and row `rows` are zero.
// Sweeps down and up until nothing changes: once for a picture without a mask, more for winding
// pieces. Returns whether a pixel is left that no seed reaches (dummies are such pixels too).
template <class T>
bool mark_reached(const Couplings<T>& a, std::uint8_t* marks) {
  const long width = a.columns + 2;
  bool changed = true, all = true;
  const auto at = [&](long i, long c) -> std::uint8_t& { return marks[(i + 1) * width + c + 1]; };
  for (long i = 0; i < a.rows; ++i)
    for (long c = 0; c < a.columns; ++c)
      at(i, c) = a.source[i * a.ld + c] > 0 || a.sink[i * a.ld + c] > 0;
  const auto reach = [&](long i, long c, bool reached) {
    if (!reached || at(i, c)) return;
    at(i, c) = 1;
    changed = true;
  };
  const auto along = [&](long i) {
    const T* right = a.right + i * a.ld;
    for (long c = 1; c < a.columns; ++c) reach(i, c, at(i, c - 1) && right[c - 1] > 0);
    for (long c = a.columns - 2; c >= 0; --c) reach(i, c, at(i, c + 1) && right[c] > 0);
  };
  while (changed) {
    changed = false;
    for (long i = 0; i < a.rows; ++i) {
      const long o = (i - 1) * a.ld;
      for (long c = 0; c < a.columns && i > 0; ++c)
        reach(i, c,
              (at(i - 1, c) && a.below[o + c] > 0) ||
                  (at(i - 1, c - 1) && a.below_right[o + c - 1] > 0) ||
                  (at(i - 1, c + 1) && a.below_left[o + c + 1] > 0));
      along(i);
    }
    for (long i = a.rows - 2; i >= 0; --i) {
      const long o = i * a.ld;
      for (long c = 0; c < a.columns; ++c)
        reach(i, c,
              (at(i + 1, c) && a.below[o + c] > 0) ||
                  (at(i + 1, c + 1) && a.below_right[o + c] > 0) ||
                  (at(i + 1, c - 1) && a.below_left[o + c] > 0));
      along(i);
    }
  }
  for (long i = 0; i < a.rows; ++i)
    for (long c = 0; c < a.columns; ++c) all = all && at(i, c);
  return !all;
}

}  // namespace usconf
