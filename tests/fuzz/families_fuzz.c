// Family files: any text is read as rules or refused with file and line, quickly; and rules that
// were read are asked of a file and of a folder without harm.
#include "common/identify/families.h"
#include "common/identify/match.h"
#include "common/path.h"

#include "tests/fuzz/open.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const char s_header[] =
    "{\"__metadata__\":{\"ss_v2\":\"True\"},"
    "\"lora_unet_a.lora_down.weight\":{\"dtype\":\"F16\",\"shape\":[4,768],\"data_offsets\":[0,"
    "6144]},"
    "\"lora_unet_a.alpha\":{\"dtype\":\"F16\",\"shape\":[],\"data_offsets\":[6144,6146]},"
    "\"a.b.0.weight\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[6146,6162]},"
    "\"step\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[6162,6170]}}";

typedef struct {
    lade_subject_t *file, *folder;
} s_samples_t;

// A file and a folder in a folder that is gone when the process is: they stay open in memory.
static s_samples_t
s_make_samples(void)
{
    char folder[] = "/tmp/lade-families-fuzz-XXXXXX";
    s_samples_t self = {0};
    uint64_t len = sizeof s_header - 1;
    lade_fuzz_expect(mkdtemp(folder) != NULL);
    char *path = lade_path_join(folder, "x.safetensors");
    char *config = lade_path_join(folder, "model_index.json");
    FILE *out = fopen(path, "wb");
    lade_fuzz_expect(out && fwrite(&len, 8, 1, out) == 1 && fwrite(s_header, len, 1, out) == 1);
    fflush(out);
    lade_fuzz_expect(ftruncate(fileno(out), (off_t)(8 + len + 6170)) == 0);
    fclose(out);
    lade_fuzz_expect(lade_path_write(config, "{\"_class_name\":\"X\",\"a\":{\"b\":[1]}}", 32, 0600,
                                     NULL) == LADE_OK);
    lade_fuzz_expect(lade_subject_new(path, NULL, &self.file, NULL) == LADE_OK);
    lade_fuzz_expect(lade_subject_new(folder, NULL, &self.folder, NULL) == LADE_OK);
    lade_subject_config(self.folder, "model_index.json");
    lade_path_remove(folder, NULL);
    free(path);
    free(config);
    return self;
}

static json_t *
s_identify(const void *engine, lade_subject_t *inside, const char *type)
{
    (void)engine;
    (void)inside;
    return json_pack("{ss}", "type", type);
}

static void
s_ask(const lade_families_t *families, const lade_rule_t *rule, lade_subject_t *subject)
{
    lade_match_t match = {.subject = subject,
                          .patterns = lade_families_patterns(families),
                          .found = json_object(),
                          .identify = s_identify};
    for (size_t i = 0; i < rule->when_count; i++)
        lade_match_condition(&match, &rule->when[i]);
    for (size_t i = 0; i < rule->field_count; i++) {
        json_t *value = lade_match_value(&match, &rule->fields[i].value);
        json_decref(lade_match_told(&match, &rule->fields[i].value));
        json_object_set_new(match.found, rule->fields[i].name, value);
    }
    json_decref(match.found);
}

// What was found in a subject was found by patterns that are about to go.
static void
s_forget(lade_subject_t *subject)
{
    for (size_t i = 0; i < subject->search_count; i++)
        lade_search_destroy(&subject->searches[i]);
    subject->search_count = 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static s_samples_t samples;
    if (!samples.file)
        samples = s_make_samples();
    lade_error_t error = {0};
    lade_families_t *families = lade_families_new();
    int64_t start = lade_fuzz_now_ms();
    lade_code_t code =
        lade_families_read(families, "x.yaml", (const char *)data, len, true, &error);
    lade_fuzz_expect(code == LADE_OK || (code == LADE_CONFIG_ERROR && error.code == code &&
                                         strncmp(error.message, "x.yaml", 6) == 0));
    lade_families_close(families);
    for (size_t i = 0; !code && i < lade_families_count(families); i++) {
        const lade_rule_t *rule = lade_families_get(families, i);
        s_ask(families, rule, rule->folder ? samples.folder : samples.file);
    }
    lade_fuzz_expect(lade_fuzz_now_ms() - start < LADE_FUZZ_MAX_MS);
    s_forget(samples.file);
    s_forget(samples.folder);
    lade_families_destroy(&families);
    return 0;
}
