// Weights and matrices in the order in which the register tiles read them; Winograd weights transformed in float64.
#include "mrsi_fast/pack.h"

#include "mrsi_fast/network.h"

namespace mrsi_fast {
namespace {

// G of F(4x4,3x3) and F(2x2,3x3), Lavin & Gray 2016.
const double kFour[6][3] = {{1.0 / 4, 0, 0},
                            {-1.0 / 6, -1.0 / 6, -1.0 / 6},
                            {-1.0 / 6, 1.0 / 6, -1.0 / 6},
                            {1.0 / 24, 1.0 / 12, 1.0 / 6},
                            {1.0 / 24, -1.0 / 12, 1.0 / 6},
                            {0, 0, 1}};
const double kTwo[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};

int planes_of(Method method, int kernel) { return method == kDirect ? kernel * kernel : (method + 2) * (method + 2); }

// One 3x3 filter into (method + 2)^2 values: G g G'.
void transform_filter(Method method, const double* g, double* u) {
    const double(*matrix)[3] = method == kWinograd4 ? kFour : kTwo;
    const int a = method + 2;
    for (int i = 0; i < a; ++i) {
        double half[3];
        for (int x = 0; x < 3; ++x) half[x] = matrix[i][0] * g[x] + matrix[i][1] * g[3 + x] + matrix[i][2] * g[6 + x];
        for (int j = 0; j < a; ++j) u[i * a + j] = half[0] * matrix[j][0] + half[1] * matrix[j][1] + half[2] * matrix[j][2];
    }
}

}  // namespace

size_t packed_size(Method method, int kernel, int in_channels, int out_channels, int panel) {
    const size_t panels = (out_channels + panel - 1) / panel;
    return panels * panel * planes_of(method, kernel) * in_channels;
}

void pack_weights(const float* weight, Method method, int kernel, int in_channels, int out_channels, int panel, float* packed) {
    const int panels = (out_channels + panel - 1) / panel, taps = kernel * kernel, planes = planes_of(method, kernel);
    // Winograd multiplies plane by plane; the direct method runs through all taps of a panel.
    const size_t plane_step = (size_t)in_channels * panel * (method == kDirect ? 1 : panels);
    const size_t panel_step = (size_t)in_channels * panel * (method == kDirect ? planes : 1);
    for (int k = 0; k < panels * panel; ++k)
        for (int c = 0; c < in_channels; ++c) {
            double filter[9] = {}, transformed[36];
            for (int t = 0; t < taps && k < out_channels; ++t) filter[t] = weight[((size_t)k * in_channels + c) * taps + t];
            if (method != kDirect) transform_filter(method, filter, transformed);
            const double* values = method == kDirect ? filter : transformed;
            float* to = packed + k / panel * panel_step + (size_t)c * panel + k % panel;
            for (int p = 0; p < planes; ++p) to[p * plane_step] = (float)values[p];
        }
}

size_t packed_matrix_size(int rows, int columns, int panel) { return (size_t)rows * ((columns + panel - 1) / panel * panel); }

void pack_matrix(const float* matrix, int rows, int columns, int panel, float* packed) {
    const int panels = (columns + panel - 1) / panel;
    for (int p = 0; p < panels; ++p)
        for (int r = 0; r < rows; ++r)
            for (int lane = 0; lane < panel; ++lane) {
                const int column = p * panel + lane;
                packed[((size_t)p * rows + r) * panel + lane] = column < columns ? matrix[(size_t)r * columns + column] : 0.0f;
            }
}

}  // namespace mrsi_fast
