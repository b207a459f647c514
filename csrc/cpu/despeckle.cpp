// Despeckling on the CPU: speckle-reducing anisotropic diffusion in one pass per iteration, and the
// median of a window.
#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "../kernels.h"
#include "../math/random_walk.h"
#include "assembly.h"
#include "despeckle_kernels.h"
#include "frame_teams.h"
#include "intensity_kernels.h"
#include "memory.h"

namespace usconf::cpu {
namespace {

// Waking a thread costs 20 us or so: what this many pixels take in a few iterations.
constexpr long pixels_per_thread = 64 * 64;

long stride_of(int width) { return (width + 15) / 16 * 16 + 2 * despeckle_margin; }

FrameTeams teams_of(const DespeckleProblem& p) {
  const long pixels = static_cast<long>(p.height) * p.width;
  const int threads = p.frames * pixels < 2 * pixels_per_thread ? 1 : std::max(p.threads, 1);
  return {p.frames, threads,
          static_cast<int>(std::clamp(pixels / pixels_per_thread, 1L, static_cast<long>(threads)))};
}

// Planes of a frame as rows with margins.
template <class T>
struct Planes {
  Planes(const DespeckleProblem& p, int planes, int extra_rows)
      : stride(stride_of(p.width)),
        rows(p.height),
        memory(sizeof(T) * stride * (static_cast<std::size_t>(planes) * p.height + extra_rows)) {}
  T* row(int plane, long r) const {
    return static_cast<T*>(memory.data()) + (plane * static_cast<long>(rows) + r) * stride +
           despeckle_margin;
  }
  // Repeats the ends of a row in its margins.
  void extend(T* row, int width) const {
    std::fill(row - despeckle_margin, row, row[0]);
    std::fill(row + width, row + stride - despeckle_margin, row[width - 1]);
  }
  const long stride;
  const int rows;
  const Block memory;
};

// One frame of the problem, in its own type.
struct FrameImage {
  FrameImage(const DespeckleProblem& p, int frame) : p(p) {
    const std::size_t pixels = static_cast<std::size_t>(p.height) * p.width;
    row_bytes_ = p.width * bytes_per_pixel(p.scalar);
    image_ = static_cast<const char*>(p.image) + frame * pixels * bytes_per_pixel(p.scalar);
    valid = p.valid ? p.valid + (p.valid_shared ? 0 : frame * pixels) : nullptr;
  }
  const std::uint8_t* valid_row(long r) const { return valid ? valid + r * p.width : nullptr; }
  IntensityRange range(long r) const {
    return intensity_kernels().range(p.scalar, image_ + r * row_bytes_, valid_row(r), p.width);
  }
  template <class T>
  void scale(long r, double low, double factor, T* out) const {
    const IntensityKernels& k = intensity_kernels();
    if constexpr (sizeof(T) == sizeof(float))
      k.scale_float(p.scalar, image_ + r * row_bytes_, valid_row(r), p.width, low, factor, out);
    else
      k.scale_double(p.scalar, image_ + r * row_bytes_, valid_row(r), p.width, low, factor, out);
  }
  const DespeckleProblem& p;
  const std::uint8_t* valid;

 private:
  std::size_t row_bytes_;
  const char* image_;
};

// The lower median. `hint`: a guess; close ones save most of the work.
double lower_median(const std::vector<double>& values, double hint, std::vector<double>& scratch) {
  const std::size_t rank = (values.size() - 1) / 2;
  const double from = 0.9 * hint, to = 1.02 * hint;
  std::size_t below = 0;
  scratch.clear();
  for (const double v : values) {
    below += v < from;
    if (v >= from && v <= to) scratch.push_back(v);
  }
  std::size_t at = rank - below;
  if (below > rank || at >= scratch.size()) {
    scratch = values;
    at = rank;
  }
  std::nth_element(scratch.begin(), scratch.begin() + at, scratch.end());
  return scratch[at];
}

// Speckle-reducing anisotropic diffusion of one frame. All functions but the constructor are called
// by every member of one team, which split the rows.
template <class T>
class Diffusion {
 public:
  explicit Diffusion(const DespeckleProblem& p)
      : p_(p),
        // Coefficients: two rows per member. A team may be smaller than asked for, never larger.
        planes_(p, p.valid ? 3 : 2, 2 * std::max(p.threads, 1)),
        block_columns_(p.width / srad_block),
        rows_(static_cast<std::size_t>(p.height)),
        support_(static_cast<std::size_t>(p.height / srad_block) * block_columns_) {
    for (Measured& m : measured_) {
      m.speckle.resize(support_.size());
      m.rows.resize(rows_.size());
    }
  }

