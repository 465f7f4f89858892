"""How much of a mark a text ends in: what a stream holds back until it is known whether the mark follows."""


def n_begun(text: str, mark: str) -> int:
    """How many of the last characters of `text` are a beginning of `mark`, the whole of it not counted."""
    most = min(len(text), len(mark) - 1)
    return next((n for n in range(most, 0, -1) if mark.startswith(text[-n:])), 0)
