// Weights and matrices in the order in which the native network engine's register tiles read them.
#pragma once

#include <stddef.h>

#include "mrsi_fast/network.h"

namespace mrsi_fast {

// Floats that pack_weights writes. `panel` is that of the kernels in use (NetworkKernels::panel).
size_t packed_size(const Filters& filters, int panel);

// Direct: [out / panel][tap][in][panel]; Winograd: [plane][out / panel][in][panel]. Output channels past the last one
// are zero.
void pack_weights(const NetworkKernels& kernels, const Filters& filters, float* packed, int threads);

size_t packed_matrix_size(int rows, int columns, int panel);

// matrix [rows][columns] -> [columns / panel][rows][panel]
void pack_matrix(const float* matrix, int rows, int columns, int panel, float* packed);

}  // namespace mrsi_fast
