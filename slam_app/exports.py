"""Rows as CSV or JSON text."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

# fmt: off
RESPONSE_COLUMNS = [
    "id", "run", "connection", "model", "model_digest", "case", "sample", "status", "text", "thinking",
    "error_class", "error", "finish_reason", "prompt_tokens", "output_tokens", "cached_tokens",
    "reasoning_tokens", "server_total_s", "server_load_s", "server_prompt_s", "server_decode_s",
    "ttft_s", "ttfa_s", "e2e_s", "retries", "server_model", "request_id", "params",
    "started_at", "finished_at", "prompt",
]
RATING_COLUMNS = [
    "study", "rater", "slot", "item", "position", "case", "connection", "model", "response",
    "criterion", "value", "complete",
]
# fmt: on


def response_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One exported row per response, of the rows of `store.responses.of_run`."""
    return [
        {
            **{column: row[column] for column in RESPONSE_COLUMNS if column in row},
            "run": row["run_id"],
            "params": json.loads(row["params_json"]),
        }
        for row in rows
    ]


def rating_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One exported row per rating, of the rows of `store.studies.ratings`."""
    return [
        {**{column: row[column] for column in RATING_COLUMNS}, "complete": bool(row["complete"])}
        for row in rows
    ]


def to_json(rows: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps(list(rows), ensure_ascii=False, indent=1)


def to_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """CSV with a header. Cells that a spreadsheet would run as a formula get a leading apostrophe."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row[column]) for column in columns])
    return file.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, (dict, list)):
        value = json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value
    return value
