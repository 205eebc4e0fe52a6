// The prologue of a convolution: reads the concatenated, possibly upsampled input once, normalises and activates each
// value once, and lays the rows that a work item needs into cache with their zero border.
#pragma once

#include "gemm.h"

namespace mrsi_fast {
namespace MRSI_ISA {

// Per image: normalised value = (x - centre) * gain + offset, with everything affine folded in. The float part of the
// mean is subtracted from x before the multiplication and its remainder sits in `offset`, so a mean a thousand times
// the standard deviation costs no accuracy.
struct Affine {
    float *centre, *gain, *offset;  // [in_channels]
    int image;                      // which image the tables describe, -1: none yet
};

// They are longer than the channels, so that a last vector is read whole.
static Affine carve_affine(int channels, Carver* carver) {
    Affine a = {nullptr, nullptr, nullptr, -1};
    a.centre = carver->take(channels + kLanes);
    a.gain = carver->take(channels + kLanes);
    a.offset = carver->take(channels + kLanes);
    return a;
}

// Merges the strip statistics of each group (Chan et al. 1983) in double, always in the same order.
static void prepare_affine(const Conv* c, int n, Affine* affine) {
    if (affine->image == n || c->groups == 0) return;
    affine->image = n;
    const int per_group = c->in_channels / c->groups;
    for (int g = 0; g < c->groups; ++g) {
        double count = 0, total = 0, m2 = 0, mean = 0;
        for (int pass = 0; pass < 2; ++pass) {
            for (int ch = g * per_group; ch < (g + 1) * per_group; ++ch) {
                const int s = ch < c->source[0].channels ? 0 : 1;
                const Source* src = &c->source[s];
                const int local = s ? ch - c->source[0].channels : ch;
                const int height = src->upsample ? c->height / 2 : c->height,
                          width = src->upsample ? c->width / 2 : c->width;
                const int strips = strips_of(height);
                const float* stats = src->stats + (int64_t)n * strips * 2 * src->channels + local;
                for (int i = 0; i < strips; ++i, stats += 2 * src->channels) {
                    const int64_t rows = smaller(kStripRows, height - i * kStripRows);
                    const double weight = (double)rows * width * (src->upsample ? 4 : 1);
                    const double strip_mean = stats[0], strip_m2 = stats[src->channels];
                    if (pass == 0) {
                        count += weight;
                        total += weight * strip_mean;
                    } else {
                        m2 += strip_m2 * (src->upsample ? 4 : 1) + weight * (strip_mean - mean) * (strip_mean - mean);
                    }
                }
            }
            if (pass == 0) mean = total / count;
        }
        const double rstd = 1.0 / __builtin_sqrt(m2 / count + c->eps);
        const float centre = (float)mean;
        for (int ch = g * per_group; ch < (g + 1) * per_group; ++ch) {
            const double scale = c->scale ? 1.0 + c->scale[n * c->film_stride + ch] : 1.0;
            const double shift = c->shift ? c->shift[n * c->film_stride + ch] : 0.0;
            const double gain = rstd * c->gamma[ch] * scale;
            affine->centre[ch] = centre;
            affine->gain[ch] = (float)gain;
            affine->offset[ch] = (float)(c->beta[ch] * scale + shift - (mean - centre) * gain);
        }
    }
}

// Tables at the first channel of a source.
struct Tables {
    const float *centre, *gain, *offset;
};

template <bool NORM>
static inline Vec activate(Vec x, const Tables* at, int ch) {
    return NORM ? silu((x - load(at->centre + ch)) * load(at->gain + ch) + load(at->offset + ch)) : x;
}

// How far ahead input is asked for, in floats: it was written long ago, and a row is too short for the processor to see
// where it leads.
constexpr int kInputAhead = 2048;

// One pixel of one source into one or two neighbouring pixels (upsampling repeats it).
template <bool NORM, bool TWIN>
static inline void fill_pixel(const float* from, int channels, Tables at, float* to, float* twin) {
    int ch = 0;
    for (; ch + kLanes <= channels; ch += kLanes) {
        if (ch % kLine == 0) __builtin_prefetch(from + ch + kInputAhead);
        const Vec y = activate<NORM>(load(from + ch), &at, ch);
        store(to + ch, y);
        if (TWIN) store(twin + ch, y);
    }
    if (ch < channels) {
        const Vec y = activate<NORM>(load_some(from + ch, channels - ch), &at, ch);
        store_some(to + ch, y, channels - ch);
        if (TWIN) store_some(twin + ch, y, channels - ch);
    }
}

static inline void zero(float* p, int64_t count) {
    for (int64_t i = 0; i < count; ++i) p[i] = 0.0f;
}

// Activated rows of an image: columns [-border, -border + columns), a pixel takes `pitch` floats. Only the last `slots`
// rows are kept, row i in place i % slots: what has been transformed makes room while it is still in cache.
struct Rows {
    float* data;
    int slots, border, columns, pitch;
};

static inline float* row_of(const Rows* rows, int i) {
    return rows->data + (int64_t)(i % rows->slots) * rows->columns * rows->pitch;
}

// Rows [begin, end) of a segment whose row 0 is row `top` of image n; what lies outside the image is zero. What lies past
// in_channels is left as it is, and nothing depends on it.
template <bool NORM>
static void fill_rows(const Conv* c, int n, int top, int begin, int end, const Rows* rows, const Affine* affine) {
    const int border = rows->border, columns = rows->columns, pitch = rows->pitch;
    const int right = (int)smaller(c->width + border, columns);  // first column past the image
    for (int r = begin; r < end; ++r) {
        const int y = top + r;
        float* target = row_of(rows, r);
        if (y < 0 || y >= c->height) {
            zero(target, (int64_t)columns * pitch);
            continue;
        }
        zero(target, (int64_t)border * pitch);
        zero(target + (int64_t)right * pitch, (int64_t)(columns - right) * pitch);
        int first = 0;
        for (int s = 0; s < c->sources; ++s) {
            const Source* src = &c->source[s];
            const int up = src->upsample, channels = src->channels;
            const int height = up ? c->height / 2 : c->height, width = up ? c->width / 2 : c->width;
            const float* from = src->data + ((int64_t)n * height + (y >> up)) * width * channels;
            const Tables at = {affine->centre + first, affine->gain + first, affine->offset + first};
            float* pixel = target + (int64_t)border * pitch + first;
            if (!up)
                for (int x = border; x < right; ++x, from += channels, pixel += pitch)
                    fill_pixel<NORM, false>(from, channels, at, pixel, nullptr);
            else if (r > 0 && y % 2 == 1) {  // the same values as in the row above
                const float* above = row_of(rows, r - 1) + (int64_t)border * pitch + first;
                for (int x = border; x < right; ++x, above += pitch, pixel += pitch)
                    memcpy(pixel, above, channels * sizeof(float));
            } else
                for (int x = border; x < right; x += 2, from += channels, pixel += 2 * pitch) {
                    if (x + 1 < right)
                        fill_pixel<NORM, true>(from, channels, at, pixel, pixel + pitch);
                    else
                        fill_pixel<NORM, false>(from, channels, at, pixel, nullptr);
                }
            first += channels;
        }
    }
}

static void fill(const Conv* c, int n, int top, int begin, int end, const Rows* rows, Affine* affine) {
    prepare_affine(c, n, affine);
    if (c->groups)
        fill_rows<true>(c, n, top, begin, end, rows, affine);
    else
        fill_rows<false>(c, n, top, begin, end, rows, affine);
}

}  // namespace MRSI_ISA
}  // namespace mrsi_fast
