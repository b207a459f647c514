#include "plan.h"

#include <algorithm>

namespace usconf {
namespace {

// Pixels a side of a tile. Measured with 16 lanes: 7, 20 and 31 lost to 15.
constexpr int tile = 15;
// Floats of tile factors that are stored: all up to about 1400 x 1400 pixels, 0.2 of 0.45 GB at
// 2048 x 2048.
constexpr std::size_t stored_floats = std::size_t{50} << 20;
// Tiles a side of the units between which the cheapest cuts are sought: full groups of lanes.
// Smaller units find cuts cheaper by 2 % and fill the lanes less.
constexpr int unit = 4;
// A last tile narrower than this is joined to the one before it.
constexpr int narrowest = 4;

// Starts of the tiles of n pixels, and one past the separator that would follow the last tile.
std::vector<int> tile_starts(int n) {
  std::vector<int> starts;
  int at = 0;
  while (n - at > tile + narrowest) {
    starts.push_back(at);
    at += tile + 1;
  }
  starts.push_back(at);
  starts.push_back(n + 1);
  return starts;
}

}  // namespace

Plan::Plan(int rows, int columns, int lanes)
    : rows(rows),
      columns(columns),
      lanes(lanes),
      row_cuts_(tile_starts(rows)),
      column_cuts_(tile_starts(columns)) {
  const int down = static_cast<int>(row_cuts_.size()) - 1;
  const int across = static_cast<int>(column_cuts_.size()) - 1;
  // Bundles of 8 x 8 tiles where that leaves enough of them for several threads.
  bundle_tiles_ = down * across >= 256 ? 64 : 16;
  const Side none{false, -1};
  const auto units = [](int tiles) { return (tiles + unit - 1) / unit; };
  const Cuts cuts(units(down), units(across), unit * (tile + 1));
  root = build(cuts, {{0, down}, {0, across}, none, none, none, none}, 0, false);
  group_tiles();
  lay_out();
}

Plan::Box Plan::box(const Region& g) const {
  return {{row_cuts_[g.tile_row[0]], row_cuts_[g.tile_row[1]] - 1},
          {column_cuts_[g.tile_column[0]], column_cuts_[g.tile_column[1]] - 1}};
}

// A corner pixel belongs to the separator that was cut first, the one of smaller depth.
int Plan::border(const Region& g, const Box& b, Segment* out) const {
  const auto first = [](const Side& mine, const Side& other) {
    return other.exists && mine.depth < other.depth ? 1 : 0;
  };
  int n = 0;
  const auto horizontal = [&](const Side& side, int row) {
    if (!side.exists) return;
    const int begin = b.column[0] - first(side, g.left), end = b.column[1] + first(side, g.right);
    out[n++] = {row, begin, end - begin, false, side.depth};
  };
  const auto vertical = [&](const Side& side, int column) {
    if (!side.exists) return;
    const int begin = b.row[0] - first(side, g.top), end = b.row[1] + first(side, g.bottom);
    out[n++] = {begin, column, end - begin, true, side.depth};
  };
  horizontal(g.top, b.row[0] - 1);
  horizontal(g.bottom, b.row[1]);
  vertical(g.left, b.column[0] - 1);
  vertical(g.right, b.column[1]);
  // Deepest first: the order of elimination, so that runs keep their order from child to parent.
  std::sort(out, out + n, [](const Segment& p, const Segment& q) { return p.depth > q.depth; });
  return n;
}

int Plan::add_tile(const Region& g) {
  const Box b = box(g);
  const int height = b.row[1] - b.row[0], width = b.column[1] - b.column[0];
  int shape = 0;
  while (shape < static_cast<int>(shapes.size()) &&
         (shapes[shape].height != height || shapes[shape].width != width))
    ++shape;
  if (shape == static_cast<int>(shapes.size())) shapes.emplace_back(height, width);
  tiles.push_back({b.row[0], b.column[0], shape, -1, -1});
  return -static_cast<int>(tiles.size());
}

// Tiles before the cut. Within a unit: across the longer side, in the middle.
Cuts::Cut Plan::cut(const Cuts& cuts, const Region& g, const Box& b) const {
  const int down = g.tile_row[1] - g.tile_row[0], across = g.tile_column[1] - g.tile_column[0];
  if (down > unit || across > unit) {
    const int sides = (g.top.exists ? Cuts::top : 0) | (g.bottom.exists ? Cuts::bottom : 0) |
                      (g.left.exists ? Cuts::left : 0) | (g.right.exists ? Cuts::right : 0);
    const Cuts::Cut found = cuts.cut((down + unit - 1) / unit, (across + unit - 1) / unit, sides);
    return {found.horizontal, found.at * unit};
  }
  const bool horizontal =
      down > 1 && (b.row[1] - b.row[0] >= b.column[1] - b.column[0] || across == 1);
  return {horizontal, (horizontal ? down : across) / 2};
}

int Plan::build(const Cuts& cuts, const Region& g, int depth, bool inside_bundle) {
  const int down = g.tile_row[1] - g.tile_row[0], across = g.tile_column[1] - g.tile_column[0];
  const bool starts_bundle = !inside_bundle && (down * across <= bundle_tiles_);
  const int first_tile = static_cast<int>(tiles.size());
  const auto close_bundle = [&](int root_index) {
    bundles.push_back({root_index, 0, 0, first_tile, static_cast<int>(tiles.size()) - first_tile});
    return static_cast<int>(bundles.size()) - 1;
  };
  if (down * across == 1) {
    const int index = add_tile(g);
    if (starts_bundle) close_bundle(index);
    return index;
  }
  const Box b = box(g);
  Node node{};
  node.depth = depth;
  node.parent = node.bundle = -1;
  node.first = static_cast<int>(nodes.size());
  for (int k = 0; k < 2; ++k) {
    node.rows[k] = b.row[k];
    node.columns[k] = b.column[k];
  }
  const auto [horizontal, before] = cut(cuts, g, b);
  Region low = g, high = g;
  const Side cut_side{true, depth};
  if (horizontal) {
    const int m = g.tile_row[0] + before;
    low.tile_row[1] = high.tile_row[0] = m;
    low.bottom = high.top = cut_side;
    node.separator = {row_cuts_[m] - 1, b.column[0], b.column[1] - b.column[0], false, depth};
  } else {
    const int m = g.tile_column[0] + before;
    low.tile_column[1] = high.tile_column[0] = m;
    low.right = high.left = cut_side;
    node.separator = {b.row[0], column_cuts_[m] - 1, b.row[1] - b.row[0], true, depth};
  }
  const bool inside = inside_bundle || starts_bundle;
  node.child[0] = build(cuts, low, depth + 1, inside);
  node.child[1] = build(cuts, high, depth + 1, inside);
  node.segment_count = border(g, b, node.segments);
  node.pivots = node.separator.length;
  for (int i = 0; i < node.segment_count; ++i) node.boundary += node.segments[i].length;
  node.padded = round_up(node.pivots);
  node.pivot_blocks = node.padded / block;
  node.blocks = node.pivot_blocks + round_up(node.boundary + 2) / block;
  const int self = static_cast<int>(nodes.size());
  for (int k = 0; k < 2; ++k) {
    if (node.child[k] >= 0) {
      nodes[node.child[k]].parent = self;
      map_node_child(node, k);
    } else {
      map_tile_child(node, k);
    }
  }
  if (starts_bundle) node.bundle = close_bundle(self);
  nodes.push_back(node);
  return self;
}

namespace {

// Where pixel (row, column) of the line of `depth` lies in the node's front; -1: nowhere.
int find(const Node& node, int depth, int row, int column) {
  const auto along = [&](const Segment& s) { return s.vertical ? row - s.row : column - s.column; };
  if (depth == node.depth) return along(node.separator);
  int at = node.padded;
  for (int i = 0; i < node.segment_count; ++i) {
    if (node.segments[i].depth == depth) return at + along(node.segments[i]);
    at += node.segments[i].length;
  }
  return -1;
}

// Appends a run, or lengthens the last one when both sides go on where it ended. Pivots and
// boundary are kept apart: they are stored differently.
void append(Node& node, int which, Run run) {
  int& count = node.run_count[which];
  if (count > 0) {
    Run& last = node.runs[which][count - 1];
    if (last.source + last.length == run.source && last.target + last.length == run.target &&
        (last.target < node.padded) == (run.target < node.padded)) {
      last.length += run.length;
      return;
    }
  }
  node.runs[which][count++] = run;
}

}  // namespace

void Plan::map_node_child(Node& node, int which) {
  const Node& child = nodes[node.child[which]];
  int at = 0;
  for (int i = 0; i < child.segment_count; ++i) {
    const Segment& s = child.segments[i];
    append(node, which, {at, find(node, s.depth, s.row, s.column), s.length});
    at += s.length;
  }
  node.runs[which][node.run_count[which]++] = {at, node.padded + node.boundary, 2};
}

// A tile's ring has a fixed order: top row with both corners, bottom row with both corners, left,
// right. Ring pixels outside the rectangle are left out.
void Plan::map_tile_child(Node& node, int which) {
  const Tile& t = tiles[-1 - node.child[which]];
  const int h = shapes[t.shape].height, w = shapes[t.shape].width;
  // Every ring pixel lies on one of the node's lines; look the pixel up in each.
  const auto position = [&](int row, int column) {
    const auto within = [&](const Segment& s) {
      return s.vertical ? column == s.column && row >= s.row && row < s.row + s.length
                        : row == s.row && column >= s.column && column < s.column + s.length;
    };
    if (within(node.separator)) return find(node, node.depth, row, column);
    for (int i = 0; i < node.segment_count; ++i)
      if (within(node.segments[i])) return find(node, node.segments[i].depth, row, column);
    return -1;
  };
  const auto piece = [&](int source, int row, int column, int length) {
    const int target = position(row, column);
    if (target >= 0) append(node, which, {source, target, length});
  };
  const int top = t.row - 1, bottom = t.row + h, left = t.column - 1, right = t.column + w;
  int at = 0;
  for (const int row : {top, bottom}) {
    piece(at, row, left, 1);
    piece(at + 1, row, t.column, w);
    piece(at + 1 + w, row, right, 1);
    at += w + 2;
  }
  piece(at, t.row, left, h);
  piece(at + h, t.row, right, h);
  node.runs[which][node.run_count[which]++] = {at + 2 * h, node.padded + node.boundary, 2};
}

void Plan::group_tiles() {
  for (Bundle& bundle : bundles) {
    bundle.first_group = static_cast<int>(groups.size());
    group_bundle(bundle);
    bundle.group_count = static_cast<int>(groups.size()) - bundle.first_group;
  }
  for (const TilePlan& s : shapes) {
    slot_size = std::max(slot_size, s.schur_stride() * s.schur_stride());
    max_tile_front = std::max(max_tile_front, s.work_size);
    max_tile_factor = std::max(max_tile_factor, s.factor_size);
    ring_stride = std::max(ring_stride, static_cast<std::size_t>(s.schur_stride()));
  }
}

// Consecutive tiles of one shape share a group; it is eliminated when the tree needs the first of
// them.
void Plan::group_bundle(Bundle& bundle) {
  std::vector<int> open(shapes.size(), -1);
  const int end = bundle.first_tile + bundle.tile_count;
  for (int i = bundle.first_tile; i < end; ++i) {
    Tile& t = tiles[i];
    int& g = open[t.shape];
    if (g < 0 || groups[g].count == lanes) {
      g = static_cast<int>(groups.size());
      groups.push_back({t.shape, 0, {}, 0, 0, 0, false});
    }
    t.group = g;
    t.lane = groups[g].count++;
    groups[g].tiles.push_back(i);
  }
  // Slots: a group's are taken when its first tile is reached. A node consumes a tile when both of
  // its children exist, and at most two tiles follow a tile below its parent.
  std::vector<std::pair<int, int>> live;  // (first slot, group)
  for (int i = bundle.first_tile; i < end; ++i) {
    TileGroup& g = groups[tiles[i].group];
    if (g.tiles.front() != i) continue;
    live.erase(std::remove_if(live.begin(), live.end(),
                              [&](const auto& l) { return groups[l.second].tiles.back() + 2 < i; }),
               live.end());
    std::sort(live.begin(), live.end());
    int at = 0;
    for (const auto& [slot, other] : live) {
      if (at + g.count <= slot) break;
      at = std::max(at, slot + groups[other].count);
    }
    g.slot = at;
    live.push_back({at, tiles[i].group});
    slots = std::max(slots, at + g.count);
  }
}

void Plan::lay_out() {
  const auto size = [&](const TileGroup& g) { return shapes[g.shape].factor_size * lanes; };
  std::size_t all = 0, before = 0;
  for (const TileGroup& g : groups) all += size(g);
  compact = all > stored_floats;
  for (TileGroup& g : groups) {
    // An even share of every subtree, or threads would wait for each other.
    before += size(g);
    g.stored = !compact || factor_size + size(g) <= stored_floats * (double(before) / all);
    g.factor = factor_size;
    if (g.stored) factor_size += size(g);
    g.saved = saved_size;
    saved_size += static_cast<std::size_t>(shapes[g.shape].pixels()) * lanes;
  }
  factor_size =
      (factor_size + block - 1) / block * block;  // nodes' factors are aligned to a cache line
  for (Node& n : nodes) {
    // Bundles and nodes come in one order, so the bundles inside a subtree are neighbours.
    if (n.bundle >= 0) {
      n.first_group = bundles[n.bundle].first_group;
      n.end_group = n.first_group + bundles[n.bundle].group_count;
    } else if (n.child[0] >= 0 && n.child[1] >= 0) {
      n.first_group = nodes[n.child[0]].first_group;
      n.end_group = nodes[n.child[1]].end_group;
    }
    n.factor = factor_size;
    factor_size += n.factor_size();
    max_work = std::max(max_work, n.work_size());
    const int own = n.depth & 1, other = 1 - own;
    std::size_t below = 0;
    n.peak[0] = n.peak[1] = 0;
    for (int k = 0; k < 2; ++k) {
      if (n.child[k] < 0) continue;
      const Node& c = nodes[n.child[k]];
      n.peak[own] = std::max(n.peak[own], c.peak[own]);
      n.peak[other] = std::max(n.peak[other], below + c.peak[other]);
      below += c.update_size();
    }
    n.peak[own] = std::max(n.peak[own], n.update_size());
  }
}

}  // namespace usconf
