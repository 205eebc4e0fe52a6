// Convolution by Winograd F(4x4,3x3) and F(2x2,3x3) (Lavin & Gray 2016; points 0, +-1, +-2, inf and 0, +-1, inf).
#pragma once

#include "item.h"

namespace mrsi_fast {
namespace MRSI_ISA {

// G of F(4x4,3x3) and F(2x2,3x3), Lavin & Gray 2016.
static const double kFour[6][3] = {{1.0 / 4, 0, 0},
                                   {-1.0 / 6, -1.0 / 6, -1.0 / 6},
                                   {-1.0 / 6, 1.0 / 6, -1.0 / 6},
                                   {1.0 / 24, 1.0 / 12, 1.0 / 6},
                                   {1.0 / 24, -1.0 / 12, 1.0 / 6},
                                   {0, 0, 1}};
static const double kTwo[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};

template <int M>
struct Winograd;  // transforms of one row or column of M + 2 values

template <>
struct Winograd<4> {
    static inline void input(const Vec* d, Vec* o) {
        const Vec t0 = d[4] - 4.0f * d[2], t1 = d[3] - 4.0f * d[1], t2 = d[4] - d[2], t3 = 2.0f * (d[3] - d[1]);
        o[0] = 4.0f * d[0] + (d[4] - 5.0f * d[2]);
        o[1] = t0 + t1;
        o[2] = t0 - t1;
        o[3] = t2 + t3;
        o[4] = t2 - t3;
        o[5] = 4.0f * d[1] + (d[5] - 5.0f * d[3]);
    }
    static inline void output(const Vec* m, Vec* o) {
        const Vec s1 = m[1] + m[2], d1 = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4];
        o[0] = m[0] + s1 + s2;
        o[1] = d1 + 2.0f * d2;
        o[2] = s1 + 4.0f * s2;
        o[3] = m[5] + (d1 + 8.0f * d2);
    }
    static inline void output_transposed(const Vec* y, Vec* o) {
        const Vec even = y[0] + y[2], odd = y[1] + y[3], even4 = y[0] + 4.0f * y[2], odd2 = 2.0f * y[1] + 8.0f * y[3];
        o[0] = y[0];
        o[1] = even + odd;
        o[2] = even - odd;
        o[3] = even4 + odd2;
        o[4] = even4 - odd2;
        o[5] = y[3];
    }
    static inline void filter_transposed(const Vec* u, Vec* o) {
        const Vec s1 = (u[1] + u[2]) * (1.0f / 6), d1 = (u[2] - u[1]) * (1.0f / 6);
        const Vec s2 = (u[3] + u[4]) * (1.0f / 6), d2 = (u[3] - u[4]) * (1.0f / 12);
        o[0] = 0.25f * u[0] - s1 + 0.25f * s2;
        o[1] = d1 + d2;
        o[2] = u[5] - s1 + s2;
    }
};

template <>
struct Winograd<2> {
    static inline void input(const Vec* d, Vec* o) {
        o[0] = d[0] - d[2];
        o[1] = d[1] + d[2];
        o[2] = d[2] - d[1];
        o[3] = d[1] - d[3];
    }
    static inline void output(const Vec* m, Vec* o) {
        o[0] = m[0] + m[1] + m[2];
        o[1] = m[1] - m[2] - m[3];
    }
    static inline void output_transposed(const Vec* y, Vec* o) {
        o[0] = y[0];
        o[1] = y[0] + y[1];
        o[2] = y[0] - y[1];
        o[3] = -y[1];
    }
    static inline void filter_transposed(const Vec* u, Vec* o) {
        const Vec s = (u[1] + u[2]) * 0.5f;
        o[0] = u[0] + s;
        o[1] = (u[1] - u[2]) * 0.5f;
        o[2] = u[3] + s;
    }
};

// Transforms a cache line of channels of one column: to[A][kLine].
template <int M>
static inline void vertical(const float* const* row, int64_t at, float* to) {
    constexpr int A = M + 2;
    for (int half = 0; half < kLine; half += kLanes) {
        Vec d[A], o[A];
#pragma GCC unroll 8
        for (int y = 0; y < A; ++y) d[y] = load(row[y] + at + half);
        Winograd<M>::input(d, o);
#pragma GCC unroll 8
        for (int y = 0; y < A; ++y) store(to + y * kLine + half, o[y]);
    }
}

// Transforms one row of tiles, a cache line of channels at a time. The vertical pass is done once per column and shared by
// the tiles that overlap in it. The horizontal one writes M + 2 planes at a time, all tiles of the row: the processor
// follows stores to few pages.
template <int M>
static __attribute__((noinline)) void transform_input(const Scratch* s, int band, int channels, int tiles, float* v) {
    constexpr int A = M + 2;
    const int64_t pitch = s->pitch, plane = s->v_plane, v_pitch = s->v_pitch;
    const float* row[A];
    for (int y = 0; y < A; ++y) row[y] = row_of(&s->rows, band * M + y);
    for (int ch = 0; ch < channels; ch += kLine) {
        float* vertical_pass = s->vertical_pass;
        for (int x = 0; x < tiles * M + 2; ++x) vertical<M>(row, x * pitch + ch, vertical_pass + x * A * kLine);
        for (int y = 0; y < A; ++y) {
            const float* from = vertical_pass + y * kLine;
            float* to = v + y * A * plane + ch;
            for (int t = 0; t < tiles; ++t, from += M * A * kLine, to += v_pitch)
                for (int half = 0; half < kLine; half += kLanes) {
                    Vec d[A], o[A];
#pragma GCC unroll 8
                    for (int i = 0; i < A; ++i) d[i] = load(from + i * A * kLine + half);
                    Winograd<M>::input(d, o);
#pragma GCC unroll 8
                    for (int i = 0; i < A; ++i) store(to + i * plane + half, o[i]);
                }
        }
    }
}

// How much of a tile lies inside the image: rows, columns, channels.
struct TilePart {
    int high, wide, count;
};

// Up to kLanes channels of one tile. Bias, residual and result are null or point at the first of them.
template <int M, bool FULL>
static inline __attribute__((always_inline)) void transform_tile(const float* m, int64_t plane, TilePart part,
                                                                 const float* bias, const float* residual, float* out,
                                                                 int64_t pixel, int64_t row_step) {
    constexpr int A = M + 2;
    Vec half[M][A];
#pragma GCC unroll 8
    for (int x = 0; x < A; ++x) {
        Vec d[A], o[M];
#pragma GCC unroll 8
        for (int y = 0; y < A; ++y) d[y] = load(m + (y * A + x) * plane);
        Winograd<M>::output(d, o);
#pragma GCC unroll 8
        for (int y = 0; y < M; ++y) half[y][x] = o[y];
    }
    const Vec add = bias ? FULL ? load(bias) : load_some(bias, part.count) : Vec{};
    const int rows = FULL ? M : part.high,
              columns = FULL ? M : part.wide;  // known to the compiler: `half` stays in registers
#pragma GCC unroll 4
    for (int y = 0; y < rows; ++y) {
        Vec o[M];
        Winograd<M>::output(half[y], o);
#pragma GCC unroll 4
        for (int x = 0; x < columns; ++x) {
            const int64_t at = y * row_step + x * pixel;
            Vec value = o[x] + add;
            if (FULL) {
                if (residual) value += load(residual + at);
                store(out + at, value);
            } else {
                if (residual) value += load_some(residual + at, part.count);
                store_some(out + at, value, part.count);
            }
        }
    }
}

template <int M>
static __attribute__((noinline)) void transform_output(const Conv* c, const Scratch* s, int n, int y0, int tiles,
                                                       const float* m, int k0, int k1) {
    const int64_t plane = s->m_plane, pitch = channels_at_once(c), pixel = c->out_channels,
                  row_step = c->out_width * pixel;
    const int high = (int)smaller(M, c->out_height - y0), width = c->out_width;
    const float *bias = c->bias, *residual = c->residual;
    float* out = c->out;
    for (int t = 0; t < tiles; ++t) {
        const int wide = (int)smaller(M, width - t * M);
        const int64_t at = ((int64_t)n * c->out_height + y0) * row_step + t * M * pixel;
        for (int k = k0; k < k1; k += kLanes) {
            const float *from = m + t * pitch + (k - k0), *add = bias ? bias + k : nullptr,
                        *skip = residual ? residual + at + k : nullptr;
            if (high == M && wide == M && k + kLanes <= k1)
                transform_tile<M, true>(from, plane, {M, M, kLanes}, add, skip, out + at + k, pixel, row_step);
            else
                transform_tile<M, false>(from, plane, {high, wide, k1 - k}, add, skip, out + at + k, pixel, row_step);
        }
    }
}

// Activates and transforms the strips of a range; returns the number of tiles.
template <int M>
static int winograd_input(const Conv* c, Range r, Scratch* s) {
    const int per_image = strips_of(c->out_height), across = (c->width + M - 1) / M;
    int done = 0;
    for (int strip = r.strip0; strip < r.strip1;) {
        const int n = strip / per_image, first = strip % per_image;
        const int last = (int)smaller(first + (r.strip1 - strip), per_image);
        for (int band = 0; band < (last - first) * (kStripRows / M); ++band, done += across) {
            const int top = band * M, have = band ? 2 : 0;  // two rows are those of the band before
            fill(c, n, first * kStripRows - 1, top + have, top + M + 2, &s->rows, &s->affine);
            transform_input<M>(s, band, c->in_channels, across, s->v + done * s->v_pitch);
        }
        strip += last - first;
    }
    return done;
}

// What the output transform of a range will read and write, where that is in one piece.
static PrefetchQueue output_of(const Conv* c, Range r) {
    const int per_image = strips_of(c->out_height);
    const int64_t row = (int64_t)c->out_width * c->out_channels;
    const int64_t first = ((int64_t)(r.strip0 / per_image) * c->out_height + r.strip0 % per_image * kStripRows) * row;
    const int64_t count = r.k1 - r.k0 < c->out_channels ? 0 : (int64_t)(r.strip1 - r.strip0) * kStripRows * row;
    return {{c->out + first, c->residual ? c->residual + first : nullptr}, {count, c->residual ? count : 0}};
}

// The products of a range at every point of the transform; `next` is the first panel that is needed after them.
template <int M>
static __attribute__((noinline)) void multiply(const Conv* c, Range r, const Scratch* s, int tiles, const float* next,
                                               PrefetchQueue* queue) {
    constexpr int POINTS = (M + 2) * (M + 2);
    const int64_t panels = round_up(c->out_channels, kPanel), depth = c->in_channels, pitch = channels_at_once(c);
    for (int e = 0; e < POINTS; ++e) {
        const float* point = c->weight + e * panels * depth;
        const LeftFactor left = {s->v + e * s->v_plane, s->pitch, tiles, (int)depth};
        const float* after = e + 1 < POINTS ? point + (panels + r.k0) * depth : next;
        float* m = s->m + e * s->m_plane;
        for (int k = r.k0, wide; k < r.k1; k += wide, m += wide) {
            wide = kLanes == 16 && depth <= kTwoPanelDepth && k + kPanel < r.k1 ? 2 * kPanel : kPanel;
            const float *panel = point + k * depth, *next_panel = k + wide < r.k1 ? panel + wide * depth : after;
            if (wide > kPanel)
                multiply_panels<kTwoPanelRows, 2>(left, panel, next_panel, queue, {m, pitch});
            else
                multiply_panels<kMicroRows, 1>(left, panel, next_panel, queue, {m, pitch});
        }
    }
}

template <int M>
static void winograd_item(const Conv* c, Range r, Scratch* s) {
    constexpr int BANDS = kStripRows / M;  // rows of tiles in a strip
    const int per_image = strips_of(c->out_height), across = (c->width + M - 1) / M, wide = channels_at_once(c);
    const int done = winograd_input<M>(c, r, s);
    // An item of all strips reads each weight once, from memory: nothing else is asked for beside them.
    PrefetchQueue output = output_of(c, r), *queue = c->strips_per_item < c->batch * per_image ? &output : nullptr;
    for (int k = r.k0; k < r.k1; k += wide) {
        const Range part = {r.strip0, r.strip1, k, (int)smaller(k + wide, r.k1)};
        multiply<M>(c, part, s, done, c->weight + (part.k1 < r.k1 ? part.k1 : r.k0) * (int64_t)c->in_channels, queue);
        for (int strip = r.strip0, at = 0; strip < r.strip1; ++strip)
            for (int band = 0; band < BANDS; ++band, at += across)
                transform_output<M>(c, s, strip / per_image, strip % per_image * kStripRows + band * M, across,
                                    s->m + (int64_t)at * wide, part.k0, part.k1);
    }
}

}  // namespace MRSI_ISA
}  // namespace mrsi_fast
