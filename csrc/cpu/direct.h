// The direct solver on the CPU: nested dissection run by a team of threads.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "../solver/couplings.h"
#include "../solver/plan.h"
#include "memory.h"
#include "threads.h"

namespace usconf::cpu {

// The plan of a rectangle for the instruction set in use; kept for the shapes used last.
std::shared_ptr<const Plan> plan_for(int rows, int columns);
void forget_plans();

// Rows and columns [begin, end) of the rectangle.
struct Pixels {
  int row[2], column[2];
};

// Factor and sweeps of one system at a time. All functions are called by every member of one team;
// the result does not depend on the team's size.
class DirectSolver {
 public:
  // spare_bytes: memory the caller may use between an elimination and the next.
  DirectSolver(std::shared_ptr<const Plan> plan, int threads, std::size_t spare_bytes);
  template <class T>
  T* spare() const {
    return updates_.as<T>();
  }

  // Eliminates all pixels. factor: plan.factor_size floats, 64-byte aligned.
  void eliminate(const Team& team, const Couplings<float>& couplings, float* factor);
  // x = map of the factored system (right-hand side: couplings to the source), and the forward
  // sweep of its residual. accept: x holds the solution in these rectangles of equal size; reject:
  // to be replaced by the residual there, all neighbours having been accepted. A subtree's factor
  // is read once for both.
  using Settle = std::function<void(const Pixels* rectangles, int count)>;
  void solve_map(const Team& team, const float* factor, float* x, long ld, const Settle& accept,
                 const Settle& reject);
  // For any right-hand side r: forward keeps what backward needs. A compact plan makes tile factors
  // again: from the couplings eliminated last, or named here when the factor comes from elsewhere.
  void use(const Couplings<float>& couplings) { couplings_ = &couplings; }
  void forward(const Team& team, const float* factor, const float* r, long ld);
  void backward(const Team& team, const float* factor, float* x, long ld);

  const Plan& plan() const { return *plan_; }
  static std::size_t bytes(const Plan& plan, int threads,
                           std::size_t spare_bytes);  // working memory, factor not included

 private:
  struct Task {
    int node;  // a node whose subtree (or, above the tasks, only itself) is worked on
    bool subtree;
  };
  struct Space {  // one thread's
    Buffer front, tile_front, tile_factor, schur, stack[2], scratch;
  };
  static std::vector<Task> tasks(const Plan& plan, int threads);
  enum class Order { up, down, down_again };
  void take(const Team& team, Order order, const std::function<void(const Task&)>& work);
  void eliminate_subtree(const Couplings<float>& w, float* factor, const Task& task, Space& space);
  void eliminate_node(const Couplings<float>& w, float* factor, int index, Space& space,
                      const float* const* child_update, float* update);
  void eliminate_group(const Couplings<float>& w, float* factor, const TileGroup& group,
                       Space& space, bool with_schur);
  const float* schur(const Space& space, int tile) const;
  void forward_node(const float* factor, const float* r, long ld, int index, float* t);
  void backward_node(const float* factor, bool map, float* x, long ld, int index, float* t);
  const float* tile_factor(const float* factor, const TileGroup& group, Space& space);
  void forward_group(const float* tile_factor, const float* r, long ld, const TileGroup& group,
                     bool cached);
  void backward_group(const float* tile_factor, bool map, float* x, long ld,
                      const TileGroup& group);
  void forward_task(const float* factor, const float* r, long ld, const Task& task, Space& space);
  void backward_task(const float* factor, float* x, long ld, const Task& task, Space& space);
  template <class F>
  void with_group(const TileGroup& group, F f) const;

  std::shared_ptr<const Plan> plan_;
  const Couplings<float>* couplings_ = nullptr;
  std::vector<Task> tasks_;  // subtrees first, then the nodes above them by level
  int subtrees_ = 0;
  std::vector<std::size_t> update_slot_;                // by node above or at a task's root, floats
  std::vector<std::size_t> values_, sums_;              // by node: offsets of its sweep values
  std::unique_ptr<std::atomic<unsigned char>[]> done_;  // by node
  std::vector<unsigned char> eliminated_;               // by group
  std::atomic<int> next_{0};
  std::vector<Space> spaces_;
  Buffer updates_, node_values_, node_sums_, tile_values_, tile_rings_;
};

}  // namespace usconf::cpu
