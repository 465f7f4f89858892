"""The figures of a run as text."""

from benchmarks.bfcl.ast_rules import Mistake
from benchmarks.bfcl.tally import Tally


def report(tally: Tally) -> str:
    """Accuracy, mistakes, times and tokens."""
    figures = tally.as_json()
    lines = ["right, with 95 % intervals"]
    lines += [f"  {name:20}{share}" for name, share in tally.by_category.items()]
    lines += [f"  {'mean of categories':20}{100 * tally.of_categories:5.1f} %"]
    lines += [f"  {'all rows':20}{tally.of_rows}"]
    lines += ["by number of tools", *(f"  {count:<20}{share}" for count, share in tally.by_tools.items())]
    lines += ["mistakes", *_mistakes(tally)]
    times = figures["latency_ms"]
    if times:
        lines.append(f"latency p50 {times['p50']:.0f} ms, p95 {times['p95']:.0f} ms")
    lines.append(f"tokens {figures['prompt_tokens']} in prompts, {figures['completion_tokens']} in answers")
    lines.append(
        f"{figures['cut_answers']} answers cut at the limit, {figures['retries']} retries, "
        f"{figures['unanswered']} rows without an answer (counted as wrong)"
    )
    if failed := [each.reply.failure.text for each in tally.judged if each.reply.failure]:
        lines.append(f"the first of those without an answer: {failed[0][:300]}")
    if tally.half_calls:
        lines.append(f"{tally.half_calls} rows of irrelevance are right only because the call was unreadable")
    return "\n".join(lines)


def _mistakes(tally: Tally) -> list[str]:
    """One line per mistake, one column per category."""
    columns = tally.mistakes
    widths = {name: max(5, len(name)) for name in columns}
    lines = [f"  {'':22}" + "".join(f"{name:>{width + 2}}" for name, width in widths.items())]
    for mistake in Mistake:
        if any(counts[mistake] for counts in columns.values()):
            cells = "".join(f"{columns[name][mistake] or '-':>{width + 2}}" for name, width in widths.items())
            lines.append(f"  {mistake.value:22}{cells}")
    return lines if len(lines) > 1 else ["  none"]
