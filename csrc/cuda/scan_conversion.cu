// Scan conversion on the device: one launch for a whole batch and its mask.
//
// Bytes: each input pixel that the fan shows and each output pixel once a frame, and the mask once
// a batch, which is the floor; no table of positions is read. Between 512 x 512 and a beam image of
// 512 x 256, floats: 1.2 MB a frame and 0.13 MB (to beam), 1.6 MB and 0.26 MB (to scan). The taps
// are worked out in registers once per output pixel and serve all frames of a layer; those of
// neighbouring threads overlap in the first cache. Four pixels in a row a thread, for stores of 16
// bytes, would save three stores of four and spread each load over two to four times as
// many cache lines (counted on that fan).
#include <stdexcept>
#include <string>

#include "scan_conversion.h"

namespace usconf::cuda {
namespace {

template <class T, Direction direction>
__global__ void __launch_bounds__(block_side* block_side)
    resample_kernel(Sampling s, const T* __restrict__ source, T* __restrict__ target,
                    std::uint8_t* __restrict__ mask, int frames, int frames_each) {
  using Number = typename Sum<T>::type;
  const int column = blockIdx.x * block_side + threadIdx.x;
  const int row = blockIdx.y * block_side + threadIdx.y;
  if (row >= s.rows() || column >= s.columns()) return;
  const Taps<Number> taps = taps_of<Number, direction>(s, row, column);
  const long long at = static_cast<long long>(row) * s.columns() + column;
  if (mask && blockIdx.z == 0) mask[at] = taps.valid;
  const int first = blockIdx.z * frames_each, last = min(first + frames_each, frames);
  const long long inputs = s.inputs(), outputs = s.outputs();
  source += first * inputs;
  target += first * outputs + at;
  // Unrolled: the loads of four frames are under way at once.
#pragma unroll 4
  for (int frame = first; frame < last; ++frame) {
    Number sum = 0;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const Number value = taps.weight[k] != 0 ? number(source[taps.pixel[k]]) : Number(0);
      sum += taps.weight[k] * value;
    }
    *target = as_pixel<T>(sum);
    source += inputs;
    target += outputs;
  }
}

template <class T>
void resample(const Sampling& s, const ScanConversion& c, int frames, cudaStream_t stream) {
  const dim3 once = blocks_over(s, 1);
  const Layers layers = layers_for(static_cast<long long>(once.x) * once.y, frames);
  const dim3 grid = blocks_over(s, layers.count), block = block_shape();
  const T* source = static_cast<const T*>(c.source);
  T* target = static_cast<T*>(c.target);
  if (s.to_beam())
    USCONF_LAUNCH((resample_kernel<T, Direction::to_beam>), grid, block, 0, stream, s, source,
                  target, c.mask, frames, layers.frames_each);
  else
    USCONF_LAUNCH((resample_kernel<T, Direction::to_scan>), grid, block, 0, stream, s, source,
                  target, c.mask, frames, layers.frames_each);
  check_launch("scan conversion");
}

void resample_any(const Sampling& s, const ScanConversion& c, int frames, cudaStream_t stream) {
  switch (c.scalar) {
    case Scalar::u8:
      return resample<std::uint8_t>(s, c, frames, stream);
    case Scalar::u16:
      return resample<std::uint16_t>(s, c, frames, stream);
    case Scalar::i16:
      return resample<std::int16_t>(s, c, frames, stream);
    case Scalar::f16:
      return resample<Half>(s, c, frames, stream);
    case Scalar::f32:
      return resample<float>(s, c, frames, stream);
    case Scalar::f64:
      return resample<double>(s, c, frames, stream);
  }
}

void refuse(const Sampling& s) {
  // Taps are 32-bit numbers of pixels; the table of the transposed operator counts to 4 times that.
  constexpr long long most = 1 << 29;
  if (s.inputs() >= most || s.outputs() >= most)
    throw std::invalid_argument(
        "image must have less than 2^29 pixels on a CUDA device, for both shapes, got " +
        std::to_string(s.inputs()) + " and " + std::to_string(s.outputs()) +
        "; move it to the CPU");
  constexpr int most_rows = 65535 * block_side;
  if (s.rows() > most_rows)
    throw std::invalid_argument("image must have at most " + std::to_string(most_rows) +
                                " rows on a CUDA device, got " + std::to_string(s.rows()) +
                                "; move it to the CPU");
}

}  // namespace

void scan_conversion(const ScanConversion& c, void* stream) {
  const Sampling s(c);
  refuse(s);
  if (s.outputs() == 0 || s.inputs() == 0) return;
  const auto queue = static_cast<cudaStream_t>(stream);
  if (!c.transpose) return resample_any(s, c, c.frames, queue);
  if (c.mask) resample_any(s, c, 0, queue);  // the mask alone
  if (c.frames > 0) transposed_scan_conversion(s, c, queue);
}

}  // namespace usconf::cuda
