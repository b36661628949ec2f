"""The response phase: bodies whole and streamed, usage, restored model names, trailers."""

from fleet import Endpoint, vllm
from steps import (Cancel, Case, EVENT_HEADERS, Group, OK_HEADERS, Pause, ReplyBody, ReplyHeaders,
                   ReplyTrailers, chat, completion, config, reply, request)

TWO = [Endpoint("a", vllm(waiting=1)), Endpoint("b", vllm(waiting=3))]
USAGE = '"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10%s}'
CACHED = USAGE % ',"prompt_tokens_details":{"cached_tokens":5}'
WATCH = ("llm_d_epp_request_", "llm_d_epp_response_", "inference_objective_request_error_total")
RENAMED = {"x-llm-d-model-name-rewrite": "target"}
ASK = request(completion())
ASK_CHAT = request(chat(), "/v1/chat/completions")
ASK_STREAM = request(chat(stream=True), "/v1/chat/completions")
ASK_RENAMED = request(chat(stream=True), "/v1/chat/completions", headers=RENAMED)


def one(name, *steps, **more):
    return Case(name, [sum(steps, [])], **more)


def event(text="token", model="base", more=""):
    return ('data: {"id":"1","object":"chat.completion.chunk","model":"%s","choices":'
            '[{"index":0,"delta":{"content":"%s"}}]%s}\n\n' % (model, text, more))


def whole(model="base", usage=CACHED):
    return '{"id":"1","object":"text_completion","model":"%s","choices":[],%s}' % (model, usage)


def events(*chunks, **more):
    return reply(*chunks, headers=EVENT_HEADERS, **more)


LAST = 'data: {"id":"1","model":"%s","choices":[],' + CACHED + "}\n\n"
END = "data: [DONE]\n\n"
SPLIT = LAST % "base"
SPLIT_RENAMED = event("one", "target")

WHOLE = [
    one("usage", ASK, reply(whole())),
    one("usage_without_details", ASK, reply(whole(usage=USAGE % ""))),
    one("no_usage", ASK, reply('{"id":"1","model":"base"}')),
    one("usage_of_zero", ASK, reply(
        '{"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}')),
    one("in_three_chunks", ASK, reply(whole()[:9], whole()[9:40], whole()[40:])),
    one("end_in_an_empty_chunk", ASK, reply(whole(), "")),
    one("empty", ASK, reply("")),
    one("not_json", ASK, reply("<html>oops</html>")),
    one("restored_model", request(completion(), headers=RENAMED), reply(whole("target"))),
    one("restored_model_with_spaces", request(completion(), headers=RENAMED),
        reply('{"id": "1", "model": "target", "text": "target"}')),
    one("restored_model_in_two_chunks", request(completion(), headers=RENAMED),
        reply('{"id":"1","model":"tar', 'get","text":"target"}')),
    one("other_model_is_kept", request(completion(), headers=RENAMED),
        reply('{"id":"1","model":"adapter"}')),
    one("large", ASK, reply('{"id":"1","text":"' + "z" * 150_000 + '",' + CACHED + "}")),
    one("large_in_chunks", ASK, reply('{"id":"1","text":"', *["z" * 30_000] * 5,
                                      '",' + CACHED + "}")),
    one("never_ended", ASK, reply(whole(), end=False)),
    one("headers_without_body", ASK, [ReplyHeaders(OK_HEADERS, end=True)]),
    one("response_headers_stay", ASK, reply(whole(), headers=[
        (":status", "200"), ("content-type", "application/json"), ("content-length", "5"),
        ("X-Upper", "V"), ("set-cookie", "a=1"), ("set-cookie", "b=2"),
        ("x-gateway-destination-endpoint-served", "1.2.3.4:5")])),
    one("error_500", ASK, reply('{"error":{"message":"no"}}', headers=[
        (":status", "500"), ("content-type", "application/json")])),
    one("error_404_without_body", ASK, reply("", headers=[(":status", "404")])),
    one("status_without_colon", ASK, reply("", headers=[("status", "503")])),
    one("trailers_after_the_end", ASK, reply(whole()), [ReplyTrailers([("x-t", "1")])]),
    one("trailers_in_place_of_the_end", ASK, reply(whole(), trailers=[("x-t", "1")])),
    one("trailers_without_a_body", ASK, [ReplyHeaders(OK_HEADERS), ReplyTrailers([])]),
    one("body_before_headers", ASK, [ReplyBody(whole().encode(), end=True)]),
    one("served_by_another", ASK, reply(whole(), served="{b}")),
    one("cancelled_in_the_body", ASK, reply(whole(), end=False), [Pause(.1), Cancel()]),
    one("closed_after_headers", ASK, [ReplyHeaders(OK_HEADERS)]),
]

