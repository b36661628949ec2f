// What an operator can say to the index service. Defaults are those of `llmd index --help`.
#pragma once

#include <cstdint>
#include <string>

#include "control/options.h"

namespace llmd::index {

struct IndexOptions : control::HostOptions {
  std::string listen = ":8080";         // HTTP
  std::string grpc_listen = ":50051";   // upstream's example listens there
  uint64_t max_body_bytes = 32u << 20;  // of a query; about 4 M tokens as JSON

  std::string tls_cert, tls_key;  // PEM files, both or none; for both ports
  std::string api_key_file;       // for both ports

  std::string tokenizer_dir;  // with tokenizer.json; "": prompts are not tokenized here
};

}  // namespace llmd::index
