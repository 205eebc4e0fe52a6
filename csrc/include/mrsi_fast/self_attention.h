// self_attention as a single operation: the native network engine's attention for PyTorch tensors.
#pragma once

#include "mrsi_fast/network.h"

namespace mrsi_fast {

void self_attention(const Attention& request, int threads);

}  // namespace mrsi_fast
