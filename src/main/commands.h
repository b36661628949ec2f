// The subcommands of llmd. Each parses its own flags and returns the exit status: 0 done, 1 failed
// at run time, 2 wrong usage. `argv[0]` is the name to show in its help.
#pragma once

#include "plugin/catalogue.h"

namespace llmd {

// The whole program: picks the subcommand from argv[0] (links named epp and llm-d-inference-sim) or
// argv[1]. Programs that add plugins of their own call it with their catalogue.
int Main(int argc, char** argv, const plugin::Catalogue& catalogue);

int GatewayMain(int argc, char** argv, const plugin::Catalogue& catalogue);
int EppMain(int argc, char** argv, const plugin::Catalogue& catalogue);
int IndexMain(int argc, char** argv, const plugin::Catalogue& catalogue);
int UpMain(int argc, char** argv, const plugin::Catalogue& catalogue);
int ConfigMain(int argc, char** argv, const plugin::Catalogue& catalogue);
int SimMain(int argc, char** argv);
int BenchMain(int argc, char** argv);

}  // namespace llmd
