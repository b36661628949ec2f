#!/usr/bin/env python3
"""TLS on both sides: a gateway that serves HTTPS in front of engines, and one that talks to it."""

import json
import os
import pathlib
import ssl
import subprocess
import sys
import time
import urllib.request
import warnings

from harness import LLMD, Program, free_ports, report, wait_for_http

TMP = pathlib.Path(os.environ.get("LLMD_TMP", "/tmp"))
CHAT = json.dumps({"model": "instant", "max_tokens": 3,
                   "messages": [{"role": "user", "content": "Hello over TLS"}]}).encode()


def make_certificate(serial):
    """A self-signed certificate for localhost; written whole, then moved into place."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
                    "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                    "-set_serial", str(serial), "-keyout", TMP / "key.new", "-out",
                    TMP / "cert.new"], check=True, capture_output=True)
    (TMP / "key.new").rename(TMP / "key.pem")
    (TMP / "cert.new").rename(TMP / "cert.pem")


def served_serial(port):
    certificate = ssl.get_server_certificate(("localhost", port))
    text = subprocess.run(["openssl", "x509", "-noout", "-serial"], input=certificate,
                          capture_output=True, check=True, text=True).stdout
    return int(text.strip().split("=")[1], 16)


def ask(url, context=None):
    request = urllib.request.Request(url + "/v1/chat/completions", CHAT,
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10, context=context) as reply:
        return json.load(reply)


def main():
    make_certificate(1001)
    first = free_ports(5)
    front, front_admin, outer, outer_admin = range(first + 1, first + 5)
    commands = [
        [LLMD, "sim", "--host", "127.0.0.1", "--profile", "instant", "--port", first],
        [LLMD, "gateway", "--listen", f"127.0.0.1:{front}", "--metrics-port", front_admin,
         "--endpoints", f"127.0.0.1:{first}", "--tls-cert", TMP / "cert.pem",
         "--tls-key", TMP / "key.pem", "--access-log", ""],
        [LLMD, "gateway", "--listen", f"127.0.0.1:{outer}", "--metrics-port", outer_admin,
         "--endpoints", f"localhost:{front}", "--engine-tls", "--engine-ca-file",
         TMP / "cert.pem", "--access-log", ""],
    ]
    with Program(commands[0]) as engine, Program(commands[1]) as inner, \
            Program(commands[2]) as relay:
        wait_for_http(f"http://127.0.0.1:{first}/health", engine)
        wait_for_http(f"http://127.0.0.1:{front_admin}/readyz", inner)
        wait_for_http(f"http://127.0.0.1:{outer_admin}/readyz", relay)
        trust = ssl.create_default_context(cafile=TMP / "cert.pem")

        def test_clients_are_served_over_tls():
            reply = ask(f"https://localhost:{front}", trust)
            assert reply["usage"]["completion_tokens"] == 3, reply

        def test_engines_are_reached_over_tls_and_verified():
            reply = ask(f"http://127.0.0.1:{outer}")
            assert reply["object"] == "chat.completion", reply

        def test_tls_1_1_is_refused():
            old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
            old.set_ciphers("DEFAULT:@SECLEVEL=0")  # so that it is the server that refuses
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
            try:
                ask(f"https://localhost:{front}", old)
            except OSError as error:
                assert "PROTOCOL_VERSION" in str(error), error
                return
            raise AssertionError("a TLS 1.1 client was served")

        def test_a_new_certificate_is_served_without_a_restart():
            assert served_serial(front) == 1001
            make_certificate(1002)
            limit = time.monotonic() + 10
            while served_serial(front) != 1002:
                assert time.monotonic() < limit, "still the old certificate after 10 s"
                time.sleep(0.05)

        return report([test_clients_are_served_over_tls,
                       test_engines_are_reached_over_tls_and_verified,
                       test_tls_1_1_is_refused,
                       test_a_new_certificate_is_served_without_a_restart])


if __name__ == "__main__":
    sys.exit(main())
