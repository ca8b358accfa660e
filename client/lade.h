// liblade: the client library of lade, a model manager of message-queue workers.
//
// Synchronous calls, JSON in and out as text, no other library's types. A lade_t belongs to one
// thread at a time; make one per thread, they are cheap. A complete example stands in
// client/README.md. Link with pkg-config lade.
#ifndef LADE_H
#define LADE_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

typedef struct lade lade_t;

// Connects to a broker. All may be NULL: config_file and data as in lade.yaml, broker an endpoint
// for requests (the events endpoint is then learnt from it). Does not block and does not fail if no
// broker is there: the first call does.
lade_code_t lade_open(const char *config_file, const char *data, const char *broker,
                      lade_t **self_p, lade_error_t *error);
void lade_close(lade_t **self_p);

// Milliseconds a call waits for a broker's first sign before LADE_BROKER_UNREACHABLE (preset 5000).
void lade_set_timeout(lade_t *self, int64_t timeout_ms);

// Calls service.op (broker/README.md lists them) with a JSON object of arguments ("" or NULL:
// none). *result_p is JSON text you free with free(); NULL may be given. Blocks until the answer;
// calls that wait in the broker (wait_for_job, load, …) block as long as they wait, also while the
// broker restarts (for at most 60 s). Submissions get a random token, so that asking again after a
// restart is the same job. After fork() open another lade_t: LADE_USAGE.
lade_code_t lade_call(lade_t *self, const char *service, const char *op, const char *args,
                      char **result_p, lade_error_t *error);

// As lade_call; progress is told each PARTIAL answer as JSON text and may return false to give up
// waiting (LADE_CANCELLED; the job goes on).
lade_code_t lade_call_progress(lade_t *self, const char *service, const char *op, const char *args,
                               bool (*progress)(void *arg, const char *partial), void *arg,
                               char **result_p, lade_error_t *error);

// Installs a source and waits for the end; *record_p is the record as JSON, yours to free. config
// is a JSON object of overrides or NULL. timeout_s 0 waits for ever.
lade_code_t lade_install(lade_t *self, const char *source, const char *config, double timeout_s,
                         char **record_p, lade_error_t *error);

// ---------------------------------------------------------------------------------------------------
// Model records
//
// The seed's record store. Records and lists are JSON text that you free, as broker/README.md has
// them; what a pointer is given NULL for is not asked for or not told.

// Adds a record; key NULL has one made. *stored_p (may be NULL) is the record with what the broker
// keeps: key, created_at, updated_at, version. LADE_INVALID_MODEL_CONFIG names the field and what
// it takes; LADE_DUPLICATE_MODEL for a key or a path that is there.
lade_code_t lade_models_add(lade_t *self, const char *key, const char *record, char **stored_p,
                            lade_error_t *error);

// Sets the given fields, null removing one; fields that nobody here knows are kept. version: that
// of the record that was read, and then LADE_STALE_RECORD if it was changed since; 0 writes in any
// case. LADE_UNKNOWN_MODEL, LADE_INVALID_MODEL_CONFIG, LADE_DUPLICATE_MODEL.
lade_code_t lade_models_update(lade_t *self, const char *key, const char *changes, int64_t version,
                               char **stored_p, lade_error_t *error);

// Removes the record, and no file.
lade_code_t lade_models_del(lade_t *self, const char *key, lade_error_t *error);

lade_code_t lade_models_get(lade_t *self, const char *key, char **record_p, lade_error_t *error);
lade_code_t lade_models_exists(lade_t *self, const char *key, bool *exists_p, lade_error_t *error);

// The record with that path, absolute or below the models folder; *record_p is NULL if there is
// none.
lade_code_t lade_models_by_path(lade_t *self, const char *path, char **record_p,
                                lade_error_t *error);

// The one record of that name, at that base (or one of its bases) and of that type, which may be
// NULL. LADE_UNKNOWN_MODEL if there is none, LADE_DUPLICATE_MODEL with the keys if there are
// several.
lade_code_t lade_models_info_by_name(lade_t *self, const char *name, const char *base,
                                     const char *type, char **record_p, lade_error_t *error);

