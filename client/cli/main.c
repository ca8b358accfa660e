// The command `lade`.
#include "client/cli/cli.h"
#include "common/tokens.h"

int
main(int argc, char **argv)
{
    lade_tokens_guard_process();
    return lade_cli_main(argc, argv);
}
