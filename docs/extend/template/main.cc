#include "main/commands.h"
#include "main/plugins.h"
#include "zone_scorer.h"

int main(int argc, char** argv) {
  llmd::plugin::Catalogue catalogue = llmd::MakeCatalogue();
  catalogue.Add(mine::ZoneScorerType());
  return llmd::Main(argc, argv, catalogue);
}
