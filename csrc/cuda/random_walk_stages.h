// The stages of the random walk on the device, each a few launches on the caller's stream; none
// waits for the host. All arrays are device memory; frames lie one after another in each of them.
#pragma once

#include "../kernels.h"
#include "../math/random_walk.h"
#include "dissection.h"

namespace usconf::cuda {

// What the kernels need to know about a batch of frames of one problem.
struct Scene {
  const void* image;  // (frames, height, width) of `scalar`
  Scalar scalar;
  int frames, height, width;
  const std::uint8_t* labels;  // (frames or 1, height, width); null: row 0 source, last row sink
  long long label_stride;      // 0: one plane for all frames
  int top, rows;               // the rectangle of unknowns: rows top .. top + rows - 1, all columns
  double alpha, beta, gamma;
  int variant;
  bool normalise;

  __host__ __device__ long long pixels() const { return static_cast<long long>(height) * width; }
  __host__ __device__ long long unknowns() const { return static_cast<long long>(rows) * width; }
  __device__ Label label(int frame, int row, int column) const {
    if (!labels) return row == 0 ? Label::source : row == height - 1 ? Label::sink : Label::free;
    return static_cast<Label>(
        labels[frame * label_stride + static_cast<long long>(row) * width + column]);
  }
  // Part of the image, and not outside its mask.
  __device__ bool valid(int frame, int row, int column) const {
    return row >= 0 && row < height && column >= 0 && column < width &&
           (!labels || label(frame, row, column) != Label::outside);
  }
};

// The eight neighbours: right, below, below right, below left, then their opposites.
struct Step {
  int row, column;
};
__device__ __forceinline__ Step step_to(int k) {
  const int sign = k < 4 ? 1 : -1;
  const int column = k % 4 == 1 ? 0 : k % 4 == 3 ? -1 : 1;
  return {k % 4 == 0 ? 0 : sign, sign * column};
}
__device__ __forceinline__ int kind_of(int k) {
  return static_cast<int>(k % 4 == 1 ? EdgeKind::vertical : EdgeKind::lateral);
}

// Weights between the unknowns and to the seeds: six planes (rows, width) a frame, in the order
// right, below, below right, below left, source, sink. Zero at pixels that are no unknowns.
template <class T>
struct Weights {
  static constexpr int planes = 6, source = 4, sink = 5;
  T* data;
  int rows, columns;

  __device__ long long index(int frame, int plane, int row, int column) const {
    return ((static_cast<long long>(frame) * planes + plane) * rows + row) * columns + column;
  }
  __device__ bool inside(int row, int column) const {
    return row >= 0 && row < rows && column >= 0 && column < columns;
  }
  // Of the edge from a pixel to its neighbour k; 0 where either lies outside the rectangle.
  __device__ T edge(int frame, int row, int column, int k) const {
    const Step s = step_to(k);
    if (!inside(row, column) || !inside(row + s.row, column + s.column)) return T(0);
    if (k >= 4) row += s.row, column += s.column;
    return data[index(frame, k % 4, row, column)];
  }
  __device__ T seed(int frame, int plane, int row, int column) const {
    return inside(row, column) ? data[index(frame, plane, row, column)] : T(0);
  }
};

// Of a frame: extremes of the image (step 1), largest differences by kind (step 3; negative: no
// edge).
struct FrameFacts {
  double low, high;
  double max_difference[2];
  EdgeLaw law;
};

// Steps 1 to 3 and the constants of steps 4 and 5: attenuated (frames, height, width), facts
// (frames). scratch: 4 numbers a frame.
void attenuate(const Scene& scene, double* attenuated, FrameFacts* facts,
               unsigned long long* scratch, cudaStream_t stream);
// Steps 4, 5 and 7. exact: null, or the same weights in double.
void weigh(const Scene& scene, const double* attenuated, const FrameFacts* facts,
           Weights<float> weights, const Weights<double>* exact, cudaStream_t stream);
// edges (frames, 4, height, width).
void weigh_edges(const Scene& scene, const double* attenuated, const FrameFacts* facts,
                 double* edges, cudaStream_t stream);

// Where the solver keeps its numbers; strides are floats from frame to frame.
struct Storage {
  const Node* nodes;
  float* factor;
  long long factor_stride;
  float* update;
  long long update_stride;
  float* vector;
  long long vector_stride;
};

// Eliminates all unknowns.
void eliminate_tiles(const Dissection& tree, const Storage& storage, Weights<float> weights,
                     int frames, cudaStream_t stream);
void eliminate_fronts(const Dissection& tree, const Storage& storage, Weights<float> weights,
                      int frames, cudaStream_t stream);
// Sweeps over planes (frames, rows, columns). Forward: right-hand side -> values kept in `vector`.
// Backward: x = the solution; from_source: the right-hand side is the coupling to the source, no
// forward sweep needed.
void forward_tiles(const Dissection& tree, const Storage& storage, const float* residual,
                   int frames, cudaStream_t stream);
void forward_fronts(const Dissection& tree, const Storage& storage, const float* residual,
                    int frames, cudaStream_t stream);
void backward_fronts(const Dissection& tree, const Storage& storage, float* x, bool from_source,
                     int frames, cudaStream_t stream);
void backward_tiles(const Dissection& tree, const Storage& storage, float* x, bool from_source,
                    int frames, cudaStream_t stream);

// Refinement in flux form on planes (frames, rows, columns) of the rectangle.
// x (+)= step.
void advance(double* x, const float* step, bool first, long long count, cudaStream_t stream);
// residual_i = right_i + sum_j w_ij (x_j - x_i) - (source_i + sink_i) x_i; right null: source_i.
void flux_residual(Weights<float> weights, const Weights<double>* exact, const double* x,
                   const double* right, float* residual, int frames, cudaStream_t stream);
// Right-hand side of the adjoint: d_map (float or double) at the unknowns, 0 elsewhere.
void gather_upstream(const Scene& scene, const void* d_map, bool is_double, double* right,
                     cudaStream_t stream);
// The map: x at the unknowns, seeds and outside pixels as labelled.
void write_map(const Scene& scene, const FrameFacts* facts, const double* x, void* map,
               bool is_double, cudaStream_t stream);

// The chain from dLoss/dw to the image and the parameters (spec of edge_derivative). adjoint: plane
// of the rectangle; partial: gradient_partials(scene) numbers; d_intensity (frames, height, width).
struct GradientWork {
  const double* attenuated;
  const FrameFacts* facts;
  const double* adjoint;
  const void* map;
  bool is_double;
  double* partial;
  double* chain;  // chain_numbers a frame
  double* d_intensity;
};
constexpr int chain_numbers = 16;
std::size_t gradient_partials(const Scene& scene);
// Adds to d_parameters; d_image may be null.
void differentiate(const Scene& scene, const GradientWork& work, void* d_image,
                   double* d_parameters, cudaStream_t stream);

}  // namespace usconf::cuda
