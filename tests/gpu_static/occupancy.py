"""Blocks of a kernel that fit on one multiprocessor: NVIDIA's own calculator, the limits of devices written down."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import subprocess
import tempfile
from pathlib import Path

from support.cuda_tools import cuda_include

# architecture: (multiprocessors of a full product, threads per multiprocessor, KiB of shared memory per multiprocessor)
DEVICES = {
    80: (108, 2048, 164),
    86: (84, 1536, 100),
    89: (128, 1536, 100),
    90: (132, 2048, 228),
    100: (148, 2048, 228),
    120: (170, 1536, 100),
}

_SOURCE = """
#include <cuda_runtime_api.h>
#include <cuda_occupancy.h>
extern "C" int mrsi_fast_occupancy(int architecture, int multiprocessors, int threads_of_device, int shared_of_device,
                                   int threads, int registers, int shared_static, int shared_dynamic) {
  cudaOccDeviceProp device;
  device.computeMajor = architecture / 10;
  device.computeMinor = architecture % 10;
  device.maxThreadsPerBlock = 1024;
  device.maxThreadsPerMultiprocessor = threads_of_device;
  device.regsPerBlock = device.regsPerMultiprocessor = 65536;
  device.warpSize = 32;
  device.sharedMemPerBlock = 48 << 10;
  device.sharedMemPerMultiprocessor = shared_of_device;
  device.sharedMemPerBlockOptin = shared_of_device - 1024;
  device.reservedSharedMemPerBlock = 1024;
  device.numSms = multiprocessors;
  cudaOccFuncAttributes kernel;
  kernel.maxThreadsPerBlock = 1024;
  kernel.numRegs = registers;
  kernel.sharedSizeBytes = shared_static;
  kernel.maxDynamicSharedSizeBytes = shared_dynamic;
  kernel.partitionedGCConfig = PARTITIONED_GC_OFF;
  kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
  kernel.numBlockBarriers = 1;
  cudaOccDeviceState state;
  cudaOccResult result;
  cudaOccError error =
      cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads, shared_dynamic);
  return error == CUDA_OCC_SUCCESS ? result.activeBlocksPerMultiprocessor : -1;
}
"""


@functools.cache
def _calculator() -> ctypes.CDLL:
    name = f"mrsi_fast_occupancy_{hashlib.sha256(_SOURCE.encode()).hexdigest()[:12]}.so"
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "occupancy.cpp", Path(folder) / name
        source.write_text(_SOURCE)
        command = ["g++", "-std=c++17", "-O1", "-fPIC", "-shared", f"-isystem{cuda_include()}", str(source)]
        subprocess.run([*command, "-o", str(library)], check=True, capture_output=True)
        return ctypes.CDLL(str(library))


def blocks_per_multiprocessor(architecture: int, threads: int, registers: int, static_shared: int, dynamic: int) -> int:
    """Return how many blocks run at once on one multiprocessor; shared memory in bytes.

    Raises:
        ToolMissingError: There are no CUDA headers.
        ValueError: The kernel cannot run there at all.
    """
    multiprocessors, device_threads, device_shared = DEVICES[architecture]
    limits = (architecture, multiprocessors, device_threads, device_shared << 10)
    blocks = _calculator().mrsi_fast_occupancy(*limits, threads, registers, static_shared, dynamic)
    if blocks < 1:
        raise ValueError(f"{threads} threads with {registers} registers and {dynamic} B do not fit sm_{architecture}")
    return blocks
