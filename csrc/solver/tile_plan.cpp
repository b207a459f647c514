#include "tile_plan.h"

#include <algorithm>
#include <utility>

namespace usconf {
namespace {

constexpr int leaf = 3;  // pixels a side of the smallest box; 3 measured best

std::size_t triangle(std::size_t i) { return i * (i + 1) / 2; }

}  // namespace

TilePlan::TilePlan(int height, int width) : height(height), width(width) {
  elimination_.assign(static_cast<std::size_t>(height + 2) * (width + 2), -1);
  build({1, height + 1, 1, width + 1});
  int next = eliminated_;
  const auto ring_pixel = [&](int r, int c) {
    ring.push_back(grid(r, c));
    elimination_[ring.back()] = next++;
  };
  for (int c = 0; c <= width + 1; ++c) ring_pixel(0, c);
  for (int c = 0; c <= width + 1; ++c) ring_pixel(height + 1, c);
  for (int r = 1; r <= height; ++r) ring_pixel(r, 0);
  for (int r = 1; r <= height; ++r) ring_pixel(r, width + 1);
  std::vector<int> position(elimination_.size(), -1);
  for (Front& f : lists_) {
    std::sort(f.pixels.begin() + f.pivots, f.pixels.end(),
              [&](int a, int b) { return elimination_[a] < elimination_[b]; });
    for (int k = 0; k < f.order(); ++k) position[f.pixels[k]] = k;
    place(f);
    couple(f, position);
    map_children(f, position);
    for (int p : f.pixels) position[p] = -1;
  }
  describe();
}

void TilePlan::describe() {
  fronts_ = std::make_shared<std::vector<TileFront>>();
  for (const Front& f : lists_) {
    TileFront t{};
    t.pivots = f.pivots;
    t.boundary = f.boundary;
    t.pixels = f.pixels.data();
    t.couplings = f.couplings.data();
    t.coupling_count = static_cast<int>(f.couplings.size());
    t.clear = f.clear.data();
    t.copy = f.copy.data();
    t.add = f.add.data();
    t.clear_count = static_cast<int>(f.clear.size());
    t.copy_count = static_cast<int>(f.copy.size()) / 2;
    t.add_count = static_cast<int>(f.add.size()) / 3;
    t.work = f.work;
    t.factor = factor_size;
    factor_size += t.factor_size();
    fronts_->push_back(t);
  }
}

TileShape TilePlan::shape() const {
  return {height,      width,       fronts_->data(), static_cast<int>(fronts_->size()),
          ring.data(), ring_size(), schur_stride()};
}

int TilePlan::build(const Box& b) {
  Front front;
  std::vector<int>& children = front.children;
  const int h = b.row1 - b.row0, w = b.column1 - b.column0;
  if (h <= leaf && w <= leaf) {
    for (int r = b.row0; r < b.row1; ++r)
      for (int c = b.column0; c < b.column1; ++c) front.pixels.push_back(grid(r, c));
  } else if (h >= w) {
    const int m = (b.row0 + b.row1) / 2;
    if (m > b.row0) children.push_back(build({b.row0, m, b.column0, b.column1}));
    if (m + 1 < b.row1) children.push_back(build({m + 1, b.row1, b.column0, b.column1}));
    for (int c = b.column0; c < b.column1; ++c) front.pixels.push_back(grid(m, c));
  } else {
    const int m = (b.column0 + b.column1) / 2;
    if (m > b.column0) children.push_back(build({b.row0, b.row1, b.column0, m}));
    if (m + 1 < b.column1) children.push_back(build({b.row0, b.row1, m + 1, b.column1}));
    for (int r = b.row0; r < b.row1; ++r) front.pixels.push_back(grid(r, m));
  }
  for (int p : front.pixels) elimination_[p] = eliminated_++;
  front.pivots = static_cast<int>(front.pixels.size());
  for (int c = b.column0 - 1; c <= b.column1; ++c) {
    front.pixels.push_back(grid(b.row0 - 1, c));
    front.pixels.push_back(grid(b.row1, c));
  }
  for (int r = b.row0; r < b.row1; ++r) {
    front.pixels.push_back(grid(r, b.column0 - 1));
    front.pixels.push_back(grid(r, b.column1));
  }
  front.boundary = static_cast<int>(front.pixels.size()) - front.pivots;
  lists_.push_back(std::move(front));
  return static_cast<int>(lists_.size()) - 1;
}

// First place that is free while the children, and fronts waiting for their parents, are alive.
void TilePlan::place(Front& f) {
  const std::size_t need = triangle(f.order() + 2), self = &f - lists_.data();
  std::vector<bool> consumed(self, false);
  for (std::size_t i = 0; i < self; ++i)
    for (int c : lists_[i].children) consumed[c] = true;
  std::vector<std::pair<std::size_t, std::size_t>> live;
  for (std::size_t i = 0; i < self; ++i)
    if (!consumed[i]) live.push_back({lists_[i].work, triangle(lists_[i].order() + 2)});
  std::sort(live.begin(), live.end());
  std::size_t at = 0;
  for (const auto& [begin, size] : live) {
    if (at + need <= begin) break;
    at = std::max(at, begin + size);
  }
  f.work = at;
  work_size = std::max(work_size, at + need);
}

void TilePlan::couple(Front& f, const std::vector<int>& position) const {
  const auto add = [&](int i, int j, int row, int column, CouplingKind kind) {
    const int a = std::max(i, j), b = std::min(i, j);
    f.couplings.push_back({static_cast<int>(triangle(a)) + b, static_cast<short>(row - 1),
                           static_cast<short>(column - 1), kind});
  };
  for (int j = 0; j < f.pivots; ++j) {
    const int r = f.pixels[j] / (width + 2), c = f.pixels[j] % (width + 2);
    add(f.order(), j, r, c, CouplingKind::source);
    add(f.order() + 1, j, r, c, CouplingKind::sink);
    for (int dr = -1; dr <= 1; ++dr)
      for (int dc = -1; dc <= 1; ++dc) {
        const int i = position[grid(r + dr, c + dc)];
        if ((dr == 0 && dc == 0) || i < 0 || (i < f.pivots && i < j)) continue;
        // An edge belongs to its upper pixel, or to the left one of a row.
        if (dr == 0) {
          add(i, j, r, dc > 0 ? c : c - 1, CouplingKind::right);
        } else {
          const int slant = dr > 0 ? dc : -dc;
          add(i, j, dr > 0 ? r : r - 1, dr > 0 ? c : c + dc,
              slant == 0  ? CouplingKind::below
              : slant > 0 ? CouplingKind::below_right
                          : CouplingKind::below_left);
        }
      }
  }
}

void TilePlan::map_children(Front& f, const std::vector<int>& position) const {
  const int n = f.order();
  std::vector<std::vector<int>> from(triangle(n + 2));
  for (int child : f.children) {
    const Front& k = lists_[child];
    std::vector<int> to(k.boundary + 2);
    for (int i = 0; i < k.boundary; ++i) to[i] = position[k.pixels[k.pivots + i]];
    to[k.boundary] = n;
    to[k.boundary + 1] = n + 1;
    for (int i = 1; i < k.boundary + 2; ++i)
      for (int j = 0; j < std::min(i, k.boundary); ++j)
        from[triangle(to[i]) + to[j]].push_back(static_cast<int>(k.work + triangle(k.pivots + i)) +
                                                k.pivots + j);
  }
  for (int i = 1; i <= n + 1; ++i)
    for (int j = 0; j < std::min(i, n); ++j) {
      const int to = static_cast<int>(triangle(i)) + j;
      const std::vector<int>& source = from[to];
      if (source.empty()) f.clear.push_back(to);
      if (source.size() == 1) f.copy.insert(f.copy.end(), {to, source[0]});
      if (source.size() == 2) f.add.insert(f.add.end(), {to, source[0], source[1]});
    }
}

}  // namespace usconf
