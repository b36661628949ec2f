"""One group whose traffic makes a picker show every metric family that it has."""

from fleet import Endpoint, vllm
from steps import Case, DONE, Group, chat, completion, config, reply, request
from cases.responses import END, LAST, event, events

POOL = [Endpoint("a", vllm(waiting=1, running=1, kv=.2, lora=(2, "x", "", 1))),
        Endpoint("b", vllm(waiting=2, running=1, kv=.3, lora=(2, "y", "", 1)))]
CONFIG = config(
    ["inflight-load-producer", "approx-prefix-cache-producer", "token-producer",
     "queue-scorer", "kv-cache-utilization-scorer", "prefix-cache-scorer", "active-request-scorer",
     "token-load-scorer", "lora-affinity-scorer", "utilization-detector", "agent-identity",
     {"type": "label-selector-filter", "parameters": {}}],
    ["label-selector-filter", "queue-scorer", "kv-cache-utilization-scorer",
     "prefix-cache-scorer", "active-request-scorer", "token-load-scorer", "lora-affinity-scorer"])
STREAM = request(chat("hello " * 50, stream=True), "/v1/chat/completions")

FAMILIES = Group("families", CONFIG, POOL, [
    Case("whole", [request(completion("hello " * 50)) + DONE] * 2, pause=.1),
    Case("renamed", [request(completion(), headers={"x-llm-d-model-name-rewrite": "x"}) + DONE]),
    Case("streamed", [STREAM + events(event("one"), event("two"), LAST % "base", END)]),
    Case("failed", [request("{")]),
    Case("engine_failed", [request(completion()) + reply("no", headers=[(":status", "500")])]),
    Case("held", [request(completion()), request(completion()) + DONE], held=(0,), pause=.2),
], flags=("--allow-experimental-plugins", "--enable-grpc-stream-metrics",
          "--refresh-prometheus-metrics-interval=100ms"))
