// The stages of the DAG maps on the device, each a few launches on the caller's stream; none waits
// for the host. All arrays are device memory; frames lie one after another in each of them.
//
// rel is a quotient of differences, so a frame is not brought to [0, 1] first: f holds its pixels
// as they are, times a power of two, and `floor` the published 1e-4 in their unit. A float then
// holds every difference to its own rounding, however flat the image is.
#pragma once

#include <cmath>

#include "../math/dag.h"
#include "frame_range.h"

namespace usconf::cuda {

struct FrameLaw {
  double unit;     // f = pixel * unit
  double floor;    // 1e-4 of the range, in units of f
  double highest;  // largest D of the frame's edges; only where there is a needle
  Range range;     // of the pixels
};

// What the kernels know about a batch of frames.
template <class T>
struct DagScene {
  int frames, height, width, half_width, variant;
  double power, var;
  T* f;                       // (frames, height, width), 0 where invalid
  const std::uint8_t* valid;  // (frames or 1, height, width); null: all
  long long valid_stride;
  int* first;  // (frames or 1, width) first valid row of each column; only with a mask
  long long first_stride;
  const double* reference;  // (frames or 1, height) or null
  long long reference_stride;
  const float *needle, *artifact;  // (frames or 1, height, width) or null
  long long model_stride;
  FrameLaw* law;  // (frames)
  T* inverse;     // (frames, height - 1, slots) 1 / mean D
  T* largest;     // (frames, height - 1) largest rel of the row
  T* top;         // (frames, height - 1) largest D of the row
  T* scale;       // (height - 1) x d_r
  T* beam;        // (slots) g, of a child all of whose edges exist
  T* share;       // (frames or 1, height, width) by which a mask changes g; for the gradient
  T* slope;       // (frames or 1, height, width) mean of d log bell / d var over a child's edges

