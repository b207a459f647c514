// What both directions of scan conversion share on the device: pixels of every type, and the taps
// of an output pixel.
#pragma once

#include <cmath>

#include "../kernels.h"
#include "../math/half.h"
#include "launch.h"

namespace usconf::cuda {

struct Half {
  std::uint16_t bits;
};

// Type of weights and sums for pixels of type T.
template <class T>
struct Sum {
  using type = float;
};
template <>
struct Sum<double> {
  using type = double;
};

template <class T>
__device__ __forceinline__ typename Sum<T>::type number(T pixel) {
  return static_cast<typename Sum<T>::type>(pixel);
}
__device__ __forceinline__ float number(Half pixel) { return half_to_float(pixel.bits); }

// Integers: a mean never leaves its pixels' range by more than the weights' rounding.
template <class T>
__device__ __forceinline__ T as_pixel(float v) {
  return static_cast<T>(rintf(v));
}
template <>
__device__ __forceinline__ float as_pixel<float>(float v) {
  return v;
}
template <>
__device__ __forceinline__ Half as_pixel<Half>(float v) {
  return {float_to_half(v)};
}
template <class T>
__device__ __forceinline__ double as_pixel(double v) {
  return v;
}

// The forward operator, frame by frame the same. Its target is the `output` grid, its source the
// `input` grid, also where the transposed operator is applied.
struct Sampling {
  BeamMap<double> map;
  Direction direction;
  bool nearest;
  // sector, for weights that are kept as floats (below): its middle beam, 1 / spans, 1 / scales,
  // the steps between samples and lines, and the samples that the arcs' border cannot touch.
  double middle_sin, middle_cos, per_r, per_theta, per_scale_x, per_scale_z, r_step, theta_step;
  int first_deep, last_deep;
  float side_margin;  // how far away from a side, in lengths along the arc, it cannot touch

  explicit Sampling(const ScanConversion& c)
      : map(beam_map<double>(c.geometry, c.samples, c.lines, c.height, c.width)),
        direction(c.direction),
        nearest(c.nearest) {
    const double middle = map.theta_min + map.theta_span / 2;
    middle_sin = std::sin(middle), middle_cos = std::cos(middle);
    per_r = 1 / map.r_span, per_theta = 1 / map.theta_span;
    per_scale_x = 1 / map.scale_x, per_scale_z = 1 / map.scale_z;
    r_step = map.r_span / (map.samples - 1), theta_step = map.theta_span / (map.lines - 1);
    // As in deep_inside, rounded to the safe side.
    const double margin = 2 * std::fmax(map.scale_x, map.scale_z);
    const double border = std::floor(margin / r_step) + 1;
    const bool any = map.samples > 1 && map.lines > 1 && 2 * border < map.samples;
    first_deep = any ? static_cast<int>(border) : 1;
    last_deep = any ? map.samples - 1 - first_deep : 0;
    side_margin = static_cast<float>(1.7 * margin);
  }
  __host__ __device__ bool to_beam() const { return direction == Direction::to_beam; }
  __host__ __device__ int rows() const { return to_beam() ? map.samples : map.height; }
  __host__ __device__ int columns() const { return to_beam() ? map.lines : map.width; }
  __host__ __device__ int input_rows() const { return to_beam() ? map.height : map.samples; }
  __host__ __device__ int input_columns() const { return to_beam() ? map.width : map.lines; }
  __host__ __device__ long long outputs() const {
    return static_cast<long long>(rows()) * columns();
  }
  __host__ __device__ long long inputs() const {
    return static_cast<long long>(input_rows()) * input_columns();
  }
};

// Weights that are kept as floats need positions in double all the same: to 1e-7 of a pixel, and
// within beam_tolerance where masks and exact hits are decided. But the arctangents, roots and
// divisions of the general functions, 80 to 110 double operations a pixel, take longer than a
// frame's memory traffic where double units are few (1 for every 64 floats). The two functions
// below need 30 to 45 and leave borders to the general ones.

// beam_position, where no pixel of the footprint lies outside the fan or the picture.
__device__ inline bool interior_position(const Sampling& s, int sample, int line,
                                         Position<double>& p) {
  const BeamMap<double>& m = s.map;
  if (sample < s.first_deep || sample > s.last_deep) return false;
  const double r = m.r_start + sample * s.r_step;
  const int nearer = min(line, m.lines - 1 - line);
  if (!(static_cast<float>(r) * static_cast<float>(s.theta_step) * nearer > s.side_margin))
    return false;
  double line_sin, line_cos;
  sincos(m.theta_min + line * s.theta_step, &line_sin, &line_cos);
  p.x = (m.apex_x + r * line_sin) * s.per_scale_x;
  p.z = (m.apex_z + r * line_cos) * s.per_scale_z;
  return p.x >= 0 && p.x <= m.width - 1 && p.z >= 0 && p.z <= m.height - 1;
}

// sector_fractions from float functions whose results are corrected once in double. r: a Newton
// step on the float's inverse root (relative error 1.5 (2^-22)^2 = 1e-13). theta, from the middle
// beam: the angle left after turning back by the float's angle is below 1e-6, so that it is its own
// sine and a float holds it to 1e-13.
__device__ inline BeamFractions<double> corrected_fractions(const Sampling& s, int row,
                                                            int column) {
  const BeamMap<double>& m = s.map;
  const double x = column * m.scale_x - m.apex_x, z = row * m.scale_z - m.apex_z;
  const double square = x * x + z * z;
  // Outside the floats' range, and at the apex itself.
  if (!(square > 1e-20 && square < 1e30))
    return sector_fractions(m, column * m.scale_x, row * m.scale_z);
  const double across = x * s.middle_cos - z * s.middle_sin;
  const double along = x * s.middle_sin + z * s.middle_cos;
  const float inverse = rsqrtf(static_cast<float>(square));
  double r = square * inverse;
  r += 0.5 * inverse * (square - r * r);
  const float turn = atan2f(static_cast<float>(across), static_cast<float>(along));
  double turn_sin, turn_cos;
  sincos(static_cast<double>(turn), &turn_sin, &turn_cos);
  const float left = static_cast<float>(across * turn_cos - along * turn_sin) * inverse;
  const double theta = static_cast<double>(turn) + static_cast<double>(left);
  return {0.5 + theta * s.per_theta, (r - m.r_start) * s.per_r};
}

// The input pixels that make an output pixel; what weighs 0 must not be read.
template <class Weight>
struct Taps {
  int pixel[4];
  Weight weight[4];
  bool valid;
};

template <class Weight>
__device__ __forceinline__ Taps<Weight> taps_from(const Sampling& s, const Footprint<double>& f,
                                                  int stride) {
  const int best = s.nearest ? heaviest(f) : 0;
  Taps<Weight> t;
  t.valid = f.valid;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    t.pixel[k] = (f.row + k / 2) * stride + f.column + k % 2;
    const double weight = s.nearest ? (k == best ? 1.0 : 0.0) : f.weight[k];
    t.weight[k] = static_cast<Weight>(f.valid ? weight : 0.0);
  }
  return t;
}

