"""Licences by rules: what expressions, fields, classifiers and the phrases of licence files mean."""

import re

from audit.answers import Licence, Sheet

PHRASES: list[tuple[str, str, str]] = [  # the licence, what its text must say, what it must not
    ("MPL-2.0", r"mozilla public license,? (version|v\.) ?2\.0", ""),
    ("Apache-2.0", r"apache license,? version 2\.0", ""),
    ("MIT", r"permission is hereby granted, free of charge, to any person .*permission notice shall be included", ""),
    ("MIT-0", r"permission is hereby granted, free of charge, to any person ", r"permission notice shall be included"),
    ("BSD-3-Clause", r"redistribution and use in source and binary forms.*(neither the names? |may not be used to endorse)", ""),
    ("BSD-2-Clause", r"redistribution and use in source and binary forms", r"neither the names? |may not be used to endorse"),
    ("ISC", r"permission to use, copy, modify, and(/or)? distribute this software for any purpose", ""),
    ("HPND", r"permission to use, copy, modify, and distribute this software and its documentation", ""),
    ("PSF-2.0", r"python software foundation license version 2", ""),
    ("Zlib", r"altered source versions must be plainly marked", ""),
    ("BSL-1.0", r"boost software license - version 1\.0", ""),
    ("EPL-2.0", r"eclipse public license - v ?2\.0", ""),
    ("CC0-1.0", r"cc0 1\.0 universal", ""),
    ("Unlicense", r"this is free and unencumbered software released into the public domain", ""),
]
GNU_TITLE = re.compile(r"gnu (affero |lesser |library )?general public licen[cs]e.{0,90}?version (\d)(\.\d)?")
NAMES: list[tuple[str, str]] = [  # what a short name of a licence contains, and the licence it means
    (r"\bagpl|affero", "AGPL"),
    (r"\blgpl|lesser general|library general|library or lesser", "LGPL"),
    (r"\bgpl(?!.?compatible)|gnu general", "GPL"),
    (r"\bmpl|mozilla", "MPL-2.0"),
    (r"\bepl|eclipse public", "EPL-2.0"),
    (r"apache|\basl\b", "Apache-2.0"),
    (r"bsd.{0,9}3|3.{0,9}bsd|(new|modified) bsd", "BSD-3-Clause"),
    (r"bsd.{0,9}2|2.{0,9}bsd|simplified bsd", "BSD-2-Clause"),
    (r"\b0bsd", "0BSD"),
    (r"\bbsd", "BSD"),
    (r"\bmit.0\b|mit no attribution", "MIT-0"),
    (r"\bmit\b(?!.0\b)|\bexpat\b", "MIT"),
    (r"\bisc[l]?\b", "ISC"),
    (r"\bpsf|python software foundation", "PSF-2.0"),
    (r"unlicense", "Unlicense"),
    (r"cc0", "CC0-1.0"),
    (r"zlib", "Zlib"),
    (r"boost|\bbsl-1", "BSL-1.0"),
    (r"\bhpnd", "HPND"),
    (r"public domain", "LicenseRef-Public-Domain"),
    (r"proprietary|commercial licen|\beula\b|end.user licen", "LicenseRef-Proprietary"),
]
KINDS = {
    "permissive": "a permissive licence that lets anyone use, copy, modify and sell the software if the notice is kept",
    "weak copyleft": "a weak copyleft licence: changes to these files or this library must be shared under the same licence",
    "strong copyleft": "a strong copyleft licence: the whole program that includes it must be published under the same licence",
    "proprietary": "a proprietary commercial agreement: all rights reserved, no copying, a paid subscription or permission is needed",
}
KIND_IDS = [  # every kind from the mildest on, and how the identifiers of its licences begin
    r"0?BSD|MIT|Apache|ISC|PSF|Python|Zlib|BSL|Unlicense|CC0|HPND|X11|NCSA|CNRI|PostgreSQL|CC-BY-\d|WTFPL|LicenseRef-Public",
    r"LGPL|MPL|EPL|CDDL|CPL|Artistic",
    r"A?GPL|OSL|EUPL|SSPL|CC-BY-SA",
    r"LicenseRef-Proprietary|BUSL|Elastic|LicenseRef-NVIDIA",
]
LICENCE_MARGIN = 0.25
"""Nats a token by which the model's choice must lead to count. Set on nine licences in other words: five led by more, and were right."""
LICENCE_WORDS = 8
"""A text with fewer words says too little for a choice: the model would read a licence out of "Other"."""
TYPICAL_LICENCES = [
    "You may do with this code whatever you like as long as you keep our copyright notice.",
    "If you change these source files, you have to publish your changes to them under these same terms.",
    "Any larger work that contains or links this program has to be released as source code under these terms.",
    "This software is confidential. You may not use, copy or pass it on without a signed contract and a licence fee.",
]


