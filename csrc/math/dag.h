// The DAG confidence map of Hung, Chen and Galeotti (ISBI 2021) per row and per edge, and its
// derivatives. Edge (r, c, k): from the parent (r, m(c + k - R)) to the child (r + 1, c), R being
// the half width of the beam and m mirroring a column into the image.
//   D = |f_one - f_other| + 1e-4,  rel = D / mean_c D,  t = x d_r rel^power,  w = g_k exp(-t),
//   C[r + 1, c] = sum_k w C[r, m(c + k - R)]
#pragma once

#include <cmath>

#include "exponential.h"

namespace usconf {

constexpr double dag_epsilon = 1e-4;  // of D, as published
// Of the published code's artifact model: soft maps above these are needle and artifact.
constexpr float dag_needle_level = 0.9f;
constexpr float dag_artifact_level = 0.05f;

// Column i mirrored symmetrically into [0, n), repeatedly: -1 -> 0, n -> n - 1.
USCONF_HD int dag_mirror(int i, int n) {
  i %= 2 * n;
  if (i < 0) i += 2 * n;
  return i < n ? i : 2 * n - 1 - i;
}

// The two pixels that edge (r, c, k) compares.
struct DagPixels {
  int one_row, one_column, other_row, other_column;
};

// variant 0: the edge's own ends. variant 1 (hung2021): the edge that leads from (r, c) the other
// way; and where that leaves the image, the mirrored column is flipped vertically too.
USCONF_HD DagPixels dag_pixels(int variant, int r, int c, int k, int half_width, int height,
                               int width) {
  if (variant == 0) return {r, dag_mirror(c + k - half_width, width), r + 1, c};
  const int across = c + half_width - k;
  const bool outside = across < 0 || across >= width;
  return {r, c, outside ? height - 1 - r : r + 1, dag_mirror(across, width)};
}

// exp(-(k - R)^2 / (2 var)), and its derivative by var; both before the normalisation.
USCONF_HD double dag_bell(int k, int half_width, double var) {
  const double z = k - half_width;
  return exp(-z * z / (2.0 * var));
}
USCONF_HD double dag_d_log_bell(int k, int half_width, double var) {
  const double z = k - half_width;
  return z * z / (2.0 * var * var);
}

// What slot k counts in the sum that the bell is divided by: variant 0 all slots alike, so that
// sum g = 1; variant 1 the trapezoid rule.
USCONF_HD double dag_part(int k, int half_width, int variant) {
  const bool end = k == 0 || k == 2 * half_width;
  return variant == 1 && end && half_width > 0 ? 0.5 : 1.0;
}

// g_k = bell_k * scale, d log g_k / d var = dag_d_log_bell - slope. Only slots with exists[k] != 0
// count (null: all); scale is 0 without any.
struct DagBeam {
  double scale, slope;
};

USCONF_HD DagBeam dag_beam(double var, int half_width, int variant, const unsigned char* exists) {
  double sum = 0, slope = 0;
  for (int k = 0; k <= 2 * half_width; ++k) {
    if (exists && !exists[k]) continue;
    const double bell = dag_part(k, half_width, variant) * dag_bell(k, half_width, var);
    sum += bell;
    slope += bell * dag_d_log_bell(k, half_width, var);
  }
  return sum > 0 ? DagBeam{1.0 / sum, slope / sum} : DagBeam{0, 0};
}

// d_r: how much of the beam's energy reaches row r; its derivative by alpha is -dag_reach d_r.
USCONF_HD double dag_reach(int r, int height) { return (r + 2.0) / height; }
USCONF_HD double dag_depth(double alpha, int r, int height) {
  return exp(-alpha * dag_reach(r, height));
}

// x = -ln(xi) / sum_r d_r and its derivatives; 0 for images of one row.
struct DagDecay {
  double x, d_xi, d_alpha;
};

USCONF_HD DagDecay dag_decay(double xi, double alpha, int height) {
  double sum = 0, reach = 0;
  for (int r = 0; r + 1 < height; ++r) {
    const double d = dag_depth(alpha, r, height);
    sum += d;
    reach += d * dag_reach(r, height);
  }
  if (height < 2) return {0, 0, 0};
  const double x = -log(xi) / sum;
  return {x, -1.0 / (xi * sum), x * reach / sum};
}

template <class T>
USCONF_HD T dag_difference(T one, T other) {
  return std::fabs(one - other) + static_cast<T>(dag_epsilon);
}

// t, from scale = x d_r.
USCONF_HD double dag_exponent(double rel, double power, double scale) {
  return scale * (power == 1.0 ? rel : pow(rel, power));
}

// What one edge contributes, given d_w = lam_child C_parent = dLoss/dw and w = g exp(-t).
// By var: d_w w (dag_d_log_bell - slope).
struct DagDerivative {
  double d_rel;    // by rel; 0 in effect where an artifact holds rel at 1
  double d_scale;  // by x d_r
  double d_power;
};

USCONF_HD DagDerivative dag_derivative(double rel, double power, double scale, double w,
                                       double d_w) {
  const double raised = power == 1.0 ? rel : pow(rel, power);
  const double d_t = w > 0 ? -d_w * w : 0.0;  // an exponent that overflows is flat
  if (d_t == 0) return {0, 0, 0};
  return {d_t * scale * power * raised / rel, d_t * raised, d_t * scale * raised * log(rel)};
}

// By D, from the derivative by its own rel and the sum of d_rel rel over the row's existing edges
// of the slot: the mean moves with every one of them.
USCONF_HD double dag_d_difference(double d_rel, double mean, double row_sum, int edges) {
  return d_rel / mean - row_sum / (mean * edges);
}

// Whether pixel r of a column is at the needle's top edge; above and below: the soft map one row
// away, 0 outside the image.
USCONF_HD bool dag_needle_top(float above, float below) {
  return below > dag_needle_level && !(above > dag_needle_level);
}

// What a finished C is multiplied with: (1 - artifact) / ref, and 0 where ref is 0.
USCONF_HD double dag_output_scale(double reference, double artifact) {
  return reference > 0 ? (1.0 - artifact) / reference : 0.0;
}

}  // namespace usconf