// Which records, in what order: those that have all that is not NULL.
typedef struct {
    const char *name, *base, *type, *format, *hash;
    const char *const *tags; // ended by NULL
    const char *order_by;    // type (the preset), base, name, format, size, created_at, updated_at,
                             // path
    bool descending;
    int64_t limit; // 0: 1,000; fewer may come where records are large: go on with offset until none
                   // come
    int64_t offset;
} lade_models_query_t;

// A JSON array of records. query NULL: all.
lade_code_t lade_models_search(lade_t *self, const lade_models_query_t *query, char **records_p,
                               lade_error_t *error);
lade_code_t lade_models_by_tag(lade_t *self, const char *const *tags, char **records_p,
                               lade_error_t *error); // all of the tags
lade_code_t lade_models_by_hash(lade_t *self, const char *hash, char **records_p,
                                lade_error_t *error);
lade_code_t lade_models_all(lade_t *self, int64_t limit, int64_t offset, char **records_p,
                            lade_error_t *error);

// {"page", "pages", "per_page", "total", "items"}: page 0 is the first, per_page 0 is 10, items are
// summaries; limit and offset of the query are not looked at.
lade_code_t lade_models_list(lade_t *self, const lade_models_query_t *query, int64_t page,
                             int64_t per_page, char **page_p, lade_error_t *error);

// "3.2".
lade_code_t lade_models_version(lade_t *self, char **version_p, lade_error_t *error);

// ---------------------------------------------------------------------------------------------------
// The installer
//
// The seed's methods. Jobs and records are JSON text that you free, as broker/README.md has them.
// Paths are absolute, as the workers see them. Where there is a timeout_s, 0 waits for ever, and
// after it the answer is LADE_TIMEOUT and the job goes on. An install that finds its content
// installed already ends in LADE_DUPLICATE_MODEL: the message names the record, and so does `key`
// in the job's result.

// How to install. Begin with LADE_INSTALL_OPTIONS; NULL is that.
typedef struct {
    const char *config;       // JSON object of fields that win over what is found; NULL: none
    const char *access_token; // for the source; NULL: what the settings have for it
    const char *on_equal;     // equal content is there already: "refuse", "link" (the same bytes
                              // under another name), "copy"; NULL: "refuse"
    int64_t priority;         // lower goes first
    bool inplace;             // of a path: the files stay where they are
    bool move; // of a path: the files are taken away from there once they are installed
} lade_install_options_t;
#define LADE_INSTALL_OPTIONS                                                                       \
    {                                                                                              \
        .priority = 10                                                                             \
    }

// Submits an install. source is a path, a URL or a hub repository as a user types it; of
// import_model a JSON object: {"type": "local" "url" "hf", "path" "url" "repo_id", "variant"?,
// "subfolder"?}. *job_p is the job. LADE_VALUE_ERROR, LADE_INVALID_MODEL_CONFIG.
lade_code_t lade_installer_heuristic_import(lade_t *self, const char *source,
                                            const lade_install_options_t *options, char **job_p,
                                            lade_error_t *error);
lade_code_t lade_installer_import_model(lade_t *self, const char *source,
                                        const lade_install_options_t *options, char **job_p,
                                        lade_error_t *error);

// Makes a record of a file or folder where it is, or of a copy of it in the models folder. *key_p
// is the record's key.
lade_code_t lade_installer_register_path(lade_t *self, const char *path, const char *config,
                                         double timeout_s, char **key_p, lade_error_t *error);
lade_code_t lade_installer_install_path(lade_t *self, const char *path, const char *config,
                                        double timeout_s, char **key_p, lade_error_t *error);

// Remove the record; its files too if they are inside the models folder; its files wherever they
// are. LADE_UNKNOWN_MODEL.
lade_code_t lade_installer_unregister(lade_t *self, const char *key, lade_error_t *error);
lade_code_t lade_installer_delete(lade_t *self, const char *key, double timeout_s,
                                  lade_error_t *error);
