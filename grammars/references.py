"""Where the references of a schema document lead: identifiers, anchors and base URIs, all within the document."""

from typing import Any, Final
from urllib.parse import unquote, urldefrag, urljoin

from grammars.draft import Draft
from grammars.errors import ConstraintRefused
from grammars.pointer import child

KEYWORDS: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_DATA: Final = frozenset({"enum", "const", "default", "examples", "example"})
Scope = tuple[str, ...]
"""URIs of the resources that a reader has entered, each once, outermost first."""

_ROOT: Final = "urn:pointsman:schema"  # the base of a document that names none


class References:
    """The addressable places of one document. Pointers here are relative to the document."""

    def __init__(self, document: Any, draft: Draft | None) -> None:
        self.resources: dict[str, str] = {_ROOT: ""}  # absolute URI -> pointer
        self.bases: dict[str, str] = {"": _ROOT}  # pointer -> absolute URI that begins there
        self.anchors: dict[tuple[str, str], str] = {}  # (absolute URI, name) -> pointer
        self.dynamic: dict[tuple[str, str], str] = {}  # (absolute URI, name) -> pointer of a dynamic anchor
        self._ids = ("id", "$id") if draft is None else ("id",) if draft is Draft.DRAFT4 else ("$id",)
        self._scan(document)

    def _scan(self, document: Any) -> None:
        stack: list[tuple[Any, str, str]] = [(document, "", _ROOT)]
        while stack:
            node, pointer, base = stack.pop()
            if isinstance(node, list):
                stack.extend((member, child(pointer, i), base) for i, member in enumerate(node))
            if not isinstance(node, dict):
                continue
            for keyword in self._ids:
                if isinstance(node.get(keyword), str):
                    full, fragment = urldefrag(urljoin(base if base != _ROOT else "", node[keyword]))
                    if full and not (fragment and node[keyword].startswith("#")):
                        base = full
                        self.resources.setdefault(base, pointer)
                        self.bases[pointer] = base
                    if fragment and not fragment.startswith("/"):
                        self.anchors.setdefault((base, fragment), pointer)
            for keyword in ("$anchor", "$dynamicAnchor"):
                if isinstance(node.get(keyword), str):
                    self.anchors.setdefault((base, node[keyword]), pointer)
            if isinstance(node.get("$dynamicAnchor"), str):
                self.dynamic.setdefault((base, node["$dynamicAnchor"]), pointer)
            if node.get("$recursiveAnchor") is True and self.bases.get(pointer) == base:
                self.dynamic[base, "#"] = pointer
            stack.extend((member, child(pointer, name), base) for name, member in node.items() if name not in _DATA)

    def base(self, pointer: str) -> str:
        """The URI of the resource that a place lies in."""
        return self.bases[max((p for p in self.bases if pointer == p or pointer.startswith(p + "/")), key=len)]

    def locate(self, keyword: str, target: Any, pointer: str, at: str, scope: Scope = ()) -> str:
        """The pointer that `target`, the value of `keyword` at document pointer `pointer`, leads to.

        at: the same place as the client knows it. scope: the resources that were entered on the way there, outermost
        first: `$dynamicRef` means the first of them with such an anchor. Raises ConstraintRefused for what is
        malformed, leaves the document, or names an unknown anchor.
        """
        if not isinstance(target, str):
            raise ConstraintRefused(keyword, at, "must be a text: a reference such as `#/$defs/name`")
        base = self.base(pointer)
        full, fragment = urldefrag(target)
        uri = base if not full else urljoin(base if base != _ROOT else "", full)
        fragment = unquote(fragment)
        if uri not in self.resources:
            raise ConstraintRefused(
                keyword, at, f"`{target}` lies outside this schema: copy what it names into `$defs` and point there"
            )
        name = "#" if keyword == "$recursiveRef" else fragment
        if keyword != "$ref" and (uri, name) in self.dynamic:
            return next(self.dynamic[entered, name] for entered in (*scope, uri) if (entered, name) in self.dynamic)
        if not fragment or fragment.startswith("/"):
            return self.resources[uri] + fragment
        if (uri, fragment) not in self.anchors:
            raise ConstraintRefused(keyword, at, f"`{target}` names no anchor of this schema: define it, or correct it")
        return self.anchors[uri, fragment]
