// The uncertainty measures in one launch, a thread a pixel: draws pass through its registers.
#include "../math/uncertainty.h"
#include "frame_range.h"

namespace usconf::cuda {
namespace {

constexpr int threads = 256;

template <class T>
struct Draws {
  const T* logits;  // (draws, images, classes, pixels)
  int draws, classes;
  long long pixels, all;  // all: of every image
  T* result;              // (4, all)
  T* softmax;             // (draws, 2, all): largest logit and 1 / sum of exponentials
  const T* noise;         // (samples, images, classes, pixels) or null
  int samples;
  T* planes;  // (noisy_planes, classes, all), of several classes under noise

  __device__ long long place(int draw, int of, long long item) const {
    const long long image = item / pixels, pixel = item % pixels;
    const long long images = all / pixels;
    return ((draw * images + image) * classes + of) * pixels + pixel;
  }
  __device__ T logit(int draw, int of, long long item) const {
    return logits[place(draw, of, item)];
  }
  // With the noise of a sample, or (-1) without.
  __device__ T logit(int draw, int sample, int of, long long item) const {
    const T z = logit(draw, of, item);
    return sample < 0 ? z : z + noise[place(sample, of, item)];
  }
  __device__ void write(long long item, const Uncertainty<T>& u) const {
    result[item] = u.total, result[item + all] = u.expected;
    result[item + 2 * all] = u.mutual, result[item + 3 * all] = u.variance;
  }
};

template <class T>
__device__ void bernoulli(const Draws<T>& d, long long item, T share) {
  BernoulliDraw<T> first{};
  Spread<T> p;
  T rest = 0, more = 0;
  for (int t = 0; t < d.draws; ++t) {
    // The first by the same instructions as the others: equal draws are equal to the last bit.
    const BernoulliDraw<T> draw = bernoulli_draw(d.logit(t, 0, item));
    if (t == 0) first = draw;
    const T difference = draw.p - first.p;
    p.apart += difference;
    p.squares += difference * difference;
    rest += draw.rest - first.rest;
    more += draw.entropy - first.entropy;
  }
  p.first = first.p;
  d.write(item,
          bernoulli_uncertainty(p, first.rest + rest * share, first.entropy + more * share, share));
}

template <class T>
__device__ void softmax(const Draws<T>& d, long long item, T share) {
  T first = 0, more = 0;
  for (int t = 0; t < d.draws; ++t) {
    T largest = d.logit(t, 0, item);
    for (int c = 1; c < d.classes; ++c) {
      const T z = d.logit(t, c, item);
      largest = z > largest ? z : largest;
    }
    SoftmaxSums<T> sums;
    for (int c = 0; c < d.classes; ++c) sums.add(d.logit(t, c, item), largest);
    d.softmax[2 * t * d.all + item] = largest;
    d.softmax[(2 * t + 1) * d.all + item] = T(1) / sums.weights;
    const T entropy = sums.entropy();
    if (t == 0)
      first = entropy;
    else
      more += entropy - first;
  }
  T total = 0, variance = 0, squares = 0;
  for (int c = 0; c < d.classes; ++c) {
    Spread<T> p;
    for (int t = 0; t < d.draws; ++t) {
      const T largest = d.softmax[2 * t * d.all + item];
      const T value = probability(exp_minus(largest - d.logit(t, c, item)),
                                  d.softmax[(2 * t + 1) * d.all + item]);
      if (t == 0) p.first = value;
      p.apart += value - p.first;
      p.squares += (value - p.first) * (value - p.first);
    }
    total += entropy_term(p.mean(share));
    variance += p.variance(share);
    squares += p.squares;
  }
  d.write(item, Uncertainty<T>(total, first + more * share, squares, variance / T(d.classes)));
}

// Where a thread keeps its sums: its registers for one logit, a column of the workspace for more.
template <class T>
struct Column {
  T* start;
  int classes;
  long long stride;

