// The kernels of the native network engine, gathered in one table per instruction set.
#include "conv.h"
#include "film.h"
#include "filter_gradient.h"
#include "filters.h"
#include "self_attention.h"
#include "solver_step.h"

namespace mrsi_fast {
namespace MRSI_ISA {

extern const NetworkKernels kNetworkKernels = {{kPanel, conv_scratch, conv_item, packed_size, pack_panel},
                                               kPanel,
                                               kLanes,
                                               attention_scratch,
                                               attention_item,
                                               solver_scratch,
                                               film_item,
                                               start_item,
                                               solver_item,
                                               filter_gradient_items,
                                               filter_gradient_scratch,
                                               filter_gradient_item,
                                               stats_item};

}  // namespace MRSI_ISA
}  // namespace mrsi_fast
