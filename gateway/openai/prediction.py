"""A request's `prediction`: an answer that the client expects, of which the model verifies what it would have said.

It decides how fast an answer comes and never what it says, so nothing is refused beside it: with several choices,
logprobs, penalties, tools and constraints it holds as without.
"""

from collections.abc import Sequence

from gateway.openai.errors import bad_request, unsupported
from gateway.openai.prompt import Prompter
from gateway.openai.schemas import Prediction
from gateway.routing.catalogue import ServedModel

_PARAM = "prediction"


def prediction_text(given: Prediction) -> str:
    """The expected content; parts follow one another without anything between them.

    Raises ApiError 400 for a type other than `content`, and for parts that are no texts.
    """
    if given.type != "content":
        raise bad_request(f"'{_PARAM}.type' is '{given.type[:64]}'; use 'content'.", f"{_PARAM}.type")
    if isinstance(given.content, str):
        return given.content
    texts = []
    for i, part in enumerate(given.content):
        param = f"{_PARAM}.content[{i}]"
        if part.type != "text":
            raise unsupported(param, f"parts of type '{part.type[:64]}' are not served; send text parts.")
        if part.text is None:
            raise bad_request(f"'{param}' has no text.", param)
        texts.append(part.text)
    return "".join(texts)


def prediction_tokens(text: str, prompter: Prompter) -> list[int]:
    """The text as an answer of the prompter's model would have it. Raises ApiError 400 where it cannot be encoded."""
    try:
        return prompter.answer_tokens(text)
    except ValueError as exc:
        message = f"'{_PARAM}' uses every private-use character of Unicode; leave one of them out."
        raise bad_request(message, _PARAM) from exc


def answered_before(text: str, ids: Sequence[int] | None, answered: Prompter, asked: Prompter) -> list[int]:
    """What one model answered as the prediction of what another will, in the other's tokens and without an end.

    ids: the answer's tokens where they mean the same to both models, else None. Nothing where the text cannot be
    encoded: a prediction only makes an answer quicker.
    """
    if ids is not None:
        has_end = bool(ids) and ids[-1] == answered.tokenizer.eos_token_id
        return list(ids[:-1] if has_end else ids)
    try:
        return asked.answer_tokens(text)
    except ValueError:
        return []


def check_prediction(n_tokens: int, model: ServedModel) -> None:
    """Raise ApiError 400 for a prediction of more tokens than the model's window has: no answer is as long."""
    window = model.info.max_model_len
    if n_tokens > window:
        raise bad_request(
            f"'{_PARAM}' has {n_tokens} tokens, the window of '{model.id}' {window}; shorten it or leave it out.",
            _PARAM,
        )
