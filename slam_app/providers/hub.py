"""Downloads GGUF files from the Hugging Face hub, resumable and checked against the hub's SHA-256.

Plain HTTP in place of the huggingface_hub package, whose downloads run in threads that can't be
cancelled. Honours HF_ENDPOINT (a mirror) and HF_TOKEN (models that need an account).
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx2

from slam_app.domain import PullProgress
from slam_app.errors import InputError, PullFailed
from slam_app.providers.base import QUICK_TIMEOUT_S
from slam_app.providers.gguf import read_header
from slam_app.providers.ticking import ticking
from slam_app.providers.weights import file_sha256, slug

_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+):(?P<file>[\w./+-]+\.gguf)", re.IGNORECASE)
_STALLED_S = 60.0


@dataclass(frozen=True, slots=True)
class _Remote:
    url: str
    sha256: str
    size: int


def is_hub_name(name: str) -> bool:
    """Whether `name` looks like "owner/repo:file.gguf"."""
    return bool(_NAME.fullmatch(name)) and ".." not in name


async def download(name: str, directory: Path, tick_s: float = 1.0) -> AsyncGenerator[PullProgress, None]:
    """Fetch "owner/repo:file.gguf" into `directory`; the file appears there only when it is whole and right.

    Progress comes with each block of data and every `tick_s` seconds while none comes. What has arrived
    stays in a `.part` file when this is cancelled, and the next call goes on behind it.

    Raises:
        PullFailed: unknown name, no access, no connection, no space, or a wrong hash.
    """
    match = _NAME.fullmatch(name)
    if match is None or not is_hub_name(name):
        raise PullFailed(f"{name!r} is not a file on the hub. Write it as owner/repo:file.gguf.")
    endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    token = os.environ.get("HF_TOKEN")
    client = httpx2.AsyncClient(
        headers={"Authorization": f"Bearer {token}"} if token else {},
        timeout=httpx2.Timeout(_STALLED_S, connect=QUICK_TIMEOUT_S),
    )
    yield PullProgress("looking it up on the hub")
    try:
        async with client:
            remote = await _look_up(
                client, f"{endpoint}/{match['repo']}/resolve/main/{quote(match['file'])}", name
            )
            target = directory / f"{slug(Path(match['file']).stem)}.gguf"
            async with aclosing(_fetch(client, remote, target, tick_s)) as steps:
                async for step in steps:
                    yield step
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
        raise PullFailed(
            f"{name} could not be fetched from {endpoint} ({type(error).__name__}). Check that this machine "
            "can reach it, then fetch again: it goes on where it was. Without internet, enter the path "
            "of a .gguf file instead."
        ) from error
    except OSError as error:
        raise PullFailed(
            f"{name} could not be written to {directory}: {error.strerror}. Free space or check its rights."
        ) from error


async def _look_up(client: httpx2.AsyncClient, url: str, name: str) -> _Remote:
    """Address, hash and size. They are on the hub's own answer, not on the storage it redirects to."""
    for _ in range(5):
        head = await client.head(url, follow_redirects=False)
        etag = head.headers.get("x-linked-etag", "").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", etag):
            return _Remote(url, etag, int(head.headers.get("x-linked-size", 0)))
        following = head.next_request
        # A renamed repository redirects within the hub.
        if following is None or following.url.host != httpx2.URL(url).host:
            break
        url = str(following.url)
    if head.status_code in (401, 403):
        # The hub says 401 for a repository that does not exist, too.
        raise PullFailed(
            f"The hub does not give out {name}: check the spelling; if it wants an account and its terms "
            "accepted, do that there and set HF_TOKEN."
        )
    if head.status_code == 404:
        raise PullFailed(f"The hub has no {name}. Check the owner, the repository and the file's name.")
    raise PullFailed(f"The hub gave no checksum for {name} (status {head.status_code}). Try again later.")


async def _fetch(
    client: httpx2.AsyncClient, remote: _Remote, target: Path, tick_s: float
) -> AsyncGenerator[PullProgress, None]:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        yield PullProgress("checking the file that is here already")
        if await asyncio.to_thread(file_sha256, target) != remote.sha256:
            raise PullFailed(f"Another model is named {target.stem} already. Delete it first.")
        yield PullProgress("success", remote.size, remote.size)
        return
    part = target.with_name(f".{target.stem}.{remote.sha256[:12]}.part")  # never resumes another version
    done = part.stat().st_size if part.exists() else 0
    if shutil.disk_usage(target.parent).free < remote.size - done:
        raise PullFailed(
            f"The disk of {target.parent} lacks room for {remote.size / 1e9:.1f} GB. Free some, fetch again."
        )
    if done < remote.size or not remote.size:
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
        async with client.stream("GET", remote.url, headers=headers, follow_redirects=True) as response:
            response.raise_for_status()
            done = done if response.status_code == 206 else 0
            with part.open("ab" if done else "wb") as file:
                blocks = ticking(response.aiter_raw(), tick_s)
                async with aclosing(blocks):
                    async for block in blocks:
                        if block is not None:
                            await asyncio.to_thread(file.write, block)
                            done += len(block)
                        yield PullProgress("downloading", done, remote.size or None)
    yield PullProgress("checking", done, remote.size or None)
    if await asyncio.to_thread(file_sha256, part) != remote.sha256:
        part.unlink()
        raise PullFailed(f"What came for {target.stem} is not what the hub announced. Fetch it again.")
    try:
        await asyncio.to_thread(read_header, part)
    except InputError as error:
        part.unlink()
        raise PullFailed(f"The hub's file is not usable: {error}") from error
    part.replace(target)
    yield PullProgress("success", done, done)
