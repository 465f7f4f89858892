"""The report as a page: safe to open in a browser, and in words where there are no numbers."""

from html.parser import HTMLParser
from xml.etree import ElementTree

import msgspec
import pytest

from gateway.reports import page as page_module
from gateway.reports.facts import Facts
from gateway.reports.page import render_page
from gateway.reports.router_report import router_report
from gateway.reports.svg import HEIGHT, WIDTH
from tests.gateway.report_worlds import IN_FORCE, NOW, fact, made, world


class Reader(HTMLParser):
    """Collects tags and attributes; fails on tags that do not match."""

    VOID = frozenset({"meta", "circle", "line", "path", "polyline", "polygon", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


EVIL = "<script>alert(1)</script>\"' onload=x &amp; </svg>"


def evil(one: Facts) -> Facts:
    return msgspec.structs.replace(one, route=EVIL, key=EVIL, reason=EVIL, target=EVIL)


@pytest.mark.parametrize(
    "rows",
    [[], [fact()], world(2_500, 10, with_pairs=True), world(2_500, 10)],
    ids=["none", "one", "pairs", "explored"],
)
def test_the_page_is_well_formed_and_fetches_and_runs_nothing(rows: list[Facts]) -> None:
    report = made([evil(row) for row in rows])
    page = render_page(report)
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    assert not reader.seen & {"script", "img", "link", "iframe", "object", "image", "use", "foreignobject", "a"}
    names = {name for name, _ in reader.attributes}
    assert not [name for name in names if name.startswith("on") or name in {"href", "src", "srcset", "xlink:href"}]
    assert "url(" not in page
    assert "@import" not in page
    if rows:
        assert EVIL in reader.text.replace("\n", ""), "what clients wrote is shown, as text"
    for part in page.split("<svg")[1:]:
        drawn = ElementTree.fromstring("<svg" + part.split("</svg>")[0] + "</svg>")  # noqa: S314
        for shape in drawn:
            xs = [float(shape.get(name, 0)) for name in ("cx", "x1", "x2", "x")]
            ys = [float(shape.get(name, 0)) for name in ("cy", "y1", "y2", "y")]
            points = [tuple(map(float, pair.split(","))) for pair in shape.get("points", "").split()]
            assert all(0 <= x <= WIDTH for x in [*xs, *(x for x, _ in points)]), "everything is inside the frame"
            assert all(0 <= y <= HEIGHT for y in [*ys, *(y for _, y in points)])


@pytest.mark.parametrize("amount", [0.0, 1234.5, -2.25, 0.0234, 5.382e-6, -5.1e-8])
def test_sums_are_written_without_exponents_to_three_digits(amount: float) -> None:
    text = page_module._usd(amount)
    assert "e" not in text
    assert float(text) == pytest.approx(amount, rel=0.005)


def test_a_refusal_takes_the_place_of_the_numbers_that_it_explains() -> None:
    report = router_report([fact(0)], IN_FORCE, since=None, until=NOW, scope="all keys")
    table = render_page(report).partition("Other policies")[2]
    assert '<td class="text" colspan="4">' in table


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("shift:", "requests are not like those"),
        ("shift:a<b", "of the route a&lt;b"),
        ("out_of_domain", "unlike the training data"),
        ("calibration_small", "the small model&#x27;s answers"),
    ],
)
def test_the_page_says_in_words_why_nothing_is_promised(reason: str, words: str) -> None:
    in_force = msgspec.structs.replace(IN_FORCE, drift=(reason,))
    page = render_page(router_report([], in_force, since=None, until=NOW, scope="all keys"))
    assert words in page
    assert reason not in page