lade_code_t lade_installer_unconditionally_delete(lade_t *self, const char *key, double timeout_s,
                                                  lade_error_t *error);

// Fetches a source into the cache, or finds it there; *path_p is where it is. It makes no record
// and stays until the cache is full and others were asked for since (but for a minute at least).
lade_code_t lade_installer_download_and_cache(lade_t *self, const char *source,
                                              const char *access_token, double timeout_s,
                                              char **path_p, lade_error_t *error);

// Makes a folder of diffusers of a model that is a single-file checkpoint: in the cache of
// converted copies (dest NULL), where it stays until the cache is full and others were asked for
// since, or at dest, an absolute path that is not there. *path_p is where it is. Nothing is done
// again as long as neither the record nor its file changed. LADE_NOT_IMPLEMENTED for what there is
// no conversion for.
lade_code_t lade_installer_convert(lade_t *self, const char *key, const char *dest,
                                   double timeout_s, char **path_p, lade_error_t *error);

// Makes records of the models below a folder that have none, where they lie or (install) of copies
// in the models folder; *keys_p is a JSON array of their keys. What is no model lade knows stops
// nothing: jobs.get on the job tells of it.
lade_code_t lade_installer_scan_directory(lade_t *self, const char *scan_dir, bool install,
                                          double timeout_s, char **keys_p, lade_error_t *error);

// Brings records and files into agreement: new models in the models folder and in
// install.autoimport_dir are registered, files that turned up elsewhere are found by their hash,
// records without files are told; unregister removes those of them that are missing, never those
// whose drive is away. *result_p is a JSON object (broker/README.md).
lade_code_t lade_installer_sync_to_config(lade_t *self, bool unregister, bool dry_run,
                                          double timeout_s, char **result_p, lade_error_t *error);

// Reads installed files and compares them with what is known of them; changes nothing but, with
// record, the sha256 of files of which none is known. keys ends with NULL; NULL: all models.
// *result_p is a JSON object (broker/README.md).
lade_code_t lade_installer_verify(lade_t *self, const char *const *keys, bool record,
                                  double timeout_s, char **result_p, lade_error_t *error);

// All install jobs, ended ones too, as a JSON array; those of a source (its text); one.
// LADE_UNKNOWN_JOB_ID.
lade_code_t lade_installer_list_jobs(lade_t *self, char **jobs_p, lade_error_t *error);
lade_code_t lade_installer_get_job_by_source(lade_t *self, const char *source, char **jobs_p,
                                             lade_error_t *error);
lade_code_t lade_installer_get_job_by_id(lade_t *self, int64_t id, char **job_p,
                                         lade_error_t *error);

// What has ended stays as it is.
lade_code_t lade_installer_cancel_job(lade_t *self, int64_t id, lade_error_t *error);

// Forgets the install jobs that have ended; *count_p (may be NULL) is how many.
lade_code_t lade_installer_prune_jobs(lade_t *self, size_t *count_p, lade_error_t *error);

// Waits until the job has ended, however: *job_p (may be NULL) says.
lade_code_t lade_installer_wait_for_job(lade_t *self, int64_t id, double timeout_s, char **job_p,
                                        lade_error_t *error);

// Waits until no install job is live. *by_source_p is a JSON object {source: its newest job},
// *jobs_p an array of all; each may be NULL.
lade_code_t lade_installer_wait_for_installs(lade_t *self, double timeout_s, char **by_source_p,
                                             char **jobs_p, lade_error_t *error);
// ---------------------------------------------------------------------------------------------------
// The keyspace: backup and check

