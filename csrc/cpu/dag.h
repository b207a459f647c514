// One frame on its way to a DAG map, worked on by a team of threads.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "../kernels.h"
#include "dag_kernels.h"
#include "frame_teams.h"
#include "margin_rows.h"
#include "memory.h"
#include "threads.h"

namespace usconf::cpu {

// Rows between two meetings of a team. To meet takes up to 2 us between cores far apart (0.7 us one
// way on a virtual machine), as long as a row of 512 columns; eight rows cost a fifth more columns.
constexpr int strip_rows = 8;

// What a frame's map follows from: scaled rows, row means, laws. T: float or double.
template <class T>
class DagFrame {
 public:
  // keep: for the derivative, all rows of C stay in memory, and margins hold two half widths.
  DagFrame(const DagProblem& p, bool keep);

  // By every member of one team.
  void prepare(const Team& team, int frame);
  template <class M>
  void sweep(const Team& team, M* map);  // map null: only C is wanted
  // C as the sweep left it, where the map it wrote is C.
  template <class M>
  void restore(const Team& team, const M* map);

  const DagProblem& p;
  const int half_width, slots;           // slots: 2R+1 rounded up
  MarginRows<T> f, c, mask;              // mask: 1 valid, 0 not; empty without one
  double low = 0, high = 1, factor = 1;  // f = (image - low) factor
  double highest = 0;                    // with a needle: largest D of all existing edges
  double x = 0;
  std::vector<double> bell, beam;  // per slot; beam = g
  DagBeam beam_scale{};

  DagRow<T> row(int r) const;
  DagLaw<T> law(int r) const;
  const T* raise = nullptr;  // table of D^power
  const double* mean(int r) const { return means_.get() + static_cast<long>(r) * slots; }
  // Existing edges of row r, slot k.
  int edges(int r, int k) const {
    return edges_.empty() || full(r) ? p.width : edges_[static_cast<std::size_t>(r) * slots + k];
  }
  double reach(int r) const;  // no D of row r is larger
  double scale(int r) const { return x * dag_depth(p.alpha, r, p.height); }
  // All pixels of rows r and r + 1 are valid.
  bool full(int r) const { return full_.empty() || (full_[r] && full_[r + 1]); }
  bool is_source(int r, int column) const {
    return first_valid_.empty() ? r == 0 : first_valid_[column] == r;
  }
  double reference(int r) const { return reference_ ? reference_[r] : 1.0; }
  bool has_reference() const { return reference_ != nullptr; }
  // What C of row r cannot exceed.
  double cap(int r) const;
  double output_scale(int r, int column) const;
  bool map_is_c() const { return !reference_ && !artifact_; }
  bool has_exceptions() const { return mask.first || needle_ || artifact_; }
  // How a child of row r + 1 differs from what the law of row r says, by column.
  enum class Exception : std::uint8_t { none, invalid, source, lone, needle, artifact };
  bool exceptions(int r, int begin, int end, Exception* out) const;
  DagColumn<T> exceptional(int r, Exception) const;

 private:
  void scale_rows(const Team& team);
  void find_sources();
  void measure_rows(const Team& team);
  void step(int r, int begin, int end, const T* above, T* below, Exception* found) const;
  template <class M>
  void write(int r, int begin, int end, const T* from, M* map) const;
  // Rows between two strips take turns, unless all are kept.
  T* c_row(int r) const { return c.row(keep_ ? r : r / strip_rows & 1); }

  const bool keep_;
  int frame_ = 0;
  const std::uint8_t* valid_ = nullptr;
  const double* reference_ = nullptr;
  const float *needle_ = nullptr, *artifact_ = nullptr;
  std::unique_ptr<Block> memory_;
  T* planes_ = nullptr;  // (height - 1, dag_planes, slots)
  T raise_[dag_raise_size];
  std::unique_ptr<double[]> means_;
  std::vector<DagLaw<T>> laws_;
  std::vector<double> row_low_, row_high_;
  std::vector<int> edges_, first_valid_;
  std::vector<std::uint8_t> full_;
  std::vector<double> member_highest_;
};

// Float weights need steps that decay little: an image of few rows is worked on in double.
bool dag_in_double(const DagProblem& p, const DagOptions& o);

FrameTeams dag_teams(const DagProblem& p, int threads);

}  // namespace usconf::cpu
