"""The request phase: shapes of requests, subset hints, control headers, errors."""

from fleet import Endpoint, vllm
from steps import (Body, Cancel, Case, DONE, Group, Headers, Pause, chat, completion, config, head,
                   reply, request)

FOUR = [Endpoint("a", vllm(waiting=1)), Endpoint("b", vllm(waiting=3)),
        Endpoint("c", vllm(waiting=6)), Endpoint("c2", vllm(waiting=9), beside="c")]
SHAPE = completion("The quick brown fox")
BIG = completion("x" * 200_000)
COUNTED = ("llm_d_epp_request_total", "llm_d_epp_request_error_total",
           "llm_d_epp_request_size_bytes", "llm_d_epp_request_running",
           "inference_objective_request_error_total", "inference_objective_request_total")


def get(path, subset=None, **headers):
    return [Headers(head(path, "GET", **headers), end=True, subset=subset)]


def one(name, *steps, **more):
    return Case(name, [sum(steps, [])], **more)


SHAPES = [
    one("completion", request(SHAPE), DONE),
    one("chat", request(chat(), "/v1/chat/completions"), DONE),
    one("values_not_raw", request(SHAPE, plain=True), DONE),
    one("header_names_in_capitals",
        request(SHAPE, headers={"X-Custom-Thing": "Kept As Is", "X-Request-Id": "Capital"})),
    one("no_request_id", request(SHAPE, headers={"x-request-id": ""})),
    one("other_headers_stay", request(SHAPE, headers={
        "authorization": "Bearer secret", "accept": "*/*", "content-length": "999",
        "x-forwarded-for": "10.1.1.1", "te": "trailers"})),
    one("same_header_twice", [Headers(head("/v1/completions") + [
        ("x-request-id", "r"), ("x-twice", "one"), ("x-twice", "two")]),
        Body(b'{"model":"base","prompt":"a"}', end=True)]),
    one("trace_context", request(SHAPE, headers={
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "vendor=value", "baggage": "key=value"})),
    one("split_in_two", request(SHAPE, cuts=[7])),
    one("split_in_every_byte", request(SHAPE, cuts=range(1, 30))),
    one("end_in_an_empty_message", request(SHAPE, cuts=[len(str(SHAPE)) * 2])),
    one("large_body", request(BIG, cuts=range(32768, 200_000, 32768))),
    one("body_of_exactly_one_chunk", request(completion("y" * (62_000 - 30)))),
    one("body_of_one_chunk_and_a_byte", request(completion("y" * (62_001 - 30)))),
    one("unknown_fields_and_numbers_stay", request(
        '{"model" : "base", "prompt":"p", "seed":12345678901234567890, "z":1e400,"a":null}')),
    one("request_trailers", request(SHAPE, trailers=[("x-trailer", "1")])),
    one("headers_only_get", get("/v1/models"), repeat=24),
    one("headers_only_get_with_custom_header", get("/v1/models", x_custom="1"), repeat=24),
    one("headers_only_post", [Headers(head("/v1/completions"), end=True)], repeat=24),
    one("headers_only_then_reply", get("/v1/models"),
        reply('{"object":"list","data":[]}'), repeat=24),
    one("nothing_but_an_end", []),
    one("body_before_headers", [Body(b'{"model":"base","prompt":"a"}', end=True)]),
    one("body_after_the_end", request(SHAPE), [Body(b"more", end=True)]),
    one("cancelled_before_the_end", [Headers(head("/v1/completions")), Body(b"{"), Pause(.1),
                                     Cancel()]),
    one("cancelled_after_the_pick", request(SHAPE), [Pause(.1), Cancel()]),
]

SUBSETS = [
    one("list_of_one", request(SHAPE, subset=["{b}"])),
    one("list_of_two", request(SHAPE, subset=["{b}", "{a}"])),
    one("list_of_all", request(SHAPE, subset=["{c}", "{b}", "{a}", "{c2}"])),
    one("empty_list", request(SHAPE, subset=[])),
    one("address_without_port", request(SHAPE, subset=["127.0.0.2"])),
    one("none_matches", request(SHAPE, subset=["10.9.9.9:80"])),
    one("some_match", request(SHAPE, subset=["10.9.9.9:80", "{b}"])),
    one("port_of_one_of_two_on_the_address", request(SHAPE, subset=["{c2}"])),
    one("port_of_nobody", request(SHAPE, subset=["127.0.0.2:1"])),
    one("text_of_one", request(SHAPE, subset="{b}")),
    one("text_of_two", request(SHAPE, subset="{b},{c}")),
    one("empty_text", request(SHAPE, subset="")),
    one("text_matching_nobody", request(SHAPE, subset="10.9.9.9:80")),
    one("numbers_in_the_list", request(SHAPE, subset=[5, "{b}"])),
    one("only_numbers", request(SHAPE, subset=[5])),
    one("header_in_place_of_metadata", request(SHAPE, headers={
        "x-gateway-destination-endpoint-subset": "127.0.0.2:1"})),
    one("headers_only", get("/v1/models", subset=["{b}"]), repeat=24),
    one("headers_only_none_matches", get("/v1/models", subset=["10.9.9.9:80"]), repeat=24),
]

