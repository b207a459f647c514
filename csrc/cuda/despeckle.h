// What the ways of despeckling share on the device.
#pragma once

#include "frame_range.h"

namespace usconf::cuda {

inline bool empty(const DespeckleProblem& p) {
  return p.frames == 0 || p.height == 0 || p.width == 0;
}

// Where the result of frame `first` begins.
inline void* result_at(void* result, const DespeckleProblem& p, int first) {
  const std::size_t pixels = static_cast<std::size_t>(p.height) * p.width * first;
  return static_cast<char*>(result) + pixels * (p.double_result ? sizeof(double) : sizeof(float));
}

}  // namespace usconf::cuda
