#include "main/commands.h"
#include "main/plugins.h"

int main(int argc, char** argv) { return llmd::Main(argc, argv, llmd::MakeCatalogue()); }
