#include "uncertainty_kernels.h"

#include "vectors.h"

namespace usconf::cpu::USCONF_ISA_NAMESPACE {
namespace {

constexpr int block = uncertainty_block;

// Draws of one logit, for `count` pixels from `at` on.
template <class T>
void bernoulli(const UncertaintyStretch<T>& q, long at, int count) {
  const T share = T(1) / T(q.draws);
  alignas(64) T first[block], rest[block], entropy[block];
  alignas(64) T apart[block], rest_apart[block], more[block], squares[block];
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    first[i] = rest[i] = entropy[i] = 0;
    apart[i] = rest_apart[i] = more[i] = squares[i] = 0;
  }
  for (int t = 0; t < q.draws; ++t) {
    const T* z = q.logits + t * q.draw_stride + at;
#pragma omp simd
    for (int i = 0; i < count; ++i) {
      // The first by the same instructions as the others: equal draws are equal to the last bit.
      const BernoulliDraw<T> draw = bernoulli_draw(z[i]);
      first[i] = t == 0 ? draw.p : first[i];
      rest[i] = t == 0 ? draw.rest : rest[i];
      entropy[i] = t == 0 ? draw.entropy : entropy[i];
      const T difference = draw.p - first[i];
      apart[i] += difference;
      squares[i] += difference * difference;
      rest_apart[i] += draw.rest - rest[i];
      more[i] += draw.entropy - entropy[i];
    }
  }
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    const Spread<T> p{first[i], apart[i], squares[i]};
    const Uncertainty<T> u = bernoulli_uncertainty(p, rest[i] + rest_apart[i] * share,
                                                   entropy[i] + more[i] * share, share);
    q.total[at + i] = u.total, q.expected[at + i] = u.expected;
    q.mutual[at + i] = u.mutual, q.variance[at + i] = u.variance;
  }
}

// Draws of several logits: first the draws' largest logits, sums and entropies, then the classes
// one after another.
template <class T>
void softmax(const UncertaintyStretch<T>& q, long at, int count) {
  const T share = T(1) / T(q.draws);
  alignas(64) T first[block], more[block], total[block], variance[block], squares[block];
  for (int t = 0; t < q.draws; ++t) {
    const T* z = q.logits + t * q.draw_stride + at;
    T* largest = q.scratch + 2L * t * block;
    T* scale = largest + block;
    alignas(64) T weights[block], moments[block];
#pragma omp simd
    for (int i = 0; i < count; ++i) largest[i] = z[i], weights[i] = moments[i] = 0;
    for (int c = 1; c < q.classes; ++c) {
      const T* next = z + c * q.pixels;
#pragma omp simd
      for (int i = 0; i < count; ++i) largest[i] = next[i] > largest[i] ? next[i] : largest[i];
    }
    for (int c = 0; c < q.classes; ++c) {
      const T* next = z + c * q.pixels;
#pragma omp simd
      for (int i = 0; i < count; ++i) {
        SoftmaxSums<T> sums{weights[i], moments[i]};
        sums.add(next[i], largest[i]);
        weights[i] = sums.weights, moments[i] = sums.moments;
      }
    }
#pragma omp simd
    for (int i = 0; i < count; ++i) {
      const T entropy = SoftmaxSums<T>{weights[i], moments[i]}.entropy();
      scale[i] = T(1) / weights[i];
      first[i] = t == 0 ? entropy : first[i];
      more[i] = t == 0 ? T(0) : more[i] + (entropy - first[i]);
    }
  }
#pragma omp simd
  for (int i = 0; i < count; ++i) total[i] = variance[i] = squares[i] = 0;
  for (int c = 0; c < q.classes; ++c) {
    alignas(64) T p_first[block], p_apart[block], p_squares[block];
    for (int t = 0; t < q.draws; ++t) {
      const T* z = q.logits + t * q.draw_stride + c * q.pixels + at;
      const T* largest = q.scratch + 2L * t * block;
      const T* scale = largest + block;
#pragma omp simd
      for (int i = 0; i < count; ++i) {
        const T p = probability(exp_minus(largest[i] - z[i]), scale[i]);
        p_first[i] = t == 0 ? p : p_first[i];
        const T difference = p - p_first[i];
        p_apart[i] = t == 0 ? T(0) : p_apart[i] + difference;
        p_squares[i] = t == 0 ? T(0) : p_squares[i] + difference * difference;
      }
    }
#pragma omp simd
    for (int i = 0; i < count; ++i) {
      const Spread<T> p{p_first[i], p_apart[i], p_squares[i]};
      total[i] += entropy_term(p.mean(share));
      variance[i] += p.variance(share);
      squares[i] += p.squares;
    }
  }
  const T by = T(1) / T(q.classes);
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    const Uncertainty<T> u(total[i], first[i] + more[i] * share, squares[i], variance[i] * by);
    q.total[at + i] = u.total, q.expected[at + i] = u.expected;
    q.mutual[at + i] = u.mutual, q.variance[at + i] = u.variance;
  }
}