def licences_in(text: str) -> list[str]:
    """The licences that a text gives away by their distinctive phrases."""
    said = " ".join(re.sub(r"[\"'“”‘’*#]|^\s*//", "", text.lower(), flags=re.M).split())
    found = [name for name, must, no in PHRASES if re.search(must, said) and not (no and re.search(no, said))]
    if gnu := GNU_TITLE.search(said[:700]):  # further down, other licences only mention these
        kind = {"affero": "AGPL", "lesser": "LGPL", "library": "LGPL", "": "GPL"}[(gnu[1] or "").strip()]
        found.insert(0, f"{kind}-{gnu[2]}{gnu[3] or '.0'}")
    return found


def kind_of(expression: str) -> int | None:
    """The place in ``KINDS`` of an SPDX expression; of OR the mildest counts, of AND the strictest. None when an id is unknown."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression)

    def either() -> int:
        kinds = [both()]
        while tokens and tokens[0].upper() == "OR":
            tokens.pop(0)
            kinds.append(both())
        return min(kinds)

    def both() -> int:
        kinds = [single()]
        while tokens and tokens[0].upper() == "AND":
            tokens.pop(0)
            kinds.append(single())
        return max(kinds)

    def single() -> int:
        token = tokens.pop(0)
        if token == "(":
            kind = either()
            tokens.remove(")")
            return kind
        kind = next(at for at, ids in enumerate(KIND_IDS) if re.match(rf"({ids})", token, re.I))
        if tokens and tokens[0].upper() == "WITH":  # an exception lets a program link what the licence would cover
            del tokens[:2]
            kind = min(kind, 1)
        return kind

    try:
        kind = either()
        return None if tokens else kind
    except (StopIteration, IndexError, ValueError):
        return None


def named(text: str) -> str:
    """The SPDX expression that a field or classifier means; empty when no rule can tell."""
    if len(text) > 90:
        return " AND ".join(licences_in(text))
    if kind_of(text) is not None and not re.search(r"\bBSD\b(?!-)", text):
        return text
    said, ids = text.lower(), []
    for pattern, licence in NAMES:
        if re.search(pattern, said):
            said = re.sub(pattern, " ", said)
            ids.append(licence)
    return " AND ".join(ids)


def read_licence(sheet: Sheet) -> Licence | None:
    """The licence by rules alone: the expression, the field, the classifiers, the licence files, in this order of trust."""
    own = [file for file in sheet.licence_files if file.own and file.ids]
    sources = [("its SPDX expression", sheet.expression if kind_of(sheet.expression) is not None else "")]
    sources += [("its licence field", named(sheet.field))]
    sources += [("its classifiers", " AND ".join(dict.fromkeys(filter(None, map(named, sheet.classifiers)))))]
    sources += [(f"phrases in {own[0].path}", " AND ".join(dict.fromkeys(i for file in own for i in file.ids)))] if own else []
    says = [(source, text, kind) for source, text in sources if text and (kind := kind_of(text)) is not None]
    if not says:
        return None
    source, text, kind = says[0]
    if text == "BSD" and own and says[-1][1].startswith("BSD-"):
        source, text, kind = says[-1]
    stricter = [f"{other} would be {words}" for other, words, strict in says if strict > kind and " OR " not in text]
    return Licence(name=sheet.name, licence=text, kind=list(KINDS)[kind], by="rules", why=source, doubt="; ".join(stricter))
