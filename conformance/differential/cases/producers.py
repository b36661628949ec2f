"""Data producers: prefix matches, token counts, requests in flight, bursts."""

from fleet import Endpoint, sglang, vllm
from steps import Case, DONE, Group, chat, completion, config, request

POOL = [Endpoint(name, vllm()) for name in "abc"]
LONG = "The quick brown fox jumps over the lazy dog and runs away. " * 40  # about 590 tokens
ALPHA = ("--emit-endpoint-scores", "--allow-experimental-plugins")


def at(name, body, path="/v1/completions", **headers):
    """Sent to that endpoint by the subset hint."""
    return request(body, path, subset=["{%s}" % name], headers=headers) + DONE


def seen(name, first, then, **more):
    """`first` goes to endpoint b; the scores of `then` tell what is remembered of it."""
    return Case(name, [at("b", first), request(then) + DONE], pause=.25, **more)


def prefixed(name, parameters=None, scorer=None, cases=None, pool=None, plugins=()):
    producer = {"type": "approx-prefix-cache-producer"}
    if parameters is not None:
        producer["parameters"] = parameters
    prefix = {"type": "prefix-cache-scorer"}
    if scorer is not None:
        prefix["parameters"] = scorer
    return Group(name, config([producer, prefix, *plugins], ["prefix-cache-scorer"]), pool or POOL,
                 cases or MATCHES, flags=ALPHA)


MATCHES = [
    seen("all", completion("one " + LONG), completion("one " + LONG)),
    seen("beginning", completion("two " + LONG), completion("two " + LONG[:1200] + "other " * 99)),
    seen("nothing", completion("three " + LONG), completion("unlike " + LONG)),
    seen("longer", completion("four " + LONG), completion("four " + LONG + LONG)),
    seen("shorter", completion("five " + LONG), completion("five " + LONG[:700])),
    seen("other_model", completion("six " + LONG), completion("six " + LONG, model="m2")),
    seen("other_salt", completion("seven " + LONG, cache_salt="s"), completion("seven " + LONG)),
    seen("same_salt", completion("eight " + LONG, cache_salt="s"),
         completion("eight " + LONG, cache_salt="s")),
    seen("short_prompt", completion("nine"), completion("nine")),
    seen("token_ids", completion(list(range(300))), completion(list(range(300)))),
    seen("list_of_prompts", completion(["ten " + LONG, "x " + LONG]), completion("ten " + LONG)),
    Case("two_holders", [at("a", completion("eleven " + LONG)),
                         at("c", completion("eleven " + LONG)),
                         request(completion("eleven " + LONG)) + DONE],
         pause=.25),
    Case("cached_only", [at("b", completion("twelve " + LONG)),
                         request(completion("twelve " + LONG), headers={"prefer": "if-available"}),
                         request(completion("thirteen " + LONG),
                                 headers={"prefer": "if-available"})], pause=.25),
]
CHATS = [Case("chat", [
    at("b", chat("fourteen " + LONG), "/v1/chat/completions"),
    request(chat("fourteen " + LONG), "/v1/chat/completions") + DONE], pause=.25),
    Case("chat_turns", [
        at("b", chat("fifteen " + LONG), "/v1/chat/completions"),
        request({"model": "base", "messages": [
            {"role": "user", "content": "fifteen " + LONG},
            {"role": "assistant", "content": "yes"}, {"role": "user", "content": "go on"}]},
            "/v1/chat/completions") + DONE], pause=.25)]
PAGES = [Endpoint("a", vllm(blocks=(128, 2000))), Endpoint("b", vllm(blocks=(128, 2000)))]
FEW = [Endpoint("a", vllm(blocks=(64, 4))), Endpoint("b", vllm(blocks=(64, 4)))]
IN_FLIGHT = ("llm_d_epp_inflight_",)


def counted(name, parameters, cases):
    producer = {"type": "inflight-load-producer", "parameters": parameters}
    return Group(name, config([producer, "active-request-scorer", "token-load-scorer"],
                              ["active-request-scorer", "token-load-scorer"]), POOL, cases,
                 flags=ALPHA, watch=IN_FLIGHT)


WORDS = completion("word " * 100, max_tokens=50)
AT_A = request(WORDS, subset=["{a}"], headers={"x-request-id": "first"})
HELD = [Case("held", [AT_A], held=(0,), pause=.2),
        Case("while_held", [AT_A, request(WORDS)], held=(0,), pause=.2),
        Case("after_headers", [AT_A + DONE[:1], request(WORDS)], held=(0,), pause=.2),
        Case("over", [AT_A + DONE, request(WORDS)], pause=.2),
        Case("same_request_id_twice", [AT_A, AT_A, request(WORDS)], held=(0, 1), pause=.2)]

