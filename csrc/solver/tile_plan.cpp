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
    couple(f, position);
    map_children(f, position);
    for (int p : f.pixels) position[p] = -1;
  }
  Front& last = lists_.back();  // stays where it is
  for (int i = 0; i < last.boundary + 2; ++i) last.targets.push_back(i);
  describe();
  place();
  order_schur();
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
    t.parent = f.parent;
    t.targets = f.targets.data();
    t.leaf = f.children.empty();
    if (f.parent >= 0) {
      const Front& parent = lists_[f.parent];
      t.to_pivots = static_cast<int>(
          std::lower_bound(f.targets.begin(), f.targets.end(), parent.pivots) - f.targets.begin());
      t.first = &lists_[parent.children[0]] == &f;
    }
    t.factor = factor_size;
    factor_size += t.factor_size();
    fronts_->push_back(t);
  }
}

// First place that is free from the first child's elimination on, which adds to it, to the front's
// own.
void TilePlan::place() {
  struct Placed {
    std::size_t begin, end;
    int from, to;
  };
  std::vector<Placed> placed;
  for (std::size_t i = 0; i < lists_.size(); ++i) {
    TileFront& t = (*fronts_)[i];
    if (t.leaf && t.parent >= 0) continue;
    const int to = static_cast<int>(i);
    const int from = lists_[i].children.empty() ? to : lists_[i].children[0];
    std::sort(placed.begin(), placed.end(),
              [](const Placed& a, const Placed& b) { return a.begin < b.begin; });
    std::size_t at = 0;
    for (const Placed& p : placed) {
      if (p.to < from || p.from > to) continue;
      if (at + t.work_size() <= p.begin) break;
      at = std::max(at, p.end);
    }
    t.work = at;
    placed.push_back({at, at + t.work_size(), from, to});
    work_size = std::max(work_size, placed.back().end);
  }
}

// Both triangles; the seeds are columns only. Entry 0, the diagonal's first, is always zero.
void TilePlan::order_schur() {
  const int n = ring_size(), stride = schur_stride();
  schur.assign(static_cast<std::size_t>(n) * stride, 0);
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n + 2; ++j)
      if (i != j)
        schur[static_cast<std::size_t>(i) * stride + j] =
            static_cast<int>(triangle(std::max(i, j))) + std::min(i, j);
}

TileShape TilePlan::shape() const {
  return {height,      width,       fronts_->data(), static_cast<int>(fronts_->size()),
          ring.data(), ring_size(), schur.data(),    schur_stride(),
          factor_size};
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

void TilePlan::couple(Front& f, const std::vector<int>& position) const {
  TileFront rows{};  // of the factor
  rows.pivots = f.pivots;
  rows.boundary = f.boundary;
  const auto add = [&](int i, int j, int row, int column, CouplingKind kind) {
    const int a = std::max(i, j), b = std::min(i, j);
    f.couplings.push_back({static_cast<int>(rows.factor_row(a)) + b, static_cast<short>(row - 1),
                           static_cast<short>(column - 1), kind});
  };
  for (int j = 0; j < f.pivots; ++j) {
    const int r = f.pixels[j] / (width + 2), c = f.pixels[j] % (width + 2);
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
  for (const auto kind : {CouplingKind::source, CouplingKind::sink})  // last: often left out
    for (int j = 0; j < f.pivots; ++j)
      add(f.order() + (kind == CouplingKind::sink), j, f.pixels[j] / (width + 2),
          f.pixels[j] % (width + 2), kind);
}

void TilePlan::map_children(const Front& f, const std::vector<int>& position) {
  for (int child : f.children) {
    Front& k = lists_[child];
    k.parent = static_cast<int>(&f - lists_.data());
    for (int i = 0; i < k.boundary; ++i) k.targets.push_back(position[k.pixels[k.pivots + i]]);
    k.targets.push_back(f.order());
    k.targets.push_back(f.order() + 1);
  }
}

}  // namespace usconf
