// The table of named predicates; what they do is in predicates_*.c.
#include "common/identify/predicates.h"

#include "common/identify/predicates_read.h"

const lade_predicate_t lade_predicates[] = {
    // clang-format off
    {"lora_unet_width", false, lade_predicate_lora_unet_width, "width of the text a kohya LoRA's U-Net layers take (LoRA, LoHa, LoKr, full)"},
    {"lora_text_width", false, lade_predicate_lora_text_width, "width of a kohya LoRA's text encoder; of te1 and te2 the sum; none for te1 alone"},
    {"lora_time_width", false, lade_predicate_lora_time_width, "width of a kohya LoRA's time embedding"},
    {"orphan",          false, lade_predicate_orphan,          "the first half of an adapter whose other half is missing"},
    {"embedding_width", false, lade_predicate_embedding_width, "width of the vectors of a textual inversion, if the file is nothing else"},
    {"container",       false, lade_predicate_container,       "safetensors, torch, pickle, gguf or onnx"},
    {"config_beside",   false, lade_predicate_config_beside,   "path of the file of the same name that ends with .yaml, if there is one"},
    {"wan_expert",      false, lade_predicate_wan_expert,      "high or low, by the file's name, else by what its metadata calls it"},
    {"repo_variant",    true,  lade_predicate_repo_variant,    "fp16, openvino, flax, onnx or \"\" by the names of the weight files"},
    {"submodels",       true,  lade_predicate_submodels,       "the parts model_index.json names that are there and are what it says"},
    {"weights",         true,  lade_predicate_weights,         "true if all weights are there: one file, or every file an index names"},
    {"image_encoder",   true,  lade_predicate_image_encoder,   "the first line of image_encoder.txt: what an IP-Adapter goes with"},
    {"onnx_text_width", true,  lade_predicate_onnx_text_width, "width of the text that the graph unet/model.onnx takes"},
    {"onnx_channels",   true,  lade_predicate_onnx_channels,   "channels that the graph unet/model.onnx takes"},
    {0},
    // clang-format on
};