// Writes a backup of everything the broker knows (records, jobs, events; no secrets) into a file on
// the broker's host: consistent, while it goes on; everything that was acknowledged before is in
// it. path is absolute. The file appears when it is whole and on disk. progress (may be NULL) is
// told bytes written and expected; false gives up waiting (LADE_CANCELLED; the backup goes on).
// *result_p (may be NULL) is {"path", "bytes", "models", "schema", "sha256", "seconds"}, yours.
// LADE_EXISTS unless overwrite, LADE_BUSY while another is under way, LADE_NO_SPACE.
lade_code_t lade_backup(lade_t *self, const char *path, bool overwrite,
                        bool (*progress)(void *arg, int64_t done, int64_t total), void *arg,
                        char **result_p, lade_error_t *error);

// Looks whether indexes, records and files agree; with fix it makes good what can be made good
// without losing anything (indexes from records, leftovers of jobs that are gone). *result_p is
// {"findings": [{"check", "severity", "where", "what", "todo"}…], "fixed": [text…], …}, yours.
lade_code_t lade_check(lade_t *self, bool fix,
                       bool (*progress)(void *arg, int64_t done, int64_t total), void *arg,
                       char **result_p, lade_error_t *error);

// ---------------------------------------------------------------------------------------------------
// The file database
//
// All records as one YAML document that people edit: `__metadata__: {version: "3.2"}`, then each
// record below its key. Whatever a record holds comes back as it was, fields that this version does
// not know too.

// *text_p is yours.
lade_code_t lade_export_yaml(lade_t *self, char **text_p, lade_error_t *error);

// Takes up such a file ("-": standard input), all of it or nothing. A record whose key is there:
// on_conflict "fail" (NULL), "skip" or "replace". More than 10,000 records, or 8 MiB of them, are
// LADE_TOO_LARGE unless they may go in parts, each of which is all or nothing. dry_run changes
// nothing. *result_p (may be NULL) is {"added", "replaced", "skipped", "failed", "models"}, yours.
// LADE_CORRUPT for what is no such file, LADE_INVALID_MODEL_CONFIG and LADE_DUPLICATE_MODEL with
// "FILE:LINE: ".
lade_code_t lade_import_yaml(lade_t *self, const char *file, const char *on_conflict, bool parts,
                             bool dry_run, char **result_p, lade_error_t *error);

// Takes up an InvokeAI installation: its models.yaml and its database, which are only read. Its
// models become records where they are; those whose key or path is a record already are left out,
// and what is wrong with one is no matter to the others. *result_p (may be NULL) is {"root",
// "taken", "skipped", "failed", "models": [{"name", "path", "from", "outcome", "key"?,
// "error"?}…]}, yours. LADE_NOT_FOUND if there is none, or a database and no libsqlite3 to read it.
lade_code_t lade_import_invokeai(lade_t *self, const char *root, bool dry_run, char **result_p,
                                 lade_error_t *error);

// ---------------------------------------------------------------------------------------------------
// Metadata: what a page says of a model besides what it takes to run it. A map of `type`
// "huggingface" or "civitai" (README.md has the fields); the answers are JSON text you free.

// url: a page of the hub or of Civitai. access_token may be NULL. LADE_UNKNOWN_METADATA if it is no
// such page or there is no such model.
lade_code_t lade_metadata_from_url(lade_t *self, const char *url, const char *access_token,
                                   char **metadata_p, lade_error_t *error);

// id: OWNER/REPO[@REVISION], or the number of a model of Civitai.
lade_code_t lade_metadata_from_id(lade_t *self, const char *id, const char *access_token,
                                  char **metadata_p, lade_error_t *error);

// Reads stored metadata back: LADE_VALUE_ERROR names the field that is wrong and what it takes.
// Asks nobody.
lade_code_t lade_metadata_from_json(const char *text, char **metadata_p, lade_error_t *error);

// ---------------------------------------------------------------------------------------------------
// Events

// Calls on_event with each event (its body as JSON text, in order of seq, none left out and none
// twice for journaled ones) until it returns false or the deadline passes. prefixes are event names
// or their beginnings (or NAME/ID/ for one job or record), ended by NULL; NULL is all, beats
// included. since: events after that seq come first (-1: from now on). on_event may make calls on
// self. Reconnects and catches up by itself after a broker restart; a broker silent for 60 s is
// LADE_BROKER_UNREACHABLE. timeout_s 0 is for ever. LADE_TOO_OLD if since is older than the
// journal, LADE_VALUE_ERROR if it is newer than its newest event. LADE_TIMEOUT at the deadline.
lade_code_t lade_watch(lade_t *self, const char *const *prefixes, int64_t since,
                       bool (*on_event)(void *arg, const char *event), void *arg, double timeout_s,
                       lade_error_t *error);

