// The uncertainty measures on the CPU: threads take runs of pixels.
#include <algorithm>

#include "../kernels.h"
#include "memory.h"
#include "threads.h"
#include "uncertainty_kernels.h"

namespace usconf::cpu {
namespace {

// Logits that a thread must get for its start to pay.
constexpr long logits_a_thread = 1 << 15;

template <class T>
void run_uncertainty(const UncertaintyProblem& p, void* result,
                     void (*kernel)(const UncertaintyStretch<T>&)) {
  const long all = static_cast<long>(p.images) * p.pixels;
  const long logits = all * p.draws * p.classes * (p.noise ? p.samples : 1);
  const int size =
      static_cast<int>(std::clamp<long>(logits / logits_a_thread, 1, std::max(p.threads, 1)));
  const long numbers = uncertainty_scratch(p.draws, p.classes, p.noise != nullptr);
  const Block scratch(sizeof(T) * numbers * size + 64);
  run(size, [&](const Team& team) {
    const auto share = team.share(all, uncertainty_block);
    for (long at = share.begin; at < share.end;) {
      const long image = at / p.pixels, first = at % p.pixels;
      UncertaintyStretch<T> q{};
      q.draws = p.draws, q.classes = p.classes, q.pixels = p.pixels;
      q.draw_stride = static_cast<long>(p.images) * p.classes * p.pixels;
      q.logits = static_cast<const T*>(p.logits) + image * p.classes * p.pixels;
      q.begin = first;
      q.end = std::min(p.pixels, first + share.end - at);
      q.total = static_cast<T*>(result) + image * p.pixels;
      q.expected = q.total + all, q.mutual = q.expected + all, q.variance = q.mutual + all;
      q.scratch = static_cast<T*>(scratch.data()) + numbers * team.index;
      q.samples = p.samples;
      q.noise = p.noise ? static_cast<const T*>(p.noise) + image * p.classes * p.pixels : nullptr;
      kernel(q);
      at += q.end - q.begin;
    }
  });
}

}  // namespace

void uncertainty(const UncertaintyProblem& p, void* result, void*) {
  const UncertaintyKernels& kernels = uncertainty_kernels();
  p.in_double ? run_uncertainty<double>(p, result, kernels.in_double)
              : run_uncertainty<float>(p, result, kernels.in_float);
}

}  // namespace usconf::cpu
