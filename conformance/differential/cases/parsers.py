"""Each inference API: what is read from requests and replies, how models are renamed.

The score of `counted` tells how many prompt tokens the request was taken to have, because its
context range is 0-0: .3 / (1 + tokens / 1000).
"""

import struct

from fleet import Endpoint, vllm
from steps import (Case, EVENT_HEADERS, Group, chat, completion, config, encode, reply, request)

POOL = [Endpoint("counted", vllm(), {"llm-d.ai/context-length-range": "0-0"}),
        Endpoint("free", vllm())]
WATCH = ("llm_d_epp_request_total", "llm_d_epp_request_error_total",
         "llm_d_epp_request_input_tokens", "llm_d_epp_request_output_tokens",
         "llm_d_epp_request_cached_tokens")
NAMES = ("openai-parser", "anthropic-parser", "vllmhttp-parser", "sglanghttp-parser",
         "vllmgrpc-parser", "vertexai-parser", "passthrough-parser")
RENAME = {"x-llm-d-model-name-rewrite": "other"}
GRPC = {"content-type": "application/grpc"}
GRPC_HEADERS = [(":status", "200"), ("content-type", "application/grpc")]
TEXT = "Tell me a story about a fox and a dog, please. " * 4
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
IMAGE = {"type": "image_url", "image_url": {"url": "http://images.example/a.png"}}


def parsing(*names):
    return config([*names, "context-length-aware"], ["context-length-aware"],
                  requestHandler={"parsers": [{"pluginRef": name} for name in names]})


def one(name, *steps, **more):
    return Case(name, [sum(steps, [])], **more)


def both(name, path, body, *answer):
    """The request as it is, and with another model asked for by header."""
    return [one(name, request(body, path), *answer),
            one(name + "_renamed", request(body, path, headers=RENAME), *answer)]


# --- a little protobuf --------------------------------------------------------------------------


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = encode(value)
    return varint(number << 3 | 2) + varint(len(data)) + data


def frame(message, flag=0):
    return struct.pack(">BI", flag, len(message)) + message


def ids(*numbers):
    return b"".join(varint(number) for number in numbers)


# --- OpenAI -------------------------------------------------------------------------------------

USAGE = '{"id":"1","model":"base","usage":{"prompt_tokens":4,"completion_tokens":2,' \
        '"total_tokens":6,"prompt_tokens_details":{"cached_tokens":1}}}'
RESPONSES_USAGE = '{"id":"1","usage":{"input_tokens":4,"output_tokens":2,"total_tokens":6,' \
                  '"input_tokens_details":{"cached_tokens":3}}}'
COMPLETED = 'event: response.completed\ndata: {"type":"response.completed","response":' \
            + RESPONSES_USAGE + "}\n\n"
OPENAI = [
    *both("completions", "/v1/completions", completion(TEXT), reply(USAGE)),
    *both("chat", "/v1/chat/completions", chat(TEXT), reply(USAGE)),
    *both("embeddings", "/v1/embeddings", {"model": "base", "input": TEXT}, reply(
        '{"object":"list","usage":{"prompt_tokens":4,"total_tokens":4}}')),
    *both("responses", "/v1/responses", {"model": "base", "input": TEXT}, reply(RESPONSES_USAGE)),
    *both("conversations", "/v1/conversations",
          {"model": "base", "items": [{"type": "message", "role": "user", "content": TEXT}]}),
    *both("chat_render", "/v1/chat/completions/render", chat(TEXT)),
    *both("completions_render", "/v1/completions/render", completion(TEXT)),
    *both("images", "/v1/images/generations", {"model": "base", "prompt": TEXT}),
    one("prompt_list", request(completion([TEXT, "second"]))),
    one("prompt_ids", request(completion(list(range(70))))),
    one("prompt_ids_list", request(completion([[1, 2, 3], [4, 5]]))),
    one("empty_prompt", request(completion(""))),
    one("empty_prompt_list", request(completion([]))),
    one("prompt_is_null", request(completion(None))),
    one("prompt_is_a_number", request(completion(5))),
    one("prompt_is_an_object", request(completion({"a": 1}))),
    one("prompt_with_escapes", request(completion("\u00e9\u4e2d\U0001f600\n\"\\" * 20))),
    one("chat_of_several", request({"model": "base", "messages": [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": TEXT},
        {"role": "assistant", "content": "Once"}, {"role": "user", "content": "more"}]},
        "/v1/chat/completions")),
    one("chat_content_parts", request({"model": "base", "messages": [
        {"role": "user", "content": [{"type": "text", "text": TEXT},
                                     {"type": "text", "text": "x"}]}]}, "/v1/chat/completions")),
    one("chat_image", request({"model": "base", "messages": [
        {"role": "user", "content": [{"type": "text", "text": TEXT}, IMAGE]}]},
        "/v1/chat/completions")),
    one("chat_tools", request(chat(TEXT, tools=TOOLS), "/v1/chat/completions")),
    one("chat_null_content", request({"model": "base", "messages": [
        {"role": "assistant", "content": None, "tool_calls": []}]}, "/v1/chat/completions")),
    one("chat_messages_is_text", request({"model": "base", "messages": "hi"},
                                         "/v1/chat/completions")),
    one("chat_unknown_part", request({"model": "base", "messages": [
        {"role": "user", "content": [{"type": "mystery", "x": 1}]}]}, "/v1/chat/completions")),
    one("chat_content_is_a_number", request({"model": "base", "messages": [
        {"role": "user", "content": 5}]}, "/v1/chat/completions")),
    one("embeddings_list", request({"model": "base", "input": ["a", TEXT]}, "/v1/embeddings")),
    one("embeddings_ids", request({"model": "base", "input": [1, 2, 3]}, "/v1/embeddings")),
    one("responses_items", request({"model": "base", "instructions": "Be brief.", "input": [
        {"role": "user", "content": TEXT}]}, "/v1/responses")),
    one("responses_streamed", request({"model": "base", "input": "a", "stream": True},
                                      "/v1/responses"),
        reply('event: response.created\ndata: {"type":"response.created"}\n\n', COMPLETED,
              headers=EVENT_HEADERS)),
    one("conversations_without_items", request({"model": "base"}, "/v1/conversations")),
    one("stream_is_text", request(completion(stream="true"))),
    one("max_tokens_is_text", request(completion(max_tokens="5"))),
    one("cache_salt", request(completion(cache_salt="s"))),
    one("suffix_without_slash", request(completion(), "/v1xcompletions")),
    one("suffix_of_another_word", request(completion(), "/v1/my-completions")),
    one("longest_suffix_wins", request(chat(), "/v1/completions/chat/completions")),
    one("trailing_slash", request(completion(), "/v1/completions/")),
    one("capitals", request(completion(), "/v1/Completions")),
]

