"""The smallest schema near a found one that still shows the same kind of finding."""

import random

import msgspec

from grammars import JsonSchema
from tests.grammars.fuzz.judge import Judge
from tests.grammars.fuzz.schemas import smaller


def shrink(judge: Judge, constraint: JsonSchema, kind: str, *, tries: int = 4, most: int = 2_000) -> JsonSchema:
    """Take parts away as long as one of `tries` judgements still finds `kind`; at most `most` judgements."""
    judged = 0
    while True:
        for schema in smaller(constraint.schema):
            if not isinstance(schema, dict):
                continue
            candidate = msgspec.structs.replace(constraint, schema=schema)
            judged += tries
            if judged > most:
                return constraint
            if any(_shows(judge, candidate, kind, seed) for seed in range(tries)):
                constraint = candidate
                break
        else:
            return constraint


def _shows(judge: Judge, constraint: JsonSchema, kind: str, seed: int) -> bool:
    return any(finding.kind == kind for finding in judge.judge(constraint, random.Random(seed)).findings)
