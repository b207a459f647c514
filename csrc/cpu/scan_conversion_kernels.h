// Kernels of scan conversion: runs of output pixels through a table of footprints, and the
// transposed operator as sums over a table of its own.
#pragma once

#include <cstdint>

#include "../kernels.h"
#include "isa.h"

namespace usconf::cpu {

// Entries of a run start at multiples of this and are followed by copies of its last one up to the
// next multiple, so that every vector of a table is whole.
constexpr int run_padding = 16;

// Output pixels [begin, begin + length) with table entries [entry, entry + length); the pixels
// before, from zero_from on, are invalid.
struct ScanRun {
  std::int64_t zero_from, begin, entry;
  std::int64_t border, border_end;  // pixels of the run that the border table does again
  int length;
};

// A pixel with weights of its own: some of its footprint was left out.
template <class W>
struct BorderPixel {
  std::int64_t pixel;
  std::int32_t index;
  W weight[4];
};

// W: double for double images, else float. index: first pixel of the footprint, or (nearest) the
// pixel itself; right and down: the share of the way to the second column and row.
template <class W>
struct ScanTable {
  const std::int32_t* index;
  const W *right, *down;
  const BorderPixel<W>* border;
};

// Pixels to the second column and row of a footprint; 0 where the image has one only.
struct FootprintSteps {
  std::int64_t right, down;
};

// target[i] = sum of weight[k] source[index[k]], k in [start[i], start[i + 1])
template <class W>
struct TransposedTable {
  const std::int64_t* start;
  const std::int32_t* index;
  const W* weight;
};

struct ScanConversionKernels {
  // One frame through `count` runs. table: ScanTable of the type that goes with the scalar.
  using Bilinear = void (*)(const void* table, const ScanRun* runs, std::int64_t count,
                            FootprintSteps steps, const void* source, void* target);
  using Nearest = void (*)(const std::int32_t* index, const ScanRun* runs, std::int64_t count,
                           const void* source, void* target);
  // Target pixels [begin, end).
  using Transposed = void (*)(const void* table, std::int64_t begin, std::int64_t end,
                              const void* source, void* target);
  Bilinear bilinear[6];      // by Scalar
  Nearest nearest[6];        // by Scalar
  Transposed transposed[6];  // by Scalar; null: integers
};

USCONF_DECLARE_TABLE(ScanConversionKernels, scan_conversion_kernels)

}  // namespace usconf::cpu