# --- Anthropic, vLLM, SGLang ---------------------------------------------------------------------

MESSAGES = {"model": "base", "max_tokens": 9, "system": "Be brief.",
            "messages": [{"role": "user", "content": TEXT}]}
START = 'event: message_start\ndata: {"type":"message_start","message":{"model":"base","usage":' \
        '{"input_tokens":4,"cache_read_input_tokens":3,"output_tokens":1}}}\n\n'
DELTA = 'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":8}}\n\n'
STOP = 'event: message_stop\ndata: {"type":"message_stop"}\n\n'
GENERATE = {"model": "base", "token_ids": list(range(50)), "sampling_params": {"max_tokens": 5}}
SGLANG = {"input_ids": list(range(40)), "sampling_params": {"max_new_tokens": 5}}
META = '{"text":"a","meta_info":{"prompt_tokens":4,"completion_tokens":2,"cached_tokens":1}}'
OTHERS = [
    *both("anthropic", "/v1/messages", MESSAGES, reply(
        '{"type":"message","model":"base","usage":{"input_tokens":4,"output_tokens":2,'
        '"cache_read_input_tokens":3}}')),
    one("anthropic_streamed", request({**MESSAGES, "stream": True}, "/v1/messages"),
        reply(START, DELTA, STOP, headers=EVENT_HEADERS)),
    one("anthropic_streamed_in_one", request({**MESSAGES, "stream": True}, "/v1/messages"),
        reply(START + DELTA + STOP, headers=EVENT_HEADERS)),
    one("anthropic_blocks", request({**MESSAGES, "system": [{"type": "text", "text": "S"}],
                                     "messages": [{"role": "user", "content": [
                                         {"type": "text", "text": TEXT}]}]}, "/v1/messages")),
    one("anthropic_without_messages", request({"model": "base"}, "/v1/messages")),
    one("anthropic_empty_messages", request({"model": "base", "messages": []}, "/v1/messages")),
    one("anthropic_bad_json", request("{", "/v1/messages")),
    one("anthropic_without_model", request({"messages": MESSAGES["messages"]}, "/v1/messages")),
    one("anthropic_count_tokens", request(MESSAGES, "/v1/messages/count_tokens"),
        reply('{"input_tokens":4}')),
    *both("vllm_generate", "/inference/v1/generate", GENERATE, reply(
        '{"choices":[],"usage":{"prompt_tokens":50,"completion_tokens":5,"total_tokens":55}}')),
    one("vllm_without_ids", request({"model": "base"}, "/inference/v1/generate")),
    one("vllm_empty_ids", request({"model": "base", "token_ids": []}, "/inference/v1/generate")),
    one("vllm_ids_are_text", request({"model": "base", "token_ids": "a"},
                                     "/inference/v1/generate")),
    one("vllm_without_model", request({"token_ids": [1, 2]}, "/inference/v1/generate")),
    *both("sglang", "/generate", SGLANG, reply(META)),
    one("sglang_streamed", request({**SGLANG, "stream": True}, "/generate"),
        reply(f"data: {META}\n\n", "data: [DONE]\n\n", headers=EVENT_HEADERS)),
    one("sglang_with_model", request({**SGLANG, "model": "base"}, "/generate")),
    one("sglang_text", request({"text": TEXT}, "/generate")),
    one("sglang_empty_ids", request({"input_ids": []}, "/generate")),
    one("sglang_extra_key", request({**SGLANG, "extra_key": "k"}, "/generate")),
    one("sglang_extra_key_is_a_number", request({**SGLANG, "extra_key": 5}, "/generate")),
    one("sglang_batch", request({"input_ids": [[1, 2], [3]]}, "/generate")),
    one("sglang_below_another_path", request(SGLANG, "/v1/generate")),
    one("passthrough", request("anything at all", "/upload"), reply("answer")),
    one("passthrough_renamed", request('{"model":"base"}', "/upload", headers=RENAME)),
    one("passthrough_empty_body", request("", "/upload")),
]

