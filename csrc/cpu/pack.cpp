// Weights and matrices in the order in which the register tiles read them.
#include "mrsi_fast/pack.h"

namespace mrsi_fast {

size_t packed_size(const Filters& filters, int panel) {
    if (filters.method == kPairs) return pair_kernels()->packed_size(&filters);
    const size_t panels = (filters.out_channels + panel - 1) / panel;
    return panels * panel * planes_of(filters.method, filters.kernel) * filters.in_channels;
}

void pack_weights(const NetworkKernels& kernels, const Filters& filters, float* packed, int threads) {
    const bool pairs = filters.method == kPairs;
    const int panel_width = pairs ? pair_kernels()->panel : kernels.panel;
    const int panels = (filters.out_channels + panel_width - 1) / panel_width;
    const auto pack_panel = pairs ? pair_kernels()->pack_panel : kernels.pack_panel;
    (void)threads;
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
#endif
    for (int panel = 0; panel < panels; ++panel) pack_panel(&filters, panel, packed);
}

size_t packed_matrix_size(int rows, int columns, int panel) {
    return (size_t)rows * ((columns + panel - 1) / panel * panel);
}

void pack_matrix(const float* matrix, int rows, int columns, int panel, float* packed) {
    const int panels = (columns + panel - 1) / panel;
    for (int p = 0; p < panels; ++p)
        for (int r = 0; r < rows; ++r)
            for (int lane = 0; lane < panel; ++lane) {
                const int column = p * panel + lane;
                packed[((size_t)p * rows + r) * panel + lane] =
                    column < columns ? matrix[(size_t)r * columns + column] : 0.0f;
            }
}

}  // namespace mrsi_fast