  // The iterations done.
  int run(const Team& team, int frame, T* result) {
    const FrameImage image(p_, frame);
    const auto rows = team.share(p_.height, srad_block);
    scale(team, image, rows);
    if (pixels_ == 0) {
      std::fill(result + rows.begin * p_.width, result + rows.end * p_.width, T(0));
      return 0;
    }
    std::vector<double> values, scratch;
    double q0 = 0;
    int done = 0;
    while (done < p_.iterations) {
      q0 = speckle(measured_[done & 1], q0, values, scratch);
      iterate(team, rows, done & 1, static_cast<T>(q0));
      team.barrier();
      ++done;
      double change = 0;
      for (const RowSums& row : measured_[done & 1].rows) change += row.change;
      if (change / pixels_ <= p_.tolerance) break;
    }
    for (long r = rows.begin; r < rows.end; ++r) {
      T* out = result + r * p_.width;
      kernels_.logarithm(planes_.row(done & 1, r), p_.width, low_, span_, out);
      if (const std::uint8_t* valid = image.valid_row(r))
        for (int i = 0; i < p_.width; ++i) out[i] = valid[i] ? out[i] : T(0);
    }
    team.barrier();
    return done;
  }

 private:
  // change: sum of its squares; the rest of E less `pivot` over the pixels that q0 comes from.
  struct RowSums {
    double change, sum, squares, pixels;
  };
  // What an iteration leaves for the next; two of them, since a member may be one ahead.
  struct Measured {
    std::vector<double> speckle;  // by block
    std::vector<RowSums> rows;
  };
  struct RowFacts {
    IntensityRange range;
    long pixels;
  };
  static constexpr double pivot = 1.5;  // E lies in [1, e]

  // I, its support, E and what is measured of it.
  void scale(const Team& team, const FrameImage& image, Team::Range rows) {
    for (long r = rows.begin; r < rows.end; ++r) {
      const std::uint8_t* valid = image.valid_row(r);
      rows_[r] = {image.range(r),
                  valid ? p_.width - std::count(valid, valid + p_.width, 0) : long{p_.width}};
    }
    team.barrier();
    if (team.index == 0) reduce();
    team.barrier();
    if (pixels_ == 0) return;
    if (!std::isfinite(span_))
      throw std::invalid_argument(
          "image must span a finite range, got values whose difference overflows; scale it down");
    for (long r = rows.begin; r < rows.end; ++r) {
      image.scale(r, low_, 1.0 / span_, planes_.row(0, r));
      if (!image.valid) continue;
      for (int i = 0; i < p_.width; ++i) planes_.row(2, r)[i] = image.valid_row(r)[i] ? 1 : 0;
      planes_.extend(planes_.row(2, r), p_.width);
    }
    for (long r = rows.begin; r + srad_block <= rows.end; r += srad_block) find_support(image, r);
    team.barrier();
    if (team.index == 0)
      by_blocks_ = p_.roi[1] == 0 && std::count(support_.begin(), support_.end(), 1) > 0;
    team.barrier();
    for (long r = rows.begin; r < rows.end; ++r) {
      kernels_.exponentiate(planes_.row(0, r), p_.width);
      planes_.extend(planes_.row(0, r), p_.width);
      measure(0, r);
    }
    team.barrier();
  }

  void reduce() {
    double high = rows_[0].range.high;
    low_ = rows_[0].range.low;
    pixels_ = 0;
    for (const RowFacts& row : rows_) {
      low_ = std::min(low_, row.range.low);
      high = std::max(high, row.range.high);
      pixels_ += static_cast<double>(row.pixels);
    }
    span_ = (high - low_) + random_walk_epsilon;
  }