// Adds the probabilities of logits, plus noise if there is any, to (classes, block) sums; parts: as
// many numbers, for exponentials.
template <class T>
void add_probabilities(const UncertaintyStretch<T>& q, const T* z, const T* noise, int count,
                       T* sums, T* parts) {
  const auto logit = [=](long at)
                         USCONF_INLINE_LAMBDA { return noise ? z[at] + noise[at] : z[at]; };
  if (q.classes == 1) {
    T* rest = sums + block;
#pragma omp simd
    for (int i = 0; i < count; ++i) {
      const BernoulliDraw<T> draw = bernoulli_draw(logit(i));
      sums[i] += draw.p, rest[i] += draw.rest;
    }
    return;
  }
  alignas(64) T largest[block], weights[block];
#pragma omp simd
  for (int i = 0; i < count; ++i) largest[i] = logit(i), weights[i] = 0;
  for (int c = 1; c < q.classes; ++c)
#pragma omp simd
    for (int i = 0; i < count; ++i) {
      const T next = logit(c * q.pixels + i);
      largest[i] = next > largest[i] ? next : largest[i];
    }
  for (int c = 0; c < q.classes; ++c) {
    T* part = parts + c * block;
#pragma omp simd
    for (int i = 0; i < count; ++i) {
      part[i] = exp_minus(largest[i] - logit(c * q.pixels + i));
      weights[i] += part[i];
    }
  }
#pragma omp simd
  for (int i = 0; i < count; ++i) weights[i] = T(1) / weights[i];
  for (int c = 0; c < q.classes; ++c) {
    const T* part = parts + c * block;
    T* sum = sums + c * block;
#pragma omp simd
    for (int i = 0; i < count; ++i) sum[i] += probability(part[i], weights[i]);
  }
}

// Draws whose probabilities are means over noise.
template <class T>
void noisy(const UncertaintyStretch<T>& q, long at, int count) {
  const int classes = q.classes == 1 ? 2 : q.classes;
  const T share = T(1) / T(q.draws), noise_share = T(1) / T(q.samples);
  const auto plane = [&](NoisyPlane which, int c) {
    return q.scratch + (static_cast<long>(which) * classes + c) * block;
  };
  alignas(64) T first[block], more[block], change[block], now[block];
  for (long i = 0; i < uncertainty_scratch(q.draws, q.classes, true); ++i) q.scratch[i] = 0;
  for (int i = 0; i < block; ++i) first[i] = more[i] = change[i] = 0;
  for (int t = 0; t < q.draws; ++t) {
    const T* z = q.logits + t * q.draw_stride + at;
    T *sums = plane(noise_sum, 0),
      *parts = q.scratch + static_cast<long>(noisy_planes) * classes * block;
    for (int i = 0; i < classes * block; ++i) sums[i] = 0;
    add_probabilities<T>(q, z, nullptr, count, sums, parts);
    for (int c = 0; c < classes; ++c) {
      const T* p = plane(noise_sum, c);
      T *one = plane(first_q, c), *apart = plane(apart_q, c), *squares = plane(squares_q, c);
#pragma omp simd
      for (int i = 0; i < count; ++i) {
        one[i] = t == 0 ? p[i] : one[i];
        const T difference = p[i] - one[i];
        apart[i] += difference;
        squares[i] += difference * difference;
      }
    }
    for (int i = 0; i < classes * block; ++i) sums[i] = 0;
    for (int s = 0; s < q.samples; ++s)
      add_probabilities<T>(q, z, q.noise + s * q.draw_stride + at, count, sums, parts);
    for (int i = 0; i < block; ++i) now[i] = 0;
    for (int c = 0; c < classes; ++c) {
      const T* sum = plane(noise_sum, c);
      T *one = plane(first_p, c), *apart = plane(apart_p, c);
#pragma omp simd
      for (int i = 0; i < count; ++i) {
        const T p = probability(sum[i], noise_share);
        one[i] = t == 0 ? p : one[i];
        apart[i] += p - one[i];
        change[i] += p == one[i] ? T(0) : T(1);
        now[i] += entropy_term(p);
      }
    }
#pragma omp simd
    for (int i = 0; i < count; ++i) {
      first[i] = t == 0 ? now[i] : first[i];
      more[i] += now[i] - first[i];
    }
  }
  alignas(64) T total[block], variance[block];
  for (int i = 0; i < block; ++i) total[i] = variance[i] = 0;
  for (int c = 0; c < classes; ++c) {
    const T *p = plane(first_p, c), *apart = plane(apart_p, c);
    const T *one = plane(first_q, c), *apart_of_q = plane(apart_q, c),
            *squares = plane(squares_q, c);
#pragma omp simd
    for (int i = 0; i < count; ++i) {
      total[i] += entropy_term(Spread<T>{p[i], apart[i], T(0)}.mean(share));
      variance[i] += Spread<T>{one[i], apart_of_q[i], squares[i]}.variance(share);
    }
  }
  const T by = T(1) / T(classes);
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    const Uncertainty<T> u(total[i], first[i] + more[i] * share, change[i], variance[i] * by);
    q.total[at + i] = u.total, q.expected[at + i] = u.expected;
    q.mutual[at + i] = u.mutual, q.variance[at + i] = u.variance;
  }
}

template <class T>
void measure(const UncertaintyStretch<T>& q) {
  for (long at = q.begin; at < q.end; at += block) {
    const int count = static_cast<int>(q.end - at < block ? q.end - at : block);
    if (q.noise)
      noisy(q, at, count);
    else
      q.classes == 1 ? bernoulli(q, at, count) : softmax(q, at, count);
  }
}

constexpr UncertaintyKernels table{measure<float>, measure<double>};

}  // namespace

const UncertaintyKernels& uncertainty_kernels() { return table; }

}  // namespace usconf::cpu::USCONF_ISA_NAMESPACE