// ---------------------------------------------------------------------------------------------------
// The download queue
//
// A queue is one program's view of its downloads: it acts on, lists and waits for the jobs that
// were submitted through it (or taken over with lade_queue_adopt) and no others, however many
// queues and programs share the broker. Two equal downloads that have not ended are one job, also
// of two queues: what one does to it, both see. How many run at once is the workers'
// download.slots.
//
// Handlers are called in the thread that calls the queue, and only from within its calls that wait,
// run or control jobs: in order, none for a change of status left out, and for progress about every
// 1 % of a transfer (at most some ten times a second). A program that does other things calls
// lade_queue_run now and then. A handle's fields are as its handlers were told last. A handler may
// cancel and submit jobs, prune and change handlers; what waits (run, join, wait_for_job) and
// lade_queue_close is LADE_USAGE, or nothing, in there.

typedef struct lade_queue lade_queue_t;
typedef struct lade_download lade_download_t;

typedef enum {
    LADE_DOWNLOAD_IDLE,      // not started
    LADE_DOWNLOAD_ENQUEUED,  // waits for its turn, or to be tried again
    LADE_DOWNLOAD_RUNNING,   // of several files: one at least is not there yet
    LADE_DOWNLOAD_PAUSED,    // lade_queue_start_job goes on where it was
    LADE_DOWNLOAD_COMPLETED, // the file is there, whole
    LADE_DOWNLOAD_ERROR,     // lade_download_outcome says why
    LADE_DOWNLOAD_CANCELLED,
} lade_download_status_t;

typedef struct {
    void (*handle)(void *arg, lade_download_t *job);
    void *arg;
} lade_download_handler_t;

typedef struct {
    const char *url;
    const char *path;   // in the job's destdir, relative
    int64_t size;       // bytes; below 1 unknown
    const char *sha256; // hexadecimal, or NULL
} lade_download_file_t;

// What to fetch. Begin with LADE_DOWNLOAD_SPEC; everything is copied.
typedef struct {
    // One of: a URL (http, https, file; the latter is copied) or the absolute path of a file or
    // folder (which is moved); mirrors, several URLs of one file, tried in order, ended by NULL;
    // files, each with a place in destdir (source is then what the job is called, or NULL).
    const char *source;
    const char *const *mirrors;
    const lade_download_file_t *files;
    size_t file_count;
    // Where to, absolute, as the workers see it: the file to write or a folder that is there; or a
    // folder (made if it is missing), and filename in it (NULL: the name that the source gives it).
    const char *destination;
    const char *destdir, *filename;
    int64_t priority;                // lower goes first
    const char *access_token;        // for the source; can be given, not asked for
    const char *sha256;              // what the file has to be; NULL: not checked
    int64_t size;                    // bytes it has to have; below 0: not checked
    int64_t bytes_per_s;             // 0: no limit
    bool preserve_partial_downloads; // keep what was fetched even after an error
    const lade_download_handler_t *handlers;
    size_t handler_count;
} lade_download_spec_t;
#define LADE_DOWNLOAD_SPEC                                                                         \
    {                                                                                              \
        .priority = 10, .size = -1                                                                 \
    }

// A queue on a client, which is borrowed and used by one thread at a time with it. handlers (may be
// NULL; copied) are called for every job, after the job's own. Unless quiet, the start and the end
// of each job are logged to standard error.
lade_code_t lade_queue_open(lade_t *client, const lade_download_handler_t *handlers,
                            size_t handler_count, bool quiet, lade_queue_t **queue_p,
                            lade_error_t *error);

