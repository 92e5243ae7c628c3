"""What went wrong with an Ollama daemon, in words for people: what happened, then what to do next."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from ollama import ResponseError

from slam_app.errors import (
    BadReply,
    BadRequest,
    ModelMissing,
    PromptTooLong,
    ProviderError,
    PullFailed,
    Refused,
    ServerBusy,
    ServerFailed,
    StreamCut,
    TimedOut,
    Unreachable,
)
from slam_app.providers.base import QUICK_TIMEOUT_S

NO_STATUS = -1
"""In place of an HTTP status: the error came as a line in mid-stream, behind a 200."""

_MODEL_MISSING = re.compile(r"model .*not found")
_TOO_LONG = re.compile(r"exceeds? .*context")
_OUR_FAULT = re.compile(r"must be of type|invalid json schema|invalid format")
"""What we asked for was wrong, although the daemon says 500; asking again would not help."""
_NO_MEMORY = re.compile(r"system memory|out of memory|unable to allocate|cudamalloc")
_NO_NETWORK = re.compile(
    r"no such host|connection refused|network is unreachable|no route to host|i/o timeout|"
    r"server misbehaving|handshake timeout|proxyconnect|x509|deadline exceeded"
)
_NOT_IN_REGISTRY = re.compile(r"does not exist|not found|manifest unknown|unauthorized|invalid username")

_REMEDIES = {
    "does not support thinking": "Set thinking to default or off for this model.",
    "think value": "Choose another level of thinking.",
    "does not support chat": "Choose a model that is made for chat; this one may be for embeddings.",
    "model name": "Check how the name is written.",
    "schema": "Check the JSON schema.",
    "format": "Check the JSON schema.",
}


@contextmanager
def explained(
    url: str, model: str = "", *, silence_s: float = QUICK_TIMEOUT_S, settable: bool = False
) -> Iterator[None]:
    """Turn everything that the client or its transport raises inside into a `ProviderError`.

    `model` is the one that the call is about, if it is about one. `silence_s` is how long the call waits
    for a sign of life; `settable` says that this is the connection's own timeout.
    """
    try:
        yield
    except ResponseError as error:
        raise explain(url, model, error.status_code, str(error.error)) from error
    except (httpx.ConnectError, httpx.ConnectTimeout, ConnectionError) as error:
        raise _unreachable(url, str(error)) from error
    except httpx.TimeoutException as error:
        longer = ", or give this connection a longer timeout" if settable else ""
        raise TimedOut(
            f"Ollama at {url} said nothing for {silence_s:g} s. It may be overloaded or "
            f"loading a large model: try again in a moment{longer}."
        ) from error
    except httpx.DecodingError as error:
        raise not_the_protocol(url, str(error)) from error
    except httpx.TransportError as error:
        raise cut_off(url) from error
    except (httpx.HTTPError, ValueError, TypeError, AttributeError, RecursionError) as error:
        # The client parses without looking: a reply that is no JSON, or JSON of another shape, ends here.
        raise not_the_protocol(url, str(error)) from error


def explain(url: str, model: str, status: int, text: str) -> ProviderError:
    """The error for a refusal: its HTTP status (NO_STATUS for a line in mid-stream) and its words.

    Statuses alone can't be believed: a wrong option is a 500, and a proxy may answer in place of the daemon.
    """
    said = text.strip()[:500]
    low = said.lower()
    if _TOO_LONG.search(low):
        return PromptTooLong(
            "The prompt does not fit into the context of the model. Raise the context (num_ctx), or shorten "
            f"the prompt. Ollama says: {said}"
        )
    if status == 404 and _MODEL_MISSING.search(low):
        return ModelMissing(
            f"Ollama at {url} does not have the model {model}. Pull it on the models page or with "
            f"`ollama pull {model}`, then try again."
        )
    if status in (401, 403):
        return Refused(_refusal(url, status, said))
    if status in (429, 503):
        return ServerBusy(
            f"Ollama at {url} has too many requests waiting. Try again a little later. It says: {said}"
        )
    if status in (404, 405) or 300 <= status < 400:
        return not_the_protocol(url, f"status {status} {said}")
    if 400 <= status < 500 or _OUR_FAULT.search(low):
        remedy = next((todo for sign, todo in _REMEDIES.items() if sign in low), "Check the settings.")
        return BadRequest(f"Ollama does not accept this request: {said}. {remedy}")
    if _NO_MEMORY.search(low):
        return ServerFailed(
            f"The machine at {url} has too little memory for {model or 'this model'}. Unload other models, "
            f"lower the context (num_ctx), or take a smaller model or quantization. Ollama says: {said}"
        )
    return ServerFailed(
        f"Ollama at {url} failed: {said or f'status {status}'}. Try again; if it stays so, read its log."
    )


def explain_pull(model: str, text: str) -> ProviderError:
    """The error for an error line of a pull; the daemon sends it behind a 200."""
    said = text.strip()[:500]
    low = said.lower()
    if "max retries exceeded" in low:
        todo = "The registry stopped answering during the download. Pull again: it goes on where it was."
    elif _NO_NETWORK.search(low):
        todo = (
            "The machine on which Ollama runs can't reach the registry. Give it access to the internet (or a "
            "proxy: HTTPS_PROXY in Ollama's environment), or copy the weights there and use `ollama create`."
        )
    elif "no space left" in low:
        todo = "The disk of the machine on which Ollama runs is full. Delete a model there, then pull again."
    elif "newer version" in low:
        todo = "This model needs a newer Ollama. Update Ollama there, then pull again."
    elif _NOT_IN_REGISTRY.search(low):
        todo = "The registry has no such model, or does not show it. Check the spelling and the tag."
    else:
        todo = "Check the name, then pull again."
    return PullFailed(f"{model} could not be fetched. {todo} Ollama says: {said}")


def not_the_protocol(url: str, why: str) -> BadReply:
    return BadReply(
        f"What answers at {url} does not speak Ollama's protocol ({why[:200]}). Check that the address is "
        "Ollama's own, without a redirect or a path, and that Ollama is up to date."
    )


def cut_off(url: str) -> StreamCut:
    return StreamCut(
        f"Ollama at {url} broke off before the reply was complete. It may have been stopped or have run out "
        "of memory: look whether it runs, then try again."
    )


def _unreachable(url: str, why: str) -> Unreachable:
    if "ssl" in why.lower() or "certificate" in why.lower():
        return Unreachable(
            f"No secure connection to {url} ({why}). Check whether the address should start with http://, or "
            "whether its certificate is trusted here."
        )
    return Unreachable(
        f"Nobody answers at {url}. Start Ollama there with `ollama serve`, or check the address of this "
        "connection."
    )


def _refusal(url: str, status: int, said: str) -> str:
    if status == 403 and not said:
        return (
            f"Ollama at {url} refuses this Host or Origin: it listens on its own machine only and takes "
            "local names. Set OLLAMA_HOST=0.0.0.0 where Ollama runs (its container), or use its local name, "
            "such as localhost, in the address; behind a proxy let the proxy send Host: localhost."
        )
    return (
        f"The server at {url} refuses us (status {status}: {said}). Check the access rules of the proxy that "
        "stands before Ollama."
    )
