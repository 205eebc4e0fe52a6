// One kernel file compiled for the avx2 instruction set; csrc/build.py passes the file and the flags.
#define MRSI_ISA avx2
#include MRSI_FAST_KERNEL_FILE
