// Beam space and image space of a fan or a quadrilateral: positions both ways, and the one
// footprint with which either image is sampled. Pixel centres lie at integers, x right, z down;
// angles are 0 straight down, positive to the right; sample i = depth along a beam, line j = beam.
#pragma once

#include <math.h>  // not <cmath>: float overloads in the global namespace, on the device too

#include "exponential.h"

namespace usconf {

enum class BeamKind : int { sector = 0, quad = 1 };
enum class Direction : int { to_beam = 0, to_scan = 1 };

// values, lengths in any unit, scale = units per pixel:
// sector: apex_x, apex_z, r_start, r_max, theta_min, theta_max, scale_x, scale_z, 0, 0
// quad: A_x, A_z, B_x, B_z, C_x, C_z, D_x, D_z, scale_x, scale_z; beams run from AB to DC
struct BeamGeometry {
  BeamKind kind;
  double values[10];
};

// Borders are widened by this share of the geometry (of the picture): points on them count as
// inside in spite of rounding. Fractions of a pixel are rounded to 0 and 1 within it, so that grids
// that coincide exchange exact values.
constexpr double beam_tolerance = 1e-9;

// A geometry and both its grids, ready for positions.
template <class Real>
struct BeamMap {
  BeamKind kind;
  int samples, lines, height, width;
  Real scale_x, scale_z;
  Real apex_x, apex_z, r_start, r_span, theta_min, theta_span;  // sector
  // quad: p(u, v) = (1-v)((1-u) A + u B) + v((1-u) D + u C) = A + u e + v f + u v g
  Real ax, az, ex, ez, fx, fz, gx, gz;
  Real side;   // sign of its area
  Real slack;  // rounding allowed in the discriminant of its inverse
};

template <class Real>
USCONF_HD BeamMap<Real> beam_map(const BeamGeometry& geometry, int samples, int lines, int height,
                                 int width) {
  const double* g = geometry.values;
  BeamMap<Real> m{};
  m.kind = geometry.kind;
  m.samples = samples, m.lines = lines, m.height = height, m.width = width;
  if (geometry.kind == BeamKind::sector) {
    m.apex_x = Real(g[0]), m.apex_z = Real(g[1]);
    m.r_start = Real(g[2]), m.r_span = Real(g[3] - g[2]);
    m.theta_min = Real(g[4]), m.theta_span = Real(g[5] - g[4]);
    m.scale_x = Real(g[6]), m.scale_z = Real(g[7]);
    return m;
  }
  m.scale_x = Real(g[8]), m.scale_z = Real(g[9]);
  m.ax = Real(g[0]), m.az = Real(g[1]);
  m.ex = Real(g[2] - g[0]), m.ez = Real(g[3] - g[1]);
  m.fx = Real(g[6] - g[0]), m.fz = Real(g[7] - g[1]);
  m.gx = Real(g[0] - g[2] + g[4] - g[6]), m.gz = Real(g[1] - g[3] + g[5] - g[7]);
  const double twice_area = (g[4] - g[0]) * (g[7] - g[3]) - (g[5] - g[1]) * (g[6] - g[2]);
  m.side = twice_area < 0 ? Real(-1) : Real(1);
  m.slack = Real(1e-18 * twice_area * twice_area);
  return m;
}

template <class Real>
struct Position {
  Real x, z;  // pixels of the scan image
};

// Where on the scan image sample i of line j lies. The ends of both ranges are samples.
template <class Real>
USCONF_HD Position<Real> beam_position(const BeamMap<Real>& m, int sample, int line) {
  const Real v = m.samples > 1 ? Real(sample) / Real(m.samples - 1) : Real(0);
  const Real u = m.lines > 1 ? Real(line) / Real(m.lines - 1) : Real(0);
  Real x, z;
  if (m.kind == BeamKind::sector) {
    const Real r = m.r_start + v * m.r_span, theta = m.theta_min + u * m.theta_span;
    x = m.apex_x + r * sin(theta);
    z = m.apex_z + r * cos(theta);
  } else {
    x = m.ax + u * m.ex + v * (m.fx + u * m.gx);
    z = m.az + u * m.ez + v * (m.fz + u * m.gz);
  }
  return {x / m.scale_x, z / m.scale_z};
}

// Where between the first and the last line (u) and sample (v) a point lies: both in [0, 1] inside;
// NaN where there is no answer.
template <class Real>
struct BeamFractions {
  Real u, v;
  USCONF_HD bool inside() const {
    const Real low = Real(-beam_tolerance), high = Real(1 + beam_tolerance);
    return u >= low && u <= high && v >= low && v <= high;
  }
};

template <class Real>
USCONF_HD BeamFractions<Real> sector_fractions(const BeamMap<Real>& m, Real x, Real z) {
  const Real pi = Real(3.14159265358979323846);
  const Real dx = x - m.apex_x, dz = z - m.apex_z;
  // The turn that lies nearest to the fan's middle: atan2 jumps where a fan may look upwards.
  Real from = atan2(dx, dz) - m.theta_min;
  const Real middle = m.theta_span / 2;
  if (from - middle > pi) from -= 2 * pi;
  if (from - middle < -pi) from += 2 * pi;
  return {from / m.theta_span, (hypot(dx, dz) - m.r_start) / m.r_span};
}

// Inverse of p = A + u e + v f + u v g. Crossing p - A - v f = u (e + v g) with its right side
// leaves k2 v^2 + k1 v + k0 = 0, of whose roots the one inside has 2 k2 v + k1 = the Jacobian,
// which has the sign of the area. Parallelograms have k2 = 0: both forms of the root are needed.
template <class Real>
USCONF_HD BeamFractions<Real> quad_fractions(const BeamMap<Real>& m, Real x, Real z) {
  const Real hx = x - m.ax, hz = z - m.az;
  const Real k2 = m.gx * m.fz - m.gz * m.fx;
  const Real k1 = m.ex * m.fz - m.ez * m.fx + hx * m.gz - hz * m.gx;
  const Real k0 = hx * m.ez - hz * m.ex;
  Real square = k1 * k1 - 4 * k0 * k2;
  if (square < 0 && square >= -m.slack) square = 0;
  const Real root = m.side * sqrt(square);
  const Real v = k1 * m.side > 0 ? -2 * k0 / (k1 + root) : (root - k1) / (2 * k2);
  const Real wx = m.ex + v * m.gx, wz = m.ez + v * m.gz;
  const Real x_left = hx - v * m.fx, z_left = hz - v * m.fz;
  // At the tip of a triangle every u is right; beside it none is, and 2 lies outside.
  if (wx == 0 && wz == 0) return {x_left == 0 && z_left == 0 ? Real(0) : Real(2), v};
  return {fabs(wx) > fabs(wz) ? x_left / wx : z_left / wz, v};
}

// x, z in pixels of the scan image
template <class Real>
USCONF_HD BeamFractions<Real> beam_fractions(const BeamMap<Real>& m, Real x, Real z) {
  return m.kind == BeamKind::sector ? sector_fractions(m, x * m.scale_x, z * m.scale_z)
                                    : quad_fractions(m, x * m.scale_x, z * m.scale_z);
}

template <class Real>
USCONF_HD bool contains(const BeamMap<Real>& m, Real x, Real z) {
  return beam_fractions(m, x, z).inside();
}

// The 2 x 2 pixels whose mean is a sample: (row, column), (row, column + 1), (row + 1, column),
// (row + 1, column + 1). Those that the image does not have weigh 0; pixels that weigh 0 must not
// be multiplied in (0 NaN = NaN).
template <class Real>
struct Footprint {
  int row, column;
  // Of the way to the second row and column: give the weights, unless `partial`.
  Real down, right;
  Real weight[4];
  bool valid;
  bool partial;  // pixels were left out at the border of the fan
};

template <class Real>
USCONF_HD Real fraction_of_pixel(Real f) {
  return f < Real(beam_tolerance) ? Real(0) : f > Real(1 - beam_tolerance) ? Real(1) : f;
}

// At (row, column), clamped, of an image of height x width pixels.
template <class Real>
USCONF_HD Footprint<Real> bilinear_footprint(Real row, Real column, int height, int width) {
  const Real last_row = Real(height - 1), last_column = Real(width - 1);
  row = row > 0 ? (row < last_row ? row : last_row) : Real(0);
  column = column > 0 ? (column < last_column ? column : last_column) : Real(0);
  Footprint<Real> f;
  f.row = static_cast<int>(row);
  f.column = static_cast<int>(column);
  // Shifted at the last row and column, so that the second ones exist.
  if (f.row > 0 && f.row > height - 2) f.row = height - 2;
  if (f.column > 0 && f.column > width - 2) f.column = width - 2;
  f.down = fraction_of_pixel(row - Real(f.row));
  f.right = fraction_of_pixel(column - Real(f.column));
  f.weight[0] = (1 - f.down) * (1 - f.right);
  f.weight[1] = (1 - f.down) * f.right;
  f.weight[2] = f.down * (1 - f.right);
  f.weight[3] = f.down * f.right;
  f.valid = true;
  f.partial = false;
  return f;
}

// One pixel alone.
template <class Real>
USCONF_HD void set_single(Footprint<Real>& f, int row, int column, int height, int width) {
  f.row = row > 0 && row > height - 2 ? height - 2 : row;
  f.column = column > 0 && column > width - 2 ? width - 2 : column;
  f.down = Real(row - f.row);
  f.right = Real(column - f.column);
  for (int k = 0; k < 4; ++k)
    f.weight[k] = Real(k == 2 * (row - f.row) + (column - f.column) ? 1 : 0);
  f.partial = false;
}

// Far enough from the border of a sector that no pixel of the footprint can lie outside: saves most
// of the arctangents. 2 pixels: the diagonal of the footprint, and half a pixel of clamping;
// asin(a) <= a pi/2.
template <class Real>
USCONF_HD bool deep_inside(const BeamMap<Real>& m, int sample, int line) {
  if (m.kind != BeamKind::sector || m.samples < 2 || m.lines < 2) return false;
  const Real v = Real(sample) / Real(m.samples - 1), u = Real(line) / Real(m.lines - 1);
  const Real margin = 2 * (m.scale_x > m.scale_z ? m.scale_x : m.scale_z);
  const Real above = v * m.r_span, below = m.r_span - above, r = m.r_start + above;
  const Real nearer = (u < 1 - u ? u : 1 - u) * m.theta_span;
  return above > margin && below > margin && r > margin && r * nearer > Real(1.6) * margin;
}

// Leaves out the pixels that lie outside the geometry: they show the display's black, not echo.
// Where none is left, the nearest pixel inside among 4 x 4 takes their place (if there is one).
template <class Real>
USCONF_HD void leave_out_black(const BeamMap<Real>& m, const Position<Real>& p,
                               Footprint<Real>& f) {
  // Bits, not an array indexed in a loop around calls: on a GPU that would push all weights out of
  // the registers.
  unsigned echo = 0;
  for (int k = 0; k < 4; ++k)
    echo |= unsigned{contains(m, Real(f.column + k % 2), Real(f.row + k / 2))} << k;
  Real sum = 0;
  for (int k = 0; k < 4; ++k) {
    f.partial = f.partial || (f.weight[k] > 0 && !(echo >> k & 1));
    sum += echo >> k & 1 ? f.weight[k] : Real(0);
  }
  if (!f.partial) return;
  if (sum > 0) {
    for (int k = 0; k < 4; ++k) f.weight[k] = echo >> k & 1 ? f.weight[k] / sum : Real(0);
    return;
  }
  f.partial = false;
  int row = -1, column = -1;
  Real least = 0;
  for (int z = f.row - 1; z <= f.row + 2; ++z)
    for (int x = f.column - 1; x <= f.column + 2; ++x) {
      if (z < 0 || z >= m.height || x < 0 || x >= m.width) continue;
      if (!contains(m, Real(x), Real(z))) continue;
      const Real distance = (p.x - x) * (p.x - x) + (p.z - z) * (p.z - z);
      if (row >= 0 && !(distance < least - Real(beam_tolerance))) continue;
      row = z, column = x, least = distance;
    }
  if (row >= 0) set_single(f, row, column, m.height, m.width);
}

// On the scan image, of a sample of the beam image. Invalid: more than half a pixel off the
// picture.
template <class Real>
USCONF_HD Footprint<Real> footprint_to_beam(const BeamMap<Real>& m, int sample, int line) {
  const Position<Real> p = beam_position(m, sample, line);
  const Real half = Real(0.5);
  const Real x = half + Real(beam_tolerance) * m.width, z = half + Real(beam_tolerance) * m.height;
  Footprint<Real> f = bilinear_footprint(p.z, p.x, m.height, m.width);
  f.valid = p.x >= -x && p.x <= m.width - 1 + x && p.z >= -z && p.z <= m.height - 1 + z;
  if (f.valid && !deep_inside(m, sample, line)) leave_out_black(m, p, f);
  return f;
}

// On the beam image, of a pixel of the scan image. Invalid: outside the geometry.
template <class Real>
USCONF_HD Footprint<Real> footprint_to_scan(const BeamMap<Real>& m, int row, int column) {
  const BeamFractions<Real> at = beam_fractions(m, Real(column), Real(row));
  Footprint<Real> f =
      bilinear_footprint(at.v * (m.samples - 1), at.u * (m.lines - 1), m.samples, m.lines);
  f.valid = at.inside();
  return f;
}

// Of the output's pixel (row, column), on the input.
template <class Real>
USCONF_HD Footprint<Real> footprint(const BeamMap<Real>& m, Direction direction, int row,
                                    int column) {
  return direction == Direction::to_beam ? footprint_to_beam(m, row, column)
                                         : footprint_to_scan(m, row, column);
}

// The pixel that weighs most, as a number from 0 to 3; of equals the first.
template <class Real>
USCONF_HD int heaviest(const Footprint<Real>& f) {
  int best = 0;
  Real most = f.weight[0];
  for (int k = 1; k < 4; ++k)
    if (f.weight[k] > most + Real(beam_tolerance)) best = k, most = f.weight[k];
  return best;
}

}  // namespace usconf