// The jobs go on without it; their handles are gone. NULL-safe.
void lade_queue_close(lade_queue_t **queue_p);

// A job that is not submitted yet: status idle, id -1. Yours until it is: end it with
// lade_download_destroy, or hand it to a queue. Its source and places are looked at when it is
// submitted.
lade_code_t lade_download_new(const lade_download_spec_t *spec, lade_download_t **job_p,
                              lade_error_t *error);
void lade_download_destroy(lade_download_t **job_p); // of a queue's job: does nothing

// Submits it; start false leaves it idle. Then it is the queue's, until it is pruned or the queue
// is closed. When this returns the job is on the broker's disk. LADE_VALUE_ERROR, LADE_QUEUE_FULL.
lade_code_t lade_queue_submit_download_job(lade_queue_t *self, lade_download_t *job, bool start,
                                           lade_error_t *error);

// lade_download_new and lade_queue_submit_download_job in one.
lade_code_t lade_queue_create_download_job(lade_queue_t *self, const lade_download_spec_t *spec,
                                           bool start, lade_download_t **job_p,
                                           lade_error_t *error);

// Takes a job of another queue or program (or of this one before it was restarted) into this queue.
// LADE_UNKNOWN_JOB_ID.
lade_code_t lade_queue_adopt(lade_queue_t *self, int64_t id, lade_download_t **job_p,
                             lade_error_t *error);

// Of all that take a job: LADE_UNKNOWN_JOB_ID if it was not submitted or is another queue's. What
// has ended stays as it is. LADE_VALUE_ERROR if it cannot be done to it, as pausing a paused one.
// start also goes on with a paused one.
lade_code_t lade_queue_start_job(lade_queue_t *self, lade_download_t *job, lade_error_t *error);
lade_code_t lade_queue_pause_job(lade_queue_t *self, lade_download_t *job, lade_error_t *error);
lade_code_t lade_queue_cancel_job(lade_queue_t *self, lade_download_t *job, lade_error_t *error);

// The same to each of the queue's jobs that has not ended and that it can be done to.
lade_code_t lade_queue_start_all_jobs(lade_queue_t *self, lade_error_t *error);
lade_code_t lade_queue_pause_all_jobs(lade_queue_t *self, lade_error_t *error);
lade_code_t lade_queue_cancel_all_jobs(lade_queue_t *self, lade_error_t *error);

// While the job has not ended, running or not.
lade_code_t lade_queue_set_preserve(lade_queue_t *self, lade_download_t *job, bool preserve,
                                    lade_error_t *error);
lade_code_t lade_queue_set_priority(lade_queue_t *self, lade_download_t *job, int64_t priority,
                                    lade_error_t *error);

// Waits until the job has ended, however. timeout_s 0 is for ever; LADE_TIMEOUT after it.
lade_code_t lade_queue_wait_for_job(lade_queue_t *self, lade_download_t *job, double timeout_s,
                                    lade_error_t *error);

// Waits until no job of the queue is enqueued or running; idle and paused ones are not waited for.
lade_code_t lade_queue_join(lade_queue_t *self, double timeout_s, lade_error_t *error);

// Calls the handlers for what happens in the next timeout_s seconds (0: for what has happened).
lade_code_t lade_queue_run(lade_queue_t *self, double timeout_s, lade_error_t *error);

// All jobs of the queue in order of their ids, ended and idle ones too: writes at most room handles
// and returns how many there are.
size_t lade_queue_list_jobs(const lade_queue_t *self, lade_download_t **jobs, size_t room);

// LADE_UNKNOWN_JOB_ID if the queue has no job of that id.
lade_code_t lade_queue_id_to_job(const lade_queue_t *self, int64_t id, lade_download_t **job_p,
                                 lade_error_t *error);

// Forgets the queue's jobs that have ended, here and in the broker; their handles are gone.
// *count_p (may be NULL) is how many.
lade_code_t lade_queue_prune_jobs(lade_queue_t *self, size_t *count_p, lade_error_t *error);

// The queue it was submitted to; NULL before.
lade_queue_t *lade_download_queue(const lade_download_t *self);

