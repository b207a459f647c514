// Positions inside a tile of 15 x 15 pixels, which one thread block eliminates: first its four
// quadrants of 7 x 7 pixels, a warp each, then the cross between them, leaving couplings among the
// ring of 64 pixels around the tile.
#pragma once

#include "dissection.h"

namespace usconf::cuda {

constexpr int tile_threads = 128, quadrants = 4, quadrant_side = 7;
constexpr int quadrant_pixels = quadrant_side * quadrant_side;
constexpr int quadrant_band = quadrant_side + 1;  // pixel k couples to pixels up to k + 8
constexpr int quadrant_ring = 4 * quadrant_side + 4;
// A quadrant's row k: z to pixels k + 1 .. k + 8, to its ring, to source and sink; reciprocal root.
constexpr int quadrant_source = quadrant_band + quadrant_ring, quadrant_sink = quadrant_source + 1;
constexpr int quadrant_root = quadrant_sink + 1, quadrant_row = 44;
constexpr int quadrant_size = quadrant_pixels * quadrant_row;

constexpr int cross_pixels = 2 * quadrant_side + tile_side, tile_ring = 4 * tile_side + 4;
constexpr int cross_front = cross_pixels + tile_ring;  // positions: cross, then ring
constexpr int cross_source = cross_front, cross_sink = cross_front + 1;
constexpr int cross_root = cross_front + 2, cross_row = 96;

// A tile's factor: the quadrants' rows, then the cross's rows.
constexpr int tile_factor = quadrants * quadrant_size + cross_pixels * cross_row;
// A tile's values in a sweep: those of the quadrants, then of the cross.
constexpr int tile_pixels = quadrants * quadrant_pixels + cross_pixels;

struct Spot {
  int row, column;
};

// The ring around a square, clockwise from its upper left corner but for the left side: top row
// with both corners, right side, bottom row with both corners, left side. -1: not on the ring.
__device__ inline int ring_index(int row, int column, int side) {
  if (row < -1 || row > side || column < -1 || column > side) return -1;
  if (row == -1) return column + 1;
  if (row == side) return 2 * side + 3 + column;
  if (column == side) return side + 2 + row;
  if (column == -1) return 3 * side + 4 + row;
  return -1;
}

__device__ inline Spot ring_spot(int index, int side) {
  if (index < side + 2) return {-1, index - 1};
  if (index < 2 * side + 2) return {index - side - 2, side};
  if (index < 3 * side + 4) return {side, index - 2 * side - 3};
  return {index - 3 * side - 4, -1};
}

// First pixel of a quadrant in its tile.
__device__ inline Spot quadrant_spot(int quadrant) {
  return {quadrant / 2 * (quadrant_side + 1), quadrant % 2 * (quadrant_side + 1)};
}

// The cross: upper arm, lower arm, then the whole middle row.
__device__ inline int cross_index(int row, int column) {
  if (row == quadrant_side) return 2 * quadrant_side + column;
  if (column != quadrant_side) return -1;
  return row < quadrant_side ? row : row - 1;
}

__device__ inline Spot cross_spot(int index) {
  if (index >= 2 * quadrant_side) return {quadrant_side, index - 2 * quadrant_side};
  return {index < quadrant_side ? index : index + 1, quadrant_side};
}

// Position in the cross's front of a pixel that no quadrant holds; -1 for the others.
__device__ inline int cross_position(int row, int column) {
  const int ring = ring_index(row, column, tile_side);
  return ring >= 0 ? cross_pixels + ring : cross_index(row, column);
}

__device__ inline Spot cross_position_spot(int position) {
  return position < cross_pixels ? cross_spot(position)
                                 : ring_spot(position - cross_pixels, tile_side);
}

// Where a pixel of the rectangle lies on the boundary of `node`: its position in the front; -1:
// nowhere.
__device__ inline int boundary_position(const Node& node, int row, int column) {
  for (int i = 0; i < node.segments; ++i) {
    const Segment& s = node.segment[i];
    const int along = (s.vertical ? row : column) - s.start;
    if ((s.vertical ? column : row) == s.line && along >= 0 && along < s.length)
      return s.position + along;
  }
  return -1;
}

__device__ inline Spot spot_on(const Segment& s, int along) {
  return s.vertical ? Spot{s.start + along, s.line} : Spot{s.line, s.start + along};
}

// The pixel at a position of a front.
__device__ inline Spot pixel_at(const Node& node, int position) {
  if (position < node.pivots) return spot_on(node.separator, position);
  int i = 0;
  while (position >= node.segment[i].position + node.segment[i].length) ++i;
  return spot_on(node.segment[i], position - node.segment[i].position);
}

}  // namespace usconf::cuda
