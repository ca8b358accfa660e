// A plug-in for tests: one of another build.
__attribute__((visibility("default"))) const void *lade_backend_plugin(void);
const void *
lade_backend_plugin(void)
{
    static const unsigned version = 4711;
    return &version;
}
