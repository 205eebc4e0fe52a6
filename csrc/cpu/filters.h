// Filters for the register tiles: gathered from any layout, transformed in double for Winograd, rounded once.
#pragma once

#include "winograd.h"

namespace mrsi_fast {
namespace MRSI_ISA {

// G g G' of one 3x3 filter per lane: filter [9][lane] -> transformed [(method + 2)^2][lane]. Lanes are innermost, so
// that the compiler makes vectors of them.
static void transform_filters(ConvMethod method, const double (*filter)[kPanel], double (*transformed)[kPanel]) {
    const double (*matrix)[3] = method == kWinograd4 ? kFour : kTwo;
    const int a = method + 2;
    for (int i = 0; i < a; ++i) {
        double half[3][kPanel];
        for (int x = 0; x < 3; ++x)
            for (int lane = 0; lane < kPanel; ++lane)
                half[x][lane] = matrix[i][0] * filter[x][lane] + matrix[i][1] * filter[3 + x][lane] +
                                matrix[i][2] * filter[6 + x][lane];
        for (int j = 0; j < a; ++j)
            for (int lane = 0; lane < kPanel; ++lane)
                transformed[i * a + j][lane] =
                    half[0][lane] * matrix[j][0] + half[1][lane] * matrix[j][1] + half[2][lane] * matrix[j][2];
    }
}

static size_t packed_size(const Filters* f) {
    return round_up(f->out_channels, kPanel) * planes_of(f->method, f->kernel) * f->in_channels;
}

static void pack_panel(const Filters* f, int p, float* packed) {
    const int panels = (f->out_channels + kPanel - 1) / kPanel, taps = f->kernel * f->kernel;
    const int planes = planes_of(f->method, f->kernel), lanes = (int)smaller(kPanel, f->out_channels - p * kPanel);
    // Winograd multiplies plane by plane; the direct method runs through all taps of a panel.
    const int64_t plane_step = (int64_t)f->in_channels * kPanel * (f->method == kDirect ? 1 : panels);
    const int64_t panel_step = (int64_t)f->in_channels * kPanel * (f->method == kDirect ? planes : 1);
    for (int c = 0; c < f->in_channels; ++c) {
        double filter[9][kPanel] = {}, transformed[36][kPanel];
        const float* from = f->data + (int64_t)p * kPanel * f->out_step + c * f->in_step;
        for (int lane = 0; lane < lanes; ++lane)
            for (int t = 0; t < taps; ++t) filter[t][lane] = from[lane * f->out_step + t * f->tap_step];
        if (f->method != kDirect) transform_filters(f->method, filter, transformed);
        const double (*values)[kPanel] = f->method == kDirect ? filter : transformed;
        float* to = packed + p * panel_step + (int64_t)c * kPanel;
        for (int plane = 0; plane < planes; ++plane)
            for (int lane = 0; lane < kPanel; ++lane) to[plane * plane_step + lane] = (float)values[plane][lane];
    }
}

}  // namespace MRSI_ISA
}  // namespace mrsi_fast
