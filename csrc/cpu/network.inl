// The kernels of the native network engine, gathered in one table per instruction set.
#include "attention.h"
#include "conv.h"
#include "solver_step.h"

namespace mrsi_fast {
namespace MRSI_ISA {

extern const NetworkKernels kNetworkKernels;
const NetworkKernels kNetworkKernels = {kPanel,         kLanes,         conv_scratch, conv_item, attention_scratch,
                                        attention_item, solver_scratch, solver_item,  stats_item};

}  // namespace MRSI_ISA
}  // namespace mrsi_fast
