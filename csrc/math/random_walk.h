// The random walk of Karamalis et al. (Medical Image Analysis 2012) per pixel and per edge, and its
// derivatives. Symbols: g image scaled to [0, 1]; c = g a(y) attenuated; d = |c_i - c_j|;
// M, M2 the two maxima over all edges; w the edge weight. Step numbers refer to
// docs/random_walk.md.
#pragma once

#include <cmath>

#include "exponential.h"

namespace usconf {

constexpr double random_walk_epsilon = 2.220446049250313e-16;  // 2^-52, as MATLAB's eps

enum class EdgeKind : int { lateral = 0, vertical = 1 };  // lateral: horizontal and both diagonals

// Step 2: attenuation weight of row y of an image with `height` rows.
USCONF_HD double attenuation(double alpha, int y, int height) {
  return height > 1 ? 1.0 - exp(-alpha * y / (height - 1)) : 0.0;
}

// d attenuation / d alpha
USCONF_HD double d_attenuation(double alpha, int y, int height) {
  return height > 1 ? y * exp(-alpha * y / (height - 1)) / (height - 1) : 0.0;
}

// Steps 3-5 with both normalisations folded together: w = exp(-(slope d + offset[kind])) + floor.
struct EdgeLaw {
  double slope;      // beta / ((M + eps) (M2 + eps)), per unit of c
  double offset[2];  // beta gamma_kind / (M2 + eps)
  double floor;      // smallest weight
  double scale1;     // 1 / (M + eps)
  double scale2;     // 1 / (M2 + eps)
  double gamma[2];   // penalty by kind (lateral, vertical)
  double beta;
};

// max_d: largest |c_i - c_j| by kind; negative where the image has no edge of that kind.
// variant 0: gamma on lateral edges, floor 1e-5 (the authors' MATLAB code, MONAI >= 1.4).
// variant 1: gamma on vertical edges, floor 1e-6 (MONAI <= 1.3).
USCONF_HD EdgeLaw edge_law(double max_lateral, double max_vertical, double beta, double gamma,
                           int variant) {
  EdgeLaw law;
  const double largest = max_lateral > max_vertical ? max_lateral : max_vertical;
  law.scale1 = 1.0 / ((largest > 0 ? largest : 0.0) + random_walk_epsilon);
  law.gamma[0] = variant == 0 ? gamma : 0.0;
  law.gamma[1] = variant == 0 ? 0.0 : gamma;
  double m2 = 0;
  if (max_lateral >= 0) m2 = max_lateral * law.scale1 + law.gamma[0];
  if (max_vertical >= 0) {
    const double v = max_vertical * law.scale1 + law.gamma[1];
    m2 = v > m2 ? v : m2;
  }
  law.scale2 = 1.0 / (m2 + random_walk_epsilon);
  law.slope = beta * law.scale1 * law.scale2;
  law.offset[0] = beta * law.gamma[0] * law.scale2;
  law.offset[1] = beta * law.gamma[1] * law.scale2;
  law.floor = variant == 0 ? 1e-5 : 1e-6;
  law.beta = beta;
  return law;
}

// Step 5 for a difference d in units of c (T = float: weights for the elimination; double: exact).
template <class T>
USCONF_HD T edge_weight(T d, T slope, T offset, T floor) {
  return exp_nonpositive(-(slope * d + offset)) + floor;
}

// What one edge contributes to the derivatives, given d_w = dLoss/dw = -(lam_i - lam_j)(x_i - x_j).
// With u = d/(M + eps) + gamma_kind and v = u/(M2 + eps): w = exp(-beta v) + floor.
struct EdgeDerivative {
  double d_beta;  // dLoss/dbeta
  double d_u;     // dLoss/du with M2 held fixed; also dLoss/dgamma where the kind carries gamma
  double d_m2;    // dLoss/dM2
};

USCONF_HD EdgeDerivative edge_derivative(double d, int kind, double d_w, const EdgeLaw& law) {
  const double v = (d * law.scale1 + law.gamma[kind]) * law.scale2;
  const double e = exp_nonpositive(-law.beta * v);
  const double d_v = -law.beta * e * d_w;
  EdgeDerivative out;
  out.d_beta = -v * e * d_w;
  out.d_u = d_v * law.scale2;
  out.d_m2 = -d_v * v * law.scale2;
  return out;
}

}  // namespace usconf
