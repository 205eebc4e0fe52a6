// Gradient of the filters of a stride-1 3x3 convolution, with a quarter of the direct method's multiplications: input and
// output gradient are transformed whole, then blocks of filters are sums over all tiles. Neither the cutting of the work
// nor the number of threads changes a result.
#pragma once

#include "conv.h"

namespace mrsi_fast {
namespace MRSI_ISA {

constexpr int kOuterRows = kLanes == 16 ? 12 : 6;  // of an outer kernel: 24 sums of 32 registers (AVX-512), 12 of 16
constexpr int kBlockRows = 48;     // output channels of a block of filters: v is read once for each block
constexpr int kBlockPanels = 2;    // panels of input channels of a block: m is read once for each block
constexpr int kTilesAtOnce = 128;  // rows of v and m that stay in the first-level cache while a block uses them

// out[r][0..kPanel) = sum over depth d of a[d][r] b[d][0..kPanel), added to what is there if `add`.
struct OuterProduct {
    const float* a;
    int64_t a_pitch;
    const float* b;
    int64_t b_pitch;
    int depth;
    bool add;
    float* out;
    int64_t pitch;
};

template <int ROWS>
static inline void outer_kernel(const OuterProduct& product) {
    auto [a, a_pitch, b, b_pitch, depth, add, out, pitch] = product;
    Vec sum[ROWS][2];
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
        sum[r][0] = add ? load(out + r * pitch) : Vec{};
        sum[r][1] = add ? load(out + r * pitch + kLanes) : Vec{};
    }
    for (int d = 0; d < depth; ++d, a += a_pitch, b += b_pitch) {
        const Vec b0 = load(b), b1 = load(b + kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; ++r) {
            const Vec value = splat(a[r]);
            sum[r][0] += value * b0;
            sum[r][1] += value * b1;
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
        store(out + r * pitch, sum[r][0]);
        store(out + r * pitch + kLanes, sum[r][1]);
    }
}

template <int ROWS>
static inline void outer_rows(int rows, const OuterProduct& product) {
    if (rows == ROWS) return outer_kernel<ROWS>(product);
    if constexpr (ROWS > 1) outer_rows<ROWS - 1>(rows, product);
}

// Up to kLanes channels of dM = A dY A' of one tile; outside the image dY is zero.
template <int M, bool FULL>
static inline void transform_gradient_tile(const float* grad, TilePart part, int64_t pixel, int64_t row_step,
                                           int64_t plane, float* m) {
    constexpr int A = M + 2;
    Vec half[M][A];
#pragma GCC unroll 8
    for (int x = 0; x < M; ++x) {
        Vec d[M], o[A];
#pragma GCC unroll 8
        for (int y = 0; y < M; ++y) {
            const float* from = grad + y * row_step + x * pixel;
            d[y] = FULL ? load(from) : y < part.high && x < part.wide ? load_some(from, part.count) : Vec{};
        }
        Winograd<M>::output_transposed(d, o);
#pragma GCC unroll 8
        for (int y = 0; y < A; ++y) half[x][y] = o[y];
    }
#pragma GCC unroll 8
    for (int y = 0; y < A; ++y) {
        Vec d[M], o[A];
#pragma GCC unroll 8
        for (int x = 0; x < M; ++x) d[x] = half[x][y];
        Winograd<M>::output_transposed(d, o);
#pragma GCC unroll 8
        for (int x = 0; x < A; ++x) store(m + (y * A + x) * plane, o[x]);
    }
}

template <int M>
static void transform_gradient(const FilterGradient* g, int n, int y0, int tiles, int64_t plane, int64_t pitch,
                               float* m) {
    const int channels = g->conv.out_channels, width = g->conv.out_width;
    const int64_t row_step = (int64_t)width * channels;
    const int high = (int)smaller(M, g->conv.out_height - y0);
    for (int t = 0; t < tiles; ++t) {
        const int wide = (int)smaller(M, width - t * M);
        const float* from = g->grad + ((int64_t)n * g->conv.out_height + y0) * row_step + (int64_t)t * M * channels;
        for (int k = 0; k < channels; k += kLanes)
            if (high == M && wide == M && k + kLanes <= channels)
                transform_gradient_tile<M, true>(from + k, {M, M, kLanes}, channels, row_step, plane,
                                                 m + t * pitch + k);
            else
                transform_gradient_tile<M, false>(from + k, {high, wide, channels - k}, channels, row_step, plane,
                                                  m + t * pitch + k);
    }
}

template <int M>
static void transform_item(const FilterGradient* g, int item, float* scratch) {
    constexpr int BANDS = kStripRows / M;
    const Conv* c = &g->conv;
    const int per_image = strips_of(c->out_height), across = (c->out_width + M - 1) / M;
    const Range r = item_range(c, item);
    Carver carver = {scratch, 0};
    Scratch s = carve_input(c, &carver);
    s.v_pitch = gradient_pitch(c->in_channels);
    s.v_plane = tiles_of(c) * s.v_pitch;
    s.v = g->v + (int64_t)r.strip0 * BANDS * across * s.v_pitch;
    winograd_input<M>(c, r, &s);
    const int64_t pitch = gradient_pitch(c->out_channels), plane = tiles_of(c) * pitch;
    for (int strip = r.strip0; strip < r.strip1; ++strip)
        for (int band = 0; band < BANDS; ++band)
            transform_gradient<M>(g, strip / per_image, strip % per_image * kStripRows + band * M, across, plane, pitch,
                                  g->m + ((int64_t)strip * BANDS + band) * across * pitch);
}

// dW = G' dU G of up to kLanes input channels of one output channel.
template <int M>
static void emit_filters(const FilterGradient* g, const float* u, int64_t plane, int k, int ch) {
    constexpr int A = M + 2;
    const int count = (int)smaller(kLanes, g->conv.in_channels - ch);
    Vec half[3][A];
    for (int x = 0; x < A; ++x) {
        Vec d[A], o[3];
        for (int y = 0; y < A; ++y) d[y] = load(u + (y * A + x) * plane);
        Winograd<M>::filter_transposed(d, o);
        for (int y = 0; y < 3; ++y) half[y][x] = o[y];
    }
    float* to = g->out + k * g->out_step + ch * g->in_step;
    for (int y = 0; y < 3; ++y) {
        Vec o[3];
        Winograd<M>::filter_transposed(half[y], o);
        for (int x = 0; x < 3; ++x) {
            float* tap = to + (3 * y + x) * g->tap_step;
            if (g->in_step == 1) {
                store_some(tap, o[x], count);
                continue;
            }
            float lanes[kLanes];
            store(lanes, o[x]);
            for (int i = 0; i < count; ++i) tap[i * g->in_step] = lanes[i];
        }
    }
}

template <int M>
static void multiply_item(const FilterGradient* g, int item, float* block) {
    constexpr int A = M + 2;
    const Conv* c = &g->conv;
    const int row_blocks = (c->out_channels + kBlockRows - 1) / kBlockRows;
    const int k0 = (int)((int64_t)c->out_channels * (item % row_blocks) / row_blocks),
              k1 = (int)((int64_t)c->out_channels * (item % row_blocks + 1) / row_blocks);
    const int c0 = item / row_blocks * kBlockPanels * kPanel,
              c1 = (int)smaller(c0 + kBlockPanels * kPanel, c->in_channels);
    const int tiles = (int)tiles_of(c), rows = k1 - k0, pieces = (rows + kOuterRows - 1) / kOuterRows;
    const int64_t wide = kBlockPanels * kPanel, v_pitch = gradient_pitch(c->in_channels),
                  m_pitch = gradient_pitch(c->out_channels);
    for (int e = 0; e < A * A; ++e)
        for (int t = 0; t < tiles; t += kTilesAtOnce) {
            const int depth = (int)smaller(kTilesAtOnce, tiles - t);
            const float* v = g->v + ((int64_t)e * tiles + t) * v_pitch;
            const float* m = g->m + ((int64_t)e * tiles + t) * m_pitch + k0;
            for (int ch = c0; ch < c1; ch += kPanel)
                for (int p = 0; p < pieces; ++p) {
                    const int first = rows * p / pieces, last = rows * (p + 1) / pieces;
                    float* out = block + ((int64_t)e * rows + first) * wide + (ch - c0);
                    outer_rows<kOuterRows>(last - first,
                                           {m + first, m_pitch, v + ch, v_pitch, depth, t > 0, out, wide});
                }
        }
    for (int k = k0; k < k1; ++k)
        for (int ch = c0; ch < c1; ch += kLanes)
            emit_filters<M>(g, block + (k - k0) * wide + (ch - c0), rows * wide, k, ch);
}

static int filter_gradient_items(const FilterGradient* g, int phase) {
    if (phase == 0) return conv_row_items(&g->conv);
    const int panels = (g->conv.in_channels + kPanel - 1) / kPanel;
    return (g->conv.out_channels + kBlockRows - 1) / kBlockRows * ((panels + kBlockPanels - 1) / kBlockPanels);
}

static size_t filter_gradient_scratch(const FilterGradient* g) {
    Carver measure = {nullptr, 0};
    carve_input(&g->conv, &measure);
    const int64_t block = (int64_t)planes_of(g->conv.method, 3) * kBlockRows * kBlockPanels * kPanel;
    return measure.used > block ? measure.used : block;
}

static void filter_gradient_item(const FilterGradient* g, int phase, int item, float* scratch) {
    if (phase == 0)
        g->conv.method == kWinograd4 ? transform_item<4>(g, item, scratch) : transform_item<2>(g, item, scratch);
    else
        g->conv.method == kWinograd4 ? multiply_item<4>(g, item, scratch) : multiply_item<2>(g, item, scratch);
}

}  // namespace MRSI_ISA
}  // namespace mrsi_fast
