import numpy as np

from gateway.routing.decision import Decision
from router_model.cheap import NAMES
from router_model.features import Features, Kind


def test_a_decision_keeps_what_was_read_and_packs_it_for_its_row() -> None:
    read = Features(Kind.EMBEDDING, np.ones(len(NAMES), np.float32), embedding=np.ones(4, np.float32))
    decision = Decision(model="small", reason="score_below_threshold", policy="x", eligible=("small",), read=read)
    assert decision.features == read.pack()
    assert Decision(model="small", reason="explicit", policy="x", eligible=("small",)).features is None
