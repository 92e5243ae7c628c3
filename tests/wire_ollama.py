"""A wire-level Ollama daemon: real HTTP and the daemon's own protocol, without its models.

    with WireOllama(complete=lambda prompt, params: "Paris.") as daemon:
        ...an OllamaProvider on daemon.url...
        assert daemon.calls[-1].json["options"]["num_ctx"] == 2048
        assert daemon.loads == [("smollm2:135m", 2048)]

The texts come from `complete(prompt, params)`, where `params` are the options of the request and, if it
asks for structured output, its `format`. Everything around them is the daemon's: which models there are,
which are loaded with what context and for how long, the queue, the pulls, the refusals, in the shapes of
tests/data/ollama. It is slow (`token_delay_s`, `load_delay_s`) and breaks (`inject`) on demand.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

from tests import replay
from tests.loopback import Call, LoopbackServer
from tests.wire_faults import Fault, Injected, break_stream, refuse
from tests.wire_models import (
    EMBEDDER,
    EXAMPLES,
    SMOLLM,
    THINKER,
    Complete,
    Loaded,
    WireModel,
    default_complete,
    default_think,
    end,
    joined,
    line,
    part,
    seconds,
    stamp,
    tokens,
    vector,
)

_JSON = {"content-type": "application/json; charset=utf-8"}
_NDJSON = {"content-type": "application/x-ndjson"}
_LOCAL = re.compile(r"(localhost|127\.0\.0\.1|\[::1\]|.*\.(localhost|local|internal))(:\d+)?")
_FLOATS = {"temperature", "top_p", "min_p", "repeat_penalty"}
_INTS = {"top_k", "seed", "num_predict", "num_ctx"}


class WireOllama(LoopbackServer):
    """The daemon. Everything public may be set or read by a test at any time.

    Attributes:
        installed, registry: models by name, those here and those that can be pulled.
        loaded, loads: what is in memory now; every load so far as (name, num_ctx).
        token_delay_s, load_delay_s, pull_delay_s: seconds per token, load and line of a pull.
        busy: how many of the next requests that need a load get a 503.
        parallel: how many answers are generated at once; the others wait.
        local_only: whether only local Host and Origin names are let in, as when bound to loopback.
        offline: whether the registry can't be reached.
    """

    def __init__(
        self,
        complete: Complete = default_complete,
        models: Sequence[WireModel] = (SMOLLM, THINKER, EMBEDDER),
        registry: Sequence[WireModel] = (),
        think: Callable[[str], str] = default_think,
        parallel: int = 1,
    ) -> None:
        super().__init__()
        self.complete = complete
        self.think = think
        self.installed = {model.name: model for model in models}
        self.registry = {model.name: model for model in registry}
        self.loaded: dict[str, Loaded] = {}
        self.loads: list[tuple[str, int]] = []
        self.token_delay_s = self.load_delay_s = self.pull_delay_s = 0.0
        self.busy = 0
        self.local_only = True
        self.offline = False
        self._pulled: dict[str, int] = {}
        self._faults: list[Injected] = []
        self._places = threading.Semaphore(parallel)
        self._loading = threading.Lock()
        self._lock = threading.Lock()

    def inject(self, fault: Fault, path: str = "/api/chat", times: int = 1, after: int = 2) -> None:
        """Let the next `times` requests for `path` end in `fault`, in a stream after `after` lines."""
        self._faults += [Injected(fault, path, after)] * times

    def answer(self, call: Call) -> None:
        fault = self._next_fault(call.path)
        if self.local_only and not self._is_local(call):
            return call.send(403)
        if fault and refuse(call, fault):
            return None
        route = _ROUTES.get(call.path)
        if route is None:
            return call.send(404, b"404 page not found", {"content-type": "text/plain"})
        method, handle = route
        if call.method != method:
            return call.send(405, b"405 method not allowed", {"content-type": "text/plain"})
        try:
            return handle(self, call, self._fields(call) if method != "GET" else {}, fault)
        except _Refusal as refusal:
            return _reply(call, refusal.status, {"error": refusal.text})

    # The small calls

    def _root(self, call: Call, fields: dict[str, Any], fault: Injected | None) -> None:
        call.send(200, b"Ollama is running", {"content-type": "text/plain; charset=utf-8"})

    def _version(self, call: Call, fields: dict[str, Any], fault: Injected | None) -> None:
        _reply(call, 200, {"version": "0.24.0"})

    def _tags(self, call: Call, fields: dict[str, Any], fault: Injected | None) -> None:
        listed = [
            {
                "name": model.name,
                "model": model.name,
                "modified_at": stamp(),
                "size": model.size,
                "digest": model.digest,
                "details": model.details,
            }
            for model in self.installed.values()
        ]
        _reply(call, 200, {"models": listed})

    def _ps(self, call: Call, fields: dict[str, Any], fault: Injected | None) -> None:
        self._expire()
        running = [
            {
                "name": name,
                "model": name,
                "size": self.installed[name].size + 22168 * loaded.num_ctx,
                "digest": self.installed[name].digest,
                "details": self.installed[name].details,
                "expires_at": stamp(loaded.until - time.monotonic()),
                "size_vram": 0,
                "context_length": loaded.num_ctx,
            }
            for name, loaded in self.loaded.items()
            if name in self.installed
        ]
        _reply(call, 200, {"models": running})

    def _show(self, call: Call, fields: dict[str, Any], fault: Injected | None) -> None:
        model = self._model(fields)
        like = {"embedding": "show-embedder", "thinking": "show-thinker"}
        name = next((file for sign, file in like.items() if sign in model.capabilities), "show")
        shown = deepcopy(replay.lines(name)[0])
        shown["details"].update(parameter_size=model.parameter_size, quantization_level=model.quantization)
        shown["model_info"][f"{model.architecture}.context_length"] = model.context_length
        shown["capabilities"] = list(model.capabilities)
        call.start(200, _JSON)
        call.chunk(json.dumps(shown).encode())
        call.end()

    def _delete(self, call: Call, fields: dict[str, Any], fault: Injected | None) -> None:
        model = self._model(fields)
        del self.installed[model.name]
        self.loaded.pop(model.name, None)
        call.send(200)

    def _embed(self, call: Call, fields: dict[str, Any], fault: Injected | None) -> None:
        began = time.perf_counter_ns()
        model = self._model(fields)
        texts = [fields["input"]] if isinstance(fields["input"], str) else fields["input"]
        counts = [len(tokens(text)) + 2 for text in texts]
        if fields.get("truncate") is False and max(counts) > model.context_length:
            raise _Refusal(400, "the input length exceeds the context length")
        _, load_ns = self._load(call, model, fields)
        vectors = [vector(text) for text in texts]
        body = {
            "model": model.name,
            "embeddings": vectors,
            **_total(began),
            "load_duration": load_ns,
            "prompt_eval_count": sum(min(count, model.context_length) for count in counts),
        }
        call.start(200, _JSON)
        call.chunk(json.dumps(body).encode())
        call.end()

    # Pull

    def _pull(self, call: Call, fields: dict[str, Any], fault: Injected | None) -> None:
        self._checked_name(fields)
        if fields.get("stream") is False:
            last = list(self._pulling(call, fields["model"]))[-1]
            status = 500 if "error" in last else 200
            return call.send(status, line(last).rstrip(), {"content-type": "application/json"})
        return self._stream(call, self._pulling(call, fields["model"]), fault)

    def _pulling(self, call: Call, name: str) -> Iterator[dict[str, Any]]:
        yield {"status": "pulling manifest"}
        model = self.registry.get(name) or self.installed.get(name)
        if self.offline:
            where = "https://registry.ollama.ai/v2/library/" + name.replace(":", "/manifests/")
            failure = "dial tcp: lookup registry.ollama.ai: no such host"
            yield {"error": f'pull model manifest: Get "{where}": {failure}'}
            return
        if model is None:
            yield {"error": "pull model manifest: file does not exist"}
            return
        for number, total in enumerate(model.layers):
            digest = hashlib.sha256(f"{name}{number}".encode()).hexdigest()
            layer = {"status": f"pulling {digest[:12]}", "digest": f"sha256:{digest}", "total": total}
            while True:
                done = total if name in self.installed else self._pulled.get(digest, 0)
                yield layer | {"completed": done} if done else layer
                if done >= total:
                    break
                call.wait(self.pull_delay_s)
                self._pulled[digest] = min(total, done + max(1, math.ceil(total / 10)))
        yield from ({"status": "verifying sha256 digest"}, {"status": "writing manifest"})
        self.installed[name] = model
        yield {"status": "success"}

    # Chat

    def _chat(self, call: Call, fields: dict[str, Any], fault: Injected | None) -> None:
        began = time.perf_counter_ns()
        model = self._model(fields)
        nothing = part(model.name, {"content": ""})
        if not fields.get("messages") and fields.get("keep_alive") == 0:
            self.loaded.pop(model.name, None)
            return _reply(call, 200, nothing | end("unload"))
        thinks = self._check_chat(model, fields)
        loaded, load_ns = self._load(call, model, fields)
        if not fields.get("messages"):
            return _reply(call, 200, nothing | end("load"))
        prompt = "\n".join(message["content"] for message in fields["messages"])
        count = len(tokens(prompt)) + 9
        if count > loaded.num_ctx and fields.get("truncate") is False:
            raise _Refusal(400, "the input length exceeds the context length")
        count = min(count, loaded.num_ctx)
        while not self._places.acquire(timeout=0.01):
            call.wait(0.001)
        try:
            parts = self._answering(call, fields, prompt, thinks, loaded.num_ctx - count)
            counts = {"load_duration": load_ns, "prompt_eval_count": count}
            timed = ({**p, **counts, **_total(began)} if p["done"] else p for p in parts)
            if fields.get("stream", True):
                return self._stream(call, timed, fault)
            if fault and fault.kind is Fault.RUNNER_DIES:
                raise _Refusal(500, "an error was encountered while running the model: unexpected EOF")
            return _reply(call, 200, joined(list(timed)))
        finally:
            self._places.release()
            loaded.until = time.monotonic() + loaded.keep_alive_s

    def _answering(
        self, call: Call, fields: dict[str, Any], prompt: str, thinks: bool, room: int
    ) -> Iterator[dict[str, Any]]:
        """The lines of an answer; `room` is how many tokens the context still takes."""
        params = dict(fields.get("options") or {})
        # The daemon ends one token past a full context (recorded: 27 + 230 in a context of 256).
        limits = [limit for limit in (params.get("num_predict", -1), room + 1) if limit >= 0]
        if fields.get("format"):
            params["format"] = fields["format"]
        prompted = time.perf_counter_ns()
        text = self.complete(prompt, params)
        decoding = time.perf_counter_ns()
        words = [("thinking", word) for word in tokens(self.think(prompt)) if thinks]
        words += [("content", word) for word in tokens(text)]
        given = words[: min(limits)]
        for field, word in given:
            call.wait(self.token_delay_s)
            yield part(fields["model"], {"content": ""} | {field: word}) | {"done": False}
        yield (
            part(fields["model"], {"content": ""})
            | end("length" if len(words) > len(given) else "stop")
            | {
                "prompt_eval_duration": max(1, decoding - prompted),
                "eval_count": len(given),
                "eval_duration": max(1, time.perf_counter_ns() - decoding),
            }
        )

    def _check_chat(self, model: WireModel, fields: dict[str, Any]) -> bool:
        """Whether the model will think; raises what the daemon refuses."""
        think = fields.get("think")
        levels = ("high", "medium", "low", "max", True, False, None)
        if think not in levels:
            raise _Refusal(
                400,
                f'invalid think value: "{think}" (must be "high", "medium", "low", "max", true, or false)',
            )
        if "completion" not in model.capabilities:
            raise _Refusal(400, f'"{model.name}" does not support chat')
        if think and "thinking" not in model.capabilities:
            raise _Refusal(400, f'"{model.name}" does not support thinking')
        if fields.get("tools") and "tools" not in model.capabilities:
            raise _Refusal(400, f"registry.ollama.ai/library/{model.name} does not support tools")
        for name, value in (fields.get("options") or {}).items():
            if name in _FLOATS | _INTS and (isinstance(value, bool) or not isinstance(value, int | float)):
                kind = "float32" if name in _FLOATS else "integer"
                raise _Refusal(500, f'option "{name}" must be of type {kind}')
        wanted = fields.get("format")
        if wanted and wanted != "json" and not isinstance(wanted, dict):
            quoted = json.dumps(json.dumps(wanted))
            raise _Refusal(500, f'invalid format: {quoted}; expected "json" or a valid JSON Schema object')
        if isinstance(wanted, dict) and wanted.get("type") not in (None, *EXAMPLES):
            raise _Refusal(500, "invalid JSON schema in format")
        return "thinking" in model.capabilities and think is not False

    # What all share

    def _load(self, call: Call, model: WireModel, fields: dict[str, Any]) -> tuple[Loaded, int]:
        """Have the model in memory with the wanted context; also gives the nanoseconds that it took."""
        began = time.perf_counter_ns()
        wanted = (fields.get("options") or {}).get("num_ctx", 4096)
        num_ctx = min(int(wanted), model.context_length)
        with self._loading:
            self._expire()
            loaded = self.loaded.get(model.name)
            if loaded is None or loaded.num_ctx != num_ctx:
                if self.busy > 0:
                    self.busy -= 1
                    raise _Refusal(503, "server busy, please try again.  maximum pending requests exceeded")
                call.wait(self.load_delay_s)
                loaded = self.loaded[model.name] = Loaded(num_ctx)
                self.loads.append((model.name, num_ctx))
            if fields.get("keep_alive") is not None:
                loaded.keep_alive_s = seconds(fields["keep_alive"])
            loaded.until = time.monotonic() + loaded.keep_alive_s
        return loaded, max(1, time.perf_counter_ns() - began)

    def _expire(self) -> None:
        now = time.monotonic()
        self.loaded = {name: loaded for name, loaded in list(self.loaded.items()) if loaded.until > now}

    def _stream(self, call: Call, parts: Iterable[dict[str, Any]], fault: Injected | None) -> None:
        call.start(200, _NDJSON)
        last: dict[str, Any] = {}
        for number, fields in enumerate(parts):
            if fault and number == fault.after:
                return break_stream(call, fault, last)
            last = fields
            call.chunk(line(fields))
        return call.end()

    def _next_fault(self, path: str) -> Injected | None:
        with self._lock:
            found = next((fault for fault in self._faults if fault.path == path), None)
            if found:
                self._faults.remove(found)
            return found

    def _is_local(self, call: Call) -> bool:
        origin = call.headers.get("origin", "http://localhost").partition("://")[2]
        return bool(_LOCAL.fullmatch(call.headers.get("host", "")) and _LOCAL.fullmatch(origin))

    def _fields(self, call: Call) -> dict[str, Any]:
        try:
            fields: dict[str, Any] = call.json
        except ValueError:
            raise _Refusal(400, "unexpected EOF") from None
        return fields

    def _checked_name(self, fields: dict[str, Any]) -> str:
        name: str = fields.get("model") or ""
        if not name:
            raise _Refusal(400, "model is required")
        if not re.fullmatch(r"[\w./:-]+", name):
            raise _Refusal(400, "invalid model name")
        return name if ":" in name.rpartition("/")[2] else f"{name}:latest"

    def _model(self, fields: dict[str, Any]) -> WireModel:
        name = self._checked_name(fields)
        if name not in self.installed:
            raise _Refusal(404, f"model '{fields['model']}' not found")
        return self.installed[name]


class _Refusal(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


_ROUTES: dict[str, tuple[str, Callable[[WireOllama, Call, dict[str, Any], Injected | None], None]]] = {
    "/": ("GET", WireOllama._root),
    "/api/version": ("GET", WireOllama._version),
    "/api/tags": ("GET", WireOllama._tags),
    "/api/ps": ("GET", WireOllama._ps),
    "/api/show": ("POST", WireOllama._show),
    "/api/delete": ("DELETE", WireOllama._delete),
    "/api/embed": ("POST", WireOllama._embed),
    "/api/pull": ("POST", WireOllama._pull),
    "/api/chat": ("POST", WireOllama._chat),
}


def _reply(call: Call, status: int, body: Mapping[str, Any]) -> None:
    call.send(status, line(body).rstrip(), _JSON)


def _total(began: int) -> dict[str, int]:
    return {"total_duration": max(1, time.perf_counter_ns() - began)}
