#!/usr/bin/env python3
"""The commands of README and the guides do what the text around them says: against `llmd up`, and
those of docs/epp.md and docs/prefix-cache.md against model servers of `llmd sim`."""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time

from harness import LLMD, ROOT, Program, free_ports, report, wait_for_http

PAGES = ["README.md", "docs/troubleshooting.md"]


def commands(words):
    """Every command on the pages that begins with `words`, inline or in a fenced block."""
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text().replace("\\\n", " ")
        fenced = re.findall(r"^```\n(.*?)^```", text, re.M | re.S)
        inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
        lines = [line for block in fenced for line in block.splitlines()] + inline
        found += [line.strip() for line in lines if line.strip().startswith(words)]
    return found


def scripts(page):
    """The fenced blocks of a page that run llmd, each cut before its last command, which serves."""
    blocks = re.findall(r"^```\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)
    split = [block.rstrip().rpartition("\n") for block in blocks if "build/release/llmd" in block]
    return [(before.replace("build/release/llmd", LLMD), last.replace("build/release/llmd", LLMD))
            for before, _, last in split]


class Picker:
    """docs/epp.md in a folder of its own: `serve` runs one block and what it starts in the end."""

    def __init__(self, folder, engines):
        self.folder = folder
        self.engines = engines
        self.ext_proc = free_ports(3)
        self.admin = self.ext_proc + 2

    def serve(self, block):
        before, last = block
        for i, port in enumerate(["8001", "8002"]):
            before = before.replace(port, str(self.engines + i))
        done = subprocess.run(["bash", "-euc", before], cwd=self.folder, capture_output=True,
                              timeout=60)
        self.printed = done.stdout.decode()
        assert done.returncode == 0, f"{before}: {done.stderr.decode()[-500:]}"
        ports = (f" --grpc-port {self.ext_proc} --grpc-health-port {self.ext_proc + 1}"
                 f" --metrics-port {self.admin} --drain-timeout 0s")
        return Program(["bash", "-c", f"cd {self.folder} && exec {last}{ports}"], "epp")

    def get(self, path, program):
        return wait_for_http(f"http://127.0.0.1:{self.admin}{path}", program).decode()

    def load(self, count, program, *flags):
        """What the picker recorded of a short load."""
        command = [LLMD, "bench", "--ext-proc", f"127.0.0.1:{self.ext_proc}", "--quiet",
                   "--requests", str(count), *flags]
        self.report = subprocess.run(command, capture_output=True, timeout=60).stdout.decode()
        return json.loads(self.get(f"/debug/decisions?last={count}", program))["decisions"]


def test_epp_starts_as_its_guide_says(picker, blocks):
    with picker.serve(blocks[0]) as program:
        for word in ["EndpointPickerConfig", "prefix-cache-scorer", "file-discovery"]:
            assert word in picker.printed, picker.printed
        assert picker.get("/readyz", program) == "ready\n"
        decisions = picker.load(20, program, "--model", "sim")
        assert " 20 ok, 0 failed" in picker.report, picker.report
        names = {d["outcome"]["endpoint"].split()[0] for d in decisions}
        assert names == {"default/a", "default/b"}, names


def test_epp_reads_objects_as_its_guide_says(picker, blocks):
    with picker.serve(blocks[1]) as program:
        assert picker.get("/readyz", program) == "ready\n"
        objective = ["-H", "x-llm-d-inference-objective: batch"]
        batch = picker.load(4, program, "--model", "sim", *objective)
        assert [d["priority"] for d in batch] == [-1] * 4, batch
        # The generator calls it a failure that bodies come back changed; here they must.
        picker.load(300, program, "--model", "chat")
        counted = [line for line in picker.get("/metrics", program).splitlines()
                   if "model_rewrite_decisions_total{" in line]
        for target in ["chat-v1", "chat-v2"]:
            assert any(f'"{target}"' in line for line in counted), counted


def picker_tests():
    blocks = scripts("docs/epp.md")
    assert len(blocks) == 2, blocks
    engines = free_ports(2)
    sim = [LLMD, "sim", "--port", engines, "--count", 2, "--profile", "instant"]
    with tempfile.TemporaryDirectory() as folder, Program(sim) as program:
        wait_for_http(f"http://127.0.0.1:{engines + 1}/health", program)
        return report([test_epp_starts_as_its_guide_says, test_epp_reads_objects_as_its_guide_says],
                      Picker(pathlib.Path(folder), engines), blocks)


def prefix_cache_test():
    """docs/prefix-cache.md from top to bottom, with free ports in place of the page's."""
    page = "docs/prefix-cache.md"
    (_, sim), (before, gateway) = scripts(page)
    first = free_ports(8)
    ports = {"8001": first, "8002": first + 1, "5557": first + 2, "6557": first + 4,
             "9090": first + 6}

    def placed(text):
        for port, free in ports.items():
            text = text.replace(port, str(free))
        return text

    def get(path, program):
        return wait_for_http(f"http://127.0.0.1:{ports['9090']}{path}", program).decode()

    def test_prefix_cache_routing_is_turned_on_as_its_guide_says(folder):
        subprocess.run(["bash", "-euc", placed(before)], cwd=folder, check=True, timeout=60)
        serve = (f"{gateway} --listen 127.0.0.1:{first + 7} --metrics-port 9090 --drain-timeout 0s "
                 "--kv-index-snapshot kv-index --kv-index-snapshot-interval 1s")
        with Program(["bash", "-c", f"exec {placed(sim)}"], "sim") as engines:
            wait_for_http(f"http://127.0.0.1:{first + 1}/health", engines)
            with Program(["bash", "-c", f"cd {folder} && exec {placed(serve)}"],
                         "gateway") as program:
                get("/readyz", program)
                load = [LLMD, "bench", f"http://127.0.0.1:{first + 7}", "--shared-prefix",
                        "--num-groups", "2", "--prompts-per-group", "10", "--requests", "20",
                        "--api", "completions", "--quiet"]
                text = (ROOT / page).read_text()
                named = set(re.findall(r"`(llmd_\w+)[`{]", text))
                named -= {"llmd_kv_shared_index_total"}  # with Redis only
                # The first load may meet a picker that has not heard the engines yet.
                for _ in range(20):
                    subprocess.run(load, check=True, capture_output=True, timeout=60)
                    metrics = get("/metrics", program)
                    missing = [name for name in named if f"# TYPE {name}" not in metrics]
                    if not missing and 'source="precise"} 0' not in metrics:
                        break
                    time.sleep(0.5)
                assert not missing, missing
                shown = [line for line in re.findall(r"^curl .*", text, re.M)]
                assert len(shown) == 3, shown
                for command in shown:
                    done = subprocess.run(["bash", "-o", "pipefail", "-c", placed(command)],
                                          capture_output=True, timeout=60, check=True)
                    assert len(done.stdout) > 20, f"{command} printed {done.stdout}"
                last = json.loads(get("/debug/decisions?last=1", program))["decisions"][0]
                assert last["match_source"] == "precise", last

    with tempfile.TemporaryDirectory() as folder:
        return report([test_prefix_cache_routing_is_turned_on_as_its_guide_says], folder)


def main():
    port = free_ports(6)
    gateway, admin, engines = port, port + 1, port + 2
    up = [LLMD, "up", "--listen", f"127.0.0.1:{gateway}", "--metrics-port", admin, "--port",
          engines, "--count", 4, "--speedup", 5]

    def run(command, **replace):
        command = re.sub(r"^build/release/llmd", LLMD, command)
        command = command.replace(":8080", f":{gateway}").replace(":9090", f":{admin}")
        for word, value in replace.items():
            command = command.replace(word, value)
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True,
                              timeout=60)
        assert done.returncode == 0, f"{command}: {done.stderr.decode()[-500:]}"
        return done.stdout.decode()

    def decisions(query):
        return json.loads(run(f"curl -s 'http://127.0.0.1:9090/debug/decisions?{query}'"))["decisions"]

    with Program(up) as program:
        wait_for_http(f"http://127.0.0.1:{admin}/readyz", program)

        def test_the_first_curl_streams_a_chat():
            chats = [c for c in commands("curl -N") if "chat/completions" in c]
            assert chats, "README shows no streamed chat"
            for command in chats:
                output = run(command)
                assert output.startswith("data: {") and "data: [DONE]" in output, output

        def test_every_other_curl_answers():
            others = [c for c in commands("curl") if not c.startswith("curl -N")]
            assert len(others) >= 4, others
            request = decisions("last=1")[0]["request_id"]
            for command in others:
                assert run(command, REQUEST_ID=request), f"{command} printed nothing"

        def test_a_decision_is_found_by_its_request_id():
            request = decisions("last=1")[0]["request_id"]
            found = decisions(f"id={request}")
            assert [d["request_id"] for d in found] == [request], found
            assert len(found[0]["candidates"]) == 4, found

        def test_the_load_generator_reports():
            benches = commands("build/release/llmd bench")
            assert benches, "README shows no llmd bench"
            for command in benches:
                output = run(command + " --duration 1s --output-tokens 4")
                assert " 0 failed" in output, output

        def test_config_commands():
            assert "queue-scorer" in run(f"{LLMD} config print")
            sample = ROOT / "src/director/testdata/default.yaml"
            assert run(f"{LLMD} config check --config-file {sample} --endpoints-given") == ""
            schema = json.loads(run(f"{LLMD} config schema"))
            assert "2020-12" in schema["$schema"], schema.keys()

        return report([test_the_first_curl_streams_a_chat, test_every_other_curl_answers,
                       test_a_decision_is_found_by_its_request_id,
                       test_the_load_generator_reports, test_config_commands])


if __name__ == "__main__":
    sys.exit(main() | picker_tests() | prefix_cache_test())