# Whoever is asked last goes to a, which waits least.
QUEUES = [Endpoint(name, vllm(waiting=waiting)) for name, waiting in (("a", 0), ("b", 5), ("c", 1))]
PULLS = [
    Case("from_the_holder", [at("b", completion("p1 " + LONG)),
                             request(completion("p1 " + LONG)) + DONE], pause=.25),
    Case("from_nobody", [request(completion("p2 " + LONG)) + DONE]),
    Case("from_itself", [at("a", completion("p3 " + LONG)),
                         request(completion("p3 " + LONG)) + DONE], pause=.25),
    Case("from_who_has_more", [at("a", completion("p4 " + LONG[:700])),
                               at("c", completion("p4 " + LONG)),
                               request(completion("p4 " + LONG)) + DONE], pause=.25),
    Case("a_clients_header", [request(completion("p5 " + LONG), headers={
        "x-kv-cache-source-host-port": "6.6.6.6:666"}) + DONE]),
]


def pulled(name, parameters):
    return Group(name, config(["approx-prefix-cache-producer",
                               {"type": "p2p-source-producer", "parameters": parameters},
                               "queue-scorer"], ["queue-scorer"]), QUEUES, PULLS, flags=ALPHA)


GROUPS = [
    prefixed("approx", cases=MATCHES + CHATS),
    prefixed("approx_128", pool=PAGES, cases=MATCHES[:5]),
    prefixed("approx_by_hand", {"autoTune": False, "blockSizeTokens": 100}, cases=MATCHES[:5]),
    prefixed("approx_small_blocks", {"autoTune": False, "blockSizeTokens": 16},
             cases=MATCHES[:5]),
    prefixed("approx_old_key", {"autoTune": False, "blockSize": 96}, cases=MATCHES[:3]),
    prefixed("approx_three_blocks", {"autoTune": False, "maxPrefixTokensToMatch": 192},
             cases=MATCHES[:5]),
    prefixed("approx_blocks_limit", {"maxPrefixTokensToMatch": 0, "maxPrefixBlocksToMatch": 2},
             cases=MATCHES[:3]),
    prefixed("approx_small_lru", pool=FEW, cases=[
        *MATCHES[:1], seen("pushed_out", completion("p1 " + LONG), completion("p1 " + LONG))]),
    prefixed("approx_length_weight",
             scorer={"matchLengthWeight": .5, "matchLengthScaleTokens": 512}, cases=MATCHES[:5]),
    prefixed("approx_sglang", pool=[Endpoint(n, sglang(pages=(256, 99)),
                                             {"llm-d.ai/engine-type": "sglang"}) for n in "ab"],
             cases=MATCHES[:3]),
    Group("implicit", config(["prefix-cache-scorer"], ["prefix-cache-scorer"]), POOL, MATCHES[:2]),
    Group("prefix_affinity_filter", config(["prefix-cache-affinity-filter", "queue-scorer"],
                                           ["prefix-cache-affinity-filter", "queue-scorer"]),
          POOL, MATCHES[:4], flags=ALPHA),
    Group("prefix_affinity_low_threshold", config(
        [{"type": "prefix-cache-affinity-filter", "parameters": {"affinityThreshold": .3}},
         "queue-scorer"], ["prefix-cache-affinity-filter", "queue-scorer"]), POOL, MATCHES[:4],
        flags=ALPHA),
    Group("burst", config(["burst-prefix-cache-producer",
                           {"type": "prefix-cache-scorer", "parameters": {
                               "prefixMatchInfoProducerName": "burst-prefix-cache-producer"}}],
                          ["prefix-cache-scorer"]), POOL,
          [Case("alone", [request(completion(LONG)) + DONE]),
           Case("again", [request(completion(LONG)) + DONE])], flags=ALPHA),
    pulled("p2p_source", {}),
    pulled("p2p_source_large_delta", {"minCachedTokenDelta": 500}),
    counted("inflight", {}, HELD),
    counted("inflight_output", {"addEstimatedOutputTokens": True}, HELD),
    counted("inflight_output_capped", {"addEstimatedOutputTokens": True, "outputRatio": 2.0,
                                       "maxEstimatedOutputTokens": 30}, HELD[:3]),
]
