// Scan conversion on the CPU: whole frames through the plan's tables.
#include "scan_conversion.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "threads.h"

namespace usconf::cpu {
namespace {

// Pixels a thread must have to be worth waking: 10 us of work.
constexpr std::int64_t pixels_per_thread = 16384;
constexpr std::int64_t transposed_piece = 4096;  // pixels
// Frames that one thread takes through a piece, whose table then comes from the second cache.
constexpr int frames_per_pass = 16;

std::size_t bytes_per_pixel(Scalar scalar) {
  constexpr std::size_t sizes[] = {1, 2, 2, 2, 4, 8};
  return sizes[static_cast<int>(scalar)];
}

// Calls work(piece) for pieces [0, count) on as many threads as pay; who is free takes the next.
template <class F>
void for_each_piece(std::int64_t count, std::int64_t pixels, int threads, F work) {
  const std::int64_t most = std::max<std::int64_t>(1, pixels / pixels_per_thread);
  const int size = static_cast<int>(std::min({std::int64_t{threads}, most, count}));
  std::atomic<std::int64_t> next{0};
  run(size, [&](const Team&) {
    for (std::int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) work(i);
  });
}

void write_mask(const ScanPlan& plan, std::uint8_t* mask) {
  for (const ScanRun& r : plan.runs) {
    std::memset(mask + r.zero_from, 0, r.begin - r.zero_from);
    std::memset(mask + r.begin, 1, r.length);
  }
}

// Rows are crossed slantwise, which the processor's own prefetching does not see through. The lines
// of a piece are asked for in order first: batches beyond the caches take half the time (one frame,
// which the caches mostly hold already, would take a tenth more).
void prefetch(const char* begin, const char* end) {
  for (; begin < end; begin += 64) __builtin_prefetch(begin, 0, 2);
}

// convert(first run, number of runs, source frame, target frame)
template <class F>
void for_each_frame(const ScanConversion& c, const ScanPlan& plan, F convert) {
  const std::size_t pixel = bytes_per_pixel(c.scalar);
  const std::size_t source_bytes = plan.key.source_pixels() * pixel;
  const std::size_t target_bytes = plan.key.pixels() * pixel;
  const auto* source = static_cast<const char*>(c.source);
  auto* target = static_cast<char*>(c.target);
  const std::int64_t count = static_cast<std::int64_t>(plan.pieces.size());
  const std::int64_t passes = (c.frames + frames_per_pass - 1) / frames_per_pass;
  for_each_piece(count * passes, plan.entries * c.frames, c.threads, [&](std::int64_t i) {
    const ScanPiece& p = plan.pieces[i % count];
    const int frame = static_cast<int>(i / count) * frames_per_pass;
    const int end = std::min(frame + frames_per_pass, c.frames);
    for (int f = frame; f < end; ++f) {
      const char* from = source + f * source_bytes;
      if (c.frames > 1) prefetch(from + p.source_begin * pixel, from + p.source_end * pixel);
      convert(&plan.runs[p.run], p.runs, from, target + f * target_bytes);
    }
  });
}

void forward(const ScanConversion& c, const ScanPlan& plan) {
  const ScanPlanKey& key = plan.key;
  if (c.mask) write_mask(plan, c.mask);
  const int scalar = static_cast<int>(c.scalar);
  if (key.nearest) {
    const auto kernel = scan_conversion_kernels().nearest[scalar];
    const auto* index = plan.index.as<std::int32_t>();
    return for_each_frame(c, plan, [&](auto* runs, auto count, auto* source, auto* target) {
      kernel(index, runs, count, source, target);
    });
  }
  const auto kernel = scan_conversion_kernels().bilinear[scalar];
  const FootprintSteps steps{key.source_columns() > 1 ? 1 : 0,
                             key.source_rows() > 1 ? key.source_columns() : 0};
  const auto with = [&](const auto& table) {
    for_each_frame(c, plan, [&](auto* runs, auto count, auto* source, auto* target) {
      kernel(&table, runs, count, steps, source, target);
    });
  };
  key.wide ? with(plan.table<double>()) : with(plan.table<float>());
}

void transposed(const ScanConversion& c, const ScanPlan& plan) {
  const auto kernel = scan_conversion_kernels().transposed[static_cast<int>(c.scalar)];
  const std::size_t pixel = bytes_per_pixel(c.scalar);
  const std::int64_t n = plan.key.source_pixels();
  const std::int64_t count = (n + transposed_piece - 1) / transposed_piece;
  const auto* source = static_cast<const char*>(c.source);
  auto* target = static_cast<char*>(c.target);
  const auto with = [&](const auto& table) {
    for_each_piece(count, plan.entries * c.frames / 4, c.threads, [&](std::int64_t i) {
      const std::int64_t begin = i * transposed_piece, end = std::min(begin + transposed_piece, n);
      for (int f = 0; f < c.frames; ++f)
        kernel(&table, begin, end, source + f * plan.key.pixels() * pixel, target + f * n * pixel);
    });
  };
  plan.key.wide ? with(plan.transposed_table<double>()) : with(plan.transposed_table<float>());
}

}  // namespace

void scan_conversion(const ScanConversion& c, void*) {
  const ScanPlanKey key(c);
  if (key.pixels() == 0 || key.source_pixels() == 0) return;
  const auto plan = scan_plan_for(key, c.threads);
  c.transpose ? transposed(c, *plan) : forward(c, *plan);
}

}  // namespace usconf::cpu
