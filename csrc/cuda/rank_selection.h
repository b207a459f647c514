// The k-th smallest of many numbers, by a block.
#pragma once

#include <cstring>

#include "launch.h"

namespace usconf::cuda {

__device__ __forceinline__ unsigned long long bits_of(double v) {
  unsigned long long bits;
  memcpy(&bits, &v, 8);
  return bits;
}

// The bin of a histogram of 256 that a rank falls into, and its rank there. By one warp.
struct Bin {
  int digit, rank;
};
__device__ inline Bin bin_of(const int* histogram, int rank) {
  constexpr int each = 256 / warp;
  const int lane = threadIdx.x % warp;
  int own = 0;
  for (int i = 0; i < each; ++i) own += histogram[lane * each + i];
  int upto = own;
  for (int by = 1; by < warp; by *= 2) {
    const int other = __shfl_up_sync(all_lanes, upto, by);
    if (lane >= by) upto += other;
  }
  int digit = lane * each, rest = rank - (upto - own);
  const bool here = rest >= 0 && rank < upto;
  while (here && rest >= histogram[digit]) rest -= histogram[digit++];
  // One lane alone holds the rank.
  return {warp_sum(here ? digit : 0), warp_sum(here ? rest : 0)};
}

// Shared memory of a block for the selection.
struct Selection {
  int histogram[256];
  unsigned long long prefix;
  int left;
  bool more;
};

// The value of the given rank among those that are not negative, by digits of 8 bits from the top
// until one value alone is left; every thread returns it. `more` is read before the barriers that
// lie in front of its next change. Bits of non-negative doubles have the order of their values.
__device__ inline double select(Selection& shared, const double* values, int count, int rank) {
  if (threadIdx.x == 0) shared.prefix = 0, shared.left = rank, shared.more = true;
  int shift = 64;
  do {
    shift -= 8;
    for (int i = threadIdx.x; i < 256; i += blockDim.x) shared.histogram[i] = 0;
    __syncthreads();
    const unsigned long long known = shared.prefix;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
      if (values[i] < 0) continue;
      const unsigned long long bits = bits_of(values[i]);
      if (shift == 56 || (bits ^ known) >> (shift + 8) == 0)
        atomicAdd(&shared.histogram[bits >> shift & 255], 1);
    }
    __syncthreads();
    if (threadIdx.x < warp) {
      const Bin found = bin_of(shared.histogram, shared.left);
      __syncwarp();
      if (threadIdx.x == 0) {
        shared.left = found.rank;
        shared.prefix = known | static_cast<unsigned long long>(found.digit) << shift;
        shared.more = shift > 0 && shared.histogram[found.digit] > 1;
      }
    }
    __syncthreads();
  } while (shared.more);
  const unsigned long long known = shared.prefix;
  __syncthreads();
  for (int i = threadIdx.x; i < count; i += blockDim.x)
    if (values[i] >= 0 && (bits_of(values[i]) ^ known) >> shift == 0)
      shared.prefix = bits_of(values[i]);
  __syncthreads();
  double found;
  const unsigned long long bits = shared.prefix;
  memcpy(&found, &bits, 8);
  return found;
}

}  // namespace usconf::cuda
