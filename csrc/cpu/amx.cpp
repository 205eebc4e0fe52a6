// Convolutions on pairs of bfloat16; csrc/build.py compiles this file alone for processors with AMX.
#define MRSI_ISA amx
#include "pairs.h"

namespace mrsi_fast {
namespace amx {

extern const ConvKernels kPairKernels = {kPanel, pairs_scratch, pairs_item, packed_pairs, pack_pairs};

}  // namespace amx
}  // namespace mrsi_fast
