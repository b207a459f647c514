// The extension module: addresses in, the device picked, the GIL freed, nothing else.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>

#include "cpu/borrowed_threads.h"
#include "cpu/isa.h"
#include "cpu/memory.h"
#include "cpu/threads.h"
#include "kernels.h"

#if defined(USCONF_CUDA)
#include "cuda/device.h"
#endif

namespace py = pybind11;
using usconf::RandomWalkOptions;
using usconf::RandomWalkProblem;

namespace {

using Address = std::uintptr_t;

template <class T>
T* pointer(Address a) {
  return reinterpret_cast<T*>(a);
}

// Lets Ctrl-C end long work.
void checkpoint() {
  const py::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

// The arguments every function starts with: the problem, then how to work on it.
#define USCONF_PROBLEM                                                                           \
  Address image, int scalar, int frames, int height, int width, Address labels, bool shared,     \
      int top, int bottom, double alpha, double beta, double gamma, int variant, bool normalise, \
      int solver, bool double_map, int threads, int device, Address stream
#define USCONF_PROBLEM_VALUES                                                                     \
  image, scalar, frames, height, width, labels, shared, top, bottom, alpha, beta, gamma, variant, \
      normalise, solver, double_map, threads, device, stream

struct Call {
  Call(USCONF_PROBLEM)
      : problem{pointer<const void>(image),
                static_cast<usconf::Scalar>(scalar),
                frames,
                height,
                width,
                pointer<const std::uint8_t>(labels),
                shared,
                top,
                bottom,
                alpha,
                beta,
                gamma,
                variant,
                normalise},
        options{static_cast<usconf::Solver>(solver), double_map, threads, checkpoint},
        device(device),
        stream(pointer<void>(stream)) {}

  // f(operator functions of the device)
  RandomWalkProblem problem;
  RandomWalkOptions options;
  int device;
  void* stream;
};

#if defined(USCONF_CUDA)
#define USCONF_DISPATCH(device, function, ...)                   \
  [&] {                                                          \
    const py::gil_scoped_release release;                        \
    if ((device) < 0) return usconf::cpu::function(__VA_ARGS__); \
    const usconf::cuda::DeviceGuard guard(device);               \
    return usconf::cuda::function(__VA_ARGS__);                  \
  }()
#else
#define USCONF_DISPATCH(device, function, ...)                                 \
  [&] {                                                                        \
    if ((device) >= 0)                                                         \
      throw std::runtime_error(                                                \
          "this usconf was built without CUDA; build it where nvcc is found"); \
    const py::gil_scoped_release release;                                      \
    return usconf::cpu::function(__VA_ARGS__);                                 \
  }()
#endif

py::tuple random_walk(USCONF_PROBLEM, Address map, Address factor) {
  const Call c(USCONF_PROBLEM_VALUES);
  const auto report = USCONF_DISPATCH(c.device, random_walk, c.problem, c.options,
                                      pointer<void>(map), pointer<void>(factor), c.stream);
  return py::make_tuple(report.steps, report.correction);
}

std::size_t random_walk_factor_bytes(USCONF_PROBLEM) {
  const Call c(USCONF_PROBLEM_VALUES);
  return USCONF_DISPATCH(c.device, random_walk_factor_bytes, c.problem);
}

std::size_t random_walk_memory(USCONF_PROBLEM) {
  const Call c(USCONF_PROBLEM_VALUES);
  return USCONF_DISPATCH(c.device, random_walk_memory, c.problem, c.options);
}

void random_walk_backward(USCONF_PROBLEM, Address map, Address factor, Address d_map,
                          Address d_image, Address d_parameters) {
  const Call c(USCONF_PROBLEM_VALUES);
  USCONF_DISPATCH(c.device, random_walk_backward, c.problem, c.options, pointer<const void>(map),
                  pointer<const void>(factor), pointer<const void>(d_map), pointer<void>(d_image),
                  pointer<double>(d_parameters), c.stream);
}

void random_walk_edges(USCONF_PROBLEM, Address edges) {
  const Call c(USCONF_PROBLEM_VALUES);
  USCONF_DISPATCH(c.device, random_walk_edges, c.problem, c.options, pointer<double>(edges),
                  c.stream);
}

// direction, nearest, transpose, scalar, frames; the geometry: kind, values; sizes of the beam
// image and of the scan image.
void scan_conversion(int direction, bool nearest, bool transpose, int scalar, int frames, int kind,
                     const std::array<double, 10>& values, int samples, int lines, int height,
                     int width, Address source, Address target, Address mask, int threads,
                     int device, Address stream) {
  usconf::ScanConversion c{static_cast<usconf::Direction>(direction),
                           nearest,
                           transpose,
                           static_cast<usconf::Scalar>(scalar),
                           frames,
                           {static_cast<usconf::BeamKind>(kind), {}},
                           samples,
                           lines,
                           height,
                           width,
                           pointer<const void>(source),
                           pointer<void>(target),
                           pointer<std::uint8_t>(mask),
                           threads};
  std::copy(values.begin(), values.end(), c.geometry.values);
  USCONF_DISPATCH(device, scan_conversion, c, pointer<void>(stream));
}

// The arguments both functions of the DAG map start with.
#define USCONF_DAG                                                                                \
  Address image, int scalar, int frames, int height, int width, Address valid, bool valid_shared, \
      double xi, double alpha, double var, double power, int half_width, int variant,             \
      bool normalise, Address reference, bool reference_shared, Address needle, Address artifact, \
      bool artifact_shared, bool double_map, int threads, int device, Address stream
#define USCONF_DAG_VALUES               \
  {pointer<const void>(image),          \
   static_cast<usconf::Scalar>(scalar), \
   frames,                              \
   height,                              \
   width,                               \
   pointer<const std::uint8_t>(valid),  \
   valid_shared,                        \
   xi,                                  \
   alpha,                               \
   var,                                 \
   power,                               \
   half_width,                          \
   variant,                             \
   normalise,                           \
   pointer<const double>(reference),    \
   reference_shared,                    \
   pointer<const float>(needle),        \
   pointer<const float>(artifact),      \
   artifact_shared}

void dag(USCONF_DAG, Address map) {
  const usconf::DagProblem problem USCONF_DAG_VALUES;
  const usconf::DagOptions options{double_map, threads};
  USCONF_DISPATCH(device, dag, problem, options, pointer<void>(map), pointer<void>(stream));
}

void dag_backward(USCONF_DAG, Address map, Address d_map, Address d_image, Address d_parameters) {
  const usconf::DagProblem problem USCONF_DAG_VALUES;
  const usconf::DagOptions options{double_map, threads};
  USCONF_DISPATCH(device, dag_backward, problem, options, pointer<const void>(map),
                  pointer<const void>(d_map), pointer<void>(d_image), pointer<double>(d_parameters),
                  pointer<void>(stream));
}

// The arguments both despeckling functions start with and, but for the result, end with.
#define USCONF_DESPECKLE \
  Address image, int scalar, int frames, int height, int width, Address valid, bool valid_shared

std::vector<int> srad(USCONF_DESPECKLE, const std::array<int, 4>& roi, int iterations,
                      double tolerance, double step, bool double_result, int threads, int device,
                      Address stream, Address result) {
  const usconf::DespeckleProblem problem{pointer<const void>(image),
                                         static_cast<usconf::Scalar>(scalar),
                                         frames,
                                         height,
                                         width,
                                         pointer<const std::uint8_t>(valid),
                                         valid_shared,
                                         {roi[0], roi[1], roi[2], roi[3]},
                                         iterations,
                                         tolerance,
                                         step,
                                         double_result,
                                         threads};
  std::vector<int> done(static_cast<std::size_t>(frames));
  USCONF_DISPATCH(device, srad, problem, pointer<void>(result), done.data(), pointer<void>(stream));
  return done;
}

void median(USCONF_DESPECKLE, int size, bool double_result, int threads, int device, Address stream,
            Address result) {
  const usconf::DespeckleProblem problem{pointer<const void>(image),
                                         static_cast<usconf::Scalar>(scalar),
                                         frames,
                                         height,
                                         width,
                                         pointer<const std::uint8_t>(valid),
                                         valid_shared,
                                         {0, 0, 0, 0},
                                         0,
                                         0.0,
                                         0.0,
                                         double_result,
                                         threads};
  USCONF_DISPATCH(device, median, problem, size, pointer<void>(result), pointer<void>(stream));
}

// The problem; then where the results go, 0 where one is not wanted.
void pgm(Address confidence, bool in_double, bool logits, int frames, int height, int width,
         Address labels, Address valid, bool valid_shared, double gamma, double s, double sigma,
         const std::array<double, 3>& label_weights, bool constants, bool mean, int threads,
         int device, Address stream, Address loss, Address sums, Address d_confidence,
         Address d_map, Address map, bool parts) {
  const usconf::PgmProblem problem{pointer<const void>(confidence),
                                   in_double,
                                   logits,
                                   frames,
                                   height,
                                   width,
                                   pointer<const std::uint8_t>(labels),
                                   pointer<const std::uint8_t>(valid),
                                   valid_shared,
                                   gamma,
                                   s,
                                   sigma,
                                   {label_weights[0], label_weights[1], label_weights[2]},
                                   constants,
                                   mean,
                                   threads};
  const usconf::PgmResult result{pointer<void>(loss),         pointer<double>(sums),
                                 pointer<void>(d_confidence), pointer<const void>(d_map),
                                 pointer<void>(map),          parts};
  USCONF_DISPATCH(device, pgm, problem, result, pointer<void>(stream));
}

void pgm_scale(Address gradient, bool in_double, long count, Address scale, int threads, int device,
               Address stream) {
  USCONF_DISPATCH(device, pgm_scale, pointer<void>(gradient), in_double, count,
                  pointer<const void>(scale), threads, pointer<void>(stream));
}

// Draws of logits; where the four maps go; noise on each, or 0.
void uncertainty(Address logits, bool in_double, int draws, int images, int classes, long pixels,
                 int threads, int device, Address stream, Address result, Address noise,
                 int samples) {
  const usconf::UncertaintyProblem problem{
      pointer<const void>(logits), in_double, draws, images, classes, pixels, threads,
      pointer<const void>(noise),  samples};
  USCONF_DISPATCH(device, uncertainty, problem, pointer<void>(result), pointer<void>(stream));
}

void clear_cache() {
  usconf::cpu::clear_cache();
#if defined(USCONF_CUDA)
  usconf::cuda::clear_cache();
#endif
}

py::dict cuda() {
  py::dict d;
#if defined(USCONF_CUDA)
  const usconf::cuda::Info info = usconf::cuda::info();
  d["built"] = true;
  d["runtime"] = info.runtime;
  d["driver"] = info.driver;
  d["devices"] = info.devices;
  d["architectures"] = USCONF_CUDA_ARCHITECTURES;
  d["message"] = info.message;
#else
  d["built"] = false;
  d["runtime"] = 0;
  d["driver"] = 0;
  d["devices"] = std::vector<std::string>{};
  d["architectures"] = "";
  d["message"] = "built without CUDA";
#endif
  return d;
}

// Of the first element. The attributes that NumPy has for it take four times as long.
Address address(py::handle array) {
  Py_buffer view;
  if (PyObject_GetBuffer(array.ptr(), &view, PyBUF_STRIDED_RO) != 0) throw py::error_already_set();
  const auto at = reinterpret_cast<Address>(view.buf);
  PyBuffer_Release(&view);
  return at;
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  py::class_<usconf::cpu::Block>(m, "Block", py::buffer_protocol())
      .def(py::init<std::size_t>())
      .def_buffer([](const usconf::cpu::Block& b) {
        return py::buffer_info(static_cast<std::uint8_t*>(b.data()),
                               static_cast<py::ssize_t>(b.bytes()));
      });
  m.attr("version") = USCONF_VERSION;
  m.def("random_walk", &random_walk);
  m.def("random_walk_factor_bytes", &random_walk_factor_bytes);
  m.def("random_walk_memory", &random_walk_memory);
  m.def("random_walk_backward", &random_walk_backward);
  m.def("random_walk_edges", &random_walk_edges);
  m.def("scan_conversion", &scan_conversion);
  m.def("dag", &dag);
  m.def("dag_backward", &dag_backward);
  m.def("srad", &srad);
  m.def("median", &median);
  m.def("pgm", &pgm);
  m.def("pgm_scale", &pgm_scale);
  m.def("uncertainty", &uncertainty);
  m.def("isa", &usconf::cpu::isa_name);
  m.def("isa_list", &usconf::cpu::isa_list);
  m.def("address", &address);
  m.def("threads", &usconf::cpu::threads);
  m.def("default_threads", &usconf::cpu::default_threads);
  m.def("set_threads", &usconf::cpu::set_threads);
  m.def("borrow_threads", &usconf::cpu::borrow_threads);
  m.def("clear_cache", &clear_cache);
  m.def("cuda", &cuda);
}