  __host__ __device__ int slots() const { return 2 * half_width + 1; }
  __host__ __device__ long long pixels() const { return static_cast<long long>(height) * width; }
  __host__ __device__ long long row_slots(int frame, int row) const {
    return (static_cast<long long>(frame) * (height - 1) + row) * slots();
  }
  __host__ __device__ bool plain() const {
    return !valid && !reference && !needle && !artifact && power == 1.0 && variant == 0;
  }
  __device__ long long at(int row, int column) const {
    return static_cast<long long>(row) * width + column;
  }
  __device__ bool is_valid(int frame, int row, int column) const {
    return !valid || valid[frame * valid_stride + at(row, column)];
  }
  __device__ bool is_source(int frame, int row, int column) const {
    return row == (valid ? first[frame * first_stride + column] : 0);
  }
  __device__ T pixel(int frame, int row, int column) const {
    return f[frame * pixels() + at(row, column)];
  }
  __device__ T share_of(int frame, int row, int column) const {
    return valid ? share[frame * valid_stride + at(row, column)] : T(1);
  }
  __device__ double clamp_of(int frame, int row) const {
    return reference ? reference[frame * reference_stride + row] : 1.0;
  }
  __device__ double output_scale(int frame, int row, int column) const {
    const double covered = artifact ? artifact[frame * model_stride + at(row, column)] : 0.0;
    return dag_output_scale(clamp_of(frame, row), covered);
  }
  // The artifact's and the needle's rules hold for all edges (r, c, .) alike: a child that is NaN
  // makes rel 1, an infinite one makes D the largest of the frame.
  __device__ T model_of(int frame, int row, int column) const {
    const long long i = frame * model_stride + at(row, column);
    if (artifact && artifact[i] > dag_artifact_level) return static_cast<T>(NAN);
    const bool top =
        needle && dag_needle_top(row > 0 ? needle[i - width] : 0.0f, needle[i + width]);
    return top ? static_cast<T>(INFINITY) : T(0);
  }
  // The child (row + 1, column) as its edges (row, column, .) compare it.
  __device__ T child(int frame, int row, int column) const {
    return pixel(frame, row + 1, column) + model_of(frame, row, column);
  }
};

// Values that the edges of a frame share.
template <class T>
struct EdgeRules {
  T floor, highest, power;
};

template <class T>
__device__ __forceinline__ EdgeRules<T> edges_of(const DagScene<T>& s, int frame) {
  const FrameLaw& l = s.law[frame];
  return {static_cast<T>(l.floor), static_cast<T>(l.highest), static_cast<T>(s.power)};
}

template <class T>
__device__ __forceinline__ T absolute(T v) {
  return v < 0 ? -v : v;
}

// The relative gradient of an edge; model: of its child, or any sum with the child's pixel.
template <class T>
__device__ __forceinline__ T relative(const EdgeRules<T>& law, T difference, T model, T inverse) {
  if (model != model) return T(1);
  return (isinf(model) ? law.highest : absolute(difference) + law.floor) * inverse;
}

// rel^power
__device__ __forceinline__ float raised(float rel, float power) {
  return power == 1.0f ? rel : exp2f(power * log2f(rel));
}
__device__ __forceinline__ double raised(double rel, double power) {
  return power == 1.0 ? rel : pow(rel, power);
}
// x d_r rel^power; a scale of 0 (xi = 1) stays 0 also where the power overflows.
template <class T>
__device__ __forceinline__ T exponent(T rel, T power, T scale) {
  return scale > 0 ? scale * raised(rel, power) : T(0);
}
__device__ __forceinline__ float loss_of(float t) { return -expm1f(-t); }
__device__ __forceinline__ double loss_of(double t) { return -expm1(-t); }

// The column that slot k leads from, and the other way round: parent j reaches the child of virtual
// column v = j - R + q through slot 2 R - q, and q where v is mirrored into the image backwards.
__device__ __forceinline__ int mirrored(int v, int width) {
  return static_cast<unsigned>(v) < static_cast<unsigned>(width) ? v : dag_mirror(v, width);
}
__device__ __forceinline__ bool backwards(int v, int width) {
  if (static_cast<unsigned>(v) < static_cast<unsigned>(width)) return false;
  return (v < 0 ? (v + 1) / width - 1 : v / width) & 1;
}

// one - other of an edge, without the model's rules.
template <class T>
__device__ __forceinline__ T gap(const DagScene<T>& s, int frame, int row, int c, int k) {
  if (s.variant == 0)
    return s.pixel(frame, row, mirrored(c + k - s.half_width, s.width)) -
           s.pixel(frame, row + 1, c);
  const DagPixels p = dag_pixels(s.variant, row, c, k, s.half_width, s.height, s.width);
  return s.pixel(frame, p.one_row, p.one_column) - s.pixel(frame, p.other_row, p.other_column);
}

// A map that is either float or double; T: the type computed in.
struct Plane {
  void* data;
  bool is_double;
  template <class T>
  __device__ void put(long long i, T v) const {
    if (is_double)
      static_cast<double*>(data)[i] = v;
    else
      static_cast<float*>(data)[i] = static_cast<float>(v);
  }
  template <class T>
  __device__ T get(long long i) const {
    return is_double ? static_cast<T>(static_cast<const double*>(data)[i])
                     : static_cast<T>(static_cast<const float*>(data)[i]);
  }
};

// Whether what reaches a pixel from below goes on to its parents. c: raw C.
template <class T>
__device__ __forceinline__ bool passes_up(const DagScene<T>& s, int frame, int row, int column,
                                          const Plane& c) {
  if (!s.is_valid(frame, row, column) || s.is_source(frame, row, column)) return false;
  return !s.reference ||
         c.get<T>(frame * s.pixels() + s.at(row, column)) < static_cast<T>(s.clamp_of(frame, row));
}

// Everything that depends on the image only: f, the laws, the row means, and what a mask implies
// (shares: also share and slope). Fills the arrays of the scene.
template <class T>
void prepare_dag(const DagScene<T>& s, const Frames& frames, bool normalise, const DagDecay& decay,
                 double alpha, bool shares, unsigned long long* scratch, Range* ranges,
                 cudaStream_t stream);

// The recurrence. raw: C itself, else what the operator returns. rows: 2 planes (frames, width).
template <class T>
void sweep_down(const DagScene<T>& s, Plane map, bool raw, T* rows, cudaStream_t stream);
// Its reverse: from d_map to `above`, (frames, height, width), what reaches each child from below
// (0 for sources, invalid and clamped pixels). c: raw C.
template <class T>
void sweep_up(const DagScene<T>& s, Plane c, Plane d_map, T* above, cudaStream_t stream);

// The same two for any variant and half width, one block a frame. rows: 2 planes (frames, width).
void walk_down(const DagScene<double>& s, Plane map, bool raw, double* rows, cudaStream_t stream);
void walk_up(const DagScene<double>& s, Plane c, Plane d_map, double* above, cudaStream_t stream);

// Largest half width that the sweeps' shared memory holds.
constexpr int most_half_width = 64;

// From `above` to the derivatives.
constexpr int dag_row_sums = 5;   // a row's sums over its edges
constexpr int dag_chain = 8;      // a frame's sums
constexpr int dag_partials = 64;  // blocks that sum over a frame's pixels
constexpr int dag_partial_sums = 4;

template <class T>
struct DagGradient {
  Plane c;         // raw C
  const T* above;  // of sweep_up
  DagDecay decay;
  double alpha;
  double slope;       // d log of the beam's sum / d var, of a child all of whose edges exist
  double* slot_sums;  // (frames, height - 1, slots) sum of d_rel rel / edges
  double* row_sums;   // (frames, height - 1, dag_row_sums)
  double* d_plain;    // (frames, height, width) by the pixels, their range held fixed
  double* chain;      // (frames, dag_chain)
  double* partial;    // (frames, dag_partials, dag_partial_sums)
};

// Adds to d_parameters; either result may be null.
template <class T>
void differentiate_dag(const DagScene<T>& s, const Frames& frames, bool normalise,
                       const DagGradient<T>& g, Plane d_image, double* d_parameters,
                       cudaStream_t stream);

}  // namespace usconf::cuda
