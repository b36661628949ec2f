"""Model servers as a picker sees them: loopback addresses with fixed metric pages.

Every endpoint has an address of its own (127.0.0.1, 127.0.0.2, ...) because upstream matches the
subset hint by address alone; `beside` puts one on the address of another, with a port of its own.
"""

import dataclasses
import http.server
import json
import threading
import time

READ_AGAIN_SECONDS = 1


@dataclasses.dataclass
class Endpoint:
    name: str
    metrics: str = ""
    labels: dict = dataclasses.field(default_factory=dict)
    namespace: str = "default"
    beside: str = ""  # name of the endpoint whose address this one shares
    dcgm: str = ""    # page on the fleet's second port
    models: tuple = ("base",)


def page(**series):
    """Gauges of name=value; double underscores stand for a colon."""
    named = {name.replace("__", ":"): value for name, value in series.items()}
    return "".join(f"# TYPE {name} gauge\n{name} {value}\n" for name, value in named.items())


def vllm(waiting=0, running=0, kv=0.0, blocks=(16, 1000), lora=None):
    """`lora` is (max, running CSV, waiting CSV, timestamp)."""
    text = page(vllm__num_requests_waiting=waiting, vllm__num_requests_running=running,
                vllm__kv_cache_usage_perc=kv)
    if blocks:
        text += ("# TYPE vllm:cache_config_info gauge\n"
                 f'vllm:cache_config_info{{block_size="{blocks[0]}",'
                 f'num_gpu_blocks="{blocks[1]}"}} 1\n')
    if lora:
        text += ("# TYPE vllm:lora_requests_info gauge\n"
                 f'vllm:lora_requests_info{{max_lora="{lora[0]}",running_lora_adapters="{lora[1]}",'
                 f'waiting_lora_adapters="{lora[2]}"}} {lora[3]}\n')
    return text


def sglang(waiting=0, running=0, kv=0.0, pages=(32, 500)):
    return page(sglang__num_queue_reqs=waiting, sglang__num_running_reqs=running,
                sglang__token_usage=kv) + (
        '# TYPE sglang:cache_config_info gauge\n'
        f'sglang:cache_config_info{{page_size="{pages[0]}",num_pages="{pages[1]}"}} 1\n')


def trtllm(waiting=0, running=0, kv=0.0):
    return page(trtllm_num_requests_waiting=waiting, trtllm_num_requests_running=running,
                trtllm_kv_cache_utilization=kv, trtllm_kv_cache_tokens_per_block=64,
                trtllm_kv_cache_max_blocks=700)


def triton_trtllm(waiting=0, running=0, kv=0.0):
    return ('# TYPE nv_trt_llm_request_metrics gauge\n'
            '# TYPE nv_trt_llm_kv_cache_block_metrics gauge\n'
            f'nv_trt_llm_request_metrics{{model="m",request_type="waiting"}} {waiting}\n'
            f'nv_trt_llm_request_metrics{{model="m",request_type="scheduled"}} {running}\n'
            f'nv_trt_llm_kv_cache_block_metrics{{kv_cache_block_type="fraction",model="m"}} {kv}\n'
            'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="m"} 64\n'
            'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="m"} 900\n')


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address, port, pages):
        self.pages = pages
        self.scrapes = 0
        super().__init__((address, port), Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05},
                         daemon=True).start()

    def handle_error(self, *_):
        """A picker that is ended resets its connections."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = self.server.pages.get(self.path)
        self.send_response(404 if body is None else 200)
        kind = "application/json" if self.path.startswith("/v1") else "text/plain; version=0.0.4"
        self.send_header("content-type", kind)
        data = (body or "").encode()
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.server.scrapes += self.path == "/metrics"

    def log_message(self, *_):
        pass


class Fleet:
    """Serves the endpoints while it is open; `hosts` maps ip:port to the name in braces."""

    def __init__(self, endpoints):
        self.endpoints = endpoints
        self.hosts = {}
        self.servers = []
        self.dcgm_port = 0

    def __enter__(self):
        addresses = {}
        for endpoint in self.endpoints:
            address = addresses.get(endpoint.beside) or f"127.0.0.{len(addresses) + 1}"
            addresses[endpoint.name] = address
            models = {"object": "list", "data": [{"id": model, "object": "model"}
                                                 for model in endpoint.models]}
            server = Server(address, 0, {"/metrics": endpoint.metrics,
                                         "/v1/models": json.dumps(models)})
            self.servers.append(server)
            self.hosts[f"{address}:{server.server_port}"] = f"{{{endpoint.name}}}"
            if endpoint.dcgm:
                second = Server(address, self.dcgm_port, {"/metrics": endpoint.dcgm})
                self.dcgm_port = second.server_port
                self.servers.append(second)
        return self

    def __exit__(self, *_):
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def host(self, name):
        return next(host for host, known in self.hosts.items() if known == f"{{{name}}}")

    def file(self):
        """The file-discovery document (JSON is YAML)."""
        listed = []
        for endpoint in self.endpoints:
            address, port = self.host(endpoint.name).rsplit(":", 1)
            listed.append({"name": endpoint.name, "namespace": endpoint.namespace,
                           "address": address, "port": port, "labels": endpoint.labels})
        return json.dumps({"endpoints": listed}, indent=1)

    def least_scrapes(self):
        return min((server.scrapes for server in self.servers), default=0)

    def wait_until_read_again(self):
        """Two more scrapes of each: one that began before this call may be under way."""
        wanted = [(server, server.scrapes + 2) for server in self.servers]
        deadline = time.monotonic() + READ_AGAIN_SECONDS
        while any(server.scrapes < count for server, count in wanted):
            if time.monotonic() > deadline:
                return
            time.sleep(0.005)
