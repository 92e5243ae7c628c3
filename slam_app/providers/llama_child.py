"""The child process that runs llama.cpp's own server: `python -m slam_app.providers.llama_child`.

It reads one line of JSON (see `LlamaServer`), prints one line when it is ready, and exits at the end of
its stdin, so that it ends with its parent, however that ends.
"""

from __future__ import annotations

import json
import os
import sys
from http.client import HTTPConnection
from urllib.parse import urlsplit

READY = "slam-ready "


def _serve(config: dict[str, object]) -> None:
    """Start llama.cpp's server, say where it listens, stay until stdin ends."""
    import xllamacpp

    parallel = int(str(config["parallel"]))
    params = xllamacpp.CommonParams()
    params.model.path = config["weights"]
    params.model_alias = [config["name"]]
    params.n_parallel = parallel
    params.n_ctx = int(str(config["num_ctx"])) * parallel  # it is shared out among the parallel requests
    params.ctx_shift = False  # a full context ends the answer, it never forgets the prompt in silence
    params.cache_ram_mib = 0  # else it keeps old prompts in up to 8 GiB of memory
    params.cpuparams.n_threads = config["threads"]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [config["api_key"]]
    params.cors_origins = "null"  # no web page has business here
    params.endpoint_props = True
    params.ui = False
    params.verbosity = 1  # errors only
    server = xllamacpp.Server(params)
    ready = {
        "address": server.listening_address,
        "context": _context(server.listening_address, str(config["api_key"])),
    }
    print(READY + json.dumps(ready), flush=True)  # noqa: T201
    sys.stdin.read()
    os._exit(0)  # tidying up would wait for requests in flight


def _context(address: str, api_key: str) -> int:
    """Tokens of context per request as the server made it."""
    connection = HTTPConnection(urlsplit(address).netloc, timeout=30)
    try:
        connection.request("GET", "/props", headers={"Authorization": f"Bearer {api_key}"})
        return int(json.load(connection.getresponse())["default_generation_settings"]["n_ctx"])
    finally:
        connection.close()


if __name__ == "__main__":
    _serve(json.loads(sys.stdin.readline()))
