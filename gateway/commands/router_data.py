"""Where outcomes come from: files, or the log of a deployment."""

import tempfile
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gateway.commands.arguments import CommandError, settings_of
from gateway.secret import Secret
from gateway.settings import Settings

if TYPE_CHECKING:
    from router_model.features import Kind
    from router_model.outcomes import Outcome

OWN_LOG = "log:"

DATA_HELP = (
    "JSON lines, plain or .gz: what the models made of each prompt (the form is in router_model/outcomes.py); or "
    "`log:`, the decisions and outcomes in the configured database, or the URL of another one"
)


def is_log(source: str) -> bool:
    """Whether a source is the log in a database, and no file."""
    return source == OWN_LOG or "://" in source


@contextmanager
def outcome_files(parsed: Namespace, sources: Sequence[str]) -> Iterator[list[Path]]:
    """The sources as files, which are there until the block ends.

    Raises CommandError for a database that cannot be used, or one whose log has nothing to learn from.
    """
    with tempfile.TemporaryDirectory(prefix="pointsman-log-") as folder:
        files = []
        for i, source in enumerate(sources):
            if not is_log(source):
                files.append(Path(source))
                continue
            path = Path(folder) / str(i) / "log.jsonl"
            path.parent.mkdir()
            n_rows = write_log(settings_at(parsed, source), path).rows
            if not n_rows:
                raise CommandError(
                    "the log has no graded answers with features: serve requests with a router, and send outcomes"
                )
            files.append(path)
        yield files


def outcomes_of(parsed: Namespace, sources: Sequence[str], since: datetime | None, kind: "Kind") -> "list[Outcome]":
    """The outcomes of all sources, without decisions made before then; of a log those that a router of that kind can
    read. Says how many rows of files are left out.

    Raises CommandError for a database that cannot be used, OutcomeError for a file that cannot be read.
    """
    from gateway.commands.database import with_database
    from gateway.routing.own_log import read_log
    from router_model.outcomes import read_outcomes

    read = read_outcomes([source for source in sources if not is_log(source)])
    found = [one for one in read if not _is_before(one, since)]
    if len(found) < len(read):
        print(
            f"{len(read) - len(found)} of {len(read)} rows are left out: they were decided before both routers were "
            "made, so one of them may have been trained on them"
        )
    for source in sources:
        if is_log(source):
            log = with_database(settings_at(parsed, source), lambda database: read_log(database, since, kind=kind))
            found += [row.outcome() for row in log.rows]
    return found


def _is_before(outcome: "Outcome", since: datetime | None) -> bool:
    """Whether an outcome is of a decision made before then; a time without a zone is UTC."""
    at = outcome.decided_at
    if since is None or at is None:
        return False
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)) < since


def settings_at(parsed: Namespace, source: str) -> Settings:
    """The settings in force, with the database of the source."""
    settings = settings_of(parsed)
    return settings if source == OWN_LOG else msgspec.structs.replace(settings, database_url=Secret(source))


class Written(msgspec.Struct, frozen=True):
    """What was written of a log. pairs: rows with both models graded; ungraded: decisions that were left out."""

    rows: int
    pairs: int
    ungraded: int


def write_log(settings: Settings, out: Path, since: timedelta | None = None) -> Written:
    """Write the log of the configured database. since: only what is not older. Raises CommandError."""
    from gateway.commands.database import with_database
    from gateway.routing.own_log import OwnLog, export_log
    from gateway.storage.database import Database

    async def work(database: Database) -> OwnLog:
        begin = None if since is None else datetime.now(UTC) - since
        return await export_log(database, out, begin)

    try:
        found = with_database(settings, work)
    except OSError as error:
        raise CommandError(f"cannot write {out}: {error.strerror or error}") from error
    return Written(len(found.rows), found.pairs, found.ungraded)
