// The micro-kernel under every convolution, and the per-channel statistics that follow it.
#pragma once

#include "mrsi_fast/network.h"
#include "simd.h"

namespace mrsi_fast {
namespace MRSI_ISA {

constexpr int kPanel = 2 * kLanes;                // output channels that one micro-kernel covers
constexpr int kMicroRows = kLanes == 16 ? 8 : 6;  // more rows than 8 need more pointers than there are registers
constexpr int kTwoPanelRows = 6;                  // AVX-512, two panels at once: 24 sums of 32 registers
constexpr int kTwoPanelDepth = 160;               // of two panels that the first-level cache still holds
constexpr int kLine = 16;                         // floats in a cache line

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

// Cuts one block of floats into pieces that start on cache lines; without a block it only measures.
struct Carver {
    float* block;
    int64_t used;
    float* take(int64_t count) {
        float* piece = block ? block + used : nullptr;
        used = round_up(used + count, 16);
        return piece;
    }
};

// Up to `count` values: a whole vector, or the tail of a row.
static inline Vec load_some(const float* p, int64_t count) { return count >= kLanes ? load(p) : load_part(p, count); }
static inline void store_some(float* p, Vec v, int64_t count) {
    if (count >= kLanes) return store(p, v);
    store_part(p, v, count);
}

// What a micro-kernel computes: out[r][0..kPanel) = sum over taps t and depth d of row[r][tap[t] + d] panel[t][d][0..kPanel),
// added to what is there if `add`; a second panel lies `second_panel` floats behind the first. At each depth one cache line is
// asked for, `step` floats further each time from `ahead` on (asking cannot fail, wherever that is).
struct MicroProduct {
    const float* const* row;
    const int64_t* tap;
    int taps, depth;
    const float* panel;
    int64_t second_panel;
    const float* ahead;
    int64_t step;
    bool add;
    float* out;
    int64_t pitch;  // floats between rows of out
};

// ROWS x 2 PANELS sums stay in registers; each value of a row is broadcast, each panel vector is shared by all rows. A share of
// the rows that follow is asked for too. A function of its own: inlined beside others it loses registers to them.
template <int ROWS, int PANELS>
static __attribute__((noinline)) void micro_kernel(const MicroProduct& product) {
    constexpr int WIDE = 2 * PANELS;
    const auto [row, tap, taps, depth, first_panel, second_panel, first_ahead, step, add, out, pitch] = product;
    const float *panel = first_panel, *ahead = first_ahead;
    Vec sum[ROWS][WIDE];
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < WIDE; ++v) sum[r][v] = add ? load(out + r * pitch + v * kLanes) : Vec{};
    for (int t = 0; t < taps; ++t) {
        const float* at[ROWS];
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; ++r) at[r] = row[r] + tap[t];
        const float* rows_ahead = at[ROWS - 1] + (row[ROWS - 1] - row[ROWS > 1 ? ROWS - 2 : 0]);
        for (int d = 0; d < depth; ++d, panel += kPanel, ahead += step) {
            __builtin_prefetch(ahead, 0, 2);  // into the second level
            __builtin_prefetch(rows_ahead + d * ROWS);
            Vec b[WIDE];
#pragma GCC unroll 4
            for (int v = 0; v < WIDE; ++v) b[v] = load(panel + v / 2 * second_panel + v % 2 * kLanes);
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; ++r) {
                const Vec a = splat(at[r][d]);
#pragma GCC unroll 4
                for (int v = 0; v < WIDE; ++v) sum[r][v] += a * b[v];
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < WIDE; ++v) store(out + r * pitch + v * kLanes, sum[r][v]);
}

// micro_kernel<rows, PANELS>, for any number of rows up to ROWS.
template <int ROWS, int PANELS>
static inline void micro_kernel_rows(int rows, const MicroProduct& product) {
    if (rows == ROWS) return micro_kernel<ROWS, PANELS>(product);
    if constexpr (ROWS > 1) micro_kernel_rows<ROWS - 1, PANELS>(rows, product);
}

// The left factor of a matrix product: `rows` rows of `depth` values, `stride` floats apart.
struct LeftFactor {
    const float* data;
    int64_t stride;
    int rows, depth;
};

// Where a matrix product goes: rows `pitch` floats apart, panels of columns `panel_step` floats apart (kPanel in an ordinary
// matrix); `add`: to what is there.
struct ProductOut {
    float* data;
    int64_t pitch;
    int64_t panel_step = kPanel;
    bool add = false;
};

// Memory that is needed after some products: asked for piece by piece while they keep the processor busy.
struct PrefetchQueue {
    const float* at[2];
    int64_t left[2];  // floats
};

static inline const float* take(PrefetchQueue* queue, int64_t count, const float* otherwise) {
    for (int i = 0; queue && i < 2; ++i)
        if (queue->left[i] > 0) {
            const float* piece = queue->at[i];
            queue->at[i] += count, queue->left[i] -= count;
            return piece;
        }
    return otherwise;
}

// PANELS neighbouring panels of a product in blocks of up to ROWS rows. Rows are dealt out evenly (8 = 4 + 4, not
// 6 + 2): a short block has too few sums in flight to hide the FMA latency. They ask for the panels at `next`, which come
// from a slower cache: evenly, or, if a `queue` says that something else is needed soon, the first blocks only and the others for that.
template <int ROWS, int PANELS>
static inline void multiply_panels(const LeftFactor& a, const float* panel, const float* next, PrefetchQueue* queue,
                                   const ProductOut& out) {
    constexpr int WIDE = PANELS * kPanel;
    const int64_t tap = 0, second_panel = (int64_t)a.depth * kPanel;
    const int blocks = (a.rows + ROWS - 1) / ROWS;
    const int64_t step = queue ? kLine : smaller(kLine, (WIDE + blocks - 1) / blocks);
    for (int b = 0; b < blocks; ++b) {
        const int first = a.rows * b / blocks, last = a.rows * (b + 1) / blocks;
        const float* row[ROWS];
        for (int r = first; r < last; ++r) row[r - first] = a.data + r * a.stride;
        const float* ahead = next + b * a.depth * step;
        if (queue && b * kLine >= WIDE) ahead = take(queue, (int64_t)a.depth * kLine, panel);
        float* to = out.data + first * out.pitch;
        micro_kernel_rows<ROWS, PANELS>(
            last - first, {row, &tap, 1, a.depth, panel, second_panel, ahead, step, out.add, to, out.pitch});
    }
}

// The product of a left factor and `channels` columns in panels [channels / kPanel][depth][kPanel].
static inline void gemm(const LeftFactor& a, const float* panels, int channels, ProductOut out) {
    const int64_t panel = (int64_t)a.depth * kPanel;
    for (int k = 0; k < channels; k += kPanel, panels += panel, out.data += out.panel_step)
        multiply_panels<kMicroRows, 1>(a, panels, panels + panel, nullptr, out);
}

// Mean and M2 of channels [first, last) over the rows of one strip: two passes over values that are still in cache.
static void strip_moments(const float* x, int rows, int width, int channels, int first, int last, float* stats) {
    const int64_t pixels = (long)rows * width;
    for (int ch = first; ch < last; ch += kPanel) {
        const int count0 = last - ch < kLanes ? last - ch : kLanes, count1 = last - ch - kLanes;
        Vec s0 = {}, s1 = {}, q0 = {}, q1 = {};
        for (int64_t p = 0; p < pixels; ++p) {
            s0 += load_some(x + p * channels + ch, count0);
            if (count1 > 0) s1 += load_some(x + p * channels + ch + kLanes, count1);
        }
        const Vec m0 = s0 / (float)pixels, m1 = s1 / (float)pixels;
        for (int64_t p = 0; p < pixels; ++p) {
            const Vec d0 = load_some(x + p * channels + ch, count0) - m0;
            q0 += d0 * d0;
            if (count1 > 0) {
                const Vec d1 = load_some(x + p * channels + ch + kLanes, count1) - m1;
                q1 += d1 * d1;
            }
        }
        store_some(stats + ch, m0, count0);
        store_some(stats + channels + ch, q0, count0);
        if (count1 > 0) {
            store_some(stats + ch + kLanes, m1, count1);
            store_some(stats + channels + ch + kLanes, q1, count1);
        }
    }
}

static inline void stats_item(const float* x, int height, int width, int channels, float* stats, int item) {
    const int strips = strips_of(height), n = item / strips, y = item % strips * kStripRows;
    const int rows = (int)smaller(kStripRows, height - y);
    strip_moments(x + ((int64_t)n * height + y) * width * channels, rows, width, channels, 0, channels,
                  stats + (int64_t)item * 2 * channels);
}

}  // namespace MRSI_ISA
}  // namespace mrsi_fast
