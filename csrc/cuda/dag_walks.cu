// The sweeps of the DAG maps for what dag_sweeps.cu does not hold in shared memory: the published
// variant, whose edges compare pixels far apart, and very wide beams. In double, a block a frame,
// everything else read through the caches: for comparison with published maps, not for speed.
#include "dag.h"

namespace usconf::cuda {
namespace {

constexpr int threads = 512;

// exp(-t) of an edge.
__device__ double decay_of(const DagScene<double>& s, const EdgeRules<double>& law, int frame,
                           int row, int c, int k, double model) {
  const double rel =
      relative(law, gap(s, frame, row, c, k), model, s.inverse[s.row_slots(frame, row) + k]);
  return exp(-exponent(rel, law.power, s.scale[row]));
}

__global__ void __launch_bounds__(threads)
    walk_down_kernel(DagScene<double> s, Plane map, bool raw, double* rows) {
  const int frame = blockIdx.x;
  const EdgeRules<double> law = edges_of(s, frame);
  const long long plane = static_cast<long long>(s.frames) * s.width;
  double* own = rows + static_cast<long long>(frame) * s.width;
  for (int row = 0; row < s.height; ++row) {
    const double* above = own + (row + 1) % 2 * plane;
    double* here = own + row % 2 * plane;
    for (int c = threadIdx.x; c < s.width; c += blockDim.x) {
      double value = 0;
      if (s.is_valid(frame, row, c)) {
        if (s.is_source(frame, row, c)) {
          value = 1;
        } else {
          double sum = 0, beam = 0;
          const double model = s.model_of(frame, row - 1, c);
          for (int k = 0; k < s.slots(); ++k) {
            const int parent = mirrored(c + k - s.half_width, s.width);
            if (!s.is_valid(frame, row - 1, parent)) continue;
            sum += s.beam[k] * decay_of(s, law, frame, row - 1, c, k, model) * above[parent];
            beam += s.beam[k];
          }
          value = !s.valid ? sum : beam > 0 ? sum / beam : 0.0;
        }
        if (s.reference) value = min(value, s.clamp_of(frame, row));
      }
      here[c] = value;
      map.put(frame * s.pixels() + s.at(row, c),
              raw ? value : value * s.output_scale(frame, row, c));
    }
    __syncthreads();
  }
}

__global__ void __launch_bounds__(threads)
    walk_up_kernel(DagScene<double> s, Plane c_map, Plane d_map, double* above) {
  const int frame = blockIdx.x, last = 2 * s.half_width;
  const EdgeRules<double> law = edges_of(s, frame);
  double* own = above + frame * s.pixels();
  for (int row = s.height - 1; row >= 0; --row) {
    for (int j = threadIdx.x; j < s.width; j += blockDim.x) {
      double value = 0;
      if (passes_up(s, frame, row, j, c_map)) {
        value =
            d_map.get<double>(frame * s.pixels() + s.at(row, j)) * s.output_scale(frame, row, j);
        for (int q = 0; q <= last && row + 1 < s.height; ++q) {
          const int v = j - s.half_width + q, c = mirrored(v, s.width);
          const int k = backwards(v, s.width) ? q : last - q;
          const double d = own[s.at(row + 1, c)];
          if (d == 0) continue;
          value += d * s.share_of(frame, row + 1, c) * s.beam[k] *
                   decay_of(s, law, frame, row, c, k, s.model_of(frame, row, c));
        }
      }
      own[s.at(row, j)] = value;
    }
    __syncthreads();
  }
}

}  // namespace

void walk_down(const DagScene<double>& s, Plane map, bool raw, double* rows, cudaStream_t stream) {
  USCONF_LAUNCH(walk_down_kernel, s.frames, threads, 0, stream, s, map, raw, rows);
  check_launch("the walk down");
}

void walk_up(const DagScene<double>& s, Plane c, Plane d_map, double* above, cudaStream_t stream) {
  USCONF_LAUNCH(walk_up_kernel, s.frames, threads, 0, stream, s, c, d_map, above);
  check_launch("the walk up");
}

}  // namespace usconf::cuda
