"""The installation's secret key, in a file beside the database: a copied database alone opens no link."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from slam_app.errors import ConfigError


def installation_key(db_path: Path) -> bytes:
    """32 random bytes, made on first use, readable by the owner only.

    Raises:
        ConfigError: the file can't be read or written, or is damaged.
    """
    path = db_path.with_name(db_path.name + ".key")
    try:
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_hex(32))
        except FileExistsError:
            pass
        key = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"The key file {path} can't be used ({error}). Check its permissions, or delete it: "
            "study links then have to be renewed."
        ) from None
    if len(key) != 32:
        raise ConfigError(f"The key file {path} is damaged. Delete it: study links then have to be renewed.")
    return key


def derive(key: bytes, purpose: str) -> str:
    """A token of 192 bits that only this installation can make, as URL-safe text."""
    digest = hmac.new(key, purpose.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest[:24]).decode()


def digest(token: str) -> str:
    """What is stored of a token. Tokens are random, so a plain hash can't be reversed."""
    return hashlib.sha256(token.encode()).hexdigest()
