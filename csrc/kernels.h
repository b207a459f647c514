// What the core offers, equal for both devices: plain pointers and sizes. Frames are stored one
// after another, rows = depth, columns = scanlines.
#pragma once

#include <cstddef>
#include <cstdint>

#include "math/scan_conversion.h"

namespace usconf {

enum class Scalar : int { u8 = 0, u16 = 1, i16 = 2, f16 = 3, f32 = 4, f64 = 5 };
enum class Label : std::uint8_t { free = 0, source = 1, sink = 2, outside = 3 };
enum class Solver : int { direct = 0, iterative = 1 };

struct RandomWalkProblem {
  const void* image;  // (frames, height, width) of `scalar`
  Scalar scalar;
  int frames, height, width;
  const std::uint8_t*
      labels;          // (frames or 1, height, width) of Label; null: row 0 source, last row sink
  bool labels_shared;  // one label plane for all frames
  int top, bottom;     // rows [top, bottom) may hold unknowns; all other rows are seeds
  double alpha, beta, gamma;
  int variant;     // see edge_law
  bool normalise;  // step 1; false: the image is g already (mode RF)
};

struct RandomWalkReport {
  int steps;          // refinement steps (direct) or iterations (iterative), largest of all frames
  double correction;  // last correction max|dx| of the worst frame: bounds the map's error
};

struct RandomWalkOptions {
  Solver solver;
  bool double_map;  // map, d_map and d_image are double, and refined to double accuracy; else float
  int threads;      // CPU only
  // Called now and then from the calling thread (null: never); may throw to end the work early.
  void (*checkpoint)();
};

// Equal signatures on both devices; `stream` is the CUDA stream, null on the CPU.
// A factor (direct solver only) is an opaque block of factor_bytes() per frame, 64-byte aligned.
#define USCONF_RANDOM_WALK_OPERATOR                                                               \
  std::size_t random_walk_factor_bytes(const RandomWalkProblem&);                                 \
  /* Peak bytes the call takes beside its arguments; the factor, kept or not, included. */        \
  std::size_t random_walk_memory(const RandomWalkProblem&, const RandomWalkOptions&);             \
  /* map (frames, height, width); factor: null, or where to keep the factors for the backward. */ \
  RandomWalkReport random_walk(const RandomWalkProblem&, const RandomWalkOptions&, void* map,     \
                               void* factor, void* stream);                                       \
  /* map: the forward's result; factor: the forward's, or null to eliminate again;                \
     d_image like map (null: not wanted); d_parameters 3 doubles alpha, beta, gamma, summed over  \
     frames. */                                                                                   \
  void random_walk_backward(const RandomWalkProblem&, const RandomWalkOptions&, const void* map,  \
                            const void* factor, const void* d_map, void* d_image,                 \
                            double* d_parameters, void* stream);                                  \
  /* edges (frames, 4, height, width): weights right, below, below-right, below-left of every     \
     pixel (0 where the edge leaves the image or touches an outside pixel); labels only mark      \
     outside. */                                                                                  \
  void random_walk_edges(const RandomWalkProblem&, const RandomWalkOptions&, double* edges,       \
                         void* stream);                                                           \
  /* Frees cached plans and workspaces. */                                                        \
  void clear_cache();

struct ScanConversion {
  Direction direction;
  bool nearest;    // the heaviest pixel of each footprint, instead of their mean
  bool transpose;  // apply the transposed operator: f16, f32, f64 only
  Scalar scalar;
  int frames;
  BeamGeometry geometry;
  int samples, lines, height, width;  // of the beam image, of the scan image
  // to_beam: source (frames, height, width), target (frames, samples, lines); to_scan: the other
  // way round; transpose: the two exchanged.
  const void* source;
  void* target;
  std::uint8_t* mask;  // one plane of the forward target: 1 valid, 0 not; null: not wanted
  int threads;         // CPU only
};

#define USCONF_SCAN_CONVERSION_OPERATOR                                             \
  /* Invalid pixels of the target become 0; integers are rounded to the nearest. */ \
  void scan_conversion(const ScanConversion&, void* stream);

struct DagProblem {
  const void* image;  // (frames, height, width) of `scalar`
  Scalar scalar;
  int frames, height, width;
  const std::uint8_t* valid;  // (frames or 1, height, width), nonzero = valid; null: all
  bool valid_shared;          // one plane for all frames
  double xi, alpha, var, power;
  int half_width;
  int variant;              // 0 corrected, 1 hung2021 (takes no mask); see dag_pixels
  bool normalise;           // scale each frame's valid pixels to [0, 1]; false: the image is f
  const double* reference;  // (frames or 1, height): what C is clamped to and divided by; or null
  bool reference_shared;
  const float* needle;    // (frames or 1, height, width), or null
  const float* artifact;  // likewise
  bool artifact_shared;   // one needle and one artifact for all frames
};

struct DagOptions {
  bool double_map;  // map, d_map and d_image are double; else float
  int threads;      // CPU only
};

#define USCONF_DAG_OPERATOR                                                                     \
  /* map (frames, height, width) */                                                             \
  void dag(const DagProblem&, const DagOptions&, void* map, void* stream);                      \
  /* map: the forward's result; d_image like map (null: not wanted); d_parameters 4 doubles xi, \
     alpha, var, power, summed over frames (null: not wanted). */                               \
  void dag_backward(const DagProblem&, const DagOptions&, const void* map, const void* d_map,   \
                    void* d_image, double* d_parameters, void* stream);

struct DespeckleProblem {
  const void* image;  // (frames, height, width) of `scalar`
  Scalar scalar;
  int frames, height, width;
  const std::uint8_t* valid;  // (frames or 1, height, width), nonzero = valid; null: all
  bool valid_shared;
  int roi[4];        // rows [0], [1) and columns [2], [3) that q0 is taken from; roi[1] = 0: robust
  int iterations;    // at most
  double tolerance;  // stop once mean((E_new - E)^2) is no larger
  double step;       // 0.1 as published
  bool double_result;  // result is double, else float
  int threads;         // CPU only
};

#define USCONF_DESPECKLE_OPERATOR                                                            \
  /* Diffused image in the range of the input, (frames, height, width); how many iterations  \
     each frame took. */                                                                     \
  void srad(const DespeckleProblem&, void* result, int* iterations_done, void* stream);      \
  /* Median of the valid pixels of each size x size window, borders replicated; size odd, at \
     most 15. */                                                                             \
  void median(const DespeckleProblem&, int size, void* result, void* stream);

struct PgmProblem {
  const void* confidence;  // (frames, height, width) float or, in_double, double
  bool in_double;
  bool logits;  // confidence is sigmoid of what is given
  int frames, height, width;
  const std::uint8_t* labels;  // (frames, height, width): 0 None, 1 Good, 2 Bad
  const std::uint8_t* valid;   // (frames or 1, height, width), nonzero = valid; null: all
  bool valid_shared;
  double gamma, s, sigma;
  double label_weights[3];  // of the unary terms: None, Good, Bad
  bool constants;           // whether ln 5 and ln B count
  bool mean;                // loss is divided by the number of valid pixels; see d_confidence
  int threads;              // CPU only
};

// What is wanted; null where it is not. All but sums is of the type of the confidence.
struct PgmResult {
  void* loss;    // 1
  double* sums;  // 5: unary, vertical, horizontal, valid pixels, wrong labels or probabilities
  // Like confidence: derivative of sum(d_map map), which `mean` divides only where all is valid:
  // behind a mask the number of valid pixels is not known before the last of them is.
  void* d_confidence;
  const void* d_map;  // like confidence; null: 1. The sums above are weighted with it
  void* map;          // like confidence, a pair on its lower or right pixel; or (3, ...) by parts
  bool parts;
};

#define USCONF_PGM_OPERATOR /* Value and derivative in one pass. */                            \
  void pgm(const PgmProblem&, const PgmResult&, void* stream);                                 \
  /* gradient *= *scale, floats or, in_double, doubles; where it is 1 memory is left alone. */ \
  void pgm_scale(void* gradient, bool in_double, long count, const void* scale, int threads,   \
                 void* stream);

struct UncertaintyProblem {
  const void* logits;  // (draws, images, classes, pixels) float or, in_double, double
  bool in_double;
  int draws, images, classes;  // draws, classes >= 1; one class: sigmoid, more: softmax
  long pixels;
  int threads;  // CPU only
  // (samples, images, classes, pixels), added to every draw: its probability is the mean over them,
  // and the variance is that of the draws themselves. Null: none.
  const void* noise;
  int samples;
};

#define USCONF_UNCERTAINTY_OPERATOR                                                          \
  /* Four maps (4, images, pixels) of the logits' type: total, expected, mutual uncertainty, \
     variance. */                                                                            \
  void uncertainty(const UncertaintyProblem&, void* result, void* stream);

namespace cpu {
USCONF_RANDOM_WALK_OPERATOR
USCONF_SCAN_CONVERSION_OPERATOR
USCONF_DAG_OPERATOR
USCONF_DESPECKLE_OPERATOR
USCONF_PGM_OPERATOR
USCONF_UNCERTAINTY_OPERATOR
}  // namespace cpu
#if defined(USCONF_CUDA)
namespace cuda {
USCONF_RANDOM_WALK_OPERATOR
USCONF_SCAN_CONVERSION_OPERATOR
USCONF_DAG_OPERATOR
USCONF_DESPECKLE_OPERATOR
USCONF_PGM_OPERATOR
USCONF_UNCERTAINTY_OPERATOR
}  // namespace cuda
#endif

}  // namespace usconf
