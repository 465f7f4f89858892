"""From the bytes of a body to a ChatRequest: nesting, JSON, types, and what becomes of unknown names."""

import re
from dataclasses import dataclass

import msgspec

from gateway.openai.errors import ApiError, bad_request, unsupported
from gateway.openai.nesting import json_depth
from gateway.openai.schemas import ChatRequest

KNOWN = frozenset(ChatRequest.__struct_fields__)

# Names that would change the answer if they were obeyed, and are not: each says what to use instead.
REFUSED = {
    "functions": "it was replaced; send the functions as `tools`.",
    "function_call": "it was replaced; send `tool_choice`.",
    "audio": "Pointsman answers in text; leave it out.",
    "web_search_options": "Pointsman does not search the web; leave it out.",
    "moderation": "Pointsman does not moderate; leave it out.",
    "chat_template": "templates come with the checkpoint only; leave it out.",
    "chat_template_kwargs": "no template variable is open to requests; leave it out.",
    "best_of": "use `n` and choose among the answers.",
    "echo": "chat answers never repeat the prompt; leave it out.",
    "suffix": "it belongs to completions; leave it out.",
    "bad_words": "use `logit_bias`, or a `structured_outputs` constraint.",
    "allowed_token_ids": "use `structured_outputs.choice` or `structured_outputs.regex`.",
    "logits_processors": "no code is taken from requests; leave it out.",
    "prompt_logprobs": "only generated tokens have logprobs: use `logprobs`.",
    "use_beam_search": "answers are sampled; leave it out.",
    "length_penalty": "answers are sampled, not searched; leave it out.",
    "continue_final_message": "the answer is always a new turn; leave it out.",
    "add_generation_prompt": "the answer is always a new turn; leave it out.",
    "truncate_prompt_tokens": "prompts are never cut; shorten the messages.",
    "return_token_ids": "token ids are not returned; use `logprobs`.",
    "include_reasoning": "the models served have no separate reasoning; leave it out.",
    "thinking": "the models served have no separate reasoning; leave it out.",
}
_CONSTRAINT_LIKE = re.compile(
    r"guided|gramm|schema|regex|constrain|structur|choice|json|ebnf|lark|(?:^|_)format|pattern|bad_words|allowed|"
    r"forbid|tool|function|logit",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Reading:
    """A parsed body. ignored: unknown names, in the body's order; deprecated: the old aliases that were used."""

    request: ChatRequest
    ignored: tuple[str, ...]
    deprecated: tuple[str, ...]


def read_chat(body: bytes, *, max_depth: int = 128, strict_params: bool = False) -> Reading:
    """Parse the body of a chat request.

    Raises ApiError 400 for anything that is not a well-formed, well-typed request, and for unknown names that may
    constrain the answer. Other unknown names are listed in `ignored`; under `strict_params` they are errors, too.
    """
    if json_depth(body) > max_depth:
        raise bad_request(f"The body nests deeper than {max_depth} levels; flatten it.", code="json_too_deep")
    try:
        members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        ignored = tuple(_unknown(members, strict_params))
        request = msgspec.json.decode(body, type=ChatRequest)
    except msgspec.ValidationError as exc:
        raise _type_error(str(exc)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise bad_request(f"The body is not valid JSON: {exc}", code="invalid_json") from exc
    if request.modalities is not None and request.modalities != ["text"]:
        raise unsupported("modalities", 'Pointsman answers in text; use ["text"] or leave it out.')
    deprecated = tuple(name for name in members if name.startswith("guided_") and name in KNOWN)
    return Reading(request, ignored, deprecated)


def _unknown(members: dict[str, msgspec.Raw], strict_params: bool) -> list[str]:
    """The names to list as ignored; raises for those that must not be."""
    ignored = []
    for name, raw in members.items():
        if name in KNOWN or bytes(raw) == b"null":
            continue
        if name in REFUSED:
            raise unsupported(name, REFUSED[name])
        if _CONSTRAINT_LIKE.search(name):
            raise unsupported(name, "it looks like a constraint on the answer, and Pointsman drops none silently.")
        if strict_params:
            raise unsupported(name[:64], "this server is set to refuse names that it does not know.")
        ignored.append(name)
    return ignored


def _type_error(text: str) -> ApiError:
    """msgspec's ``Expected `int`, got `str` - at `$.max_tokens` `` with the path as OpenAI's `param`."""
    message, _, where = text.partition(" - at ")
    path = re.search(r"\$\.?([^`]*)", where)
    param = path[1].replace("[...]", "") if path else ""
    code = "missing_required_parameter" if "missing required field" in message else "invalid_type"
    place = f" at '{param}'" if param else ""
    return bad_request(f"Invalid request{place}: {message.replace('`', chr(39))}.", param or None, code)