// What is called for this job, in the order of adding. Both may be done at any time, by a handler
// too.
void lade_download_add_event_handler(lade_download_t *self, lade_download_handler_t handler);
void lade_download_clear_event_handlers(lade_download_t *self);

// What is returned stays the handle's, until the next call of its queue.
int64_t lade_download_id(const lade_download_t *self); // -1: not submitted
lade_download_status_t lade_download_status(const lade_download_t *self);
const char *lade_download_status_name(lade_download_status_t status); // "enqueued"
int64_t lade_download_priority(const lade_download_t *self);
const char *lade_download_source(const lade_download_t *self);
const char *lade_download_destination(const lade_download_t *self); // as asked for
const char *lade_download_path(const lade_download_t *self);        // NULL while it is not known
int64_t lade_download_bytes(const lade_download_t *self);
int64_t lade_download_total_bytes(const lade_download_t *self); // 0: not known
double lade_download_job_started(const lade_download_t *self);  // seconds since the epoch; 0: never
double lade_download_job_ended(const lade_download_t *self);    // 0: not yet
int64_t
lade_download_job_sequence(const lade_download_t *self); // its place among all dispatches; 0: none
bool lade_download_preserves(const lade_download_t *self);

// LADE_OK if it completed, LADE_TIMEOUT if it has not ended, else why it did not complete.
lade_code_t lade_download_outcome(const lade_download_t *self, lade_error_t *error);
const char *lade_download_error_type(const lade_download_t *self); // the code as text; NULL: none
const char *lade_download_error(const lade_download_t *self);      // the sentence; NULL: none

// ---------------------------------------------------------------------------------------------------
// Loaded models
//
// A model belongs to no client: it stays when the lade_t that loaded it is closed, and any thread
// may unlock it. Until then any number of threads may ask for its tensors at once.

typedef struct lade_model lade_model_t;

typedef struct {
    const char *name;
    const char *dtype; // "F32", "F16", "BF16", "I64", …; GGUF's blocks as stored: "Q4_K", …
    uint8_t rank;
    uint64_t shape[8];
    const void *data;    // read-only, valid until lade_unlock; NULL for a model on a device
    size_t size;         // bytes
    uint64_t strides[8]; // in elements; all 0 for blocks, which have none
} lade_model_tensor_t;

// Begin with {0}: everything as stored, on the host, unless load.precision and load.device of the
// broker's settings say otherwise.
typedef struct {
    const char *submodel;     // mandatory for pipelines and text encoders; NULL: none
    const char *dtype;        // floating point becomes "fp32", "fp16" or "bf16"; "stored": it stays
    const char *layout;       // "channels_last" for weights of four dimensions; NULL: as stored
    const char *device;       // "cpu", "cuda", "cuda:N"
    const char *allow_unsafe; // the key of the model, to load it though its files would run code
                              // when loaded by others (nothing in them is run)
    const char *context;      // a JSON object whose members the load's events repeat: queue_id,
                              // queue_item_id, queue_batch_id, graph_execution_state_id, …
    double timeout_s;         // 0 waits for ever
    // Told how far it is, while it is read (total_bytes 0: not known yet); false gives up waiting:
    // LADE_CANCELLED. NULL: nobody.
    bool (*progress)(void *arg, int64_t bytes, int64_t total_bytes);
    void *arg;
} lade_load_options_t;

// Loads a model (or one submodel of it) and locks it: it stays where it is until lade_unlock or the
// end of this process. Attaches to the one shared copy, nothing is copied. options may be NULL.
// LADE_UNKNOWN_MODEL, LADE_MODEL_NOT_FOUND, LADE_NOT_IMPLEMENTED, LADE_UNSAFE_FILE, LADE_NO_MEMORY,
// LADE_NO_VRAM, LADE_TIMEOUT; LADE_VALUE_ERROR for a submodel that is missing, unknown or asked of
// what has none, and for options that take other words. After LADE_TIMEOUT and LADE_CANCELLED the
// model may still be read, and is locked for nobody.
lade_code_t lade_load_model_by_key(lade_t *self, const char *key,
                                   const lade_load_options_t *options, lade_model_t **model_p,
                                   lade_error_t *error);

