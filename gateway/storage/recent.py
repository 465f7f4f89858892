"""The last decisions in memory: their rows are written behind, and clients may speak of one before it has arrived."""

import uuid
from collections import OrderedDict

from gateway.storage.decisions import Served
from gateway.storage.protocols import Recorder
from gateway.storage.records import DecisionRecord, Record


class RecentDecisions(Recorder):
    """A recorder that remembers who was served by the last decisions that went through it."""

    def __init__(self, recorder: Recorder, *, limit: int = 20_000) -> None:
        """limit: decisions that are remembered, about 300 bytes each."""
        self._recorder, self._limit = recorder, limit
        self._served: OrderedDict[uuid.UUID, Served] = OrderedDict()

    def put(self, record: Record) -> None:
        """Take a record; see `Recorder`."""
        if isinstance(record, DecisionRecord):
            self._served[record.id] = Served(
                record.key_id,
                record.model_served,
                record.artefact_hash,
                record.escalated,
                record.p_small,
                record.p_large,
                record.p_right,
            )
            if len(self._served) > self._limit:
                self._served.popitem(last=False)
        self._recorder.put(record)

    def find(self, decision_id: uuid.UUID) -> Served | None:
        """Who was served by a decision; None for one that is unknown here, or forgotten."""
        return self._served.get(decision_id)
