// How a convolution is cut into work items.
#pragma once

#include "mrsi_fast/network.h"

namespace mrsi_fast {

// Sets how a convolution is cut into work items for so many threads; `panel` is that of its kernels.
void cut_work(Conv* conv, int threads, int panel);

}  // namespace mrsi_fast
