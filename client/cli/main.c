// The command `lade`.
#include "client/cli/cli.h"

int
main(int argc, char **argv)
{
    return lade_cli_main(argc, argv);
}
