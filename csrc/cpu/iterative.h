// The random walk's iterative solver: conjugate gradients with the multigrid cycle, for images
// whose factor would be too large.
#pragma once

#include <cstddef>
#include <exception>
#include <vector>

#include "../solver/conjugate_gradients.h"
#include "multigrid.h"

namespace usconf::cpu {

// One frame's memory, made before the team sets off; any number of solves of that shape use it.
struct IterativeWorkspace {
  IterativeWorkspace(int rows, int columns) : multigrid(rows, columns), parts(3 * rows) {}
  Multigrid multigrid;
  std::vector<double> parts;  // per row: what dot products and maxima are summed from
  std::exception_ptr stop;    // what the checkpoint threw
};

// Bytes of a workspace; the couplings and x are the caller's.
std::size_t iterative_bytes(int rows, int columns);

// Solves A x = rhs for one frame; all members of the team call it with equal arguments. A is given
// by its couplings: the row sums are source + sink. rhs and x: rows x columns, row distance ld_x;
// x in: 0 or a start, not needed beyond the rectangle. rhs null: the map, rhs = source. Dummies
// (all couplings 0) and pieces that no seed touches keep their start, their rhs is ignored.
// tolerance bounds the estimated max |error|, for a rhs of one's own relative to max |x|; T = float
// reaches 1e-6, T = double 1e-9. After 1000 iterations it throws std::runtime_error. checkpoint
// (null: never) is called by member 0; what it throws ends the solve on all members.
template <class T>
IterativeResult solve_iterative(const Team&, const Couplings<T>&, const T* rhs, T* x, long ld_x,
                                double tolerance, IterativeWorkspace&, void (*checkpoint)());

}  // namespace usconf::cpu
