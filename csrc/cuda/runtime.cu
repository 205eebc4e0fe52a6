// What every launcher shares: texts of status codes and the count of launched kernels.
#include "mrsi_fast/cuda_launchers.h"
#include "mrsi_fast/launch.cuh"

extern "C" const char* mrsi_fast_cuda_error_string(int status) { return cudaGetErrorString(cudaError_t(status)); }

extern "C" int64_t mrsi_fast_cuda_launch_count(void) { return mrsi_fast::launch_count(); }