STREAMED = [
    one("usage_in_the_last_event", ASK_STREAM,
        events(event("one"), event("two"), LAST % "base", END)),
    one("all_in_one_chunk", ASK_STREAM,
        events(event("one") + event("two") + LAST % "base" + END)),
    one("end_in_an_empty_chunk", ASK_STREAM, events(event("one"), LAST % "base" + END, "")),
    one("no_usage", ASK_STREAM, events(event("one"), event("two"), END)),
    one("usage_in_every_event", ASK_STREAM, events(
        event("one", more=',"usage":{"prompt_tokens":7,"completion_tokens":1,"total_tokens":8}'),
        event("two", more=',"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}'),
        END)),
    one("usage_is_null", ASK_STREAM, events(event("one", more=',"usage":null'), LAST % "base",
                                            END)),
    one("usage_split_over_chunks", ASK_STREAM,
        events(event("one"), SPLIT[:60], SPLIT[60:], END)),
    one("event_split_after_data", ASK_STREAM,
        events(event("one"), "da", "ta: " + SPLIT[6:], END)),
    one("event_split_before_its_blank_line", ASK_STREAM,
        events(event("one"), SPLIT[:-1], "\n" + END)),
    one("carriage_returns", ASK_STREAM,
        events(event("one").replace("\n", "\r\n"), SPLIT.replace("\n", "\r\n"),
               END.replace("\n", "\r\n"))),
    one("comments_and_event_names", ASK_STREAM,
        events(": ping\n\n", "event: x\n" + event("one"), LAST % "base", END)),
    one("no_space_after_the_colon", ASK_STREAM,
        events(event("one").replace("data: ", "data:"), SPLIT.replace("data: ", "data:"), END)),
    one("restored_model", ASK_RENAMED,
        events(event("one", "target"), event("two", "target"), LAST % "target", END)),
    one("restored_model_split_over_chunks", ASK_RENAMED,
        events(SPLIT_RENAMED[:60], SPLIT_RENAMED[60:], LAST % "target", END)),
    one("restored_model_only_where_it_is", ASK_RENAMED,
        events(event("target", "target"), event("two", "other"), END)),
    one("streamed_by_content_type_alone", ASK_CHAT,
        events(event("one"), LAST % "base", END)),
    one("asked_for_but_sent_whole", ASK_STREAM, reply(whole())),
    one("content_type_with_charset", ASK_CHAT, reply(
        event("one"), LAST % "base" + END,
        headers=[(":status", "200"), ("content-type", "text/event-stream; charset=utf-8")])),
    one("content_type_in_capitals", ASK_CHAT, reply(
        event("one"), LAST % "base" + END,
        headers=[(":status", "200"), ("Content-Type", "text/event-stream")])),
    one("never_ended", ASK_STREAM, events(event("one"), end=False)),
    one("cancelled", ASK_STREAM, events(event("one"), end=False), [Pause(.1), Cancel()]),
    one("trailers_in_place_of_the_end", ASK_STREAM,
        events(event("one"), LAST % "base" + END, trailers=[("x-t", "1")])),
    one("trailers_after_the_end", ASK_STREAM, events(event("one"), END),
        [ReplyTrailers([("x-t", "1")])]),
    one("a_hundred_chunks", ASK_STREAM,
        events(*[event(f"token {index}") for index in range(98)], LAST % "base", END)),
]

QUEUE = config(["queue-scorer"], ["queue-scorer"])
COST = {"type": "request-attribute-reporter", "name": "cost", "parameters": {"attributes": [{
    "key": {"name": "x-gateway-inference-request-cost"},
    "expression": "usage.prompt_tokens + 2 * usage.completion_tokens",
    "condition": "has(usage.completion_tokens)"}]}}
OWN_SPACE = {"type": "request-attribute-reporter", "name": "cached", "parameters": {"attributes": [{
    "key": {"namespace": "billing", "name": "cached"},
    "expression": "usage.prompt_tokens_details.cached_tokens",
    "condition": "has(usage.prompt_tokens_details)"}]}}


def reporting(name, *plugins, cases):
    return Group(name, config(["queue-scorer", *plugins], ["queue-scorer"]), TWO, cases)


REPORTED = [WHOLE[0], WHOLE[1], WHOLE[2], WHOLE[7], STREAMED[0], STREAMED[3], STREAMED[6],
            one("large", ASK, reply('{"text":"' + "z" * 70_000 + '",' + CACHED + "}"))]

GROUPS = [
    Group("whole", QUEUE, TWO, WHOLE, watch=WATCH),
    Group("streamed", QUEUE, TWO, STREAMED, watch=WATCH),
    Group("streamed_large", QUEUE, TWO, [
        one("large_chunk", ASK_STREAM, events(event("t" * 130_000), LAST % "base", END))]),
    reporting("reporter", COST, cases=REPORTED),
    reporting("reporter_namespace", OWN_SPACE, cases=REPORTED),
    reporting("served_verifier", "destination-endpoint-served-verifier", cases=[
        one("served", ASK, reply(whole(), served="{b}")),
        one("not_told", ASK, reply(whole())),
        one("streamed", ASK_STREAM, events(event("one"), END, served="{a}")),
    ]),
]
