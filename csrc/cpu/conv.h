// Convolutions, by whichever method they ask for, and the statistics of what they leave.
#pragma once

#include "direct.h"
#include "winograd.h"

namespace mrsi_fast {
namespace MRSI_ISA {

static size_t conv_scratch(const Conv* c) {
    Carver measure = {nullptr, 0};
    carve(c, &measure);
    return measure.used;
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
