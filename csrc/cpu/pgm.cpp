// The annotation model's loss on the CPU: frames are cut into strips, threads take runs of strips.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "../kernels.h"
#include "memory.h"
#include "pgm_kernels.h"
#include "threads.h"

namespace usconf::cpu {
namespace {

// Pixels that a thread must get for its start (20 us at worst) to pay.
constexpr long pixels_a_thread = 1 << 15;

template <class T>
const PgmSteps<T>& pgm_steps() {
  if constexpr (sizeof(T) == sizeof(float))
    return pgm_kernels().in_float;
  else
    return pgm_kernels().in_double;
}

template <class T>
PgmStretch<T> frame_of(const PgmProblem& p, const PgmResult& result, int frame) {
  const long pixels = static_cast<long>(p.height) * p.width, at = frame * pixels;
  PgmStretch<T> q{};
  q.height = p.height;
  q.width = p.width;
  q.given = static_cast<const T*>(p.confidence) + at;
  q.labels = p.labels + at;
  q.valid = p.valid ? p.valid + (p.valid_shared ? 0 : at) : nullptr;
  q.d_map = result.d_map ? static_cast<const T*>(result.d_map) + at : nullptr;
  q.d_given = result.d_confidence ? static_cast<T*>(result.d_confidence) + at : nullptr;
  if (result.map) {
    const long plane = result.parts ? p.frames * pixels : 0;
    q.unary = static_cast<T*>(result.map) + at;
    q.vertical = q.unary + plane;
    q.horizontal = q.vertical + plane;
  }
  q.law = pgm_unary<T>(p.label_weights, p.constants);
  q.gamma = static_cast<T>(p.gamma);
  q.s = static_cast<T>(p.s);
  q.sigma = static_cast<T>(p.sigma);
  q.d_scale = pgm_d_scale<T>(p.mean, p.valid, static_cast<double>(p.frames) * pixels);
  return q;
}

template <class T>
void run_pgm(const PgmProblem& p, const PgmResult& result) {
  const int strips = (p.height + pgm_strip_rows - 1) / pgm_strip_rows;
  const long all = static_cast<long>(strips) * p.frames;
  std::vector<PgmSums> sums(static_cast<std::size_t>(all), PgmSums{});
  const long stride = (p.width + 3L * pgm_margin_columns) / pgm_margin_columns * pgm_margin_columns;
  const long pixels = static_cast<long>(p.frames) * p.height * p.width;
  const int size = static_cast<int>(
      std::clamp<long>(std::min(pixels / pixels_a_thread, all), 1, std::max(p.threads, 1)));
  const std::size_t bytes = sizeof(T) * pgm_scratch_rows * stride;
  const Block scratch(bytes * size);
  run(size, [&](const Team& team) {
    const auto share = team.share(all);
    for (long strip = share.begin; strip < share.end;) {
      const int frame = static_cast<int>(strip / strips), first = static_cast<int>(strip % strips);
      const int last = static_cast<int>(std::min<long>(strips, first + share.end - strip));
      PgmStretch<T> q = frame_of<T>(p, result, frame);
      q.begin = first * pgm_strip_rows;
      q.end = std::min(last * pgm_strip_rows, p.height);
      q.scratch = reinterpret_cast<T*>(static_cast<char*>(scratch.data()) + bytes * team.index);
      q.scratch_stride = stride;
      q.sums = sums.data() + static_cast<long>(frame) * strips;
      (p.logits ? pgm_steps<T>().logits : pgm_steps<T>().probabilities)(q);
      strip += last - first;
    }
  });
  PgmSums total{};
  for (const PgmSums& part : sums) {
    total.unary += part.unary;
    total.vertical += part.vertical;
    total.horizontal += part.horizontal;
    total.valid += part.valid;
    total.wrong += part.wrong;
  }
  total.vertical *= p.gamma;
  total.horizontal *= p.sigma;
  if (result.sums) std::copy_n(&total.unary, 5, result.sums);
  if (!result.loss) return;
  const double by = p.mean ? std::max(total.valid, 1.0) : 1.0;
  *static_cast<T*>(result.loss) =
      static_cast<T>((total.unary + total.vertical + total.horizontal) / by);
}

template <class T>
void multiply(T* gradient, long count, T scale, int threads) {
  if (scale == T(1)) return;
  run(static_cast<int>(std::clamp<long>(count / pixels_a_thread, 1, std::max(threads, 1))),
      [&](const Team& team) {
        const auto share = team.share(count);
        for (long i = share.begin; i < share.end; ++i) gradient[i] *= scale;
      });
}

}  // namespace

void pgm_scale(void* gradient, bool in_double, long count, const void* scale, int threads, void*) {
  if (in_double)
    multiply(static_cast<double*>(gradient), count, *static_cast<const double*>(scale), threads);
  else
    multiply(static_cast<float*>(gradient), count, *static_cast<const float*>(scale), threads);
}

void pgm(const PgmProblem& p, const PgmResult& result, void*) {
  p.in_double ? run_pgm<double>(p, result) : run_pgm<float>(p, result);
}

}  // namespace usconf::cpu
