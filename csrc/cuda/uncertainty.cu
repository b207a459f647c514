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

  __device__ T logit(int draw, int of, long long item) const {
    const long long image = item / pixels, pixel = item % pixels;
    const long long images = all / pixels;
    return logits[((draw * images + image) * classes + of) * pixels + pixel];
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
  const std::size_t bytes =
      p.classes == 1 ? 1 : sizeof(T) * 2 * p.draws * static_cast<std::size_t>(d.all);
  const Workspace workspace(bytes, stream);
  d.softmax = static_cast<T*>(workspace.data());
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
