"""The schema, one numbered function per change. Never edit a released one; add the next.

Times are ISO 8601 texts in UTC, durations seconds, sizes bytes. JSON stands in TEXT columns that
end in _json. Things that others point to are hidden with removed_at, not deleted.
"""

from __future__ import annotations

from sqlite_utils import Database, Migrations

migrations = Migrations("slam")


def _run(db: Database, *statements: str) -> None:
    """Statement by statement: SQLite's executescript would commit the open transaction."""
    for statement in statements:
        db.execute(statement)


@migrations()
def m001_settings_and_logins(db: Database) -> None:
    _run(
        db,
        "CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
        """CREATE TABLE admin_sessions (
            token_hash TEXT PRIMARY KEY,
            created_at TEXT NOT NULL,
            expires_at TEXT NOT NULL
        ) STRICT""",
    )


@migrations()
def m002_connections_and_models(db: Database) -> None:
    _run(
        db,
        """CREATE TABLE connections (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL,
            kind TEXT NOT NULL CHECK (kind IN ('embedded', 'ollama', 'openai')),
            base_url TEXT NOT NULL DEFAULT '',
            api_key_env TEXT NOT NULL DEFAULT '',
            concurrency INTEGER NOT NULL DEFAULT 1 CHECK (concurrency BETWEEN 1 AND 64),
            timeout_s REAL NOT NULL DEFAULT 300 CHECK (timeout_s > 0),
            requests_per_minute INTEGER CHECK (requests_per_minute > 0),
            tokens_per_minute INTEGER CHECK (tokens_per_minute > 0),
            created_at TEXT NOT NULL,
            removed_at TEXT
        ) STRICT""",
        "CREATE UNIQUE INDEX connections_name ON connections (name) WHERE removed_at IS NULL",
        """CREATE TABLE models (
            id INTEGER PRIMARY KEY,
            connection_id INTEGER NOT NULL REFERENCES connections (id),
            name TEXT NOT NULL,
            digest TEXT NOT NULL DEFAULT '',
            family TEXT NOT NULL DEFAULT '',
            parameters_b REAL,
            quantization TEXT NOT NULL DEFAULT '',
            size_bytes INTEGER,
            context_length INTEGER,
            capabilities_json TEXT NOT NULL DEFAULT '[]',
            loaded INTEGER NOT NULL DEFAULT 0 CHECK (loaded IN (0, 1)),
            memory_bytes INTEGER,
            vram_bytes INTEGER,
            loaded_context INTEGER,
            kept_until TEXT,
            path TEXT NOT NULL DEFAULT '',
            seen_at TEXT NOT NULL,
            removed_at TEXT,
            UNIQUE (connection_id, name)
        ) STRICT""",
    )


@migrations()
def m003_use_cases(db: Database) -> None:
    _run(
        db,
        """CREATE TABLE use_cases (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE CHECK (trim(name) <> ''),
            description TEXT NOT NULL DEFAULT '',
            incumbent_model_id INTEGER REFERENCES models (id),
            created_at TEXT NOT NULL
        ) STRICT""",
        """CREATE TABLE templates (
            id INTEGER PRIMARY KEY,
            use_case_id INTEGER NOT NULL REFERENCES use_cases (id),
            version INTEGER NOT NULL,
            body TEXT NOT NULL,
            created_at TEXT NOT NULL,
            UNIQUE (use_case_id, version)
        ) STRICT""",
        """CREATE TABLE cases (
            id INTEGER PRIMARY KEY,
            use_case_id INTEGER NOT NULL REFERENCES use_cases (id),
            name TEXT NOT NULL CHECK (trim(name) <> ''),
            values_json TEXT NOT NULL,
            created_at TEXT NOT NULL,
            removed_at TEXT
        ) STRICT""",
        "CREATE UNIQUE INDEX cases_name ON cases (use_case_id, name) WHERE removed_at IS NULL",
    )


@migrations()
def m004_jobs(db: Database) -> None:
    _run(
        db,
        """CREATE TABLE jobs (
            id INTEGER PRIMARY KEY,
            kind TEXT NOT NULL,
            lane TEXT NOT NULL,
            payload_json TEXT NOT NULL,
            status TEXT NOT NULL DEFAULT 'queued'
                CHECK (status IN ('queued', 'running', 'done', 'cancelled', 'failed')),
            cancel_requested INTEGER NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
            progress_json TEXT NOT NULL DEFAULT '{}',
            message TEXT NOT NULL DEFAULT '',
            owner TEXT,
            lease_until TEXT,
            fence INTEGER NOT NULL DEFAULT 0,
            created_at TEXT NOT NULL,
            started_at TEXT,
            finished_at TEXT
        ) STRICT""",
        "CREATE INDEX jobs_unended ON jobs (status) WHERE status IN ('queued', 'running')",
    )


