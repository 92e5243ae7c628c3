"""Use cases that come with the app, so that an empty database has something to try."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files

from slam_app.cases import NewCase


@dataclass(frozen=True, slots=True)
class SampleUseCase:
    """A use case with its first template and its cases. `description` is Markdown, shown to raters."""

    name: str
    description: str
    template: str
    cases: tuple[NewCase, ...]


def daily_briefing() -> SampleUseCase:
    """A planning app's morning message, written from a person's tasks, rituals and goals.

    It has the shape of the case study in "Scaling Down to Scale Up" (2024): the same six variables,
    with texts and people of our own invention.
    """
    # Description and template are lists of lines in the file, to keep it readable.
    content = json.loads(files(__name__).joinpath("daily_briefing.json").read_text(encoding="utf-8"))
    return SampleUseCase(
        name=content["name"],
        description="\n".join(content["description"]),
        template="\n".join(content["template"]),
        cases=tuple(NewCase(case["name"], case["values"]) for case in content["cases"]),
    )
