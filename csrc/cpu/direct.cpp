#include "direct.h"

#include <sched.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <list>
#include <mutex>

#include "direct_kernels.h"
#include "front_couplings.h"

namespace usconf::cpu {
namespace {

// Tasks per thread: enough to even out their lengths, few enough that their update matrices fit.
constexpr int tasks_per_thread = 2;
// Factors beyond this are written past the caches.
constexpr std::size_t streaming_bytes = std::size_t{24} << 20;
constexpr std::size_t plans_kept = 8;

ForkMutex plan_mutex;
std::list<std::shared_ptr<const Plan>> plans;  // used last first

}  // namespace

std::shared_ptr<const Plan> plan_for(int rows, int columns) {
  const auto known = [&]() -> std::shared_ptr<const Plan> {
    for (auto it = plans.begin(); it != plans.end(); ++it)
      if ((*it)->rows == rows && (*it)->columns == columns) {
        plans.splice(plans.begin(), plans, it);
        return plans.front();
      }
    return nullptr;
  };
  {
    const std::lock_guard<ForkMutex> lock(plan_mutex);
    if (auto plan = known()) return plan;
  }
  auto fresh = std::make_shared<const Plan>(rows, columns, direct_kernels().tile_lanes);
  const std::lock_guard<ForkMutex> lock(plan_mutex);
  if (auto plan = known()) return plan;  // another thread was faster
  plans.push_front(std::move(fresh));
  if (plans.size() > plans_kept) plans.pop_back();
  return plans.front();
}

void forget_plans() {
  const std::lock_guard<ForkMutex> lock(plan_mutex);
  plans.clear();
}

// Subtrees from a common depth on (or bundles above it), then the nodes above them.
std::vector<DirectSolver::Task> DirectSolver::tasks(const Plan& plan, int threads) {
  std::vector<Task> list, above;
  if (plan.root < 0) return list;
  int depth = 0;
  while (threads > 1 && (1 << depth) < tasks_per_thread * threads) ++depth;
  // Parents come after their children: going backwards, a node knows whether a task holds its
  // parent.
  std::vector<unsigned char> held(plan.nodes.size(), 0);
  for (int i = static_cast<int>(plan.nodes.size()) - 1; i >= 0; --i) {
    const Node& n = plan.nodes[i];
    if (n.parent >= 0 && held[n.parent]) {
      held[i] = 1;
    } else if (n.depth == depth || n.bundle >= 0) {
      held[i] = 1;
      list.push_back({i, true});
    } else {
      above.push_back({i, false});
    }
  }
  // The largest first, so that threads end at the same time.
  const auto pixels = [&](const Task& t) {
    const Node& n = plan.nodes[t.node];
    return long(n.rows[1] - n.rows[0]) * (n.columns[1] - n.columns[0]);
  };
  std::reverse(list.begin(), list.end());
  std::stable_sort(list.begin(), list.end(),
                   [&](const Task& a, const Task& b) { return pixels(a) > pixels(b); });
  // Level by level, so that several members find independent nodes.
  std::reverse(above.begin(), above.end());
  std::stable_sort(above.begin(), above.end(), [&](const Task& a, const Task& b) {
    return plan.nodes[a.node].depth > plan.nodes[b.node].depth;
  });
  list.insert(list.end(), above.begin(), above.end());
  return list;
}

DirectSolver::DirectSolver(std::shared_ptr<const Plan> plan, int threads, std::size_t spare_bytes)
    : plan_(std::move(plan)), tasks_(tasks(*plan_, threads)), spaces_(threads) {
  const Plan& p = *plan_;
  std::size_t updates = 0, stack[2] = {0, 0}, values = 0, sums = 0;
  update_slot_.resize(p.nodes.size());
  for (const Task& t : tasks_) {
    subtrees_ += t.subtree;
    update_slot_[t.node] = updates;
    updates += p.nodes[t.node].update_size();
    if (!t.subtree) continue;
    for (int k = 0; k < 2; ++k) stack[k] = std::max(stack[k], p.nodes[t.node].peak[k]);
  }
  for (const Node& n : p.nodes) {
    values_.push_back(values);
    sums_.push_back(sums);
    values += n.padded;
    sums += n.boundary;
  }
  // Unaligned vector reads and masked adds may touch up to a block on either side.
  updates_.reserve(std::max((updates + 2 * block) * sizeof(float), spare_bytes));
  node_values_.reserve(values * sizeof(float));
  node_sums_.reserve(sums * sizeof(float));
  tile_values_.reserve(p.saved_size * sizeof(float));
  tile_rings_.reserve(p.tiles.size() * p.ring_stride * sizeof(float));
  for (Space& s : spaces_) {
    s.front.reserve((p.max_work + 2 * block) * sizeof(float));
    s.tile_front.reserve(p.max_tile_front * p.lanes * sizeof(float));
    if (p.compact) s.tile_factor.reserve(p.max_tile_factor * p.lanes * sizeof(float));
    s.schur.reserve((std::size_t(p.slots) * p.slot_size + 2 * block) * sizeof(float));
    for (int k = 0; k < 2; ++k) s.stack[k].reserve((stack[k] + 2 * block) * sizeof(float));
    int longest = 0;
    for (const Node& n : p.nodes) longest = std::max({longest, 2 * n.padded, n.blocks * block});
    s.scratch.reserve(longest * sizeof(float));
  }
  done_ = std::make_unique<std::atomic<unsigned char>[]>(std::max<std::size_t>(p.nodes.size(), 1));
  eliminated_.resize(p.groups.size());
}

std::size_t DirectSolver::bytes(const Plan& p, int threads, std::size_t spare_bytes) {
  std::size_t updates = 0, floats = 0, stack[2] = {0, 0};
  for (const Task& t : tasks(p, threads)) {
    const Node& n = p.nodes[t.node];
    updates += n.update_size();
    for (int k = 0; k < 2; ++k) stack[k] = std::max(stack[k], t.subtree ? n.peak[k] : 0);
  }
  for (const Node& n : p.nodes) floats += n.padded + n.boundary;
  floats += p.saved_size + p.tiles.size() * p.ring_stride;
  floats +=
      threads * (p.max_work + (p.max_tile_front + (p.compact ? p.max_tile_factor : 0)) * p.lanes +
                 std::size_t(p.slots) * p.slot_size + stack[0] + stack[1]);
  return floats * sizeof(float) + std::max(updates * sizeof(float), spare_bytes) +
         p.nodes.size() * sizeof(Node) + p.tiles.size() * sizeof(Tile);
}

// Members take tasks in order, children before parents (up) or after them; every task waits for
// those it needs, all of which were taken before it.
void DirectSolver::take(const Team& team, Order order,
                        const std::function<void(const Task&)>& work) {
  const Plan& p = *plan_;
  if (team.index == 0) {
    next_.store(0, std::memory_order_relaxed);
    for (const Task& t : tasks_) done_[t.node].store(0, std::memory_order_relaxed);
  }
  team.barrier();
  const auto wait = [&](int node) {
    if (node < 0) return;
    for (int spins = 0; !done_[node].load(std::memory_order_acquire);)
      if (++spins > 2000) {
        team.check();
        sched_yield();
      }
  };
  const int count = static_cast<int>(tasks_.size());
  const int above = count - subtrees_;
  for (;;) {
    const int i = next_.fetch_add(1, std::memory_order_relaxed);
    if (i >= count) break;
    const bool upward = order == Order::up;
    const Task& t = tasks_[upward                               ? i
                           : order == Order::down && i >= above ? i - above
                                                                : count - 1 - i];
    if (upward && !t.subtree)
      for (int k = 0; k < 2; ++k) wait(p.nodes[t.node].child[k]);
    if (!upward) wait(p.nodes[t.node].parent);
    work(t);
    done_[t.node].store(1, std::memory_order_release);
  }
  team.barrier();
}

template <class F>
void DirectSolver::with_group(const TileGroup& group, F f) const {
  int row[block], column[block];
  for (int l = 0; l < group.count; ++l) {
    row[l] = plan_->tiles[group.tiles[l]].row;
    column[l] = plan_->tiles[group.tiles[l]].column;
  }
  const TileShape shape = plan_->shapes[group.shape].shape();
  f(LaneTiles{&shape, row, column, group.count});
}

const float* DirectSolver::schur(const Space& space, int tile) const {
  const Tile& t = plan_->tiles[tile];
  return space.schur.as<float>() + block +
         std::size_t(plan_->groups[t.group].slot + t.lane) * plan_->slot_size;
}

void DirectSolver::eliminate_group(const Couplings<float>& w, float* factor, const TileGroup& group,
                                   Space& space, bool with_schur) {
  float* out[block];
  for (int l = 0; l < group.count; ++l)
    out[l] = space.schur.as<float>() + block + std::size_t(group.slot + l) * plan_->slot_size;
  with_group(group, [&](const LaneTiles& tiles) {
    direct_kernels().eliminate_tiles(
        tiles, w, space.tile_front.as<float>(),
        group.stored ? factor + group.factor : space.tile_factor.as<float>(),
        with_schur ? out : nullptr);
  });
}

void DirectSolver::eliminate_node(const Couplings<float>& w, float* factor, int index, Space& space,
                                  const float* const* child_update, float* update) {
  const DirectKernels& k = direct_kernels();
  const Plan& p = *plan_;
  const Node& n = p.nodes[index];
  float* z = space.front.as<float>() + block;
  const auto add_children = [&](bool to_update) {
    for (int c = 0; c < 2; ++c) {
      if (n.child[c] >= 0) {
        k.add_update(n, c, child_update[c], z, update, to_update);
      } else {
        const int tile = -1 - n.child[c];
        k.add_schur(n, c, schur(space, tile), p.shapes[p.tiles[tile].shape].schur_stride(), z,
                    update, to_update);
      }
    }
  };
  std::memset(z, 0, n.work_size() * sizeof(float));
  add_children(false);
  FrontCouplings(n, w, z).add();
  float* roots = factor + n.factor;
  k.eliminate(n, z, roots, space.scratch.as<float>());
  if (n.boundary) {
    k.update(n, z, update);
    add_children(true);
  }
  k.pack(n, z, roots + n.padded, p.factor_size * sizeof(float) > streaming_bytes);
}

void DirectSolver::eliminate_subtree(const Couplings<float>& w, float* factor, const Task& task,
                                     Space& space) {
  const Plan& p = *plan_;
  std::size_t top[2] = {0, 0};
  const int first = task.subtree ? p.nodes[task.node].first : task.node;
  for (int i = first; i <= task.node; ++i) {
    const Node& n = p.nodes[i];
    const int own = n.depth & 1, other = 1 - own;
    const float* child_update[2] = {nullptr, nullptr};
    std::size_t below = top[other];
    for (int c = 1; c >= 0; --c) {
      if (n.child[c] < 0) {
        const TileGroup& g = p.groups[p.tiles[-1 - n.child[c]].group];
        unsigned char& done = eliminated_[&g - p.groups.data()];
        if (!done) eliminate_group(w, factor, g, space, true);
        done = 1;
      } else if (task.subtree) {
        below -= p.nodes[n.child[c]].update_size();
        child_update[c] = space.stack[other].as<float>() + block + below;
      } else {
        child_update[c] = updates_.as<float>() + block + update_slot_[n.child[c]];
      }
    }
    float* update = i == task.node ? updates_.as<float>() + block + update_slot_[i]
                                   : space.stack[own].as<float>() + block + top[own];
    eliminate_node(w, factor, i, space, child_update, update);
    top[other] = below;
    top[own] += n.update_size();
  }
}

void DirectSolver::eliminate(const Team& team, const Couplings<float>& w, float* factor) {
  team.barrier();
  if (team.index == 0) {
    use(w);
    std::fill(eliminated_.begin(), eliminated_.end(), 0);
  }
  if (plan_->root < 0) {
    if (team.index == 0) eliminate_group(w, factor, plan_->groups[0], spaces_[0], false);
    team.barrier();
    return;
  }
  take(team, Order::up,
       [&](const Task& t) { eliminate_subtree(w, factor, t, spaces_[team.index]); });
}

void DirectSolver::forward_node(const float* factor, const float* r, long ld, int index, float* t) {
  const Plan& p = *plan_;
  const Node& n = p.nodes[index];
  std::fill_n(t, n.blocks * block, 0.0f);
  for (int k = 0; k < n.pivots; ++k) t[k] = r[offset(n.separator, k, ld)];
  for (int c = 0; c < 2; ++c) {
    const float* sums =
        n.child[c] >= 0 ? node_sums_.as<float>() + sums_[n.child[c]]
                        : tile_rings_.as<float>() + std::size_t(-1 - n.child[c]) * p.ring_stride;
    for (int a = 0; a + 1 < n.run_count[c]; ++a) {
      const Run& run = n.runs[c][a];
      for (int i = 0; i < run.length; ++i) t[run.target + i] += sums[run.source + i];
    }
  }
  direct_kernels().forward(n, factor + n.factor, t, node_values_.as<float>() + values_[index]);
  std::copy_n(t + n.padded, n.boundary, node_sums_.as<float>() + sums_[index]);
}

void DirectSolver::backward_node(const float* factor, bool map, float* x, long ld, int index,
                                 float* t) {
  const Node& n = plan_->nodes[index];
  std::fill_n(t, n.blocks * block, 0.0f);
  float* out = t + n.padded;
  for (int i = 0; i < n.segment_count; ++i)
    for (int k = 0; k < n.segments[i].length; ++k) *out++ = x[offset(n.segments[i], k, ld)];
  if (map) *out = 1.0f;
  direct_kernels().backward(n, factor + n.factor,
                            map ? nullptr : node_values_.as<float>() + values_[index], t);
  for (int k = 0; k < n.pivots; ++k) x[offset(n.separator, k, ld)] = t[k];
}

// A group's factor: where it was stored, or made again.
const float* DirectSolver::tile_factor(const float* factor, const TileGroup& g, Space& space) {
  if (g.stored) return factor + g.factor;
  float* again = space.tile_factor.as<float>();
  with_group(g, [&](const LaneTiles& tiles) {
    direct_kernels().eliminate_tiles(tiles, *couplings_, space.tile_front.as<float>(), again,
                                     nullptr);
  });
  return again;
}

void DirectSolver::forward_group(const float* tile_factor, const float* r, long ld,
                                 const TileGroup& g, bool cached) {
  float* ring[block];
  for (int l = 0; l < g.count; ++l)
    ring[l] = tile_rings_.as<float>() + std::size_t(g.tiles[l]) * plan_->ring_stride;
  with_group(g, [&](const LaneTiles& tiles) {
    direct_kernels().forward_tiles(tiles, tile_factor, r, ld, tile_values_.as<float>() + g.saved,
                                   ring, cached);
  });
}

void DirectSolver::backward_group(const float* tile_factor, bool map, float* x, long ld,
                                  const TileGroup& g) {
  with_group(g, [&](const LaneTiles& tiles) {
    direct_kernels().backward_tiles(tiles, tile_factor,
                                    map ? nullptr : tile_values_.as<float>() + g.saved, x, ld);
  });
}

void DirectSolver::forward_task(const float* factor, const float* r, long ld, const Task& task,
                                Space& space) {
  const Node& n = plan_->nodes[task.node];
  for (int i = n.first_group; task.subtree && i < n.end_group; ++i)
    forward_group(tile_factor(factor, plan_->groups[i], space), r, ld, plan_->groups[i], false);
  for (int i = task.subtree ? n.first : task.node; i <= task.node; ++i)
    forward_node(factor, r, ld, i, space.scratch.as<float>());
}

void DirectSolver::backward_task(const float* factor, float* x, long ld, const Task& task,
                                 Space& space) {
  const Node& n = plan_->nodes[task.node];
  for (int i = task.node; i >= (task.subtree ? n.first : task.node); --i)
    backward_node(factor, false, x, ld, i, space.scratch.as<float>());
  for (int i = n.end_group - 1; task.subtree && i >= n.first_group; --i)
    backward_group(tile_factor(factor, plan_->groups[i], space), false, x, ld, plan_->groups[i]);
}

void DirectSolver::forward(const Team& team, const float* factor, const float* r, long ld) {
  if (plan_->root >= 0) {
    take(team, Order::up,
         [&](const Task& t) { forward_task(factor, r, ld, t, spaces_[team.index]); });
    return;
  }
  const TileGroup& only = plan_->groups[0];
  if (team.index == 0) forward_group(tile_factor(factor, only, spaces_[0]), r, ld, only, false);
  team.barrier();
}

void DirectSolver::backward(const Team& team, const float* factor, float* x, long ld) {
  if (plan_->root >= 0) {
    // Subtrees the other way round than solve_map, which leaves the last ones in the cache.
    take(team, Order::down_again,
         [&](const Task& t) { backward_task(factor, x, ld, t, spaces_[team.index]); });
    return;
  }
  const TileGroup& only = plan_->groups[0];
  if (team.index == 0) backward_group(tile_factor(factor, only, spaces_[0]), false, x, ld, only);
  team.barrier();
}

void DirectSolver::solve_map(const Team& team, const float* factor, float* x, long ld,
                             const Settle& accept, const Settle& reject) {
  const Plan& p = *plan_;
  const auto down_and_up = [&](const TileGroup& g, Space& space) {
    const float* tiles = tile_factor(factor, g, space);
    backward_group(tiles, true, x, ld, g);
    Pixels inside[block];
    for (int l = 0; l < g.count; ++l) {
      const Tile& t = p.tiles[g.tiles[l]];
      const TilePlan& shape = p.shapes[t.shape];
      inside[l] = {{t.row, t.row + shape.height}, {t.column, t.column + shape.width}};
    }
    accept(inside, g.count);
    reject(inside, g.count);
    forward_group(tiles, x, ld, g, true);
  };
  if (p.root < 0) {
    if (team.index == 0) down_and_up(p.groups[0], spaces_[0]);
    team.barrier();
    return;
  }
  const auto separator = [&](int node) -> Pixels {
    const Segment& s = p.nodes[node].separator;
    return {{s.row, s.row + (s.vertical ? s.length : 1)},
            {s.column, s.column + (s.vertical ? 1 : s.length)}};
  };
  // Down to a node; up again from a node whose children have been.
  const auto down = [&](int node, Space& space) {
    backward_node(factor, true, x, ld, node, space.scratch.as<float>());
    const Pixels pixels = separator(node);
    accept(&pixels, 1);
  };
  const auto up = [&](int node, Space& space) {
    const Pixels pixels = separator(node);
    reject(&pixels, 1);
    forward_node(factor, x, ld, node, space.scratch.as<float>());
  };
  take(team, Order::down, [&](const Task& t) {
    Space& space = spaces_[team.index];
    if (!t.subtree) return down(t.node, space);
    const Node& n = p.nodes[t.node];
    for (int i = t.node; i >= n.first; --i) down(i, space);
    for (int i = n.first_group; i < n.end_group; ++i) down_and_up(p.groups[i], space);
    for (int i = n.first; i <= t.node; ++i) up(i, space);
  });
  take(team, Order::up, [&](const Task& t) {
    if (!t.subtree) up(t.node, spaces_[team.index]);
  });
}

}  // namespace usconf::cpu
