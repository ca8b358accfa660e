// Adapters (LoRA and its kin) as tensors: which layer a tensor changes, and how wide that is.
#ifndef LADE_ADAPTER_H
#define LADE_ADAPTER_H

#include "common/formats/tensors.h"

// The width the layer that this tensor changes takes (or gives, if output). 0 for a tensor that
// does not tell, as the other half, alpha, the scales of DoRA.
uint64_t lade_adapter_width(const lade_tensors_t *tensors, const lade_tensor_t *tensor,
                            bool output);

// The first half whose other half is missing; NULL if all are whole.
const lade_tensor_t *lade_adapter_orphan(const lade_tensors_t *tensors);

#endif
