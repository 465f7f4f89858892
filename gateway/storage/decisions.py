"""Whose a decision is, who answered, and what was expected of it: what must be known before anything is said of one."""

import uuid
from collections.abc import Iterable

import msgspec
from sqlalchemy import select

from gateway.storage.database import Database
from gateway.storage.models import DecisionRow


class Served(msgspec.Struct, frozen=True):
    """key_id: of the request, None for an anonymous one. model: alias of the model that answered, None for none.

    artefact_hash: of the router that decided, None for a rule. escalated, p_*: as in the decision's row.
    """

    key_id: uuid.UUID | None
    model: str | None
    artefact_hash: str | None = None
    escalated: bool = False
    p_small: float | None = None
    p_large: float | None = None
    p_right: float | None = None

    def predicted(self, model: str) -> float | None:
        """How likely that model's answer was held to be good, 0 to 1; None where its grade can say nothing of it.

        Of a small answer that was judged before it was sent, it is the judgement: those that were sent are better than
        the request alone would tell. Where the small one was discarded, the large one's answer to a request that had
        proved hard is no sample of what was predicted, and neither is one that the client got elsewhere.
        """
        if model != self.model or self.escalated:
            return None
        if model == "small":
            return self.p_small if self.p_right is None else self.p_right
        return self.p_large


class SqlDecisions:
    """The `decisions` table, as far as it tells who was served."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, Served]:
        """Those of the decisions that are in the table. Raises StorageUnavailable."""
        columns = (
            DecisionRow.id,
            DecisionRow.key_id,
            DecisionRow.model_served,
            DecisionRow.artefact_hash,
            DecisionRow.escalated,
            DecisionRow.p_small,
            DecisionRow.p_large,
            DecisionRow.p_right,
        )
        async with self._database.read() as connection:
            rows = await connection.execute(select(*columns).where(DecisionRow.id.in_(list(ids))))
            return {row.id: Served(*row[1:]) for row in rows}
