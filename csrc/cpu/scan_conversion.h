// Plans of scan conversion: tables of footprints, kept between calls.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "memory.h"
#include "scan_conversion_kernels.h"

namespace usconf::cpu {

// What a plan depends on.
struct ScanPlanKey {
  Direction direction;
  bool nearest, transpose;
  bool wide;  // weights in double
  BeamKind kind;
  std::array<double, 10> values;
  int samples, lines, height, width;
  bool operator==(const ScanPlanKey&) const = default;

  explicit ScanPlanKey(const ScanConversion&);
  BeamGeometry geometry() const;
  bool to_beam() const { return direction == Direction::to_beam; }
  // Of the forward operator.
  int rows() const { return to_beam() ? samples : height; }
  int columns() const { return to_beam() ? lines : width; }
  int source_rows() const { return to_beam() ? height : samples; }
  int source_columns() const { return to_beam() ? width : lines; }
  std::int64_t pixels() const { return std::int64_t{rows()} * columns(); }
  std::int64_t source_pixels() const { return std::int64_t{source_rows()} * source_columns(); }
};

// Runs [run, run + runs), which read source pixels in [source_begin, source_end) only.
struct ScanPiece {
  std::int64_t run, runs, source_begin, source_end;
};

// Tables as ScanTable (forward) or TransposedTable describes them.
struct ScanPlan {
  explicit ScanPlan(const ScanPlanKey& key) : key(key) {}
  std::size_t bytes() const;
  template <class W>
  ScanTable<W> table() const {
    return {index.as<std::int32_t>(), right.as<W>(), down.as<W>(), border.as<BorderPixel<W>>()};
  }
  template <class W>
  TransposedTable<W> transposed_table() const {
    return {start.as<std::int64_t>(), index.as<std::int32_t>(), weight.as<W>()};
  }

  const ScanPlanKey key;
  std::int64_t entries = 0;  // not counting those between runs
  Buffer index;
  // forward
  std::vector<ScanRun> runs;  // the last one is empty: what comes after the last pixel is zero
  std::vector<ScanPiece> pieces;
  Buffer right, down, border;
  // transposed
  Buffer start, weight;
};

std::shared_ptr<const ScanPlan> make_scan_plan(const ScanPlanKey&, int threads);
// The same, kept for later calls.
std::shared_ptr<const ScanPlan> scan_plan_for(const ScanPlanKey&, int threads);
void forget_scan_plans();

}  // namespace usconf::cpu
