// Weights and matrices in the order in which the native network engine's register tiles read them.
#pragma once

#include <stddef.h>

#include "mrsi_fast/network.h"

namespace mrsi_fast {

// Writes kernels.packed_size floats. Direct: [out / panel][tap][in][panel]; Winograd: [plane][out / panel][in][panel];
// kPairs: see cpu/pairs.h. Output channels past the last one are zero.
void pack_weights(const ConvKernels& kernels, const Filters& filters, float* packed, int threads);

size_t packed_matrix_size(int rows, int columns, int panel);

// matrix [rows][columns] -> [columns / panel][rows][panel]
void pack_matrix(const float* matrix, int rows, int columns, int panel, float* packed);

}  // namespace mrsi_fast