  // Of the blocks in rows [r, r + srad_block), I being there still.
  void find_support(const FrameImage& image, long r) {
    for (int b = 0; b < block_columns_; ++b) {
      int pixels = 0;
      T brightest = 0;
      for (long q = r; q < r + srad_block; ++q) {
        const std::uint8_t* valid = image.valid_row(q);
        const T* row = planes_.row(0, q);
        for (int i = b * srad_block; i < (b + 1) * srad_block; ++i) {
          if (valid && !valid[i]) continue;
          ++pixels;
          brightest = std::max(brightest, row[i]);
        }
      }
      support_[r / srad_block * block_columns_ + b] =
          pixels >= srad_least_pixels && brightest > static_cast<T>(srad_bright);
    }
  }

  // After row r of a plane was written: its block when it is complete, or its share of the region.
  void measure(int plane, long r) {
    Measured& m = measured_[plane];
    RowSums& sums = m.rows[r];
    if (by_blocks_) {
      const long top = r + 1 - srad_block;
      if ((r + 1) % srad_block != 0) return;
      const long first = top / srad_block * block_columns_;
      kernels_.block_speckle(planes_.row(plane, top), p_.valid ? planes_.row(2, top) : nullptr,
                             planes_.stride, &support_[first], block_columns_, &m.speckle[first]);
      return;
    }
    const bool whole = p_.roi[1] == 0;
    sums.sum = sums.squares = sums.pixels = 0;
    if (!whole && (r < p_.roi[0] || r >= p_.roi[1])) return;
    const T* e = planes_.row(plane, r);
    const T* valid = p_.valid ? planes_.row(2, r) : nullptr;
    for (int i = whole ? 0 : p_.roi[2]; i < (whole ? p_.width : p_.roi[3]); ++i) {
      if (valid && valid[i] == 0) continue;
      const double d = static_cast<double>(e[i]) - pivot;
      sums.sum += d;
      sums.squares += d * d;
      sums.pixels += 1;
    }
  }

  // q0 of what was measured.
  double speckle(const Measured& m, double hint, std::vector<double>& values,
                 std::vector<double>& scratch) const {
    if (by_blocks_) {
      values.clear();
      for (std::size_t b = 0; b < support_.size(); ++b)
        if (support_[b]) values.push_back(m.speckle[b]);
      return lower_median(values, hint, scratch);
    }
    double sum = 0, squares = 0, pixels = 0;
    for (const RowSums& row : m.rows) {
      sum += row.sum;
      squares += row.squares;
      pixels += row.pixels;
    }
    return srad_speckle(sum, squares, pixels, pivot);
  }

  SradRows<T> rows_around(int plane, long r) const {
    const long north = std::max(r - 1, 0L), south = std::min(r + 1, long{p_.height} - 1);
    SradRows<T> rows{planes_.row(plane, north),
                     planes_.row(plane, r),
                     planes_.row(plane, south),
                     nullptr,
                     nullptr,
                     nullptr};
    if (p_.valid) {
      rows.valid_north = planes_.row(2, north);
      rows.valid_here = planes_.row(2, r);
      rows.valid_south = planes_.row(2, south);
    }
    return rows;
  }

  // One pass: the coefficients of a row and of the one below are in flight.
  void iterate(const Team& team, Team::Range rows, int plane, T q0) {
    const T rate = static_cast<T>(p_.step / 4);
    const long scratch = 2 * team.index, base = p_.valid ? 3 : 2;
    T *c = planes_.row(base, scratch), *c_south = planes_.row(base, scratch + 1);
    if (rows.begin < rows.end)
      kernels_.coefficients(rows_around(plane, rows.begin), p_.width, q0, c);
    for (long r = rows.begin; r < rows.end; ++r) {
      const bool last = r + 1 == p_.height;
      if (!last) kernels_.coefficients(rows_around(plane, r + 1), p_.width, q0, c_south);
      measured_[plane ^ 1].rows[r].change = kernels_.diffuse(
          rows_around(plane, r), c, last ? c : c_south, p_.width, rate, planes_.row(plane ^ 1, r));
      measure(plane ^ 1, r);
      std::swap(c, c_south);
    }
  }