@migrations()
def m005_runs_and_responses(db: Database) -> None:
    _run(
        db,
        """CREATE TABLE runs (
            id INTEGER PRIMARY KEY,
            use_case_id INTEGER NOT NULL REFERENCES use_cases (id),
            template_id INTEGER NOT NULL REFERENCES templates (id),
            samples INTEGER NOT NULL CHECK (samples BETWEEN 1 AND 100),
            params_json TEXT NOT NULL,
            created_at TEXT NOT NULL
        ) STRICT""",
        # The prompt as it was rendered when the run was planned: later edits of a case can't change it.
        """CREATE TABLE run_cases (
            run_id INTEGER NOT NULL REFERENCES runs (id),
            case_id INTEGER NOT NULL REFERENCES cases (id),
            prompt TEXT NOT NULL,
            PRIMARY KEY (run_id, case_id)
        ) STRICT""",
        """CREATE TABLE responses (
            id INTEGER PRIMARY KEY,
            run_id INTEGER NOT NULL REFERENCES runs (id),
            model_id INTEGER NOT NULL REFERENCES models (id),
            case_id INTEGER NOT NULL,
            sample INTEGER NOT NULL CHECK (sample >= 1),
            status TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'ok', 'error')),
            text TEXT NOT NULL DEFAULT '',
            thinking TEXT NOT NULL DEFAULT '',
            error_class TEXT NOT NULL DEFAULT '',
            error TEXT NOT NULL DEFAULT '',
            finish_reason TEXT NOT NULL DEFAULT '',
            prompt_tokens INTEGER,
            output_tokens INTEGER,
            cached_tokens INTEGER,
            reasoning_tokens INTEGER,
            server_total_s REAL,
            server_load_s REAL,
            server_prompt_s REAL,
            server_decode_s REAL,
            ttft_s REAL,
            ttfa_s REAL,
            e2e_s REAL,
            retries INTEGER NOT NULL DEFAULT 0,
            model_digest TEXT NOT NULL DEFAULT '',
            server_model TEXT NOT NULL DEFAULT '',
            request_id TEXT NOT NULL DEFAULT '',
            params_json TEXT NOT NULL DEFAULT '{}',
            started_at TEXT,
            finished_at TEXT,
            UNIQUE (run_id, model_id, case_id, sample),
            FOREIGN KEY (run_id, case_id) REFERENCES run_cases (run_id, case_id),
            CHECK (status <> 'ok' OR (text <> '' AND error = '')),
            CHECK (status <> 'error' OR error <> '')
        ) STRICT""",
        "CREATE INDEX responses_pending ON responses (run_id, model_id) WHERE status = 'pending'",
    )


@migrations()
def m006_studies_and_ratings(db: Database) -> None:
    _run(
        db,
        """CREATE TABLE studies (
            id INTEGER PRIMARY KEY,
            run_id INTEGER NOT NULL REFERENCES runs (id),
            name TEXT NOT NULL CHECK (trim(name) <> ''),
            status TEXT NOT NULL DEFAULT 'draft' CHECK (status IN ('draft', 'open', 'closed')),
            raters INTEGER NOT NULL CHECK (raters BETWEEN 1 AND 10000),
            items_per_rater INTEGER NOT NULL CHECK (items_per_rater BETWEEN 1 AND 500),
            scale_max INTEGER NOT NULL DEFAULT 10 CHECK (scale_max BETWEEN 1 AND 100),
            link_version INTEGER NOT NULL DEFAULT 1,
            link_hash TEXT UNIQUE,
            completion_code TEXT NOT NULL,
            title TEXT NOT NULL DEFAULT '',
            description TEXT NOT NULL DEFAULT '',
            incumbent_model_id INTEGER REFERENCES models (id),
            protocol_json TEXT NOT NULL DEFAULT '{}',
            protocol_hash TEXT NOT NULL DEFAULT '',
            created_at TEXT NOT NULL,
            launched_at TEXT,
            closed_at TEXT
        ) STRICT""",
        """CREATE TABLE slots (
            id INTEGER PRIMARY KEY,
            study_id INTEGER NOT NULL REFERENCES studies (id),
            number INTEGER NOT NULL,
            status TEXT NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'claimed', 'complete')),
            rater_hash TEXT,
            claimed_at TEXT,
            seen_at TEXT,
            finished_at TEXT,
            UNIQUE (study_id, number),
            UNIQUE (study_id, rater_hash),
            CHECK ((status = 'open') = (rater_hash IS NULL))
        ) STRICT""",
        """CREATE TABLE items (
            id INTEGER PRIMARY KEY,
            slot_id INTEGER NOT NULL REFERENCES slots (id),
            position INTEGER NOT NULL,
            case_id INTEGER NOT NULL REFERENCES cases (id),
            UNIQUE (slot_id, position)
        ) STRICT""",
        """CREATE TABLE item_responses (
            item_id INTEGER NOT NULL REFERENCES items (id),
            position INTEGER NOT NULL,
            response_id INTEGER NOT NULL REFERENCES responses (id),
            PRIMARY KEY (item_id, position),
            UNIQUE (item_id, response_id)
        ) STRICT""",
        # Raters write by item and position: the path that they use never meets a model.
        """CREATE TABLE ratings (
            id INTEGER PRIMARY KEY,
            item_id INTEGER NOT NULL,
            position INTEGER NOT NULL,
            criterion TEXT NOT NULL DEFAULT 'overall',
            value REAL NOT NULL,
            created_at TEXT NOT NULL,
            updated_at TEXT NOT NULL,
            UNIQUE (item_id, position, criterion),
            FOREIGN KEY (item_id, position) REFERENCES item_responses (item_id, position)
        ) STRICT""",
    )
