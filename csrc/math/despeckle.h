// Speckle-reducing anisotropic diffusion (Yu and Acton, IEEE Trans. Image Processing 2002) per
// pixel, as Hung et al. (ISBI 2021) run it before their confidence map: on E = exp(I), I the image
// scaled to [0, 1], without their histogram matching.
//   dN, dS, dW, dE = neighbour - E (0 where there is none)
//   q^2 = (G2/2 - L^2/16) / ((1 + L/4)^2 + eps),  G2 = sum d^2 / E^2,  L = sum d / E
//   c = clip(1 / (1 + (q^2 - q0) / (q0 (1 + q0) + eps)), 0, 1)
//   E += step/4 (c dN + c_south dS + c dW + c_east dE)
#pragma once

#include "exponential.h"

namespace usconf {

constexpr double srad_epsilon = 2e-16;  // as published
// q0 is estimated from whole blocks of this side, aligned at (0, 0), that have at least so many
// valid pixels and one whose I is above srad_bright (margins and shadows hold no speckle): the
// lower median of srad_speckle over them; over all valid pixels at once where there is no such
// block.
constexpr int srad_block = 8;
constexpr int srad_least_pixels = 32;
constexpr double srad_bright = 0.05;

// Speckle of a region: variance / mean^2 of E, with ddof 1, from the sums of E - pivot and of its
// square.
USCONF_HD double srad_speckle(double sum, double squares, double pixels, double pivot) {
  if (pixels < 2) return 0;
  const double variance = (squares - sum * sum / pixels) / (pixels - 1.0);
  const double mean = pivot + sum / pixels;
  return variance > 0 ? variance / (mean * mean) : 0.0;
}

// 1 / (q0 (1 + q0) + eps)
USCONF_HD double srad_sharpness(double q0) { return 1.0 / (q0 * (1.0 + q0) + srad_epsilon); }

// Both fractions multiplied by E^2 and by q's denominator: one division.
template <class T>
USCONF_HD T srad_coefficient(T e, T north, T south, T west, T east, T q0, T sharpness) {
  const T squares = north * north + south * south + west * west + east * east;
  const T sum = north + south + west + east;
  const T bent = e + T(0.25) * sum;
  const T below = bent * bent + T(srad_epsilon) * (e * e);
  const T above = T(0.5) * squares - T(0.0625) * (sum * sum);
  const T c = below / (below + (above - q0 * below) * sharpness);
  return c < T(0) ? T(0) : c < T(1) ? c : T(1);
}

// What is added to E; rate = step / 4; c_south and c_east of the neighbours.
template <class T>
USCONF_HD T srad_change(T c, T c_south, T c_east, T north, T south, T west, T east, T rate) {
  return rate * (c * north + c_south * south + c * west + c_east * east);
}

}  // namespace usconf