// The one model of that name, base and type (the latter two may be NULL); LADE_VALUE_ERROR if
// several match.
lade_code_t lade_load_model_by_attr(lade_t *self, const char *name, const char *base,
                                    const char *type, const lade_load_options_t *options,
                                    lade_model_t **model_p, lade_error_t *error);

// config: a record as JSON, as the record store answers them; its key has to be known.
lade_code_t lade_load_model_by_config(lade_t *self, const char *config,
                                      const lade_load_options_t *options, lade_model_t **model_p,
                                      lade_error_t *error);

// A weight file, or a folder with weights directly in it, that no record tells of: path is
// absolute, as the load workers see it, and what the model is called (allow_unsafe names it too).
lade_code_t lade_load_model_from_path(lade_t *self, const char *path,
                                      const lade_load_options_t *options, lade_model_t **model_p,
                                      lade_error_t *error);

// Fetches a source (as lade_installer_download_and_cache takes it; access_token may be NULL) into
// the cache of files, unless it is there, and loads that.
lade_code_t lade_load_remote_model(lade_t *self, const char *source, const char *access_token,
                                   const lade_load_options_t *options, lade_model_t **model_p,
                                   lade_error_t *error);

// Short for lade_load_model_by_key and lade_load_model_by_attr with no other options.
lade_code_t lade_load(lade_t *self, const char *key, const char *submodel, double timeout_s,
                      lade_model_t **model_p, lade_error_t *error);
lade_code_t lade_load_by_attr(lade_t *self, const char *name, const char *base, const char *type,
                              const char *submodel, double timeout_s, lade_model_t **model_p,
                              lade_error_t *error);

const char *lade_model_config(const lade_model_t *self); // the record as JSON
// The file or folder it was loaded from, absolute, as the load worker sees it: of a submodel its
// folder, with the files that hold no weights (config.json, a tokenizer's vocabulary); of a part of
// a checkpoint that of the converted copy.
const char *lade_model_path(const lade_model_t *self);
const char *lade_model_location(const lade_model_t *self);  // "host" or "cuda:N"
const char *lade_model_precision(const lade_model_t *self); // of most bytes: "float16", …
const char *lade_model_metadata(lade_model_t *self);        // of the files, as JSON
size_t lade_model_bytes(const lade_model_t *self);
size_t lade_model_tensor_count(lade_model_t *self);
// False past the end, or if there is no such name.
bool lade_model_tensor(lade_model_t *self, size_t index, lade_model_tensor_t *tensor);
bool lade_model_find(lade_model_t *self, const char *name, lade_model_tensor_t *tensor);

// Where a tensor is: its address on a device, and the number that device has in this process, -1
// for host memory. The first call makes the model visible to this process, by lade-gpu-cuda.so, in
// the device's primary context, which is the one torch uses. LADE_NOT_FOUND without the plug-in,
// the device or the tensor.
lade_code_t lade_model_address(lade_model_t *self, const char *name, uint64_t *address, int *device,
                               lade_error_t *error);

// Gives the lock back and unmaps: tensors of the model are gone. NULL-safe; *model_p is NULL
// afterwards.
void lade_unlock(lade_model_t **model_p);

// A model that is unlocked at the end of the block, however that is left:
//     LADE_LOCK(unet) = NULL;
//     if (lade_load_model_by_key(lade, key, &options, &unet, &error))
//         return error.code;
#define LADE_LOCK(name) __attribute__((cleanup(lade_unlock))) lade_model_t *name

// What workers hold: {WORKER: {"bytes", "limit_bytes", "models", "hits", "misses",
// "high_watermark", "cleared", "loaded_model_sizes", …}} as JSON text that you free.
lade_code_t lade_load_cache_stats(lade_t *self, char **stats_p, lade_error_t *error);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
