// The hub library's own cache on this machine, read and never written.
//
//   CACHE/models--ORG--NAME/refs/REVISION         the commit a branch or tag was at
//                          /snapshots/COMMIT/...  its files, links to
//                          /blobs/DIGEST          sha256 of large files, git's object id of others
//
// CACHE is hub.cache, else HF_HOME/hub, else ~/.cache/huggingface/hub. Files are copied out of it
// (sharing their bytes where the file system can) and never hard-linked: a hard link would make the
// installed model and the cache's file one file, so that whoever edits the model in place changes
// what the cache holds under a digest's name, and its owner and mode would be the cache's.
#ifndef LADE_HUBCACHE_H
#define LADE_HUBCACHE_H

#include "common/config.h"
#include "workers/install/hub.h"
#include "workers/install/select.h"

// The folder of a repository, NULL if there is none. You free it.
char *lade_hubcache_open(const lade_config_t *config, const char *repo);

// The commit that revision (NULL: main) is known to be; a commit is itself. False if the cache has
// no snapshot of it.
bool lade_hubcache_commit(const char *folder, const char *revision, char commit[65]);

// What the snapshot of a commit holds, as the hub would list it. LADE_OFFLINE if it can't be read.
lade_code_t lade_hubcache_list(const char *folder, const char *repo, const char *commit,
                               lade_hub_repo_t **repo_p, lade_error_t *error);

// Whether a selection from such a list is all of the model: every component that model_index.json
// names, every shard that an index names, weights beside each configuration. *sure_p: the cache can
// know that, as model_index.json lists the parts. Else words say what is missing.
bool lade_hubcache_is_whole(const char *folder, const char *commit, const lade_hub_repo_t *repo,
                            const lade_selection_t *selection, bool *sure_p, char *words,
                            size_t size);

// The URL (file://…) of the blob that is this file, NULL if the cache does not have it whole. Small
// files are compared with their digest here, the sha256 of large ones is left to who copies them.
// You free it.
char *lade_hubcache_url(const char *folder, const lade_hub_file_t *file);

// The URL of a file of a snapshot, for what has no digest. NULL if it is no file.
char *lade_hubcache_snapshot_url(const char *folder, const char *commit, const char *path);

#endif
