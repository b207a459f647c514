// The original couplings that enter a node's front. Included by direct.cpp only.
#pragma once

#include "../solver/couplings.h"
#include "../solver/front.h"

namespace usconf::cpu {

// Pixel k of a segment in a plane.
inline long offset(const Segment& s, int k, long ld) {
  return s.vertical ? (s.row + k) * ld + s.column : s.row * ld + s.column + k;
}

// A front's own original couplings: along the separator, from its two ends to the boundary, to
// seeds.
class FrontCouplings {
 public:
  FrontCouplings(const Node& node, const Couplings<float>& w, float* z) : n_(node), w_(w), z_(z) {}

  void add() {
    const Segment& s = n_.separator;
    const int source = n_.padded + n_.boundary;
    const float* along = s.vertical ? w_.below : w_.right;
    for (int k = 0; k < s.length; ++k) {
      const long at = offset(s, k, w_.ld);
      if (k + 1 < s.length) entry(k, k + 1) += along[at];
      if (!w_.seeded[s.vertical ? s.row + k : s.row]) continue;
      entry(k, source) += w_.source[at];
      entry(k, source + 1) += w_.sink[at];
    }
    const int last = s.length - 1;
    if (s.vertical) {
      const int top = s.row - 1, end = s.row + last, c = s.column;
      edge(0, top, c - 1, w_.below_right, top, c - 1);
      edge(0, top, c, w_.below, top, c);
      edge(0, top, c + 1, w_.below_left, top, c + 1);
      edge(last, end + 1, c - 1, w_.below_left, end, c);
      edge(last, end + 1, c, w_.below, end, c);
      edge(last, end + 1, c + 1, w_.below_right, end, c);
    } else {
      const int left = s.column - 1, end = s.column + last, r = s.row;
      edge(0, r - 1, left, w_.below_right, r - 1, left);
      edge(0, r, left, w_.right, r, left);
      edge(0, r + 1, left, w_.below_left, r, left + 1);
      edge(last, r - 1, end + 1, w_.below_left, r - 1, end + 1);
      edge(last, r, end + 1, w_.right, r, end);
      edge(last, r + 1, end + 1, w_.below_right, r, end);
    }
  }

 private:
  float& entry(int i, int j) { return z_[n_.column(j / block) + block * i + j % block]; }

  // Pivot k to boundary pixel (row, column) if there is one; the weight is stored at (wr, wc).
  void edge(int k, int row, int column, const float* weight, int wr, int wc) {
    int at = n_.padded;
    for (int i = 0; i < n_.segment_count; ++i) {
      const Segment& s = n_.segments[i];
      const bool line = s.vertical ? column == s.column : row == s.row;
      const int along = s.vertical ? row - s.row : column - s.column;
      if (line && along >= 0 && along < s.length) {
        entry(k, at + along) += weight[wr * w_.ld + wc];
        return;
      }
      at += s.length;
    }
  }

  const Node& n_;
  const Couplings<float>& w_;
  float* z_;
};

}  // namespace usconf::cpu
