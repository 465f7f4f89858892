"""Speculative decoding against the same engine without it, and where the difference comes from.

    python -m benchmarks.speculation [--only NAME ...] [--runs 5] [--quick] [--always] [--json OUT]

    law            whether answers are the same, in invariant engines
    pair           the bundled pair on function calls and JSON extraction, greedy and at temperature 0.8
    edits          documents copied with edits, by a model whose weights copy
    free           text that nothing restricts, of the bundled large model and of a random one of a real shape
    structured     structured output against free text of the same length, both with drafts
    batches        1 to 32 answers at once, whether any of it is slower, and the work that was counted
    predictions    answers that somebody expected, right or a tenth wrong; the small model's answer on escalation
    proposers      each alone: acceptance, tokens per step, what drafting costs; chains and trees; `coupled` and `ratio`
    machinery      host µs per step beside the forward pass, where nothing that was drafted is of use

All engines of a comparison answer the same jobs by turns, in another order at each turn, and each ratio is of two that
answered the same job in the same turn: their seconds without speculation over those with it, so that more than 1 is
faster. Given are the median of the ratios and its 95 % interval, by bootstrap over pairs. Answers are compared token by
token. A pair whose answers differ counts in no ratio, is named, and makes the command exit with 1. Several answers at
once are the exception, since the engine without drafts rounds otherwise as well where a step holds more of them: there
such pairs are counted, times are taken per token, and `law` says whether drafts change anything. Everything was run
once before it counts. Prefix caches are on and cold: each turn is another tenant, so that no prompt is there already,
and the draft model has to compute the prompt, too. `whole` is an answer with its prompt, `decode` lasts from its first
token to its last. tokens/step are of the target's steps, the prompt's included. Drafts rest where they cost more than
they save, which depends on the machine and on what else it does; with --always they never do, so that counts are
repeatable and times say what drafting in vain costs.
"""
