// What the rows of lade_predicates call: each a new value, or NULL for none.
#ifndef LADE_PREDICATES_READ_H
#define LADE_PREDICATES_READ_H

#include "common/identify/subject.h"

// predicates_lora.c
json_t *lade_predicate_lora_unet_width(lade_subject_t *subject);
json_t *lade_predicate_lora_text_width(lade_subject_t *subject);
json_t *lade_predicate_lora_time_width(lade_subject_t *subject);
json_t *lade_predicate_orphan(lade_subject_t *subject);
json_t *lade_predicate_embedding_width(lade_subject_t *subject);

// predicates_file.c
json_t *lade_predicate_container(lade_subject_t *subject);
json_t *lade_predicate_config_beside(lade_subject_t *subject);
json_t *lade_predicate_wan_expert(lade_subject_t *subject);

// predicates_folder.c
json_t *lade_predicate_repo_variant(lade_subject_t *subject);
json_t *lade_predicate_submodels(lade_subject_t *subject);
json_t *lade_predicate_image_encoder(lade_subject_t *subject);
json_t *lade_predicate_weights(lade_subject_t *subject);
json_t *lade_predicate_onnx_text_width(lade_subject_t *subject);
json_t *lade_predicate_onnx_channels(lade_subject_t *subject);

#endif
