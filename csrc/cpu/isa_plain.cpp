// One kernel file compiled for the plain instruction set; csrc/build.py passes the file and the flags.
#define MRSI_ISA plain
#include MRSI_FAST_KERNEL_FILE