CONTROLS = [
    one("rewrite", request(SHAPE, headers={"x-llm-d-model-name-rewrite": "other"}),
        reply('{"id":"1","model":"other","x":{"model": "other"}}')),
    one("rewrite_by_the_old_name",
        request(chat(), "/v1/chat/completions", headers={"x-gateway-model-name-rewrite": "other"})),
    one("rewrite_by_both_names", request(SHAPE, headers={
        "x-llm-d-model-name-rewrite": "new", "x-gateway-model-name-rewrite": "old"})),
    one("rewrite_to_the_same", request(SHAPE, headers={"x-llm-d-model-name-rewrite": "base"})),
    one("rewrite_to_nothing", request(SHAPE, headers={"x-llm-d-model-name-rewrite": ""})),
    one("rewrite_keeps_the_rest", request(
        '{"z":1, "model":"base", "prompt":"<&> \\u00e9 \u00e9", "n":1.0, "s":9007199254740993}',
        headers={"x-llm-d-model-name-rewrite": "other"})),
    one("rewrite_without_a_model",
        request('{"prompt":"a"}', headers={"x-llm-d-model-name-rewrite": "other"})),
    one("rewrite_of_an_empty_model",
        request('{"model":"","prompt":"a"}', headers={"x-llm-d-model-name-rewrite": "other"})),
    one("rewrite_to_a_name_with_quotes", request(SHAPE, headers={
        "x-llm-d-model-name-rewrite": 'a"b\\c'})),
    one("fairness", request(SHAPE, headers={"x-llm-d-inference-fairness-id": "tenant-1"}), DONE),
    one("fairness_by_the_old_name",
        request(SHAPE, headers={"x-gateway-inference-fairness-id": "tenant-2"}), DONE),
    one("unknown_objective", request(SHAPE, headers={"x-llm-d-inference-objective": "none"})),
    one("all_control_headers", request(SHAPE, headers={
        "x-llm-d-inference-objective": "o", "x-gateway-inference-objective": "o",
        "x-llm-d-slo-ttft-ms": "100", "x-slo-ttft-ms": "100", "x-llm-d-slo-tpot-ms": "10",
        "x-slo-tpot-ms": "10", "x-llm-d-video-fps": "1", "x-llm-d-video-duration-seconds": "2",
        "x-llm-d-video-resolution": "640x480", "x-gateway-destination-endpoint": "6.6.6.6:6",
        "x-gateway-destination-endpoint-served": "6.6.6.6:6",
        "x-llm-d-request-dropped-reason": "evicted"})),
    one("other_plugins_headers_stay", request(SHAPE, headers={
        "x-prefiller-host-port": "6.6.6.6:6", "x-session-token": "s", "epp-profile": "p",
        "test-epp-endpoint-selection": "6.6.6.6"})),
    one("cached_only_without_a_cache", request(SHAPE, headers={"prefer": "if-available"})),
    one("cached_only_in_a_list",
        request(SHAPE, headers={"prefer": "wait=5, If-Available; x=1"})),
    one("other_preference", request(SHAPE, headers={"prefer": "wait=5"})),
]

ERRORS = [
    one("no_model", request('{"prompt":"a"}')),
    one("empty_model", request('{"model":"","prompt":"a"}')),
    one("model_is_a_number", request('{"model":5,"prompt":"a"}')),
    one("no_prompt", request('{"model":"base"}')),
    one("no_messages", request('{"model":"base"}', "/v1/chat/completions")),
    one("empty_messages", request('{"model":"base","messages":[]}', "/v1/chat/completions")),
    one("no_input", request('{"model":"base"}', "/v1/embeddings")),
    one("empty_body", request("")),
    one("empty_object", request("{}")),
    one("cut_json", request('{"model":"base","prompt":')),
    one("not_json", request("hello")),
    one("array", request("[1,2]")),
    one("null", request("null")),
    one("two_documents", request('{"model":"base","prompt":"a"}{}')),
    one("trailing_text", request('{"model":"base","prompt":"a"} x')),
    one("invalid_utf8", request(b'{"model":"base","prompt":"\xff\xfe"}')),
    one("bad_escape", request('{"model":"base","prompt":"\\x"}')),
    one("key_twice", request('{"model":"first","prompt":"a","model":"second"}')),
    one("deep_nesting", request('{"model":"base","prompt":"a","x":' + "[" * 500 + "]" * 500 + "}")),
    one("model_unknown_to_the_engines", request(completion(model="nobody-has-this"))),
    one("unknown_path", request('{"model":"base"}', "/v1/unknown")),
    one("unknown_path_not_json", request("binary \x00 stuff", "/upload")),
    one("path_with_query", request(SHAPE, "/v1/completions?api-version=1")),
    one("path_with_prefix", request(SHAPE, "/openai/v1/completions")),
    one("original_path", request(SHAPE, "", headers={"x-original-path": "/v1/completions"})),
    one("no_path", [Headers([(":method", "POST"), ("x-request-id", "r")]),
                    Body(b'{"model":"base","prompt":"a"}', end=True)]),
]

EMPTY = [
    one("completion_to_nobody", request(SHAPE)),
    one("headers_only_to_nobody", get("/v1/models")),
    one("bad_json_to_nobody", request("{")),
]

QUEUE = config(["queue-scorer"], ["queue-scorer"])

GROUPS = [
    Group("shapes", QUEUE, FOUR, SHAPES, watch=COUNTED),
    Group("subset", QUEUE, FOUR, SUBSETS),
    Group("subset_disabled", QUEUE, FOUR, SUBSETS[:5],
          flags=("--emit-endpoint-scores", "--disable-endpoint-subset-filter")),
    Group("controls", QUEUE, FOUR, CONTROLS, watch=COUNTED),
    Group("errors", QUEUE, FOUR, ERRORS, watch=COUNTED),
    Group("empty_pool", QUEUE, [], EMPTY, watch=COUNTED, scrapes=0),
    Group("no_scores", QUEUE, FOUR, [SHAPES[0]], flags=()),
]
