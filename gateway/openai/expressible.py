"""Leaves out models that cannot hold a request's constraint, where another can: models of one pair may write calls in
different formats, over different vocabularies, and what one can express the other need not."""

import asyncio
from dataclasses import replace

from engine.client import EngineClient
from gateway.openai.job import Job
from gateway.routing.eligibility import Eligibility, Ineligible
from grammars.errors import CompileTimeout, ConstraintRefused


async def expressible(job: Job, engine: EngineClient, *, compile_s: float) -> Job:
    """The job with those eligible models that its constraint can be compiled for; the engine keeps what it compiled.

    Nothing is asked where models share tokenizer, template and dialect: there a constraint suits all or none. Raises
    ApiError for a constraint that suits none (the most capable model's refusal), and what the engine raises.
    """
    aliases = job.eligibility.eligible
    if job.is_uniform or len(aliases) == 1 or job.asked.constraint is None:
        return job
    await engine.wait_until_up()
    found = await asyncio.gather(*(_refusal(job, engine, alias, compile_s) for alias in aliases))
    refusals = {alias: refusal for alias, refusal in zip(aliases, found, strict=True) if refusal is not None}
    if not refusals:
        return job
    if len(refusals) == len(aliases):
        refusal = refusals[aliases[-1]]  # the catalogue ends with the most capable
        raise job.asked.refusal(refusal) from refusal
    reason = Ineligible.TOOLS if job.asked.tools.callable else Ineligible.CONSTRAINT
    left = Eligibility(
        tuple(alias for alias in aliases if alias not in refusals),
        {**job.eligibility.reasons, **dict.fromkeys(refusals, reason)},
    )
    return replace(job, eligibility=left)


async def _refusal(job: Job, engine: EngineClient, alias: str, compile_s: float) -> ConstraintRefused | None:
    constraint = job.constraint(alias)
    if constraint is None:
        return None
    try:
        async with asyncio.timeout(compile_s):
            await engine.compile(alias, constraint)
    except ConstraintRefused as refusal:
        return refusal
    except CompileTimeout:
        raise
    except TimeoutError:
        raise CompileTimeout(f"more than {compile_s:g} seconds") from None
    return None
