// From a frame to the couplings of its unknown pixels, by a team of threads.
#pragma once

#include <vector>

#include "../kernels.h"
#include "../math/random_walk.h"
#include "../solver/couplings.h"
#include "assembly_kernels.h"
#include "memory.h"
#include "threads.h"

namespace usconf::cpu {

std::size_t bytes_per_pixel(Scalar scalar);

// Couplings and the memory behind them.
template <class T>
class CouplingStore {
 public:
  // Planes for a rectangle; keeps what is there when the shape is the same.
  void resize(int rows, int columns);
  Couplings<T>& get() { return couplings_; }
  static std::size_t bytes(int rows, int columns);

 private:
  Couplings<T> couplings_{};
  Buffer planes_, seeded_;
};

// One frame of a problem, seen row by row, with labels made up where the caller gave none.
struct FrameView {
  FrameView(const RandomWalkProblem& problem, int frame);
  const void* row(int r) const;
  const std::uint8_t* label_row(int r) const;  // null above and below the image
  bool all_free(int r) const { return free_rows_[static_cast<std::size_t>(r)] != 0; }

  const RandomWalkProblem& problem;
  const std::uint8_t* pixels;
  const std::uint8_t* labels;  // null: default seeds
  bool masked = false;         // some pixel is outside

 private:
  std::vector<std::uint8_t> all_source_, all_none_, all_sink_, free_rows_;
};

// What the reductions over one frame found, and the attenuated image. Filled by all members of a
// team.
class Assembly {
 public:
  Assembly(int height, int width, int threads);
  // Steps 1-4: scaling, attenuation, maxima, the law of the edges. fixed: where to keep the
  // attenuated image as fixed point (height rows of stride(width) until couple() is done); null: in
  // double.
  void prepare(const Team& team, const FrameView& frame, std::int32_t* fixed);
  static long stride(int width) { return (width + 15) / 16 * 16; }
  // Step 5 for the rectangle of unknowns.
  template <class T>
  void couple(const Team& team, const FrameView& frame, Couplings<T>& out);
  // Step 5 for every edge of the image, labels apart from `outside` ignored.
  void edges(const Team& team, const FrameView& frame, double* out);
  static std::size_t bytes(int height, int width);  // of the double form

  double low = 0, high = 1;  // of the valid pixels; (0, 1) where the image is g already
  double scale = 1;          // g = (image - low) * scale
  double max_lateral = -1, max_vertical = -1;  // in units of c
  EdgeLaw law{};
  bool is_double() const { return double_; }
  const double* attenuated(int r) const { return c_.as<double>() + r * stride_; }

 private:
  template <class C, class T>
  void couple_rows(const Team& team, const FrameView& frame, Couplings<T>& out);
  void attenuate_rows(const Team& team, const FrameView& frame, bool exact);
  template <class C>
  const C* attenuated_row(int r) const;
  template <class C>
  void reduce_maxima(const Team& team, const FrameView& frame);

  bool double_ = false;
  double unit_ = 1;  // one unit of the stored c
  long stride_ = 0;
  std::int32_t* fixed_ = nullptr;
  Buffer c_;
  struct alignas(64) Partial {
    Extremes extremes;
    Maxima maxima;
  };
  std::vector<Partial> partial_;
};

}  // namespace usconf::cpu
