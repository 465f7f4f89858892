"""What each `format` means, as regular expressions that a text must match, all of them and in full.

They are written to be no wider than the formats' own documents and than the validators in use: where validators
disagree (leap seconds, a lower-case `t`, hyphen pairs in host names) the form that all of them accept is the one that
is written. Some are narrower than their documents, as noted where they are built.
"""

from typing import Final

_YEAR = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_LEAP_YEAR = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"  # 0000 is no year
_DATE = (
    f"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    f"|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP_YEAR}-02-29)"
)
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_DURATION_TIME = "T(?:[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S)"
_DURATION_DATE = "(?:[0-9]+Y(?:[0-9]+M(?:[0-9]+D)?)?|[0-9]+M(?:[0-9]+D)?|[0-9]+D)"
_DURATION = f"P(?:{_DURATION_DATE}(?:{_DURATION_TIME})?|{_DURATION_TIME}|[0-9]+W)"

_ALNUM = "[A-Za-z0-9]"
_INNER = "[A-Za-z0-9-]"
_ATEXT = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"


def _label(most: int) -> str:
    """A host label of at most `most` characters. Hyphens at third and fourth place mark an A-label: left out."""
    return (
        f"(?:{_ALNUM}{_INNER}(?:{_ALNUM}{_INNER}|-{_ALNUM}){_INNER}{{0,{most - 5}}}{_ALNUM}"
        f"|{_ALNUM}{_INNER}{{2}}{_ALNUM}|{_ALNUM}{_INNER}{_ALNUM}|{_ALNUM}{{1,2}})"
    )


# A name has at most 253 characters, a mail address 254. Both are met by few labels of full length or more labels of
# shorter ones: one plain expression, which needs no intersection with a length.
_HOSTNAME = (
    rf"(?:{_label(63)}(?:\.{_label(63)}){{0,2}}|{_label(26)}(?:\.{_label(26)}){{3,8}}"
    rf"|{_label(10)}(?:\.{_label(10)}){{9,20}})"
)
_DOMAIN = rf"(?:{_label(62)}(?:\.{_label(62)}){{1,2}}|{_label(20)}(?:\.{_label(20)}){{3,8}})"
_EMAIL = rf"(?:{_ATEXT}{{1,64}}|{_ATEXT}(?:\.?{_ATEXT}){{1,31}})@{_DOMAIN}"

# RFC 5892, of its valid code points: small letters of Latin, Greek and Cyrillic, kana, Han and Hangul. They stand
# composed (NFC), need no context and run from left to right. In Punycode (RFC 3492) each takes at most five
# characters, so that eleven of them and `xn--` stay within the 63 of a label.
_LATIN = "āăąćĉċčďđēĕėęěĝğġģĥħĩīĭįıĵķĸĺļľłńņňŋōŏőœŕŗřśŝşšţťŧũūŭůűųŵŷźżž"
_U_ALNUM = rf"[0-9a-z\u00DF-\u00F6\u00F8-\u00FF{_LATIN}ά-ώа-џぁ-ゖァ-ヺー\u4E00-\u9FA5\uAC00-\uD7A3]"
_IDN_LABEL = f"(?:{_label(62)}|{_U_ALNUM}{{1,11}}|{_U_ALNUM}(?:-?{_U_ALNUM}){{1,5}})"
_IDN_HOSTNAME = rf"(?:{_HOSTNAME}|{_IDN_LABEL}(?:\.{_IDN_LABEL}){{0,3}})"
# RFC 6531 counts octets: at most 64 of them before the `@`, three for a code point of the basic plane.
_U_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u00A1-\u1FFF\u2030-\uD7FF\uF900-\uFDCF\uFDF0-\uFEFE\uFF00-\uFFEF-]"
_IDN_EMAIL = (
    rf"(?:{_EMAIL}|(?:{_ATEXT}{{1,64}}|{_U_ATEXT}{{1,21}}|{_U_ATEXT}(?:\.?{_U_ATEXT}){{1,15}})"
    rf"@{_IDN_LABEL}(?:\.{_IDN_LABEL}){{1,2}})"
)

_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
_H16 = "[0-9A-Fa-f]{1,4}"
_LS32 = f"(?:{_H16}:{_H16}|{_IPV4})"
_IPV6 = "(?:" + "|".join([
    f"(?:{_H16}:){{6}}{_LS32}",
    f"::(?:{_H16}:){{5}}{_LS32}",
    f"(?:{_H16})?::(?:{_H16}:){{4}}{_LS32}",
    f"(?:(?:{_H16}:){{0,1}}{_H16})?::(?:{_H16}:){{3}}{_LS32}",
    f"(?:(?:{_H16}:){{0,2}}{_H16})?::(?:{_H16}:){{2}}{_LS32}",
    f"(?:(?:{_H16}:){{0,3}}{_H16})?::{_H16}:{_LS32}",
    f"(?:(?:{_H16}:){{0,4}}{_H16})?::{_LS32}",
    f"(?:(?:{_H16}:){{0,5}}{_H16})?::{_H16}",
    f"(?:(?:{_H16}:){{0,6}}{_H16})?::",
]) + ")"  # fmt: skip

