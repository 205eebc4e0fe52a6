// Convolutions in AMX tiles, on sums of two bfloat16: x = high + low keeps 16 significant bits and more. Of the four
// products of two such sums the three largest are added up in float32 (Henry, Tang & Heinecke 2019, "Leveraging the
// bfloat16 artificial intelligence datatype for higher-precision computations"). What that costs: docs/numerics.md.
//
// 3x3 with stride 1 goes by Winograd F(4,3) along the rows, half the products of the direct method, which the others
// take. The rows of a plane of input lie behind one another without a border: 16 neighbours make a tile, whatever the
// width.
#pragma once

#include "tiles.h"
#include "winograd.h"

namespace mrsi_fast {
namespace MRSI_ISA {

constexpr int kGroup = 32;                          // channels that a product of tiles runs over
constexpr int kPairFloats = kGroup;                 // high parts of so many channels, then their low parts
constexpr int kStepFloats = 4 * kRegisterFloats;    // weights of a group at a tap: [part][half of the panel][tile]
constexpr int kSumFloats = kRegisterRows * kPanel;  // of one tile of positions at one point
constexpr int kPoints = 6, kMostTaps = 18;
constexpr int kTilesTogether = 16;  // whose sums stay in the second-level cache until they are written

// The nearest value of 8 significant bits; what is left over is exact.
static inline Vec high_part(Vec x) { return (Vec)(((IntVec)x + 0x8000) & (int32_t)0xffff0000); }

static inline Vec narrow(Vec a, Vec b) { return (Vec)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a); }

// Both parts of a group of channels.
static inline void store_pairs(Vec a, Vec b, float* to) {
    const Vec high_a = high_part(a), high_b = high_part(b);
    store(to, narrow(high_a, high_b));
    store(to + kPairFloats / 2, narrow(a - high_a, b - high_b));
}

// Which sums a convolution is made of: `points` at each position, each over `taps` of all groups of channels.
struct PairSums {
    bool winograd;
    int groups, points, taps;
};

static PairSums pair_sums(int kernel, int stride, int in_channels) {
    const int groups = (in_channels + kGroup - 1) / kGroup;
    if (kernel == 3 && stride == 1) return {true, groups, kPoints, 3};
    return {false, groups, 1, kernel * kernel};
}

static inline int64_t panel_floats(PairSums s) { return (int64_t)s.points * s.groups * s.taps * kStepFloats; }

// How the input of an item is laid out: [segment][group][plane][row][position][kPairFloats]. A segment is a run of rows of
// one image. Planes are the points of Winograd's transform, or else [row modulo stride][tap in a row].
struct PairLayout : PairSums {
    int planes;
    int across;                          // positions in a row: four columns of the result (Winograd) or one
    int columns;                         // of an activated row with its border
    int64_t row, plane, group, segment;  // floats
};

static PairLayout pair_layout(const Conv* c) {
    PairLayout l;
    static_cast<PairSums&>(l) = pair_sums(c->kernel, c->stride, c->in_channels);
    const int rows = kStripRows * (int)smaller(c->strips_per_item, strips_of(c->out_height));
    l.planes = l.winograd ? kPoints : c->stride * c->kernel;
    l.across = l.winograd ? (c->out_width + 3) / 4 : c->out_width;
    l.columns = l.winograd ? 4 * l.across + 2 : (c->out_width - 1) * c->stride + c->kernel;
    l.row = (int64_t)l.across * kPairFloats;
    l.plane = (rows + (c->kernel - 1) / c->stride) * l.row;
    l.group = l.planes * l.plane;
    l.segment = l.groups * l.group;
    return l;
}

// Up to 16 positions of a segment, from `first` on.
struct PairTile {
    const float* input;
    int n, y0, first, count;
};

struct PairScratch {
    Affine affine;
    Rows rows;        // the last two activated rows of one image
    float* input;     // see PairLayout
    float* sums;      // [tile][point][16][kPanel]
    PairTile* tiles;  // of the item
};

static PairScratch carve_pairs(const Conv* c, Carver* carver) {
    const PairLayout l = pair_layout(c);
    PairScratch s = {};
    const int pitch = l.groups * kGroup, per_image = strips_of(c->out_height);
    s.affine = carve_affine(pitch, carver);
    s.rows = {nullptr, 2, c->kernel / 2, l.columns, pitch};
    s.rows.data = carver->take(2 * (int64_t)l.columns * pitch);
    s.sums = carver->take(kTilesTogether * l.points * kSumFloats);
    const int64_t segments = (c->strips_per_item + per_image - 2) / per_image + 1;
    const int64_t tiles = segments * (l.plane / kPairFloats / kRegisterRows + 1);
    s.tiles = (PairTile*)carver->take(tiles * (int64_t)(sizeof(PairTile) / sizeof(float)));
    s.input = carver->take(segments * l.segment + kRegisterRows * kPairFloats);  // a last tile reads past its plane
    return s;
}

static size_t pairs_scratch(const Conv* c) {
    Carver measure = {nullptr, 0};
    carve_pairs(c, &measure);
    return measure.used;
}

// One activated row at the points of the transform along it.
static __attribute__((noinline)) void transform_row(const PairLayout* l, const float* row, int pitch, float* to) {
    const int64_t plane = l->plane;
    for (int g = 0; g < l->groups; ++g, to += l->group)
        for (int t = 0; t < l->across; ++t) {
            const float* from = row + 4 * t * pitch + g * kGroup;
            Vec d[kPoints], a[kPoints], b[kPoints];
#pragma GCC unroll 6
            for (int x = 0; x < kPoints; ++x) d[x] = load(from + x * pitch);
            Winograd<4>::input(d, a);
#pragma GCC unroll 6
            for (int x = 0; x < kPoints; ++x) d[x] = load(from + x * pitch + kLanes);
            Winograd<4>::input(d, b);
#pragma GCC unroll 6
            for (int e = 0; e < kPoints; ++e) store_pairs(a[e], b[e], to + e * plane + t * kPairFloats);
        }
}

// Every `step` floats of one activated row.
static void split_row(const PairLayout* l, const float* row, int64_t step, float* to) {
    for (int g = 0; g < l->groups; ++g, to += l->group)
        for (int x = 0; x < l->across; ++x) {
            const float* from = row + x * step + g * kGroup;
            store_pairs(load(from), load(from + kLanes), to + x * kPairFloats);
        }
}

// Activates and lays out what rows [y0, y1) of the result of image n read.
static void fill_segment(const Conv* c, const PairLayout* l, int n, int y0, int y1, PairScratch* s, float* to) {
    const int rows = (y1 - y0 - 1) * c->stride + c->kernel, stride = c->stride, pitch = s->rows.pitch;
    for (int r = 0; r < rows; ++r) {
        fill(c, n, y0 * stride - c->kernel / 2, r, r + 1, &s->rows, &s->affine);
        const float* row = row_of(&s->rows, r);
        float* place = to + r / stride * l->row;
        if (l->winograd)
            transform_row(l, row, pitch, place);
        else
            for (int dx = 0; dx < c->kernel; ++dx)
                split_row(l, row + dx * pitch, stride * pitch, place + (r % stride * c->kernel + dx) * l->plane);
    }
}

// Lays out the input of an item and lists its tiles; returns how many.
static int fill_item(const Conv* c, const PairLayout* l, Range r, PairScratch* s) {
    const int per_image = strips_of(c->out_height);
    zero(s->rows.data, 2 * (int64_t)l->columns * s->rows.pitch);  // channels past the last one stay so
    float* to = s->input;
    int tiles = 0;
    for (int strip = r.strip0, end; strip < r.strip1; strip = end, to += l->segment) {
        const int n = strip / per_image, y0 = strip % per_image * kStripRows;
        end = (int)smaller(r.strip1, (n + 1) * per_image);
        const int y1 = (int)smaller(c->out_height, y0 + (end - strip) * kStripRows), count = (y1 - y0) * l->across;
        fill_segment(c, l, n, y0, y1, s, to);
        for (int at = 0; at < count; at += kRegisterRows)
            s->tiles[tiles++] = {to + (int64_t)at * kPairFloats, n, y0, at, (int)smaller(kRegisterRows, count - at)};
    }
    return tiles;
}

// Where the taps of each point lie, from the input of a tile on.
static void tap_offsets(const Conv* c, const PairLayout* l, int64_t* tap) {
    if (l->winograd)
        for (int e = 0; e < kPoints; ++e)
            for (int dy = 0; dy < 3; ++dy) *tap++ = e * l->plane + dy * l->row;
    else
        for (int dy = 0; dy < c->kernel; ++dy)
            for (int dx = 0; dx < c->kernel; ++dx)
                *tap++ = (dy % c->stride * c->kernel + dx) * l->plane + dy / c->stride * l->row;
}

template <bool TWO>
static inline void add_products() {
    tile_multiply<0, 4, 6>(), tile_multiply<1, 4, 7>();
    if (TWO) tile_multiply<2, 5, 6>(), tile_multiply<3, 5, 7>();
}

// Two tiles of input times one panel of weights, into sums `next_tile` floats apart. At each step `lines` cache lines are asked
// for from `ahead` on.
struct PairProduct {
    const float *a, *b;  // the tiles
    const float* weights;
    const float* ahead;
    int lines;
    float* sums;
    int64_t next_tile;
};

// One or, if TWO, both tiles (registers 4 and 5) times the panel (6 and 7) into sums (0 to 3).
template <bool TWO>
static __attribute__((noinline)) void multiply_pairs(const PairLayout* l, const int64_t* tap,
                                                     const PairProduct& product) {
    auto [a, b, weights, ahead, lines, sums, next_tile] = product;
    tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
    for (int g = 0; g < l->groups; ++g, a += l->group, b += l->group)
        for (int t = 0; t < l->taps; ++t, weights += kStepFloats) {
            const int64_t at = tap[t], low = at + kPairFloats / 2;
            tile_load<6>(weights + 2 * kRegisterFloats, 16), tile_load<7>(weights + 3 * kRegisterFloats, 16);
            tile_load<4>(a + at, kPairFloats);
            if (TWO) tile_load<5>(b + at, kPairFloats);
            add_products<TWO>();
            for (int i = 0; i < lines; ++i, ahead += kLine) __builtin_prefetch(ahead, 0, 2);
            tile_load<6>(weights, 16), tile_load<7>(weights + kRegisterFloats, 16);
            add_products<TWO>();
            tile_load<4>(a + low, kPairFloats);
            if (TWO) tile_load<5>(b + low, kPairFloats);
            add_products<TWO>();
        }
    tile_store<0>(sums, kPanel), tile_store<1>(sums + kLanes, kPanel);
    if (TWO) tile_store<2>(sums + next_tile, kPanel), tile_store<3>(sums + next_tile + kLanes, kPanel);
}

// All sums of some tiles for one panel. While the weights of one point are used, those of the next come from a slower
// cache, unless they are `cached`.
static void multiply_tiles(const PairLayout* l, const int64_t* tap, const PairTile* tile, int tiles,
                           const float* weights, bool cached, float* sums) {
    const int blocks = (tiles + 1) / 2, lines = cached ? 0 : (kStepFloats / kLine + blocks - 1) / blocks;
    const int64_t steps = l->taps * l->groups, next_tile = l->points * kSumFloats;
    for (int e = 0; e < l->points; ++e, tap += l->taps, weights += steps * kStepFloats) {
        const float* next = weights + steps * kStepFloats;
        for (int t = 0; t < tiles; t += 2, next += steps * lines * kLine) {
            const bool two = t + 1 < tiles;
            float* to = sums + t * next_tile + e * kSumFloats;
            (two ? multiply_pairs<true>
                 : multiply_pairs<false>)(l, tap,
                                          {tile[t].input, tile[t + two].input, weights, next, lines, to, next_tile});
        }
    }
}

// Adds bias and residual to the sums of a tile and writes up to kPanel channels from k on; FULL: all of them.
template <bool WINOGRAD, bool FULL>
static void emit_pairs(const Conv* c, const PairLayout* l, const PairTile* tile, const float* sums, int k) {
    constexpr int WIDE = WINOGRAD ? 4 : 1;
    const int64_t pixel = c->out_channels, row_step = c->out_width * pixel;
    const int64_t image = ((int64_t)tile->n * c->out_height + tile->y0) * row_step + k, channels = pixel - k;
    int y = tile->first / l->across, t = tile->first % l->across;
    for (int i = 0; i < tile->count; ++i, sums += kPanel) {
        const int64_t at = image + y * row_step + t * WIDE * pixel;
        const int wide = (int)smaller(WIDE, c->out_width - t * WIDE);
        if (++t == l->across) t = 0, ++y;
        for (int half = 0; half < kPanel && half < channels; half += kLanes) {
            const int64_t count = channels - half;
            Vec m[kPoints], o[WIDE];
#pragma GCC unroll 6
            for (int e = 0; e < (WINOGRAD ? kPoints : 1); ++e) m[e] = load(sums + e * kSumFloats + half);
            if constexpr (WINOGRAD)
                Winograd<4>::output(m, o);
            else
                o[0] = m[0];
            const Vec add = !c->bias ? Vec{} : FULL ? load(c->bias + k + half) : load_some(c->bias + k + half, count);
#pragma GCC unroll 4
            for (int x = 0; x < WIDE; ++x) {
                if (x >= wide) break;
                const int64_t to = at + x * pixel + half;
                Vec value = o[x] + add;
                if (c->residual) value += FULL ? load(c->residual + to) : load_some(c->residual + to, count);
                if (FULL)
                    store(c->out + to, value);
                else
                    store_some(c->out + to, value, count);
            }
        }
    }
}

static void emit_tile(const Conv* c, const PairLayout* l, const PairTile* tile, const float* sums, int k) {
    const bool full = k + kPanel <= c->out_channels;
    if (l->winograd)
        (full ? emit_pairs<true, true> : emit_pairs<true, false>)(c, l, tile, sums, k);
    else
        (full ? emit_pairs<false, true> : emit_pairs<false, false>)(c, l, tile, sums, k);
}

static void pairs_item(const Conv* c, int item, float* scratch) {
    Carver carver = {scratch, 0};
    PairScratch s = carve_pairs(c, &carver);
    const PairLayout l = pair_layout(c);
    const Range r = item_range(c, item);
    int64_t tap[kMostTaps];
    tap_offsets(c, &l, tap);
    const int tiles = fill_item(c, &l, r, &s);
    const TileShapes shapes;
    tile_configure(&shapes);
    for (int k = r.k0; k < r.k1; k += kPanel)
        for (int first = 0; first < tiles; first += kTilesTogether) {
            const int some = (int)smaller(kTilesTogether, tiles - first);
            multiply_tiles(&l, tap, s.tiles + first, some, c->weight + k / kPanel * panel_floats(l), first > 0, s.sums);
            for (int i = 0; i < some; ++i)
                emit_tile(c, &l, s.tiles + first + i, s.sums + (int64_t)i * l.points * kSumFloats, k);
        }
    tile_release();
    item_stats(c, r);
}

static size_t packed_pairs(const Filters* f) {
    return round_up(f->out_channels, kPanel) / kPanel * panel_floats(pair_sums(f->kernel, f->stride, f->in_channels));
}

// One panel of weights: [point][group][tap][part][half of the panel][pair of channels][16 outputs][2].
static void pack_pairs(const Filters* f, int p, float* packed) {
    const PairSums sums = pair_sums(f->kernel, f->stride, f->in_channels);
    const int groups = sums.groups, taps = sums.taps, lanes = (int)smaller(kPanel, f->out_channels - p * kPanel);
    uint16_t* to = (uint16_t*)(packed + p * panel_floats(sums));
    for (int step = 0; step < sums.points * groups * taps; ++step, to += 2 * kStepFloats) {
        const int e = step / (groups * taps), g = step / taps % groups, t = step % taps;
        for (int at = 0; at < kGroup * kPanel; ++at) {
            const int lane = at % kPanel, ch = at / kPanel, channel = g * kGroup + ch;
            double value = 0.0;
            if (lane < lanes && channel < f->in_channels) {
                const float* from = f->data + (p * kPanel + lane) * f->out_step + channel * f->in_step;
                for (int dx = 0; sums.winograd && dx < 3; ++dx)
                    value += kFour[e][dx] * from[(3 * t + dx) * f->tap_step];
                if (!sums.winograd) value = from[t * f->tap_step];
            }
            const Vec x = splat((float)value), high = high_part(x), low = high_part(x - high);
            uint16_t* place = to + lane / 16 * 2 * kRegisterFloats + ch / 2 * 32 + lane % 16 * 2 + ch % 2;
            place[0] = (uint16_t)(((IntVec)high)[0] >> 16);
            place[4 * kRegisterFloats] = (uint16_t)(((IntVec)low)[0] >> 16);
        }
    }
}

}  // namespace MRSI_ISA
}  // namespace mrsi_fast
