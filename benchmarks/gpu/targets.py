"""What the figures are to reach."""

from dataclasses import dataclass

from benchmarks.gpu.figures import Figure, Report

__all__ = ["TARGETS", "Target", "Verdict", "verdicts"]


@dataclass(frozen=True, slots=True)
class Target:
    """section, figure: which figures, by the beginning of the name. of: which number beside it, None for its own. One
    of at_least and at_most is set."""

    what: str
    section: str
    figure: str
    of: str | None
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The worst of a target's figures. distance: what it lacks, as a share of the target; 0 or less where it is met."""

    target: Target
    figure: str
    value: float
    distance: float

    def __str__(self) -> str:
        bound = self.target.at_least if self.target.at_least is not None else self.target.at_most
        sign = ">=" if self.target.at_least is not None else "<="
        outcome = "met" if self.distance <= 0 else f"{100 * self.distance:.1f} % short"
        return f"{self.target.what}: {self.value:.3f} {sign} {bound} ({self.figure}): {outcome}"


_LLAMA = "decode-llama-8b-bf16"
TARGETS = (
    Target("8B at batch 1, share of the copy bandwidth", _LLAMA, "batch 1", "of_copy", at_least=0.80),
    Target("decode attention, share of it", "attention-decode", "32 x 4096", "of_copy", at_least=0.85),
    Target("prefill attention, over torch's FlashAttention", "attention-prefill", "", "over_torch", at_least=0.70),
    Target("GPU busy, 8B at batch 32", _LLAMA, "GPU busy", None, at_least=0.97),
    Target("masked over unmasked, 8B at batch 32", _LLAMA, "masked", "over_unmasked", at_least=0.95),
    Target("ITL at context 2000 over 200", _LLAMA, "ITL, context 2000", "over_short", at_most=1.03),
)


def verdicts(report: Report) -> list[Verdict]:
    """Of the targets whose figures are there."""
    found = []
    for target in TARGETS:
        section = report.sections.get(target.section)
        figures = [] if section is None else [f for f in section.figures if _is_meant(target, f)]
        judged = [_judge(target, figure) for figure in figures]
        if judged:
            found.append(max(judged, key=lambda verdict: verdict.distance))
    return found


def _is_meant(target: Target, figure: Figure) -> bool:
    is_named = figure.name == target.figure or not target.figure or figure.name.startswith(f"{target.figure} ")
    return (is_named or figure.name.startswith(f"{target.figure},")) and (
        target.of is None or target.of in figure.beside
    )


def _judge(target: Target, figure: Figure) -> Verdict:
    value = figure.value.median if target.of is None else figure.beside[target.of]
    if target.at_least is not None:
        return Verdict(target, figure.name, value, 1.0 - value / target.at_least)
    assert target.at_most is not None
    return Verdict(target, figure.name, value, value / target.at_most - 1.0)
