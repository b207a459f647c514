// Kernels of the nodes' fronts: dense blocks of 16 columns. Included by direct_kernels.cpp only.
#pragma once

#include "../solver/front.h"
#include "vectors.h"

namespace usconf::cpu::USCONF_ISA_NAMESPACE {
namespace {

constexpr int vectors = block / lanes;  // of a block's row

// ---- products
// ------------------------------------------------------------------------------------

// Register tile of C += A^T B: `Rows` rows by `Columns` vectors.
#if defined(__AVX512F__)
constexpr int tile_rows = 8, tile_columns = 3;
#elif defined(__AVX2__)
constexpr int tile_rows = 4, tile_columns = 3;
#else
constexpr int tile_rows = 4, tile_columns = 2;
#endif

// c[v] (rows at distance 16) (+)= sum over k < depth of a[16 k + row] b[v][16 k ..]
template <int Columns>
USCONF_INLINE void product_tile(const float* a, const float* const* b, float* const* c, int depth,
                                bool fresh) {
  Vec sum[tile_rows][Columns];
  USCONF_UNROLL
  for (int i = 0; i < tile_rows; ++i) USCONF_UNROLL
  for (int v = 0; v < Columns; ++v) sum[i][v] = fresh ? Vec{} : load(c[v] + block * i);
  for (int k = 0; k < depth; ++k) {
    Vec row[Columns];
    USCONF_UNROLL
    for (int v = 0; v < Columns; ++v) row[v] = load(b[v] + block * k);
    USCONF_UNROLL
    for (int i = 0; i < tile_rows; ++i) {
      const Vec factor = splat(a[block * k + i]);
      USCONF_UNROLL
      for (int v = 0; v < Columns; ++v) sum[i][v] += factor * row[v];
    }
  }
  USCONF_UNROLL
  for (int i = 0; i < tile_rows; ++i) USCONF_UNROLL
  for (int v = 0; v < Columns; ++v) store(c[v] + block * i, sum[i][v]);
}

// 16 rows of up to three blocks: c[j] (+)= A^T b[j]
template <int Columns>
static void product_rows(const float* a, const float* const* b, float* const* c, int depth,
                         bool fresh) {
  float* at[Columns];
  for (int i = 0; i < block; i += tile_rows) {
    for (int v = 0; v < Columns; ++v) at[v] = c[v] + block * i;
    product_tile<Columns>(a + i, b, at, depth, fresh);
  }
}

USCONF_INLINE void product(int blocks, const float* a, const float* const* b, float* const* c,
                           int depth, bool fresh) {
  const float* from[3 * vectors];
  float* to[3 * vectors];
  int n = 0;
  for (int j = 0; j < blocks; ++j)
    for (int v = 0; v < vectors; ++v, ++n) {
      from[n] = b[j] + v * lanes;
      to[n] = c[j] + v * lanes;
    }
  int v = 0;
  for (; v + tile_columns <= n; v += tile_columns)
    product_rows<tile_columns>(a, from + v, to + v, depth, fresh);
  if constexpr (tile_columns > 2)
    if (n - v == 2) product_rows<2>(a, from + v, to + v, depth, fresh), v += 2;
  if (v < n) product_rows<1>(a, from + v, to + v, depth, fresh);
}

// ---- extend-add
// ----------------------------------------------------------------------------------

// d[16 i + ..] += s[stride i + ..] for `rows` rows, lanes [low, high) of the block.
USCONF_INLINE void add_rows(const float* s, long stride, float* d, int rows, int low, int high) {
  if (low == 0 && high == block) {
    for (int i = 0; i < rows; ++i) USCONF_UNROLL
    for (int v = 0; v < block; v += lanes)
      store(d + block * i + v, load(d + block * i + v) + load_unaligned(s + stride * i + v));
    return;
  }
  alignas(64) std::int32_t mask[block];
  for (int v = 0; v < block; ++v) mask[v] = v >= low && v < high ? -1 : 0;
  IntVec m[vectors];
  for (int v = 0; v < vectors; ++v) m[v] = *reinterpret_cast<const IntVec*>(mask + v * lanes);
  for (int i = 0; i < rows; ++i) USCONF_UNROLL
  for (int v = 0; v < vectors; ++v) {
    const Vec kept = (Vec)((IntVec)load_unaligned(s + stride * i + v * lanes) & m[v]);
    float* at = d + block * i + v * lanes;
    store(at, load(at) + kept);
  }
}

// Adds a child's couplings, run by run. Entry (p, q), p <= q, of the child lies at
// source(p, q) = base + offset(q) + p * row_stride, contiguous in q within `limit` columns.
template <bool Blocked>
USCONF_INLINE void extend(const Node& node, int child, const float* s, int stride, float* z,
                          float* u, bool to_update) {
  const Run* runs = node.runs[child];
  const int count = node.run_count[child];
  const int first_update_block = node.pivot_blocks;
  for (int a = 0; a + 1 < count; ++a) {  // the last run, the seeds, has no rows
    const Run& rows = runs[a];
    if ((rows.target >= node.padded) != to_update) continue;
    for (int b = 0; b < count; ++b) {
      const Run& columns = runs[b];
      if (columns.target < rows.target) continue;
      for (int j = 0; j < columns.length;) {
        const int from = columns.source + j, to = columns.target + j;
        const int target_block = to / block, low = to % block;
        int n = columns.length - j;
        n = n < block - low ? n : block - low;
        if (Blocked) n = n < block - from % block ? n : block - from % block;
        const float* source =
            Blocked ? s + block_triangle(from / block) + long(rows.source) * block + from % block
                    : s + long(rows.source) * stride + from;
        const long step = Blocked ? block : stride;
        float* target = to_update ? u + block_triangle(target_block - first_update_block) +
                                        long(rows.target - node.padded) * block
                                  : z + node.column(target_block) + long(rows.target) * block;
        source -= low;
        if (a != b) {
          add_rows(source, step, target, rows.length, low, low + n);
        } else {
          // Within one run only the upper triangle counts.
          add_rows(source, step, target, j, low, low + n);
          const int end = j + n < rows.length ? j + n : rows.length;
          for (int i = j; i < end; ++i)
            add_rows(source + i * step, step, target + block * i, 1, low + i - j + 1, low + n);
        }
        j += n;
      }
    }
  }
}

void add_update(const Node& node, int child, const float* child_u, float* z, float* u,
                bool to_update) {
  extend<true>(node, child, child_u, 0, z, u, to_update);
}

void add_schur(const Node& node, int child, const float* schur, int stride, float* z, float* u,
               bool to_update) {
  extend<false>(node, child, schur, stride, z, u, to_update);
}

// ---- elimination
// ---------------------------------------------------------------------------------

// Forward substitution of 16 rows with a factored diagonal block: row k is scaled by its reciprocal
// root and added to the rows below it.
USCONF_INLINE void substitute(const float* diagonal, const float* inverse_roots, float* rows) {
  for (int v = 0; v < block; v += lanes) {
    Vec r[block];
    USCONF_UNROLL
    for (int k = 0; k < block; ++k) r[k] = load(rows + block * k + v);
    USCONF_UNROLL
    for (int k = 0; k < block; ++k) {
      r[k] *= splat(inverse_roots[k]);
      store(rows + block * k + v, r[k]);
      USCONF_UNROLL
      for (int i = k + 1; i < block; ++i) r[i] += splat(diagonal[block * k + i]) * r[k];
    }
  }
}

// sums[i] += the sum of row i of a 16 x 16 block
USCONF_INLINE void add_row_sums(const float* rows, float* sums) {
  USCONF_UNROLL
  for (int i0 = 0; i0 < block; i0 += lanes) {
    Vec t[lanes];
    USCONF_UNROLL
    for (int i = 0; i < lanes; ++i) {
      t[i] = load(rows + block * (i0 + i));
      USCONF_UNROLL
      for (int v = lanes; v < block; v += lanes) t[i] += load(rows + block * (i0 + i) + v);
    }
    transpose(t);
    Vec total = t[0];
    USCONF_UNROLL
    for (int i = 1; i < lanes; ++i) total += t[i];
    store(sums + i0, load(sums + i0) + total);
  }
}

// Adds blocks of rows element by element: acc += rows.
USCONF_INLINE void accumulate(const float* rows, float* acc) {
  USCONF_UNROLL
  for (int i = 0; i < block * block; i += lanes) store(acc + i, load(acc + i) + load(rows + i));
}

// Eliminates the 16 pivots of a diagonal block. outer[k]: sum of pivot k's couplings outside the
// block; sigma[k]: those of them that go to the boundary; y[k] = sigma[k]/sqrt(d) afterwards.
USCONF_INLINE void eliminate_diagonal(float* d, float* outer, float* sigma, float* inverse_roots,
                                      float* y) {
  // window + 16 - i: 0 in the first i lanes of a block's row, all ones behind them.
  alignas(64) static const std::int32_t window[2 * block] = {
      0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,
      -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
  for (int k = 0; k < block; ++k) {
    float* row = d + block * k;
    Vec r[vectors], partial{};
    USCONF_UNROLL
    for (int v = 0; v < vectors; ++v) {
      // Row k's updates wrote its lower triangle too: only lanes right of the pivot count.
      const float* mask = reinterpret_cast<const float*>(window + block - 1 - k) + v * lanes;
      r[v] = (Vec)((IntVec)load(row + v * lanes) & (IntVec)load_unaligned(mask));
      partial += r[v];
    }
    float total = 0;
    USCONF_UNROLL
    for (int l = 0; l < lanes; ++l) total += partial[l];
    total += outer[k];
    const float q = total > 0 ? 1.0f / __builtin_sqrtf(total) : 0.0f;
    const Vec scale = splat(q), out = splat(outer[k] * q), s = splat(sigma[k] * q);
    inverse_roots[k] = q;
    y[k] = sigma[k] * q;
    USCONF_UNROLL
    for (int v = 0; v < vectors; ++v) {
      r[v] *= scale;
      store(row + v * lanes, r[v]);
      store(outer + v * lanes, load(outer + v * lanes) + r[v] * out);
      store(sigma + v * lanes, load(sigma + v * lanes) + r[v] * s);
    }
    for (int i = k + 1; i < block; ++i) USCONF_UNROLL
    for (int v = 0; v < vectors; ++v) {
      float* at = d + block * i + v * lanes;
      store(at, load(at) + splat(row[i]) * r[v]);
    }
  }
}

void eliminate(const Node& node, float* z, float* inverse_roots, float* scratch) {
  const int pivot_blocks = node.pivot_blocks, blocks = node.blocks;
  float* sigma = scratch;
  float* y = scratch + node.padded;
  alignas(64) float sums[block * block];
  alignas(64) float outer[block];
  for (int k = 0; k < pivot_blocks; ++k) {
    for (int i = 0; i < block * block; ++i) sums[i] = 0;
    for (int j = pivot_blocks; j < blocks; ++j) accumulate(z + node.column(j) + 256 * k, sums);
    for (int i = 0; i < block; ++i) sigma[block * k + i] = 0;
    add_row_sums(sums, sigma + block * k);
  }
  const float* from[3];
  float* to[3];
  for (int k = 0; k < pivot_blocks; ++k) {
    const float* a = z + node.column(k);
    for (int i = 0; i < block * block; ++i) sums[i] = 0;
    for (int j = k; j < pivot_blocks; j += 3) {
      const int n = pivot_blocks - j < 3 ? pivot_blocks - j : 3;
      for (int c = 0; c < n; ++c) {
        float* column = z + node.column(j + c);
        from[c] = column;
        to[c] = column + 256 * k;
      }
      if (k > 0) product(n, a, from, to, block * k, false);
      for (int c = j == k ? 1 : 0; c < n; ++c) accumulate(to[c], sums);
    }
    float* s = sigma + block * k;
    for (int v = 0; v < block; v += lanes) {
      Vec total = load(s + v);
      for (int i = 0; i < block * k; ++i) total += splat(y[i]) * load(a + block * i + v);
      store(s + v, total);
      store(outer + v, total);
    }
    add_row_sums(sums, outer);
    float* diagonal = z + node.column(k) + 256 * k;
    eliminate_diagonal(diagonal, outer, s, inverse_roots + block * k, y + block * k);
    for (int j = k + 1; j < pivot_blocks; ++j)
      substitute(diagonal, inverse_roots + block * k, z + node.column(j) + 256 * k);
  }
  for (int j = pivot_blocks; j < blocks; j += 3) {
    const int n = blocks - j < 3 ? blocks - j : 3;
    for (int k = 0; k < pivot_blocks; ++k) {
      for (int c = 0; c < n; ++c) {
        float* column = z + node.column(j + c);
        from[c] = column;
        to[c] = column + 256 * k;
      }
      const float* a = z + node.column(k);
      if (k > 0) product(n, a, from, to, block * k, false);
      for (int c = 0; c < n; ++c) substitute(a + 256 * k, inverse_roots + block * k, to[c]);
    }
  }
}

// u = sum over pivots of z_ki z_kj, in slices of pivots that stay in the first cache.
void update(const Node& node, const float* z, float* u) {
  constexpr int slice = 128;
  const int n = node.update_blocks(), first = node.pivot_blocks;
  const float* from[3];
  float* to[3];
  for (int k = 0; k < node.padded; k += slice) {
    const int depth = node.padded - k < slice ? node.padded - k : slice;
    for (int j = 0; j < n; j += 3) {
      const int width = n - j < 3 ? n - j : 3;
      for (int i = 0; i < j + width; ++i) {
        const int skip = i > j ? i - j : 0;  // blocks below the diagonal
        for (int c = skip; c < width; ++c) {
          from[c - skip] = z + node.column(first + j + c) + block * k;
          to[c - skip] = u + block_triangle(j + c) + 256 * i;
        }
        product(width - skip, z + node.column(first + i) + block * k, from, to, depth, k == 0);
      }
    }
  }
}

void pack(const Node& node, const float* z, float* out, bool streaming) {
  for (int k = 0; k < node.pivot_blocks; ++k)
    for (int j = k; j < node.blocks; ++j, out += 256) {
      const float* in = z + node.column(j) + 256 * k;
      if (streaming)
        for (int i = 0; i < 256; i += lanes) stream(out + i, load(in + i));
      else
        for (int i = 0; i < 256; i += lanes) store(out + i, load(in + i));
    }
  if (streaming) stream_fence();
}

// ---- sweeps
// --------------------------------------------------------------------------------------

// Values of a diagonal block's pivots, from the first on or from the last: each is its right-hand
// side times its reciprocal root, then goes to the others' right-hand sides by its row of couplings
// (zero for those that have their value). Sides come scaled by the roots: the chain from value to
// value is a broadcast and a multiply-add.
template <bool Down>
USCONF_INLINE void substitute_values(const float* couplings, const float* roots, Vec* t) {
  Vec scale[vectors];
  USCONF_UNROLL
  for (int v = 0; v < vectors; ++v) t[v] *= scale[v] = load(roots + v * lanes);
  USCONF_UNROLL
  for (int k = 0; k < block; ++k) {
    const int i = Down ? k : block - 1 - k;
    const Vec value = __builtin_shuffle(t[i / lanes], IntVec{} + i % lanes);
    USCONF_UNROLL
    for (int v = 0; v < vectors; ++v)
      t[v] += load(couplings + block * i + v * lanes) * scale[v] * value;
  }
}

void forward(const Node& node, const float* factor, float* t, float* y) {
  for (int k = 0; k < node.pivot_blocks; ++k) {
    const float* row = factor + node.factor_row(k);
    Vec values[vectors];
    for (int v = 0; v < vectors; ++v) values[v] = load(t + block * k + v * lanes);
    substitute_values<true>(row, factor + block * k, values);
    for (int v = 0; v < vectors; ++v) store(y + block * k + v * lanes, values[v]);
    Vec s[block];
    for (int i = 0; i < block; ++i) s[i] = splat(y[block * k + i]);
    for (int j = k + 1; j < node.blocks; ++j) {
      row += 256;
      for (int v = 0; v < block; v += lanes) {
        Vec even = load(t + block * j + v), odd{};
        USCONF_UNROLL
        for (int i = 0; i < block; i += 2) {
          even += s[i] * load(row + block * i + v);
          odd += s[i + 1] * load(row + block * (i + 1) + v);
        }
        store(t + block * j + v, even + odd);
      }
    }
  }
}

// sum[i] += row i of a 16 x 16 block times x, element by element; the last row first
USCONF_INLINE void multiply_rows(const float* rows, const float* x, Vec (*sum)[vectors]) {
  USCONF_UNROLL
  for (int i = block - 1; i >= 0; --i) USCONF_UNROLL
  for (int v = vectors - 1; v >= 0; --v)
    sum[i][v] += load(rows + block * i + v * lanes) * load(x + v * lanes);
}

// Reads the factor in one descending stream: one that turns round at every block or row gets a
// third of the memory's rate (docs/decisions/2026-11-22-direct-solver.md).
void backward(const Node& node, const float* factor, const float* y, float* x) {
  alignas(64) float columns[block * block];  // of the diagonal block
  for (int k = node.pivot_blocks - 1; k >= 0; --k) {
    const float* diagonal = factor + node.factor_row(k);
    Vec sum[block][vectors] = {};
    for (int j = node.blocks - 1; j > k; --j)
      multiply_rows(diagonal + 256 * (j - k), x + block * j, sum);
    USCONF_UNROLL
    for (int i0 = 0; i0 < block; i0 += lanes) USCONF_UNROLL
    for (int v = 0; v < vectors; ++v) {
      Vec rows[lanes];
      USCONF_UNROLL
      for (int i = 0; i < lanes; ++i) rows[i] = load(diagonal + block * (i0 + i) + v * lanes);
      transpose(rows);
      USCONF_UNROLL
      for (int i = 0; i < lanes; ++i) store(columns + block * (v * lanes + i) + i0, rows[i]);
    }
    Vec values[vectors];
    USCONF_UNROLL
    for (int v = 0; v < vectors; ++v) {
      Vec rows[lanes];
      USCONF_UNROLL
      for (int i = 0; i < lanes; ++i) {
        rows[i] = sum[v * lanes + i][0];
        USCONF_UNROLL
        for (int u = 1; u < vectors; ++u) rows[i] += sum[v * lanes + i][u];
      }
      transpose(rows);
      values[v] = y ? load(y + block * k + v * lanes) : Vec{};
      USCONF_UNROLL
      for (int i = 0; i < lanes; ++i) values[v] += rows[i];
    }
    substitute_values<false>(columns, factor + block * k, values);
    for (int v = 0; v < vectors; ++v) store(x + block * k + v * lanes, values[v]);
  }
}

}  // namespace
}  // namespace usconf::cpu::USCONF_ISA_NAMESPACE