# --- gRPC -----------------------------------------------------------------------------------------

VLLM = "/vllm.grpc.engine.VllmEngine/"
VERTEX = "/google.cloud.aiplatform.v1beta1.PredictionService/"
SAMPLING = field(4, field(8, 16))
TOKENS = field(1, "r1") + field(2, field(1, "text") + field(2, ids(*range(60)))) + SAMPLING
CHUNK = frame(field(1, field(1, ids(1)) + field(2, 4) + field(3, 1)))
COMPLETE = frame(field(2, field(1, ids(1, 2)) + field(2, "stop") + field(3, 4) + field(4, 2)
                       + field(5, 1)))
BODY = field(1, "application/json")


def grpc(message, method="Generate", service=VLLM, **more):
    return request(frame(message), service + method, headers={**GRPC, **more})


def grpc_reply(*frames):
    return reply(*frames, headers=GRPC_HEADERS, trailers=[("grpc-status", "0")])


def vertex(method, number, body):
    return grpc(field(1, "projects/p/endpoints/e") + field(number, BODY + field(2, body)),
                method, VERTEX)


FRAMED = [
    one("vllm_tokens", grpc(TOKENS), grpc_reply(COMPLETE)),
    one("vllm_streamed", grpc(TOKENS + field(5, 1)), grpc_reply(CHUNK, COMPLETE)),
    one("vllm_text", grpc(field(3, TEXT) + SAMPLING)),
    one("vllm_embed", grpc(field(1, "r1") + field(2, field(2, ids(1, 2, 3))), "Embed")),
    one("vllm_no_input", grpc(field(1, "r1"))),
    one("vllm_other_method", grpc(b"", "HealthCheck"), grpc_reply(frame(b""))),
    one("vllm_rewrite_is_not_possible", grpc(TOKENS, **RENAME)),
    one("vllm_compressed", request(frame(TOKENS, 1), VLLM + "Generate", headers=GRPC)),
    one("vllm_short_frame", request(frame(TOKENS)[:-5], VLLM + "Generate", headers=GRPC)),
    one("vllm_no_frame", request(b"\0\0", VLLM + "Generate", headers=GRPC)),
    one("vllm_bytes_after_the_frame", request(frame(TOKENS) + b"x", VLLM + "Generate",
                                              headers=GRPC)),
    one("vllm_garbage", request(frame(b"\xff\xff\xff"), VLLM + "Generate", headers=GRPC)),
    one("vertex_chat", vertex("ChatCompletions", 2, chat(TEXT)),
        grpc_reply(frame(BODY + field(2, USAGE)))),
    one("vertex_raw_predict", vertex("RawPredict", 2, {"model": "base", "input": TEXT})),
    one("vertex_stream_raw_predict",
        vertex("StreamRawPredict", 2, {"model": "base", "input": TEXT})),
    one("vertex_without_model", vertex("ChatCompletions", 2, {"messages": [
        {"role": "user", "content": "a"}]})),
    one("vertex_bad_json", vertex("ChatCompletions", 2, "{")),
    one("vertex_no_body", grpc(field(1, "e"), "ChatCompletions", VERTEX)),
    one("vertex_other_method", grpc(b"", "Predict", VERTEX)),
]

DEFAULT = config(["context-length-aware"], ["context-length-aware"])

GROUPS = [
    Group("openai", parsing(*NAMES), POOL, OPENAI, watch=WATCH),
    Group("others", parsing(*NAMES), POOL, OTHERS, watch=WATCH),
    Group("grpc", parsing(*NAMES), POOL, FRAMED, watch=WATCH),
    Group("default_parsers", DEFAULT, POOL, [
        OPENAI[0], OTHERS[0], OTHERS[9],
        one("sglang_is_not_among_them", request(SGLANG, "/generate")),
        one("grpc_is_not_among_them", grpc(TOKENS)),
    ]),
    Group("no_passthrough", parsing("openai-parser"), POOL, [
        OPENAI[0], one("unknown_path", request(completion(), "/v1/unknown")),
        one("anthropic", request(MESSAGES, "/v1/messages"))]),
    Group("passthrough_only", parsing("passthrough-parser"), POOL, [OPENAI[0], OPENAI[1]]),
    Group("deprecated_parser_key", config(["openai-parser", "context-length-aware"],
                                          ["context-length-aware"],
                                          parser={"pluginRef": "openai-parser"}),
          POOL, [OPENAI[0], one("unknown_path", request(completion(), "/v1/unknown"))]),
]