  __device__ T& operator()(NoisyPlane which, int c) const {
    return start[(which * classes + c) * stride];
  }
};

template <class T>
__device__ __forceinline__ void add_probabilities(const Draws<T>& d, int t, int sample,
                                                  long long item, const Column<T>& sums) {
  if (d.classes == 1) {
    const BernoulliDraw<T> draw = bernoulli_draw(d.logit(t, sample, 0, item));
    sums(noise_sum, 0) += draw.p;
    sums(noise_sum, 1) += draw.rest;
    return;
  }
  T largest = d.logit(t, sample, 0, item);
  for (int c = 1; c < d.classes; ++c) {
    const T z = d.logit(t, sample, c, item);
    largest = z > largest ? z : largest;
  }
  T weights = 0;
  for (int c = 0; c < d.classes; ++c) weights += exp_minus(largest - d.logit(t, sample, c, item));
  const T scale = T(1) / weights;
  for (int c = 0; c < d.classes; ++c)
    sums(noise_sum, c) += probability(exp_minus(largest - d.logit(t, sample, c, item)), scale);
}

template <class T>
__device__ void noisy(const Draws<T>& d, long long item, T share, const Column<T>& at) {
  const T noise_share = T(1) / T(d.samples);
  T first = 0, more = 0, change = 0;
  for (int t = 0; t < d.draws; ++t) {
    for (int c = 0; c < at.classes; ++c) at(noise_sum, c) = 0;
    add_probabilities(d, t, -1, item, at);
    for (int c = 0; c < at.classes; ++c) {
      const T q = at(noise_sum, c);
      if (t == 0) at(first_q, c) = q, at(apart_q, c) = at(squares_q, c) = 0;
      const T difference = q - at(first_q, c);
      at(apart_q, c) += difference;
      at(squares_q, c) += difference * difference;
      at(noise_sum, c) = 0;
    }
    for (int s = 0; s < d.samples; ++s) add_probabilities(d, t, s, item, at);
    T entropy = 0;
    for (int c = 0; c < at.classes; ++c) {
      const T p = probability(at(noise_sum, c), noise_share);
      if (t == 0) at(first_p, c) = p, at(apart_p, c) = 0;
      at(apart_p, c) += p - at(first_p, c);
      change += p == at(first_p, c) ? T(0) : T(1);
      entropy += entropy_term(p);
    }
    if (t == 0) first = entropy;
    more += entropy - first;
  }
  T total = 0, variance = 0;
  for (int c = 0; c < at.classes; ++c) {
    total += entropy_term(Spread<T>{at(first_p, c), at(apart_p, c), T(0)}.mean(share));
    variance += Spread<T>{at(first_q, c), at(apart_q, c), at(squares_q, c)}.variance(share);
  }
  d.write(item, Uncertainty<T>(total, first + more * share, change, variance / T(at.classes)));
}

template <class T>
__global__ void __launch_bounds__(threads) noisy_kernel(Draws<T> d) {
  const T share = T(1) / T(d.draws);
  for (long long item = own_item(); item < d.all; item += item_stride()) {
    if (d.classes == 1) {
      T own[2 * noisy_planes];
      noisy(d, item, share, Column<T>{own, 2, 1});
    } else {
      noisy(d, item, share, Column<T>{d.planes + item, d.classes, d.all});
    }
  }
}

template <class T>
__global__ void __launch_bounds__(threads) uncertainty_kernel(Draws<T> d) {
  const T share = T(1) / T(d.draws);
  for (long long item = own_item(); item < d.all; item += item_stride())
    d.classes == 1 ? bernoulli(d, item, share) : softmax(d, item, share);
}

template <class T>
void run_uncertainty(const UncertaintyProblem& p, void* result, cudaStream_t stream) {
  Draws<T> d{};
  d.logits = static_cast<const T*>(p.logits);
  d.draws = p.draws, d.classes = p.classes, d.pixels = p.pixels;
  d.all = static_cast<long long>(p.images) * p.pixels;
  d.result = static_cast<T*>(result);
  d.noise = static_cast<const T*>(p.noise), d.samples = p.samples;
  const std::size_t planes = p.classes == 1 ? 0
                             : p.noise      ? noisy_planes * std::size_t(p.classes)
                                            : std::size_t(2) * p.draws;
  const Workspace workspace(sizeof(T) * planes * d.all + 1, stream);
  d.softmax = d.planes = static_cast<T*>(workspace.data());
  if (p.noise) {
    USCONF_LAUNCH(noisy_kernel<T>, blocks_over_items(d.all, threads), threads, 0, stream, d);
    check_launch("the uncertainty measures");
    return;
  }
  USCONF_LAUNCH(uncertainty_kernel<T>, blocks_over_items(d.all, threads), threads, 0, stream, d);
  check_launch("the uncertainty measures");
}

}  // namespace

void uncertainty(const UncertaintyProblem& p, void* result, void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  p.in_double ? run_uncertainty<double>(p, result, queue)
              : run_uncertainty<float>(p, result, queue);
}

}  // namespace usconf::cuda
