"""The one door to model servers: `connect(connection)` gives the right provider."""

from __future__ import annotations

from slam_app.domain import Connection, ConnectionKind
from slam_app.providers.base import Provider

__all__ = ["Provider", "connect"]


def connect(connection: Connection) -> Provider:
    """A provider for `connection`; use it as an async context manager.

    The clients are imported on first use: openai alone costs about a second of start-up.

    Raises:
        ConfigError: the connection names an environment variable that is not set, or a bad address.
    """
    match connection.kind:
        case ConnectionKind.OLLAMA:
            from slam_app.providers.ollama import OllamaProvider

            return OllamaProvider(connection)
        case ConnectionKind.OPENAI:
            from slam_app.providers.openai import OpenAIProvider

            return OpenAIProvider(connection)
        case ConnectionKind.EMBEDDED:
            from slam_app.providers.embedded import EmbeddedProvider

            return EmbeddedProvider(connection)
