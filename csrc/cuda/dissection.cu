#include <algorithm>
#include <list>
#include <mutex>
#include <stdexcept>

#include "dissection.h"
#include "tile_geometry.h"

namespace usconf::cuda {
namespace {

// Half-open ranges of tiles.
struct Range {
  int row[2], column[2];
};

int round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

// Builds the tree top down, one list of nodes per depth, then joins the lists.
class Builder {
 public:
  explicit Builder(Dissection& out) : out_(out) {}

  void build() {
    const Range all{{0, out_.rows / tile_pitch + 1}, {0, out_.columns / tile_pitch + 1}};
    add(all, nullptr, 0, 0);
    collect();
    lay_out();
    connect();
  }

 private:
  struct Draft {
    Node node;
    int depth;
    int child[2];  // index into drafts_, -1: none
    bool tile;
    int index;  // final
  };

  int add(const Range& g, const Segment* around, int count, int depth);
  void halves(const Range& g, Range half[2], Segment& separator) const;
  void collect();
  void lay_out();
  void connect();

  Dissection& out_;
  std::vector<Draft> drafts_;
};

// Where two tile ranges meet, and the line of pixels between them.
void Builder::halves(const Range& g, Range half[2], Segment& separator) const {
  const int down = g.row[1] - g.row[0], across = g.column[1] - g.column[0];
  half[0] = half[1] = g;
  const bool vertical = across >= down;
  const auto& cut = vertical ? g.column : g.row;
  const auto& other = vertical ? g.row : g.column;
  const int m = (cut[0] + cut[1]) / 2;
  (vertical ? half[0].column : half[0].row)[1] = m;
  (vertical ? half[1].column : half[1].row)[0] = m;
  const int begin = other[0] * tile_pitch;
  const int end = std::min(other[1] * tile_pitch - 1, vertical ? out_.rows : out_.columns);
  separator = {vertical, m * tile_pitch - 1, begin, end - begin, 0};
}

int Builder::add(const Range& g, const Segment* around, int count, int depth) {
  const int r0 = g.row[0] * tile_pitch, c0 = g.column[0] * tile_pitch;
  if (r0 >= out_.rows || c0 >= out_.columns) return -1;
  const int self = static_cast<int>(drafts_.size());
  drafts_.emplace_back();
  Draft d{};
  d.depth = depth;
  d.child[0] = d.child[1] = -1;
  d.node.row = r0;
  d.node.column = c0;
  d.tile = g.row[1] - g.row[0] == 1 && g.column[1] - g.column[0] == 1;
  Range half[2];
  if (!d.tile) {
    halves(g, half, d.node.separator);
    d.node.pivots = d.node.separator.length;
  }
  d.node.segments = count;
  int position = d.node.pivots;
  for (int i = 0; i < count; ++i) {
    d.node.segment[i] = around[i];
    d.node.segment[i].position = position;
    position += around[i].length;
  }
  d.node.boundary = position - d.node.pivots;
  const Segment& s = d.node.separator;
  for (int k = 0; !d.tile && k < 2; ++k) {
    // The separator replaces the parallel segment of the far side; the segments across it end at
    // it.
    Segment inner[5];
    int n = 0;
    inner[n++] = s;
    for (int i = 0; i < count; ++i) {
      Segment t = around[i];
      if (t.vertical == s.vertical) {
        if ((k == 0) == (t.line < s.line)) inner[n++] = t;
        continue;
      }
      const int begin = k == 0 ? t.start : std::max(t.start, s.line);
      const int end = k == 0 ? std::min(t.start + t.length, s.line + 1) : t.start + t.length;
      t.start = begin;
      t.length = end - begin;
      inner[n++] = t;
    }
    d.child[k] = add(half[k], inner, n, depth + 1);
  }
  drafts_[self] = d;
  return self;
}

void Builder::collect() {
  int deepest = 0;
  for (const Draft& d : drafts_) deepest = std::max(deepest, d.depth);
  out_.nodes.reserve(drafts_.size());
  const auto take = [&](auto&& wanted) {
    for (Draft& d : drafts_)
      if (wanted(d)) {
        d.index = static_cast<int>(out_.nodes.size());
        out_.nodes.push_back(d.node);
      }
  };
  take([](const Draft& d) { return d.tile; });
  out_.tiles = static_cast<int>(out_.nodes.size());
  for (int depth = deepest; depth >= 0; --depth) {
    Level level{static_cast<int>(out_.nodes.size()), 0, 0, 0};
    take([&](const Draft& d) { return !d.tile && d.depth == depth; });
    level.count = static_cast<int>(out_.nodes.size()) - level.first;
    for (int i = level.first; i < level.first + level.count; ++i) {
      level.pivots = std::max(level.pivots, out_.nodes[i].pivots);
      level.boundary = std::max(level.boundary, out_.nodes[i].boundary);
    }
    if (level.count) out_.levels.push_back(level);
  }
}

// Update matrices: those of all tiles, then two regions that the levels use in turn, since a level
// reads the one below it only (or tiles).
void Builder::lay_out() {
  const auto place = [&](Node& n, bool tile, long long& update) {
    n.ld = round_up(n.z_panel(n.panels()), 4);
    n.update_ld = round_up(n.boundary + 2, 4);
    n.factor = out_.factor;
    out_.factor += tile ? tile_factor : n.pivots * static_cast<long long>(n.ld);
    out_.factor = (out_.factor + 15) / 16 * 16;
    n.update = update;
    update += static_cast<long long>(n.boundary) * n.update_ld;
    n.vector = out_.vector;
    out_.vector += (tile ? tile_pixels : n.pivots) + n.boundary;
  };
  long long tiles = 0, region[2] = {0, 0};
  for (int i = 0; i < out_.tiles; ++i) place(out_.nodes[i], true, tiles);
  const auto each_level = [&](auto&& work) {
    for (std::size_t l = 0; l < out_.levels.size(); ++l) {
      long long at = 0;
      for (int i = 0; i < out_.levels[l].count; ++i)
        work(out_.nodes[out_.levels[l].first + i], l % 2, at);
      region[l % 2] = std::max(region[l % 2], at);
    }
  };
  each_level([&](Node& n, std::size_t, long long& at) { place(n, false, at); });
  each_level(
      [&](Node& n, std::size_t which, long long&) { n.update += tiles + (which ? region[0] : 0); });
  out_.update = tiles + region[0] + region[1];
}

void Builder::connect() {
  for (const Draft& d : drafts_) {
    Node& node = out_.nodes[d.index];
    for (int k = 0; k < 2; ++k) {
      Child& c = node.child[k];
      c = {};
      c.boundary = -1;
      if (d.child[k] < 0) continue;
      const Draft& from = drafts_[d.child[k]];
      const Node& child = out_.nodes[from.index];
      const int own = from.tile ? tile_pixels : child.pivots;
      c.update = child.update;
      c.vector = child.vector + own;
      c.boundary = child.boundary;
      c.ld = child.update_ld;
      for (int i = 1; i < child.segments; ++i) {
        const Segment& s = child.segment[i];
        for (int j = 0; j < node.segments; ++j) {
          const Segment& t = node.segment[j];
          if (t.vertical != s.vertical || t.line != s.line) continue;
          c.run[c.runs++] = {s.position - child.pivots, t.position + s.start - t.start, s.length};
        }
      }
    }
  }
}

constexpr std::size_t most_plans = 16;

struct Plans {
  std::mutex busy;
  std::list<std::pair<int, std::shared_ptr<const DevicePlan>>> recent;  // by device
  std::list<std::shared_ptr<const Dissection>> shapes;
};
Plans& plans() {
  static Plans* const p = new Plans;  // never destroyed: the driver may be gone before us at exit
  return *p;
}

}  // namespace

Dissection::Dissection(int rows, int columns) : rows(rows), columns(columns) {
  Builder(*this).build();
}

DevicePlan::DevicePlan(int rows, int columns) : tree(rows, columns), device_(current_device()) {
  const std::size_t bytes = tree.nodes.size() * sizeof(Node);
  constexpr const char* doing =
      "storing the plan of a new image size (to capture a graph, call once with that size before)";
  check(cudaMalloc(&nodes_, bytes), doing);
  check(cudaMemcpyAsync(nodes_, tree.nodes.data(), bytes, cudaMemcpyHostToDevice, nullptr), doing);
  // The caller's stream may be one that does not wait for the default stream.
  check(cudaStreamSynchronize(nullptr), doing);
}

DevicePlan::~DevicePlan() {
  int former = -1;
  if (cudaGetDevice(&former) != cudaSuccess || cudaSetDevice(device_) != cudaSuccess) return;
  static_cast<void>(cudaFree(nodes_));  // waits for kernels that still read it
  static_cast<void>(cudaSetDevice(former));
}

std::shared_ptr<const DevicePlan> plan_for(int rows, int columns) {
  Plans& all = plans();
  const int device = current_device();
  const std::lock_guard<std::mutex> lock(all.busy);
  const auto at = std::find_if(all.recent.begin(), all.recent.end(), [&](const auto& p) {
    return p.first == device && p.second->tree.rows == rows && p.second->tree.columns == columns;
  });
  if (at != all.recent.end()) {
    all.recent.splice(all.recent.begin(), all.recent, at);
  } else {
    all.recent.emplace_front(device, std::make_shared<const DevicePlan>(rows, columns));
    if (all.recent.size() > most_plans) all.recent.pop_back();
  }
  return all.recent.front().second;
}

std::shared_ptr<const Dissection> dissection_for(int rows, int columns) {
  Plans& all = plans();
  const std::lock_guard<std::mutex> lock(all.busy);
  for (const auto& [device, plan] : all.recent)
    if (plan->tree.rows == rows && plan->tree.columns == columns) return {plan, &plan->tree};
  for (const auto& shape : all.shapes)
    if (shape->rows == rows && shape->columns == columns) return shape;
  all.shapes.push_front(std::make_shared<const Dissection>(rows, columns));
  if (all.shapes.size() > most_plans) all.shapes.pop_back();
  return all.shapes.front();
}

void clear_plans() {
  Plans& all = plans();
  const std::lock_guard<std::mutex> lock(all.busy);
  all.recent.clear();
  all.shapes.clear();
}

}  // namespace usconf::cuda
