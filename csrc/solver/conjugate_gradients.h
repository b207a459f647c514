// Preconditioned conjugate gradients (Hestenes and Stiefel 1952) whose stopping rule watches the
// solution itself: here a relative residual of 1e-6 can still mean an error of 1e-3 in the map.
#pragma once

#include <algorithm>
#include <cmath>

namespace usconf {

struct IterativeResult {
  int iterations;
  double correction;  // estimate of the largest error left, in settle()'s unit
  bool converged;
};

// `system` holds x, a sum dx of steps not yet added to x, the residual r, z = M r, p and q, and
// offers
//   double precondition()     z = M r, returns r.z
//   void   direction(beta)    p = z + beta p
//   double apply()            q = A p, returns p.q
//   void   advance(alpha)     dx += alpha p, r -= alpha q
//   double settle()           x += dx, dx = 0, r = b - A x; returns max |dx| in the caller's unit
//   bool   interrupted()
// Steps are gathered in blocks over which r.z, the energy of the error as the preconditioner sees
// it, falls a hundredfold. Settling a block rids r of the rounding of its recurrence, and what the
// block changed is about the error before it: times the ratio of the last two changes, or of the
// energy norms where that is worse, it estimates the error after it. Measured on 63 systems,
// float and double: 1.9 to 36 times the true error, where that is above the map's rounding.
template <class System>
IterativeResult conjugate_gradients(System& system, double tolerance, int limit) {
  constexpr double fall = 1e-2, plunge = 1e-12, jump = 10, safety = 4;
  constexpr int shortest = 3, longest = 25;
  double rz = system.precondition(), beta = 0, last_rz = rz, last_change = 0;
  int block = 0;
  bool reliable = true;
  IterativeResult result{0, rz == 0 ? 0 : HUGE_VAL, rz == 0};
  const auto settle = [&] {
    const double change = system.settle();
    const double slower = reliable && last_change > 0 ? change / last_change : 1;
    const double ratio =
        std::clamp(std::max(std::sqrt(rz / last_rz), slower), std::sqrt(fall), 0.9);
    result.correction = safety * change * ratio / (1 - ratio);
    result.converged = result.correction <= tolerance;
    last_rz = std::min(last_rz, rz);
    last_change = change;
    block = 0;
  };
  while (rz > 0 && result.iterations < limit && !system.interrupted()) {
    system.direction(beta);
    const double curvature = system.apply();
    const bool downhill = curvature > 0;
    if (!downhill && block == 0) break;
    if (downhill) {
      system.advance(rz / curvature);
      ++result.iterations;
      ++block;
    }
    const bool fallen = rz <= last_rz * (block < shortest ? plunge : fall);
    if (!downhill || fallen || block == longest) settle();
    if (result.converged) break;
    double next = system.precondition();
    // Where settling brings up much that the recurrence had lost, r.z falls back at once whatever
    // the error does: no base for an estimate.
    if (block == 0) reliable = downhill && next < jump * rz;
    if (!(next > 0) && block > 0) {  // the recurrence has run out of digits
      settle();
      if (result.converged) break;
      next = system.precondition();
      reliable = false;
    }
    // The direction outlives settling unless the energy rises: it would grow from step to step.
    beta = block > 0 || (reliable && next < rz) ? next / rz : 0;
    rz = next;
    if (rz == 0) result = {result.iterations, 0, true};
  }
  return result;
}

}  // namespace usconf
