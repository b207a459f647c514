// The annotation model's energy (Ronchetti et al., "Beyond Shadows", eq. 2-6), per pixel and per
// pair of pixels, and its derivatives. x: confidence, l = ln x, m = ln(1 - x).
//
// Written for a number or for a vector of them: V is float, double or, on the CPU, many of either.
#pragma once

#include "unit_interval.h"

namespace usconf {

// ln B(1.1, 1.1) of None's Beta density, ln 5 of the two others' (eq. 3).
constexpr double pgm_log_beta = -0.19669234931031790, pgm_log_5 = 1.6094379124341003;

// Probabilities nearer to 0 or 1 are read as this near: the next float32 below 1 is 6e-8 away, and
// ln 0 is no loss to learn from.
constexpr double pgm_margin = 1e-7;

// A pixel as the energy sees it, with derivatives of l and -m by what it was given as.
template <class V>
struct PgmPixel {
  V x, l, m, d_l, d_minus_m;
};

// x = sigmoid(z); l = -softplus(-z), m = -softplus(z). Every derivative is bounded.
template <class V>
USCONF_HD PgmPixel<V> pgm_from_logit(V z) {
  using T = typename Made<V>::Of;
  const auto negative = z < V{};
  const V e = unit_exp(Made<V>::smaller(-z, z));  // a NaN stays one
  const V large = T(1) / (e + T(1));
  const V small = e * large;
  const V x = Made<V>::select(negative, small, large);
  const V rest = Made<V>::select(negative, large, small);
  const V l = Made<V>::smaller(z, V{}) - unit_log1p(e);
  return {x, l, l - z, rest, x};
}

template <class V>
USCONF_HD PgmPixel<V> pgm_from_probability(V given) {
  using T = typename Made<V>::Of;
  constexpr T low = T(pgm_margin), high = T(1 - pgm_margin);
  const V x = Made<V>::smaller(V{} + high, Made<V>::larger(V{} + low, given));
  const V rest = T(1) - x;
  return {x, unit_log(x), unit_log(rest), T(1) / x, T(1) / rest};
}

template <bool Logits, class V>
USCONF_HD PgmPixel<V> pgm_pixel(V given) {
  if constexpr (Logits)
    return pgm_from_logit(given);
  else
    return pgm_from_probability(given);
}

// Derivative of x by what it was given as, from x and that of l.
template <bool Logits, class V>
USCONF_HD V pgm_d_x(V x, V d_l) {
  if constexpr (Logits) return x * d_l;
  return V{} + typename Made<V>::Of(1);
}

// The unary term is a l + b m + c, by label 0 None, 1 Good, 2 Bad.
template <class T>
struct PgmUnary {
  T a[3], b[3], c[3];
};

template <class T>
inline PgmUnary<T> pgm_unary(const double* weights, bool constants) {
  const double a[] = {-0.1, -4, 0}, b[] = {-0.1, 0, -4};
  const double c[] = {pgm_log_beta, -pgm_log_5, -pgm_log_5};
  PgmUnary<T> law{};
  for (int label = 0; label < 3; ++label) {
    law.a[label] = static_cast<T>(weights[label] * a[label]);
    law.b[label] = static_cast<T>(weights[label] * b[label]);
    law.c[label] = static_cast<T>(constants ? weights[label] * c[label] : 0.0);
  }
  return law;
}

// What the derivative is multiplied with: PgmResult's d_confidence.
template <class T>
inline T pgm_d_scale(bool mean, bool masked, double pixels) {
  return static_cast<T>(mean && !masked && pixels > 0 ? 1 / pixels : 1.0);
}

// How far the hinge of two pixels one above the other is open; its slope is 0 at the kink.
template <class V>
USCONF_HD V pgm_rise(V l, V l_above, V s) {
  return Made<V>::larger(l - l_above + s, V{});
}

}  // namespace usconf
