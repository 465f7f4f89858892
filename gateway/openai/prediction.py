"""A request's `prediction`: an answer that the client expects, of which the model verifies what it would have said.

It decides how fast an answer comes and never what it says, so nothing is refused beside it: with several choices,
logprobs, penalties, tools and constraints it holds as without.
"""

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


def check_prediction(n_tokens: int, model: ServedModel) -> None:
    """Raise ApiError 400 for a prediction of more tokens than the model's window has: no answer is as long."""
    window = model.info.max_model_len
    if n_tokens > window:
        raise bad_request(
            f"'{_PARAM}' has {n_tokens} tokens, the window of '{model.id}' {window}; shorten it or leave it out.",
            _PARAM,
        )