  const DespeckleProblem& p_;
  const DespeckleRows<T>& kernels_ = despeckle_rows<T>();
  const Planes<T> planes_;  // E, E of the next iteration, mask; coefficients
  const int block_columns_;
  double low_ = 0, span_ = 1, pixels_ = 0;
  bool by_blocks_ = false;  // q0 is the blocks' median, else of one region
  std::vector<RowFacts> rows_;
  std::vector<std::uint8_t> support_;
  Measured measured_[2];
};

// Medians of one frame.
template <class T>
class Medians {
 public:
  Medians(const DespeckleProblem& p, int size)
      : p_(p), size_(size), planes_(p, 1, size * std::max(p.threads, 1)) {}

  void run(const Team& team, int frame, T* result) {
    const FrameImage image(p_, frame);
    const auto rows = team.share(p_.height);
    for (long r = rows.begin; r < rows.end; ++r) {
      image.scale(r, 0.0, 1.0, planes_.row(0, r));
      planes_.extend(planes_.row(0, r), p_.width);
    }
    team.barrier();
    std::vector<const T*> window(static_cast<std::size_t>(size_));
    std::vector<T> found;
    for (long r = rows.begin; r < rows.end; ++r) {
      for (int i = 0; i < size_; ++i) window[i] = planes_.row(0, clamped(r + i - size_ / 2));
      T* out = result + r * p_.width;
      despeckle_rows<T>().median(window.data(), size_, p_.width,
                                 planes_.row(1, long{size_} * team.index), planes_.stride, out);
      if (image.valid) redo_masked(image, r, found, out);
    }
    team.barrier();
  }

 private:
  long clamped(long r) const { return std::clamp(r, 0L, long{p_.height} - 1); }

  // Windows that are not whole.
  void redo_masked(const FrameImage& image, long r, std::vector<T>& found, T* out) const {
    const int half = size_ / 2, w = p_.width;
    std::vector<int> invalid(static_cast<std::size_t>(w));  // of each column of the windows
    for (int i = -half; i <= half; ++i) {
      const std::uint8_t* valid = image.valid_row(clamped(r + i));
      for (int c = 0; c < w; ++c) invalid[c] += valid[c] == 0;
    }
    const auto at = [&](int c) { return std::clamp(c, 0, w - 1); };
    int missing = 0;
    for (int c = -half - 1; c < half; ++c) missing += invalid[at(c)];
    for (int c = 0; c < w; ++c) {
      missing += invalid[at(c + half)] - invalid[at(c - half - 1)];
      if (missing == 0) continue;
      if (!image.valid_row(r)[c]) {
        out[c] = 0;
        continue;
      }
      found.clear();
      for (int i = -half; i <= half; ++i)
        for (int j = -half; j <= half; ++j)
          if (image.valid_row(clamped(r + i))[at(c + j)])
            found.push_back(planes_.row(0, clamped(r + i))[at(c + j)]);
      const auto middle = found.begin() + (found.size() - 1) / 2;
      std::nth_element(found.begin(), middle, found.end());
      out[c] = *middle;
    }
  }

  const DespeckleProblem& p_;
  const int size_;
  const Planes<T> planes_;  // the image; per member the sorted columns of a row
};

template <class F>
void with_result_type(const DespeckleProblem& p, F f) {
  if (p.frames == 0 || p.height == 0 || p.width == 0) return;
  p.double_result ? f(double()) : f(float());
}

}  // namespace

void srad(const DespeckleProblem& p, void* result, int* iterations_done, void*) {
  const std::size_t pixels = static_cast<std::size_t>(p.height) * p.width;
  with_result_type(p, [&](auto type) {
    using T = decltype(type);
    for_each_frame_of(
        teams_of(p), [&] { return std::make_unique<Diffusion<T>>(p); },
        [&](const Team& team, int i, Diffusion<T>& diffusion) {
          const int done = diffusion.run(team, i, static_cast<T*>(result) + i * pixels);
          if (team.index == 0) iterations_done[i] = done;
        });
  });
}

void median(const DespeckleProblem& p, int size, void* result, void*) {
  const std::size_t pixels = static_cast<std::size_t>(p.height) * p.width;
  with_result_type(p, [&](auto type) {
    using T = decltype(type);
    for_each_frame_of(
        teams_of(p), [&] { return std::make_unique<Medians<T>>(p, size); },
        [&](const Team& team, int i, Medians<T>& medians) {
          medians.run(team, i, static_cast<T*>(result) + i * pixels);
        });
  });
}

}  // namespace usconf::cpu
