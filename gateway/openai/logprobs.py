"""The engine's log-probabilities in OpenAI's shape: token texts beside ids' bytes."""

from collections.abc import Sequence

from engine.request import TokenLogprob
from engine.tokenizer import Tokenizer
from gateway.openai.responses import LogprobsOut, TokenLogprobOut, TopLogprobOut

# What JSON has no number for: a token that the constraint's mask excludes. OpenAI also writes this value for "never".
_NEVER = -9999.0


def logprobs_out(logprobs: Sequence[TokenLogprob], tokenizer: Tokenizer) -> LogprobsOut:
    """`choices[].logprobs` for these tokens."""
    return LogprobsOut(
        [
            TokenLogprobOut(
                token=_text(entry.token_id, tokenizer),
                logprob=max(entry.logprob, _NEVER),
                bytes=list(tokenizer.token_bytes(entry.token_id)),
                top_logprobs=[
                    TopLogprobOut(_text(token, tokenizer), max(logprob, _NEVER), list(tokenizer.token_bytes(token)))
                    for token, logprob in entry.top
                ],
            )
            for entry in logprobs
        ]
    )


def _text(token_id: int, tokenizer: Tokenizer) -> str:
    """A token's text; a part of a character shows as U+FFFD, its `bytes` say which part."""
    return tokenizer.decode([token_id])
