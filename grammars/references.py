"""Where the references of a schema document lead: identifiers, anchors and base URIs, all within the document."""

from typing import Any, Final
from urllib.parse import unquote, urldefrag, urljoin

from grammars.draft import Draft
from grammars.errors import ConstraintRefused
from grammars.pointer import child

KEYWORDS: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_DATA: Final = frozenset({"enum", "const", "default", "examples", "example"})
_ROOT: Final = "urn:pointsman:schema"  # the base of a document that names none


class References:
    """The addressable places of one document. Pointers here are relative to the document."""

    def __init__(self, document: Any, draft: Draft | None) -> None:
        self.resources: dict[str, str] = {_ROOT: ""}  # absolute URI -> pointer
        self.bases: dict[str, str] = {"": _ROOT}  # pointer -> absolute URI that begins there
        self.anchors: dict[tuple[str, str], str] = {}  # (absolute URI, name) -> pointer
        self.dynamic: dict[str, int] = {}  # name -> how many places bear it
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
                self.dynamic[node["$dynamicAnchor"]] = self.dynamic.get(node["$dynamicAnchor"], 0) + 1
            if node.get("$recursiveAnchor") is True:
                self.dynamic["#"] = self.dynamic.get("#", 0) + 1
            stack.extend((member, child(pointer, name), base) for name, member in node.items() if name not in _DATA)

    def locate(self, keyword: str, target: Any, pointer: str, at: str) -> str:
        """The pointer that `target`, the value of `keyword` at document pointer `pointer`, leads to.

        at: the same place as the client knows it. Raises ConstraintRefused for what is malformed, leaves the document,
        names an unknown anchor, or is decided only at run time.
        """
        if not isinstance(target, str):
            raise ConstraintRefused(keyword, at, "must be a text: a reference such as `#/$defs/name`")
        base = self.bases[max((p for p in self.bases if pointer == p or pointer.startswith(p + "/")), key=len)]
        full, fragment = urldefrag(target)
        uri = base if not full else urljoin(base if base != _ROOT else "", full)
        fragment = unquote(fragment)
        if uri not in self.resources:
            raise ConstraintRefused(
                keyword, at, f"`{target}` lies outside this schema: copy what it names into `$defs` and point there"
            )
        name = "#" if keyword == "$recursiveRef" else fragment
        if keyword != "$ref" and self.dynamic.get(name, 0) > 1:
            raise ConstraintRefused(keyword, at, f"`{target}` is decided at run time: use $ref instead")
        if not fragment or fragment.startswith("/"):
            return self.resources[uri] + fragment
        if (uri, fragment) not in self.anchors:
            raise ConstraintRefused(keyword, at, f"`{target}` names no anchor of this schema: define it, or correct it")
        return self.anchors[uri, fragment]
