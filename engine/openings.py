"""First tokens of answers, drawn with the prefill that they would go on from, while somebody decides whether they do.

    prepare   prefill, draw ──► Prepared(first)                    the caller decides
    submit    (continues)                     ──► the second token, in an ordinary step

So an answer that goes on from a held prefill begins as early as one whose prompt was submitted.
"""

import torch

from engine.generation import Generation
from engine.messages import Delta
from engine.sampler import Sampler

__all__ = ["Openings"]


class Openings:
    """The answers of one model that are begun and that nobody has asked for yet, by request id. They have no
    constraint, and their requests do not know of their tokens."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._generations: dict[str, Generation] = {}

    def __len__(self) -> int:
        return len(self._generations)

    def add(self, generation: Generation) -> None:
        """Let this one's first token be drawn once its prompt is computed."""
        self._generations[generation.request.id] = generation

    def draw(self, request_id: str, logits: torch.Tensor) -> Delta | None:
        """The first token of a request's answer, None where none was to be begun. logits: float32 [vocab], of the
        prompt's last token. It is the token that would be drawn from them later: noise depends on seed and position."""
        generation = self._generations.get(request_id)
        if generation is None:
            return None
        row = generation.sampling_row((), None)
        [sampled] = self._sampler.prepare([row]).draw(logits[None].clone()).read()  # drawing may change logits
        generation.accept(sampled.token_id, sampled.logprob)
        return generation.take_delta()

    def take(self, request_id: str) -> Generation | None:
        """The answer, to be continued."""
        return self._generations.pop(request_id, None)

    def drop(self, request_id: str) -> None:
        """Forget that an answer was begun: it is not, or it is begun otherwise."""
        generation = self._generations.pop(request_id, None)
        if generation is not None:
            timeline = generation.request.timeline
            timeline.token_times_s, timeline.first_token_s = [], 0.0
