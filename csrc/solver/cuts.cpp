#include "cuts.h"

#include <limits>

#include "front.h"

namespace usconf {
namespace {

// Microseconds of a separator's elimination on a Zen 4 core (100 GFLOP/s): its products, and for
// every block of 256 values of the factor and of the couplings handed up, what moving them takes.
constexpr double per_product = 2.0 * block * block * block / 1e5;
constexpr double per_factor_block = 0.4, per_update_block = 0.08, per_pivot_block = 1.0;

double separator_cost(int pivots, int boundary) {
  const double p = round_up(pivots) / block, b = boundary ? round_up(boundary + 2) / block : 0;
  const double products = p * p * p / 6 + p * p * b / 2 + p * b * (b + 1) / 2;
  return per_product * products + per_factor_block * p * (p + 1 + 2 * b) / 2 +
         per_update_block * b * (b + 1) / 2 + per_pivot_block * p;
}

}  // namespace

Cuts::Cuts(int down, int across, int pixels)
    : across_(across), cuts_(std::size_t(down + 1) * (across + 1) * 16) {
  std::vector<double> cost(cuts_.size());
  for (int h = 1; h <= down; ++h)
    for (int w = 1; w <= across; ++w)
      for (int sides = 0; sides < 16 && h * w > 1; ++sides) {
        const int height = h * pixels - 1, width = w * pixels - 1;
        const bool t = sides & top, b = sides & bottom, l = sides & left, r = sides & right;
        const int boundary = (t + b) * width + (l + r) * height + (t + b) * (l + r);
        double best = std::numeric_limits<double>::infinity();
        short& cut = cuts_[at(h, w, sides)];
        const auto consider = [&](double c, int where) {
          if (c >= best * (1 - 1e-9)) return;
          best = c;
          cut = static_cast<short>(where);
        };
        // Neither part less than a quarter: between two distant sides every cut costs the same, and
        // threads share a tree, not a chain. The middle comes first and wins ties.
        const auto parts = [](int n, const auto& f) {
          f(n / 2);
          for (int m = (n + 3) / 4; m <= n - (n + 3) / 4; ++m) f(m);
        };
        const double across_it = separator_cost(width, boundary);
        if (h > 1)
          parts(h, [&](int m) {
            consider(across_it + cost[at(m, w, sides | bottom)] + cost[at(h - m, w, sides | top)],
                     m);
          });
        const double down_it = separator_cost(height, boundary);
        if (w > 1)
          parts(w, [&](int m) {
            consider(down_it + cost[at(h, m, sides | right)] + cost[at(h, w - m, sides | left)],
                     -m);
          });
        cost[at(h, w, sides)] = best;
      }
}

Cuts::Cut Cuts::cut(int down, int across, int sides) const {
  const int found = cuts_[at(down, across, sides)];
  return {found > 0, found > 0 ? found : -found};
}

}  // namespace usconf
