// token-producer: the tokens of the prompt. The default producer of TokenizedPrompt.
//
// Back ends, of which one may be given; without any, and where one has no answer in time, the
// prompt is estimated (token_estimate.h), which is enough for sizes and for matching by what was
// sent where, and useless for matching with what engines say of their caches.
//   estimate            parameters of the estimate
//   vllm                a render server over HTTP (render_backend.h): url http://localhost:8000,
//                       timeout 5s, mmTimeout 30s; modelName is required, and selects it alone
//   local               in this process (local_backend.h): path of the tokenizer's directory,
//                       cacheSize 64Mi, timeout 400ms; modelName is the engines' name of the model
//   udsTokenizerConfig  upstream's tokenizer sidecar over gRPC (sidecar_backend.h): socketFile
//                       /tmp/tokenizer/tokenizer-uds.socket, or host:port with useTCP;
//                       modelTokenizerMap from modelName, which is required, to what the sidecar
//                       is to load: a directory, or the tokenizer.json in it. Upstream itself calls
//                       this back end deprecated
//
// Ids that the client gives (completions with ids, /inference/v1/generate) are taken as they are,
// whatever the back end. Requests whose body is opaque get no TokenizedPrompt.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType TokenProducerType();
// tokenizer, its old name.
plugin::PluginType TokenizerType();

}  // namespace llmd::plugins
