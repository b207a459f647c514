// What draws of a posterior say about a pixel: entropies and variance (Mueller et al., "L-FUSION",
// section 2), in nats. p: probability of a class in one draw.
#pragma once

#include "logarithm.h"
#include "unit_interval.h"

namespace usconf {

// -p ln p, 0 at 0. Probabilities below the bound are as good as 0: their term is below 1e-35.
template <class T>
USCONF_HD T entropy_term(T p) {
  constexpr T least = T(1e-37);
  return -p * log_positive(p < least ? least : p);
}

// exp(-x) for x >= 0: 1 at 0 to the last bit, and 0 where it leaves the normal numbers.
template <class T>
constexpr T exponent_limit = sizeof(T) == 4 ? T(87) : T(708);
template <class T>
USCONF_HD T exp_minus(T x) {
  const T e = x == T(0) ? T(1) : unit_exp(-x);
  return x > exponent_limit<T> ? T(0) : e;
}

// A product cut at 1. Beware: without the cut compilers fuse it with the subtraction of another
// draw's product, and equal draws differ.
template <class T>
USCONF_HD T probability(T weight, T scale) {
  const T p = weight * scale;
  return p > T(1) ? T(1) : p;
}

// One draw of one logit: sigmoid(z), 1 - that without cancellation, the entropy of both.
template <class T>
struct BernoulliDraw {
  T p, rest, entropy;
};

template <class T>
USCONF_HD BernoulliDraw<T> bernoulli_draw(T z) {
  const bool negative = z < 0;
  const T size = negative ? -z : z;
  const T e = exp_minus(size);
  const T large = T(1) / (e + T(1)), small = probability(e, large);
  const T bounded = size > exponent_limit<T> ? T(0) : size;  // infinity times 0 is no number
  return {negative ? small : large, negative ? large : small, unit_log1p(e) + bounded * small};
}

// One draw of several logits, from all of which the largest was taken: the sums of exp(z - largest)
// and of that times (z - largest).
template <class T>
struct SoftmaxSums {
  T weights = 0, moments = 0;

  USCONF_HD void add(T z, T largest) {
    const T below = largest - z;
    const T e = exp_minus(below);
    weights += e;
    moments -= below > exponent_limit<T> ? T(0) : e * below;
  }
  USCONF_HD T entropy() const { return log_positive(weights) - moments / weights; }
};

// Over n draws: mean and variance, from differences to the first so that equal draws have none.
template <class T>
struct Spread {
  T first = 0, apart = 0, squares = 0;

  USCONF_HD T mean(T share) const { return first + apart * share; }  // share: 1 / n
  USCONF_HD T variance(T share) const {
    const T v = squares * share - apart * share * (apart * share);
    return v < 0 ? T(0) : v;
  }
};

// Over draws that are means over noise themselves, for one class: the sum over the noise, the mean
// and the variance over the draws.
enum NoisyPlane { noise_sum, first_p, apart_p, first_q, apart_q, squares_q, noisy_planes };

// total: entropy of the mean probabilities. `spread`: 0 where all draws were equal.
template <class T>
struct Uncertainty {
  T total, expected, mutual, variance;

  USCONF_HD Uncertainty(T of_mean, T of_draws, T spread, T variance)
      : total(spread == 0 ? of_draws : of_mean), expected(of_draws), variance(variance) {
    // Concavity makes the difference positive; rounding may not.
    mutual = total - expected < 0 ? T(0) : total - expected;
  }
};

// Mean of both classes' variance is that of either.
template <class T>
USCONF_HD Uncertainty<T> bernoulli_uncertainty(const Spread<T>& p, T rest, T entropy, T share) {
  return {entropy_term(p.mean(share)) + entropy_term(rest), entropy, p.squares, p.variance(share)};
}

}  // namespace usconf
