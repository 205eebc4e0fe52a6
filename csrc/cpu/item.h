// A work item of a convolution: a run of output strips (four image rows each, possibly of several images) and a range of
// output channels, and what one thread works in. How the work is cut changes no result: each output value is one sum in
// one order.
#pragma once

#include "prologue.h"

namespace mrsi_fast {
namespace MRSI_ISA {

static int strip_columns(const Conv* c) {
    if (c->method != kDirect) return (int)round_up(c->width, c->method) + 2;
    return (c->out_width - 1) * c->stride + c->kernel;
}

// Direct: rows of input that so many strips of output read.
static int segment_rows(const Conv* c, int strips) { return (kStripRows * strips - 1) * c->stride + c->kernel; }

constexpr int64_t kPointerFloats = 8 / sizeof(float);

// Whole cache lines per pixel, and never a multiple of four: neighbouring pixels a multiple of 256 bytes apart would
// share a few sets of the first-level cache.
static int pixel_pitch(int channels) {
    const int lines = (channels + kLine - 1) / kLine;
    return (lines + (lines % 4 == 0)) * kLine;
}

// A 1x1 convolution of values as they are needs no copy of them.
static bool reads_in_place(const Conv* c) { return c->kernel == 1 && c->stride == 1 && c->groups == 0; }

// What one thread works in.
struct Scratch {
    Affine affine;
    Rows rows;             // activated input with its border: Winograd one row of tiles, direct strips of one image
    int pitch;             // floats per pixel of it
    const float** pixels;  // direct: [source][most_pixels] where the input of an output pixel lies
    int64_t most_pixels;
    float* vertical_pass;  // Winograd: one row of tiles of one cache line of channels after the vertical transform
    float* v;              // Winograd: transformed input, [plane][tile][v_pitch]
    float* m;              // Winograd: products, [plane][tile][channels_at_once]
    int64_t v_plane, v_pitch, m_plane;
};

// Output channels whose products are made and transformed back together. Where AVX-512 takes two panels at once, these are
// few, and their products still in the second-level cache when they are transformed. More input channels, or all strips in
// one item, would push them out, and the transformed input with them.
static int channels_at_once(const Conv* c) {
    const bool all = c->strips_per_item >= c->batch * strips_of(c->out_height);
    if (kLanes < 16 || all || c->in_channels > kTwoPanelDepth) return c->channels_per_item;
    return (int)smaller(2 * kPanel, c->channels_per_item);
}

// The part that reads: tables of the normalisation, activated rows, one row of tiles.
static Scratch carve_input(const Conv* c, Carver* carver) {
    Scratch s = {};
    s.v_pitch = s.pitch = pixel_pitch(c->in_channels);
    s.affine = carve_affine(s.pitch, carver);
    const int together = (int)smaller(c->strips_per_item, strips_of(c->out_height)), columns = strip_columns(c);
    s.rows = {nullptr, c->method == kDirect ? segment_rows(c, together) : c->method + 2, c->kernel / 2, columns,
              s.pitch};
    if (!reads_in_place(c)) s.rows.data = carver->take((int64_t)s.rows.slots * columns * s.pitch);
    if (c->method == kDirect) {
        s.most_pixels = together * kStripRows * c->out_width;
        s.pixels = (const float**)carver->take(c->sources * s.most_pixels * kPointerFloats);
        return s;
    }
    s.vertical_pass = carver->take((int64_t)(c->method + 2) * columns * kLine);
    return s;
}

static inline Scratch carve(const Conv* c, Carver* carver) {
    Scratch s = carve_input(c, carver);
    if (c->method == kDirect) return s;
    const int64_t tiles = (int64_t)c->strips_per_item * (kStripRows / c->method) * ((strip_columns(c) - 2) / c->method);
    // One cache line more than a plane needs: planes a multiple of 4 KiB apart would all fall into one cache set.
    s.v_plane = round_up(tiles * s.pitch, 16) + 16;
    s.m_plane = round_up(tiles * channels_at_once(c), 16) + 16;
    s.v = carver->take(planes_of(c->method, 3) * s.v_plane);
    s.m = carver->take(planes_of(c->method, 3) * s.m_plane);
    return s;
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

}  // namespace MRSI_ISA
}  // namespace mrsi_fast
