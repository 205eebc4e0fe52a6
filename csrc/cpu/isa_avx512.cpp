// One kernel file compiled for the avx512 instruction set; csrc/build.py passes the file and the flags.
#define MRSI_ISA avx512
#include MRSI_FAST_KERNEL_FILE
