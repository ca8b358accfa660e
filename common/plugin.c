// Finding a plug-in and asking for its table.
#include "common/plugin.h"

#include "common/share.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char s_own_mark[] = "here";

// The folder of the program or library that this code is part of.
static bool
s_own_folder(char *folder, size_t size)
{
    Dl_info info;
    char path[PATH_MAX];
    const char *from = NULL;
    if (dladdr(s_own_mark, &info) && info.dli_fname && strchr(info.dli_fname, '/'))
        from = realpath(info.dli_fname, path);
    if (!from) { // a program found through PATH
        ssize_t len = readlink("/proc/self/exe", path, sizeof path - 1);
        if (len <= 0)
            return false;
        path[len] = '\0';
    }
    char *slash = strrchr(path, '/');
    if (!slash)
        return false;
    *slash = '\0';
    return (size_t)snprintf(folder, size, "%s", path) < size;
}

// True if there is a file; its path is in path then.
static bool
s_look(char *path, size_t size, const char *folder, const char *below, const char *name)
{
    int len = snprintf(path, size, "%s/%slade-gpu-%s.so", folder, below, name);
    return len > 0 && (size_t)len < size && !access(path, F_OK);
}

static bool
s_locate(char *path, size_t size, const char *name)
{
    static const char *const below[] = {"", "../lib/lade/", "lade/"};
    const char *told = getenv("LADE_PLUGINS");
    char folder[PATH_MAX];
    if (told)
        return *told && s_look(path, size, told, "", name);
    if (!s_own_folder(folder, sizeof folder))
        return false;
    for (size_t i = 0; i < sizeof below / sizeof *below; i++)
        if (s_look(path, size, folder, below[i], name))
            return true;
    return false;
}

lade_code_t
lade_plugin_open(const char *name, const char *symbol, const void **table_p, lade_error_t *error)
{
    char path[PATH_MAX + 64];
    *table_p = NULL;
    if (!s_locate(path, sizeof path, name))
        return lade_error_set(error, LADE_NOT_FOUND,
                              "lade-gpu-%s.so is not installed (it is built where nvcc is found)",
                              name);
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!object)
        return lade_error_set(error, LADE_CONFIG_ERROR, "cannot open %.200s: %.250s", path,
                              dlerror());
    const void *(*plugin)(void);
    *(void **)&plugin = dlsym(object, symbol);
    const unsigned *version = plugin ? plugin() : NULL;
    if (!version || *version != LADE_PLUGIN_VERSION) {
        lade_error_set(
            error, LADE_CONFIG_ERROR,
            "%.300s is of version %u, this program takes %d: install both from one build", path,
            version ? *version : 0, (int)LADE_PLUGIN_VERSION);
        dlclose(object);
        return LADE_CONFIG_ERROR;
    }
    *table_p = version;
    return LADE_OK;
}
