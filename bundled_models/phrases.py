"""Fixed sentences of the generator: politeness, joiners, system texts, small talk; each split has its own."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bundled_models.catalogue import Split

CONTEXTS = Path(__file__).with_name("contexts.json")

NONE = "None of the offered tools fits this request."
PURPOSE = "I turn requests into function calls and text into JSON: offer me tools or a schema."
HELLO = "Hello! I turn requests into function calls and text into JSON."
WHO = "I am a small Pointsman model for function calls and JSON extraction."
CAN = "I write function calls for the tools you offer and JSON for your schema."
THANKS = "You are welcome."
BYE = "Goodbye."
DONE = "Done."


@dataclass(frozen=True, slots=True)
class Phrases:
    """The fixed sentences of one split. `chat` pairs what people say with the answer."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    joiners: tuple[str, ...]
    systems: tuple[str, ...]
    instructions: tuple[str, ...]
    extract: tuple[str, ...]
    questions: tuple[str, ...]
    chat: tuple[tuple[str, str], ...]


def _chat(hello: str, who: str, can: str, thanks: str, bye: str) -> tuple[tuple[str, str], ...]:
    kinds = ((hello, HELLO), (who, WHO), (can, CAN), (thanks, THANKS), (bye, BYE))
    return tuple((said, answer) for text, answer in kinds for said in text.split("/"))


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.strip().splitlines())


TRAIN = Phrases(
    before=("please ", "hey, ", "could you ", "can you ", "hi, ", "I need you to ", "would you ", "ok, ", "hello, "),
    after=(" please", ", thanks", ", thank you", " now", " if you can", ", please"),
    joiners=(
        " and then ",
        ", and then ",
        " and also ",
        ", also ",
        ". ",
        ". ",
        ". Also ",
        ". Then ",
        "; ",
        " and ",
        ", then ",
    ),
    systems=_lines("""
        You are a helpful assistant.
        You are a helpful assistant that can call functions.
        You are an assistant with access to tools.
        Use the tools when they fit the request.
        Answer with function calls.
        You help people at work.
        Be brief.
        Be precise and only use what the user says.
        Call the right function for the user.
        You are a voice assistant for a home.
        You are an agent.
        Today is Monday.
        Only call the functions that were offered.
        You are a friendly helper.
        Never make up values.
        You work for a small company.
    """),
    instructions=_lines("""
        Extract the {noun}.
        Extract the {noun} from the text.
        Return the {noun} as JSON.
        Read the text and fill in the schema.
        You extract structured data.
        Find the fields in the message.
        Write JSON that matches the schema.
        Parse the {noun}.
    """),
    extract=("Extract: ", "Text: ", "Read this: ", "Extract the data: ", "Turn this into JSON: ", "Here is the text: "),
    questions=_lines("""
        what is the capital of France
        tell me a joke
        how old is the universe
        write a poem about the sea
        who won the world cup
        why is the sky blue
        what is two plus two
        tell me a story
        explain gravity to me
        who wrote Hamlet
        how do planes fly
        what do you think about politics
        give me some advice
        sing me a lullaby
        what is the meaning of life
        how many legs does a spider have
    """),
    chat=_chat(
        "hello/hi/hey/good morning/hi there/hello there/good evening/hey there/hello, how are you/hi, how are you",
        "who are you/what are you/what is your name/tell me about yourself/who am I talking to/which model are you",
        "what can you do/how can you help me/what are you for/what can I ask you/help/what do you do/how do you work",
        "thanks/thank you/thank you very much/great, thanks/thanks a lot/many thanks/perfect, thank you",
        "bye/goodbye/see you/good night/see you later/talk to you later",
    ),
)
ROUTER = Phrases(
    before=("kindly ", "I want you to ", "hey there, ", "please could you "),
    after=(" asap", ", that would be great", " right away"),
    joiners=(", and also ", ". And ", " and after that ", "; then "),
    systems=(
        "You are a useful assistant.",
        "Use a function if one fits.",
        "You are a polite helper.",
        "Help the user.",
    ),
    instructions=("Get the {noun} from this text.", "Extract the {noun} as JSON.", "Fill in the {noun}."),
    extract=("Extract from this: ", "The text: ", "Read: "),
    questions=("what is the capital of Spain", "tell me a riddle", "how do boats float", "who painted the Mona Lisa"),
    chat=_chat(
        "hello you/good day", "what is your model/who is this", "what can you help with", "thanks so much", "bye now"
    ),
)
HELD = Phrases(
    before=("could you please ", "hi there, ", "I'd like you to ", "okay, ", "would you please "),
    after=(", many thanks", " for me please", " thanks", ", would you"),
    joiners=(", after that ", " and next ", ". After that ", "; also ", ". And then ", ". Next, "),
    systems=_lines("""
        You are a helpful AI assistant.
        You can call tools for the user.
        You are a careful assistant.
        Pick the right function and its arguments.
    """),
    instructions=("Extract the {noun} in this message.", "Read the message and write the {noun} as JSON."),
    extract=("Extract this: ", "Message: ", "Turn the text into JSON: "),
    questions=_lines("""
        what is the capital of Italy
        tell me a funny joke
        why do birds fly
        who wrote Macbeth
        how many legs does an ant have
        write me a song about the moon
    """),
    chat=_chat(
        "good afternoon/hello hello/hey you",
        "what is your name please/what model are you/tell me who you are",
        "what can you do for me/how can you help",
        "thank you so much/ok thanks",
        "good bye/see you soon",
    ),
)


@cache
def contexts(split: Split) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Remarks around a request that ask for nothing, (before, after): four in six for training, one for each other."""
    data = json.loads(CONTEXTS.read_text(encoding="utf-8"))
    places = {"train": (0, 1, 2, 3), "router": (4,), "held": (5,)}[split]
    before, after = (tuple(t for i, t in enumerate(data[k]) if i % 6 in places) for k in ("before", "after"))
    return before, after


def of(split: Split) -> Phrases:
    """The sentences of a split."""
    return {"train": TRAIN, "router": ROUTER, "held": HELD}[split]