_UNRESERVED = "[A-Za-z0-9._~!$&'()*+,;=-]"  # with the sub-delimiters of RFC 3986
_UCS = r"[A-Za-z0-9._~!$&'()*+,;=\u00A0-\uD7FF\uF900-\uFDCF\uFDF0-\uFFEF-]"  # RFC 3987, within the basic plane
_PERCENT = "%[0-9A-Fa-f]{2}"


def _reference(plain: str) -> tuple[str, str]:
    """(absolute, relative) references of RFC 3986 section 4, or of RFC 3987 by a wider alphabet `plain`."""
    pchar = f"(?:{plain}|{_PERCENT}|[:@])"
    segments = f"(?:/{pchar}*)*"
    host = rf"(?:\[{_IPV6}\]|(?:{plain}|{_PERCENT})*)"
    authority = f"//(?:(?:{plain}|{_PERCENT}|:)*@)?{host}(?::[0-9]{{0,5}})?"
    tail = rf"(?:\?(?:{pchar}|[/?])*)?(?:#(?:{pchar}|[/?])*)?"
    absolute = f"[A-Za-z][A-Za-z0-9+.-]*:(?:{authority}{segments}|/(?:{pchar}+{segments})?|{pchar}+{segments}|){tail}"
    no_colon = f"(?:{plain}|{_PERCENT}|@)+"
    relative = f"(?:{authority}{segments}|/(?:{pchar}+{segments})?|{no_colon}{segments}|){tail}"
    return absolute, relative


_URI, _URI_RELATIVE = _reference(_UNRESERVED)
_IRI, _IRI_RELATIVE = _reference(_UCS)
_VARIABLE = r"(?:[A-Za-z0-9_]|%[0-9A-Fa-f]{2})+(?:\.(?:[A-Za-z0-9_]|%[0-9A-Fa-f]{2})+)*(?::[1-9][0-9]{0,3}|\*)?"
_URI_TEMPLATE = rf"(?:[!#$&()*+,\-./0-9:;=?@A-Z\[\]_a-z~]|{_PERCENT}|\{{[+#./;?&]?{_VARIABLE}(?:,{_VARIABLE})*\}})*"
_POINTER_STEPS = "(?:/(?:[^~/]|~[01])*)*"


def _ordered_pairs(digits: str, between: str) -> str:
    """Two of `digits`, the first no greater than the second, with `between` between them."""
    return "|".join(f"{low}{between}[{low}-{digits[-1]}]" for low in digits)


def _expression(depth: int) -> str:
    """Regular expressions that ECMA-262, Rust and Python all read, with groups at most `depth` deep.

    Narrower than ECMA-262: no look-around, references, names of groups or Unicode properties, ranges of letters and
    digits alone, counts below 100, and only `*`, `+` and `?` after a group.
    """
    bare = r"[^\x00-\x1F\x7F-\xA0\u2028\u2029\\^$.*+?()\[\]{}|]"
    code = r"x[0-9A-Fa-f]{2}|u(?:[0-9A-CE-Fa-ce-f][0-9A-Fa-f]{3}|[Dd][0-7][0-9A-Fa-f]{2})"
    escape = rf"\\(?:[dDwWsStnrfv^$.*+?()\[\]{{}}|/\\]|{code})"
    letters = "abcdefghijklmnopqrstuvwxyz"
    ranges = "|".join(_ordered_pairs(row, r"\-") for row in ("0123456789", letters, letters.upper()))
    member = rf"[^\x00-\x1F\x7F-\xA0\u2028\u2029\\\[\]^|&~-]|{escape}|{ranges}"
    atom = rf"(?:{bare}|{escape}|\.|\[\^?(?:{member})+-?\])"
    number = "(?:[0-9]|[1-9][0-9])"
    counts = rf"\{{(?:{number},?|[0-9],[1-9][0-9]|{_ordered_pairs('0123456789', ',')})\}}"
    terms = rf"{atom}(?:(?:[*+?]|{counts})\??)?|\\[bB]"
    if depth:
        terms += rf"|\((?:\?:)?{_expression(depth - 1)}\)(?:[*+?]\??)?"
    return rf"\^?(?:{terms}|\$?\|\^?)*\$?"


ENFORCED: Final[dict[str, tuple[str, ...]]] = {
    "date": (_DATE,),
    "time": (_TIME,),
    "date-time": (f"{_DATE}T{_TIME}",),
    "duration": (_DURATION,),
    "email": (_EMAIL,),
    "idn-email": (_IDN_EMAIL,),
    "hostname": (_HOSTNAME,),
    "idn-hostname": (_IDN_HOSTNAME,),
    "ipv4": (_IPV4,),
    "ipv6": (_IPV6,),
    "uuid": ("[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}",),
    "uri": (_URI,),
    "uri-reference": (f"(?:{_URI}|{_URI_RELATIVE})",),
    "iri": (_IRI,),
    "iri-reference": (f"(?:{_IRI}|{_IRI_RELATIVE})",),
    "uri-template": (_URI_TEMPLATE,),
    "json-pointer": (_POINTER_STEPS,),
    "relative-json-pointer": (f"(?:0|[1-9][0-9]*)(?:#|{_POINTER_STEPS})",),
    "regex": (_expression(3),),
}
"""All formats of the standard: name to the expressions (ECMA-262, read as anchored) that a text must all match."""
