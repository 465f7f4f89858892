"""The two ways a constraint ends without a matcher."""


class ConstraintRefused(ValueError):
    """No backend can enforce the constraint exactly, or it is malformed: an HTTP 400.

    keyword: the schema keyword (or `regex`, `grammar`, `choice`, `tools`) that is the cause; pointer: RFC 6901 JSON
    pointer of the node that holds it (`""` is the root); reason: one sentence that says what to change.
    """

    def __init__(self, keyword: str, pointer: str, reason: str) -> None:
        self.keyword, self.pointer, self.reason = keyword, pointer, reason
        super().__init__(f"{keyword} at {pointer or '(root)'}: {reason}")


class CompileTimeout(TimeoutError):
    """The wall clock ran out before the compiler was done: an HTTP 503, never remembered as a verdict."""


class MatcherFailed(RuntimeError):
    """A backend ran out of its limits in the middle of an answer: the request ends with an error, never unmasked."""
