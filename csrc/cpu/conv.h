// Convolutions: Winograd F(4x4,3x3) and F(2x2,3x3) (Lavin & Gray 2016; points 0, +-1, +-2, inf and 0, +-1, inf) and the
// direct method (3x3 or 1x1, any stride), all with the same prologue and epilogue.
//
// A work item is a run of output strips (four image rows each, possibly of several images) and a range of output
// channels. How the work is cut changes no result: each output value is one sum in one order.
#pragma once

#include "prologue.h"

namespace mrsi_fast {
namespace MRSI_ISA {

template <int M>
struct Winograd;  // transforms of one line of M + 2 values

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

static int strip_columns(const Conv* c) {
    if (c->method != kDirect) return (int)round_up(c->width, c->method) + 2;
    return (c->out_width - 1) * c->stride + c->kernel;
}

static int segment_rows(const Conv* c, int strips) {
    if (c->method != kDirect) return kStripRows * strips + 2;
    return (kStripRows * strips - 1) * c->stride + c->kernel;
}

// What one thread works in.
struct Scratch {
    Affine affine;
    float* rows;   // activated input with its border: of one image's strips for Winograd, of every strip for direct
    float* lines;  // Winograd: one row of tiles of one channel vector after the vertical transform
    float* v;      // Winograd: transformed input, [plane][tile][pitch]
    float* m;      // products, [plane][tile or pixel][channels_per_item]
    int64_t v_plane, m_plane;
    int pitch;        // floats per input pixel: in_channels rounded up to a vector
    int64_t v_pitch;  // floats per tile of v
};

// The part that reads: tables of the normalisation, activated rows, one row of tiles.
static Scratch carve_input(const Conv* c, Carver* carver) {
    Scratch s = {};
    s.v_pitch = s.pitch = (int)round_up(c->in_channels, kLanes);
    s.affine.image = -1;
    s.affine.centre = carver->take(s.pitch);
    s.affine.gain = carver->take(s.pitch);
    s.affine.offset = carver->take(s.pitch);
    const int64_t strips = c->strips_per_item, columns = strip_columns(c);
    if (c->method == kDirect) {
        s.rows = carver->take(strips * segment_rows(c, 1) * columns * s.pitch);
        return s;
    }
    s.rows = carver->take(segment_rows(c, (int)smaller(strips, strips_of(c->out_height))) * columns * s.pitch);
    s.lines = carver->take((c->method + 2) * columns * kLanes);
    return s;
}

static Scratch carve(const Conv* c, Carver* carver) {
    Scratch s = carve_input(c, carver);
    if (c->method == kDirect) {
        s.m = carver->take((int64_t)c->strips_per_item * kStripRows * c->out_width * c->channels_per_item);
        return s;
    }
    const int64_t tiles = (int64_t)c->strips_per_item * (kStripRows / c->method) * ((strip_columns(c) - 2) / c->method);
    // One cache line more than a plane needs: planes a multiple of 4 KiB apart would all fall into one cache set.
    s.v_plane = round_up(tiles * s.pitch, 16) + 16;
    s.m_plane = round_up(tiles * c->channels_per_item, 16) + 16;
    s.v = carver->take(planes_of(c->method, 3) * s.v_plane);
    s.m = carver->take(planes_of(c->method, 3) * s.m_plane);
    return s;
}

static size_t conv_scratch(const Conv* c) {
    Carver measure = {nullptr, 0};
    carve(c, &measure);
    return measure.used;
}

// Transforms one row of tiles. The vertical pass is done once per column and shared by the tiles that overlap in it.
template <int M>
static void transform_input(const Scratch* s, const float* rows, int columns, int tiles, float* v) {
    constexpr int A = M + 2;
    Vec* lines = (Vec*)s->lines;  // [A][columns]
    for (int ch = 0; ch < s->pitch; ch += kLanes) {
        for (int x = 0; x < columns; ++x) {
            Vec d[A], o[A];
            for (int y = 0; y < A; ++y) d[y] = load(rows + ((int64_t)y * columns + x) * s->pitch + ch);
            Winograd<M>::input(d, o);
            for (int y = 0; y < A; ++y) lines[y * columns + x] = o[y];
        }
        for (int t = 0; t < tiles; ++t)
            for (int y = 0; y < A; ++y) {
                Vec o[A];
                Winograd<M>::input(lines + y * columns + t * M, o);
                for (int x = 0; x < A; ++x) store(v + (y * A + x) * s->v_plane + t * s->v_pitch + ch, o[x]);
            }
    }
}

// Adds bias and residual and writes up to `count` channels of one pixel.
static inline void emit(const Conv* c, Vec y, int64_t at, int k, int count) {
    if (c->bias) y += load_some(c->bias + k, count);
    if (c->residual) y += load_some(c->residual + at, count);
    store_some(c->out + at, y, count);
}

template <int M>
static void transform_output(const Conv* c, const Scratch* s, int n, int y0, int tiles, const float* m, int k0,
                             int k1) {
    constexpr int A = M + 2;
    for (int t = 0; t < tiles; ++t) {
        const int x0 = t * M;
        const int high = (int)smaller(M, c->out_height - y0), wide = (int)smaller(M, c->out_width - x0);
        for (int k = k0; k < k1; k += kLanes) {
            Vec half[M][A];
            for (int x = 0; x < A; ++x) {
                Vec d[A], o[M];
                for (int y = 0; y < A; ++y)
                    d[y] = load(m + (y * A + x) * s->m_plane + (int64_t)t * c->channels_per_item + (k - k0));
                Winograd<M>::output(d, o);
                for (int y = 0; y < M; ++y) half[y][x] = o[y];
            }
            for (int y = 0; y < high; ++y) {
                Vec o[M];
                Winograd<M>::output(half[y], o);
                const int64_t at = (((int64_t)n * c->out_height + y0 + y) * c->out_width + x0) * c->out_channels + k;
                for (int x = 0; x < wide; ++x) emit(c, o[x], at + (int64_t)x * c->out_channels, k, k1 - k);
            }
        }
    }
}

struct Range {
    int strip0, strip1, k0, k1;
};

static Range item_range(const Conv* c, int item) {
    const int row_items = conv_row_items(c), strips = c->batch * strips_of(c->out_height);
    Range r;
    r.strip0 = item % row_items * c->strips_per_item;
    r.strip1 = (int)smaller(r.strip0 + c->strips_per_item, strips);
    r.k0 = item / row_items * c->channels_per_item;
    r.k1 = (int)smaller(r.k0 + c->channels_per_item, c->out_channels);
    return r;
}

static void item_stats(const Conv* c, Range r) {
    if (!c->out_stats) return;
    const int per_image = strips_of(c->out_height);
    for (int strip = r.strip0; strip < r.strip1; ++strip) {
        const int n = strip / per_image, y = strip % per_image * kStripRows;
        const int rows = (int)smaller(kStripRows, c->out_height - y);
        strip_moments(c->out + ((int64_t)n * c->out_height + y) * c->out_width * c->out_channels, rows, c->out_width,
                      c->out_channels, r.k0, r.k1, c->out_stats + (int64_t)strip * 2 * c->out_channels);
    }
}

// Activates and transforms the strips of a range; returns the number of tiles.
template <int M>
static int winograd_input(const Conv* c, Range r, Scratch* s) {
    const int per_image = strips_of(c->out_height), columns = strip_columns(c), across = (c->width + M - 1) / M;
    int done = 0;
    for (int strip = r.strip0; strip < r.strip1;) {
        const int n = strip / per_image, first = strip % per_image;
        const int last = (int)smaller(first + (r.strip1 - strip), per_image);
        fill(c, n, first * kStripRows - 1, segment_rows(c, last - first), 1, columns, s->pitch, &s->affine, s->rows);
        for (int band = 0; band < (last - first) * (kStripRows / M); ++band, done += across)
            transform_input<M>(s, s->rows + (int64_t)band * M * columns * s->pitch, columns, across,
                               s->v + done * s->v_pitch);
        strip += last - first;
    }
    return done;
}

template <int M>
static void winograd_item(const Conv* c, Range r, Scratch* s) {
    constexpr int A = M + 2, BANDS = kStripRows / M;  // rows of tiles in a strip
    const int per_image = strips_of(c->out_height), across = (c->width + M - 1) / M;
    const int done = winograd_input<M>(c, r, s);
    const int64_t panels = round_up(c->out_channels, kPanel);
    for (int e = 0; e < A * A; ++e)
        gemm(s->v + e * s->v_plane, s->pitch, done, c->in_channels,
             c->weight + ((int64_t)e * panels + r.k0) * c->in_channels, r.k1 - r.k0, s->m + e * s->m_plane,
             c->channels_per_item);
    for (int strip = r.strip0, at = 0; strip < r.strip1; ++strip)
        for (int band = 0; band < BANDS; ++band, at += across)
            transform_output<M>(c, s, strip / per_image, strip % per_image * kStripRows + band * M, across,
                                s->m + (int64_t)at * c->channels_per_item, r.k0, r.k1);
}

static void direct_item(const Conv* c, Range r, Scratch* s) {
    const int per_image = strips_of(c->out_height), columns = strip_columns(c), border = c->kernel / 2;
    const int taps = c->kernel * c->kernel;
    const int64_t strip_size = (int64_t)segment_rows(c, 1) * columns * s->pitch;
    int64_t tap[9];
    for (int t = 0; t < taps; ++t) tap[t] = ((int64_t)(t / c->kernel) * columns + t % c->kernel) * s->pitch;
    for (int strip = r.strip0; strip < r.strip1; ++strip)
        fill(c, strip / per_image, strip % per_image * kStripRows * c->stride - border, segment_rows(c, 1), border,
             columns, s->pitch, &s->affine, s->rows + (strip - r.strip0) * strip_size);
    const int strip_pixels = kStripRows * c->out_width, pixels = (r.strip1 - r.strip0) * strip_pixels,
              blocks = (pixels + kTileRows - 1) / kTileRows;
    for (int k = r.k0; k < r.k1; k += kPanel) {
        const float* panel = c->weight + (int64_t)k * taps * c->in_channels;
        for (int b = 0; b < blocks; ++b) {
            const int first = (int64_t)pixels * b / blocks, last = (int64_t)pixels * (b + 1) / blocks;
            const float* row[kTileRows];
            for (int p = first; p < last; ++p) {
                const int strip = p / strip_pixels, y = p % strip_pixels / c->out_width, x = p % c->out_width;
                row[p - first] = s->rows + strip * strip_size + ((int64_t)y * columns + x) * c->stride * s->pitch;
            }
            tile_rows<kTileRows>(last - first, row, tap, taps, c->in_channels, panel,
                                 s->m + (int64_t)first * c->channels_per_item + (k - r.k0), c->channels_per_item);
        }
    }
    for (int strip = r.strip0; strip < r.strip1; ++strip) {
        const int n = strip / per_image, y0 = strip % per_image * kStripRows;
        for (int y = y0; y < y0 + kStripRows && y < c->out_height; ++y)
            for (int x = 0; x < c->out_width; ++x) {
                const int64_t at = (((int64_t)n * c->out_height + y) * c->out_width + x) * c->out_channels;
                const float* from =
                    s->m + ((int64_t)(strip - r.strip0) * strip_pixels + (int64_t)(y - y0) * c->out_width + x) *
                               c->channels_per_item;
                for (int k = r.k0; k < r.k1; k += kLanes) emit(c, load(from + (k - r.k0)), at + k, k, r.k1 - k);
            }
    }
}

static void conv_item(const Conv* c, int item, float* scratch) {
    Carver carver = {scratch, 0};
    Scratch s = carve(c, &carver);
    const Range r = item_range(c, item);
    if (c->method == kWinograd4)
        winograd_item<4>(c, r, &s);
    else if (c->method == kWinograd2)
        winograd_item<2>(c, r, &s);
    else
        direct_item(c, r, &s);
    item_stats(c, r);
}

}  // namespace MRSI_ISA
}  // namespace mrsi_fast