template <class Weight, Direction direction>
__device__ __forceinline__ Taps<Weight> taps_of(const Sampling& s, int row, int column) {
  constexpr bool to_beam = direction == Direction::to_beam;
  const BeamMap<double>& m = s.map;
  if (sizeof(Weight) == sizeof(float) && m.kind == BeamKind::sector) {
    Position<double> p;
    if (to_beam && interior_position(s, row, column, p))
      return taps_from<Weight>(s, bilinear_footprint(p.z, p.x, m.height, m.width), m.width);
    if (!to_beam) {
      const BeamFractions<double> at = corrected_fractions(s, row, column);
      Footprint<double> f =
          bilinear_footprint(at.v * (m.samples - 1), at.u * (m.lines - 1), m.samples, m.lines);
      f.valid = at.inside();
      return taps_from<Weight>(s, f, m.lines);
    }
  }
  return taps_from<Weight>(
      s, to_beam ? footprint_to_beam(m, row, column) : footprint_to_scan(m, row, column),
      to_beam ? m.width : m.lines);
}

// Threads over an output grid. A warp covers 16 x 2 pixels: on a usual fan a load then meets 9
// (to beam) or 7 (to scan) lines of the first cache instead of 14 or 10 for 32 x 1, and 64 bytes
// of floats in a row still go out as whole sectors.
constexpr int block_side = 16;
inline dim3 block_shape() { return dim3(block_side, block_side); }
inline dim3 blocks_over(const Sampling& s, int layers) {
  const auto count = [](int n) { return static_cast<unsigned>((n + block_side - 1) / block_side); };
  return dim3(count(s.columns()), count(s.rows()), static_cast<unsigned>(layers));
}

// Frames are shared out over layers of blocks only as far as that fills the device: each layer
// works out the taps again.
struct Layers {
  int count, frames_each;
};
inline Layers layers_for(long long blocks, int frames) {
  // 8 blocks of 256 threads on each of 132 multiprocessors; less than 4 frames are not worth it.
  constexpr long long enough = 1056;
  const long long most = (frames + 3) / 4;
  long long layers = (enough + blocks - 1) / blocks;
  layers = layers < most ? layers : most;
  layers = layers < 1 ? 1 : layers;
  const int each = static_cast<int>((frames + layers - 1) / layers);
  return {each > 0 ? (frames + each - 1) / each : 1, each};
}

// The transposed operator: source on the output grid, target on the input grid.
void transposed_scan_conversion(const Sampling& s, const ScanConversion& c, cudaStream_t stream);
// Frees the tables that the former keeps.
void clear_transposed_tables();

}  // namespace usconf::cuda
