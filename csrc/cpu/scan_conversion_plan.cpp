// Tables of footprints: built once in double precision, kept while they fit.
#include <algorithm>
#include <list>
#include <mutex>
#include <stdexcept>

#include "scan_conversion.h"
#include "threads.h"

namespace usconf::cpu {
namespace {

// Pixels of a run at most: one run's entries stay in the first cache while the frames go by, and
// threads find shares of even length.
constexpr int longest_run = 1024;
// Pixels of a piece: its entries and the source pixels around it stay in the second cache while the
// frames go by, and few pieces read the same rows.
constexpr int piece_pixels = 8192;
constexpr std::size_t store_bytes = std::size_t{256} << 20;
// A footprint takes 100 ns or so, waking a thread 10 us.
constexpr std::int64_t footprints_per_thread = 4096;

enum Kind : std::uint8_t { invalid, plain, partial };

// Footprints of all output pixels, invalid ones too; borders by row.
template <class W>
struct Footprints {
  explicit Footprints(const ScanPlanKey& key)
      : kind(key.pixels()), index(key.pixels()), border(key.rows()) {
    if (key.nearest) return;
    right.resize(key.pixels());
    down.resize(key.pixels());
  }
  std::vector<Kind> kind;
  std::vector<std::int32_t> index;
  std::vector<W> right, down;
  std::vector<std::vector<BorderPixel<W>>> border;
};

template <class W>
void fill_row(const ScanPlanKey& key, const BeamMap<double>& map, int row, Footprints<W>& out) {
  const int columns = key.columns(), source_columns = key.source_columns();
  const int rows_there = key.source_rows();
  for (int column = 0; column < columns; ++column) {
    const std::int64_t i = std::int64_t{row} * columns + column;
    const Footprint<double> f = footprint(map, key.direction, row, column);
    out.kind[i] = !f.valid ? invalid : f.partial ? partial : plain;
    out.index[i] = static_cast<std::int32_t>(std::int64_t{f.row} * source_columns + f.column);
    if (!f.valid) continue;
    if (key.nearest) {
      const int best = heaviest(f);
      out.index[i] += (best / 2) * (rows_there > 1 ? source_columns : 0) + best % 2;
      out.kind[i] = plain;
      continue;
    }
    out.right[i] = static_cast<W>(f.right);
    out.down[i] = static_cast<W>(f.down);
    if (!f.partial) continue;
    BorderPixel<W> b{i, out.index[i], {}};
    for (int k = 0; k < 4; ++k) b.weight[k] = static_cast<W>(f.weight[k]);
    out.border[row].push_back(b);
  }
}

template <class W>
Footprints<W> footprints(const ScanPlanKey& key, int threads) {
  Footprints<W> out(key);
  const auto map = beam_map<double>(key.geometry(), key.samples, key.lines, key.height, key.width);
  const auto most = std::max<std::int64_t>(1, key.pixels() / footprints_per_thread);
  run(static_cast<int>(std::min<std::int64_t>(threads, most)), [&](const Team& team) {
    // Rows in turns: those near the apex hold fewer valid pixels.
    for (int row = team.index; row < key.rows(); row += team.size) fill_row(key, map, row, out);
  });
  return out;
}

template <class W>
std::vector<ScanRun> find_runs(const Footprints<W>& all) {
  std::vector<ScanRun> runs;
  const std::int64_t n = static_cast<std::int64_t>(all.kind.size());
  std::int64_t entry = 0, zero_from = 0;
  for (std::int64_t i = 0; i < n;) {
    if (all.kind[i] == invalid) {
      ++i;
      continue;
    }
    const std::int64_t begin = i;
    while (i < n && i - begin < longest_run && all.kind[i] != invalid) ++i;
    const int length = static_cast<int>(i - begin);
    runs.push_back({zero_from, begin, entry, 0, 0, length});
    entry += (length + run_padding - 1) / run_padding * run_padding;
    zero_from = i;
  }
  runs.push_back({zero_from, n, entry, 0, 0, 0});
  return runs;
}

std::vector<ScanPiece> find_pieces(const ScanPlan& plan) {
  std::vector<ScanPiece> pieces;
  const std::int32_t* index = plan.index.as<std::int32_t>();
  const std::int64_t n = static_cast<std::int64_t>(plan.runs.size());
  for (std::int64_t i = 0; i < n;) {
    ScanPiece p{i, 0, plan.key.source_pixels(), 0};
    for (std::int64_t pixels = 0; i < n && pixels < piece_pixels; ++i, ++p.runs) {
      const ScanRun& r = plan.runs[i];
      pixels += r.length;
      if (r.length == 0) continue;
      const auto [low, high] = std::minmax_element(index + r.entry, index + r.entry + r.length);
      p.source_begin = std::min<std::int64_t>(p.source_begin, *low);
      p.source_end = std::max<std::int64_t>(p.source_end, *high + 1);
    }
    // Footprints reach into the next row.
    p.source_end = std::min(p.source_end + plan.key.source_columns(), plan.key.source_pixels());
    pieces.push_back(p);
  }
  return pieces;
}

// Runs' values one after another, each run padded with its last one.
template <class T>
void pack(const std::vector<ScanRun>& runs, const std::vector<T>& values, Buffer& out) {
  const std::int64_t total = runs.back().entry;
  if (values.empty() || total == 0) return;
  out.reserve(total * sizeof(T));
  T* to = out.as<T>();
  for (const ScanRun& r : runs) {
    if (r.length == 0) continue;
    std::copy_n(&values[r.begin], r.length, to + r.entry);
    const std::int64_t padded = (r.length + run_padding - 1) / run_padding * run_padding;
    std::fill(to + r.entry + r.length, to + r.entry + padded, values[r.begin + r.length - 1]);
  }
}

template <class W>
void pack_border(const Footprints<W>& all, ScanPlan& plan) {
  std::vector<BorderPixel<W>> list;
  for (const auto& row : all.border) list.insert(list.end(), row.begin(), row.end());
  std::int64_t next = 0;
  const std::int64_t n = static_cast<std::int64_t>(list.size());
  for (ScanRun& r : plan.runs) {
    r.border = next;
    while (next < n && list[next].pixel < r.begin + r.length) ++next;
    r.border_end = next;
  }
  if (n == 0) return;
  plan.border.reserve(n * sizeof(BorderPixel<W>));
  std::copy(list.begin(), list.end(), plan.border.as<BorderPixel<W>>());
}

template <class W>
std::shared_ptr<const ScanPlan> forward_plan(const ScanPlanKey& key, int threads) {
  const Footprints<W> all = footprints<W>(key, threads);
  auto plan = std::make_shared<ScanPlan>(key);
  plan->runs = find_runs(all);
  plan->entries = plan->runs.back().entry;
  pack(plan->runs, all.index, plan->index);
  pack(plan->runs, all.right, plan->right);
  pack(plan->runs, all.down, plan->down);
  pack_border(all, *plan);
  plan->pieces = find_pieces(*plan);
  return plan;
}

// f(output pixel, source pixel, weight) of every weight that is not 0, output pixels ascending. The
// weights are those that the forward operator uses, rounded as its tables are.
template <class W, class F>
void for_each_weight(const ScanPlanKey& key, const Footprints<W>& all, F f) {
  const std::int64_t steps[4] = {0, 1, key.source_columns(), key.source_columns() + 1};
  for (int row = 0; row < key.rows(); ++row) {
    auto border = all.border[row].begin();
    for (int column = 0; column < key.columns(); ++column) {
      const std::int64_t i = std::int64_t{row} * key.columns() + column;
      if (all.kind[i] == invalid) continue;
      if (key.nearest) {
        f(i, all.index[i], 1.0);
        continue;
      }
      const double right = all.right[i], down = all.down[i];
      double weight[4] = {(1 - down) * (1 - right), (1 - down) * right, down * (1 - right),
                          down * right};
      if (all.kind[i] == partial) std::copy_n((border++)->weight, 4, weight);
      for (int k = 0; k < 4; ++k)
        if (weight[k] > 0) f(i, all.index[i] + steps[k], weight[k]);
    }
  }
}

template <class W>
std::shared_ptr<const ScanPlan> transposed_plan(const ScanPlanKey& key, int threads) {
  const Footprints<W> all = footprints<W>(key, threads);
  auto plan = std::make_shared<ScanPlan>(key);
  const std::int64_t n = key.source_pixels();
  plan->start.reserve((n + 1) * sizeof(std::int64_t));
  std::int64_t* start = plan->start.as<std::int64_t>();
  for_each_weight(key, all, [&](std::int64_t, std::int64_t to, double) { ++start[to + 1]; });
  for (std::int64_t i = 0; i < n; ++i) start[i + 1] += start[i];
  plan->entries = start[n];
  plan->index.reserve(plan->entries * sizeof(std::int32_t));
  plan->weight.reserve(plan->entries * sizeof(W));
  std::vector<std::int64_t> next(start, start + n);
  for_each_weight(key, all, [&](std::int64_t from, std::int64_t to, double weight) {
    const std::int64_t k = next[to]++;
    plan->index.as<std::int32_t>()[k] = static_cast<std::int32_t>(from);
    plan->weight.as<W>()[k] = static_cast<W>(weight);
  });
  return plan;
}

ForkMutex store_mutex;
std::list<std::shared_ptr<const ScanPlan>> store;  // used last first

std::shared_ptr<const ScanPlan> known(const ScanPlanKey& key) {
  for (auto it = store.begin(); it != store.end(); ++it)
    if ((*it)->key == key) {
      store.splice(store.begin(), store, it);
      return store.front();
    }
  return nullptr;
}

}  // namespace

ScanPlanKey::ScanPlanKey(const ScanConversion& c)
    : direction(c.direction),
      nearest(c.nearest),
      transpose(c.transpose),
      wide(c.scalar == Scalar::f64),
      kind(c.geometry.kind),
      samples(c.samples),
      lines(c.lines),
      height(c.height),
      width(c.width) {
  std::copy_n(c.geometry.values, 10, values.begin());
}

BeamGeometry ScanPlanKey::geometry() const {
  BeamGeometry g{kind, {}};
  std::copy(values.begin(), values.end(), g.values);
  return g;
}

std::size_t ScanPlan::bytes() const {
  return index.bytes() + right.bytes() + down.bytes() + border.bytes() + start.bytes() +
         weight.bytes() + runs.size() * sizeof(ScanRun) + pieces.size() * sizeof(ScanPiece);
}

std::shared_ptr<const ScanPlan> make_scan_plan(const ScanPlanKey& key, int threads) {
  if (std::max(key.pixels(), key.source_pixels()) > INT32_MAX)
    throw std::length_error("scan conversion: an image must have less than 2^31 pixels");
  if (key.transpose)
    return key.wide ? transposed_plan<double>(key, threads) : transposed_plan<float>(key, threads);
  return key.wide ? forward_plan<double>(key, threads) : forward_plan<float>(key, threads);
}

std::shared_ptr<const ScanPlan> scan_plan_for(const ScanPlanKey& key, int threads) {
  {
    const std::lock_guard<ForkMutex> lock(store_mutex);
    if (auto plan = known(key)) return plan;
  }
  auto fresh = make_scan_plan(key, threads);
  if (fresh->bytes() > store_bytes) return fresh;
  std::list<std::shared_ptr<const ScanPlan>> dropped;  // freed outside the lock
  const std::lock_guard<ForkMutex> lock(store_mutex);
  if (auto plan = known(key)) return plan;  // another thread was faster
  store.push_front(fresh);
  std::size_t held = 0;
  for (auto it = store.begin(); it != store.end();) {
    held += (*it)->bytes();
    const auto next = std::next(it);
    if (held > store_bytes) dropped.splice(dropped.end(), store, it);
    it = next;
  }
  return fresh;
}

void forget_scan_plans() {
  std::list<std::shared_ptr<const ScanPlan>> dropped;
  const std::lock_guard<ForkMutex> lock(store_mutex);
  dropped.swap(store);
}

}  // namespace usconf::cpu
