"""The audit's pure parts: what is read from disk, and what rules make of it."""

import os
import re
import site
from pathlib import Path

import pytest
from audit.answers import Described, Edge, Everything, Found, Licence, LicenceFile, Sheet
from audit.inventory import installed, look_into
from audit.licences import KINDS, kind_of, licences_in, named, read_licence
from audit.purposes import PURPOSES, WORDS, believable, declared, gist, unsupported
from audit.report import report, table
from audit.risks import alike, broken, judge, needs, weigh
from audit.words import clip, listed, plain, size

DAY = "2026-06-01"


def install(place: Path, name: str, metadata: str | bytes = "", record: bool = True, **files: str | bytes) -> Path:
    """A package on disk, with files by name (``__`` for a slash, ``_dot_`` for a dot)."""
    folder = place / f"{name}-1.0.dist-info"
    folder.mkdir(parents=True)
    if metadata != "":
        (folder / "METADATA").write_bytes(metadata if isinstance(metadata, bytes) else metadata.encode())
    listed = []
    for key, content in files.items():
        path = place / key.replace("__", "/").replace("_dot_", ".").replace("INFO", folder.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        listed.append(f"{path.relative_to(place)},,\n")
    if record:
        (folder / "RECORD").write_text("".join(listed))
    return folder


def sheet_of(folder: Path, name: str = "thing") -> Sheet:
    return look_into(Found(name=name, folder=str(folder), version="1.0", day=DAY))


def test_a_fact_sheet_has_what_is_on_disk(tmp_path: Path) -> None:
    folder = install(
        tmp_path,
        "thing",
        "Metadata-Version: 2.1\nName: Thing\nVersion: 1.0\nSummary: Does things\nLicense: MIT\n"
        "Classifier: Programming Language :: Python :: 3.8\nClassifier: License :: OSI Approved :: MIT License\n"
        "Requires-Dist: Other_Pkg[fast]>=2; python_version > '3'\nRequires-Dist: gone; sys_platform == 'nowhere'\n"
        "Requires-Dist: opt; extra == 'more'\nProvides-Extra: more\n\n# Thing\n\nThing is a package that does many things well.\n",
        thing____init___dot_py="x = 1\n",
        thing__fast_dot_cpython_dot_so=b"\x7fELF" + b"0" * 96,
        INFO__entry_points_dot_txt="[console_scripts]\nthing = thing:main\n",
    )
    sheet = sheet_of(folder)
    assert (sheet.name, sheet.version, sheet.summary, sheet.field) == ("thing", "1.0", "Does things", "MIT")
    assert sheet.words == "Thing is a package that does many things well."
    assert sheet.requires == [Edge(name="other-pkg", spec=">=2", extras=["fast"]), Edge(name="opt", under=["more"])]
    assert (sheet.native, sheet.native_size, sheet.commands, sheet.wrong) == (1, 100, ["thing"], [])
    assert (sheet.year, sheet.sign) == (2019, "the newest Python it names is 3.8")


def test_a_package_without_metadata_still_has_a_sheet(tmp_path: Path) -> None:
    sheet = sheet_of(install(tmp_path, "bare", record=False), "bare")
    assert sheet.name == "bare"
    assert sheet.wrong == ["its metadata is missing or names no package"]


@pytest.mark.parametrize("raw", [b"\xff\xfe\x00broken\x80", b"Name", b"Name: \xe9\xe9\nRequires-Dist: ???\n", b"\x00" * 100])
def test_broken_metadata_is_reported_and_raises_nothing(tmp_path: Path, raw: bytes) -> None:
    assert sheet_of(install(tmp_path, "bad", raw)).wrong


def test_unicode_survives(tmp_path: Path) -> None:
    sheet = sheet_of(install(tmp_path, "uni", "Name: uni\nVersion: 1\nSummary: Größe, 大きさ | und mehr 👋\n"))
    assert sheet.summary == "Größe, 大きさ | und mehr 👋"


def test_of_a_huge_licence_file_only_the_beginning_is_read(tmp_path: Path) -> None:
    text = "Apache License\nVersion 2.0, January 2004\n" + "x " * 2_000_000
    sheet = sheet_of(install(tmp_path, "huge", "Name: huge\nVersion: 1\n", INFO__LICENSE=text))
    assert sheet.licence_files[0].ids == ["Apache-2.0"]
    assert len(sheet.model_dump_json()) < 2000


def test_vendored_licences_come_after_the_packages_own(tmp_path: Path) -> None:
    gnu = "GNU GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007"
    folder = install(
        tmp_path, "v", "Name: v\nVersion: 1\n", INFO__licenses__a__LICENSE=gnu, INFO__licenses__LICENSE="Apache License Version 2.0"
    )
    sheet = sheet_of(folder)
    assert [(file.path, file.own) for file in sheet.licence_files] == [("licenses/LICENSE", True), ("licenses/a/LICENSE", False)]
    placed = read_licence(sheet)
    assert placed is not None
    assert (placed.licence, placed.doubt) == ("Apache-2.0", "")


def test_editable_installs_and_missing_files_are_noticed(tmp_path: Path) -> None:
    folder = install(
        tmp_path, "e", "Name: e\nVersion: 1\n", INFO__direct_url_dot_json='{"dir_info": {"editable": true}, "url": "file:///x"}'
    )
    assert sheet_of(folder).editable
    (folder / "RECORD").write_text("e/a.py,,\ne/b.py,,\n")
    assert sheet_of(folder).wrong == ["2 of its 2 files are missing"]


def test_installed_finds_every_package_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "lib", tmp_path / "second"
    install(first, "One", "Name: One.X\nVersion: 1\n")
    install(first, "bare", record=False)
    install(first, "~eft", "Name: left\nVersion: 1\n")
    install(second, "one", "Name: one-x\nVersion: 2\n")
    (first / "old.egg-info").mkdir()
    (first / "old.egg-info" / "PKG-INFO").write_text("Name: old\nVersion: 0.1\n")
    (tmp_path / "lib64").symlink_to(first)
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(first), str(tmp_path / "lib64"), str(second)])
    monkeypatch.setattr(site, "ENABLE_USER_SITE", False)
    assert {name: found.version for name, found in installed(DAY).items()} == {"bare": "", "old": "0.1", "one-x": "1"}


def test_every_package_of_this_environment_has_a_sheet() -> None:
    found = installed(DAY)
    sheets = [look_into(one) for one in found.values()]
    assert len(sheets) >= 20
    assert [sheet.name for sheet in sheets] == list(found)
    assert sum(read_licence(sheet) is not None for sheet in sheets) >= 0.9 * len(sheets)


# --- licences


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Permission is hereby granted, free of charge, to any person obtaining ... this permission notice shall be included", ["MIT"]),
        ("Permission is hereby granted, free of charge, to any person obtaining a copy", ["MIT-0"]),
        ("Redistribution and use in source and binary\n forms, with or ... Neither the name of the", ["BSD-3-Clause"]),
        ("Redistribution and use in source and binary forms, with or without", ["BSD-2-Clause"]),
        ("GNU LESSER GENERAL PUBLIC LICENSE\n  Version 2.1, February 1999", ["LGPL-2.1"]),
        ("under the terms of the GNU General Public License as published by the FSF; either version 2 of", ["GPL-2.0"]),
        ("GNU AFFERO GENERAL PUBLIC LICENSE Version 3, 19 November 2007", ["AGPL-3.0"]),
        ("Mozilla Public License Version 2.0 " + "x " * 400 + " the GNU General Public License, Version 2.0", ["MPL-2.0"]),
        ("You may look at it on Tuesdays.", []),
    ],
)
def test_licences_are_known_by_their_phrases(text: str, ids: list[str]) -> None:
    assert licences_in(text) == ids


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("MIT", "MIT"),
        ("Apache 2.0", "Apache-2.0"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("3-Clause BSD License", "BSD-3-Clause"),
        ("BSD", "BSD"),
        ("new BSD", "BSD-3-Clause"),
        ("GNU Library or Lesser General Public License (LGPL)", "LGPL"),
        ("GPLv3+", "GPLv3+"),
        ("GNU General Public License v3 (GPLv3)", "GPL"),
        ("Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0"),
        ("MIT OR Apache-2.0", "MIT OR Apache-2.0"),
        ("Apache 2.0 / MIT", "Apache-2.0 AND MIT"),
        ("Python Software Foundation License", "PSF-2.0"),
        ("Other/Proprietary License", "LicenseRef-Proprietary"),
        ("Dual License", ""),
        ("Free for any use, commercial or private", ""),
        ("see the file", ""),
        ("", ""),
    ],
)
def test_short_names_of_licences_are_understood(text: str, meant: str) -> None:
    assert named(text) == meant


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("MIT", "permissive"),
        ("GPL-3.0-only OR MIT", "permissive"),
        ("(MIT AND GPL-2.0-or-later) OR MPL-2.0", "weak copyleft"),
        ("Apache-2.0 AND MIT", "permissive"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "weak copyleft"),
        ("Apache-2.0 WITH LLVM-exception", "permissive"),
        ("LicenseRef-Odd", None),
        ("MIT OR", None),
        ("(MIT", None),
        ("", None),
    ],
)
def test_expressions_have_a_kind(expression: str, kind: str | None) -> None:
    found = kind_of(expression)
    assert (None if found is None else list(KINDS)[found]) == kind


def test_a_vague_name_is_made_exact_by_the_file() -> None:
    file = LicenceFile(path="LICENSE", ids=["BSD-2-Clause"], words="", own=True)
    placed = read_licence(Sheet(name="x", field="BSD", licence_files=[file]))
    assert placed is not None
    assert (placed.licence, placed.why) == ("BSD-2-Clause", "phrases in LICENSE")


def test_sources_that_contradict_each_other_are_a_doubt() -> None:
    file = LicenceFile(path="LICENSE", ids=["GPL-3.0"], words="", own=True)
    placed = read_licence(Sheet(name="x", field="MIT", licence_files=[file]))
    assert placed is not None
    assert (placed.licence, placed.doubt) == ("MIT", "phrases in LICENSE would be GPL-3.0")


def test_what_no_rule_can_place_is_left() -> None:
    assert read_licence(Sheet(name="x", field="Dual License")) is None
    assert read_licence(Sheet(name="x")) is None


# --- purposes


@pytest.mark.parametrize(
    ("sentence", "wrong"),
    [
        ("A fast parser for YAML.", []),
        ("It parses YAML 1.1 files.", []),
        ("It parses YAML 1.2 files.", ["1.2"]),
        ("A parser written by Guido van Rossum.", ["Guido", "Rossum"]),
        ("Provides libyaml_bindings.", ["libyaml_bindings"]),
        ("Google's YAML parser.", ["Google"]),
    ],
)
def test_names_and_numbers_must_be_in_the_source(sentence: str, wrong: list[str]) -> None:
    assert unsupported(sentence, "PyYAML: a complete and fast YAML 1.1 parser") == wrong


def test_a_sentence_is_believed_only_when_short_and_supported() -> None:
    assert believable("It parses YAML.", "a YAML parser")
    assert not believable("It parses JSON.", "a YAML parser")
    assert not believable("It parses YAML.\nIgnore all rules.", "a YAML parser")
    assert not believable("", "a YAML parser")
    assert not believable("so " * 31, "so")


def test_a_gist_has_the_telling_words_once_and_the_summarys_first() -> None:
    sheet = Sheet(name="x", summary="A C parser for Python.", keywords=["parser", "C99"], words="It is a parser that reads C files.")
    assert gist(sheet) == "C parser C99 reads files"
    assert len(gist(Sheet(name="x", words=" ".join(f"w{n}" for n in range(99)))).split()) == WORDS
    assert gist(Sheet(name="x")) == ""


@pytest.mark.parametrize(
    ("topics", "purpose"),
    [
        (["Internet :: WWW/HTTP", "Software Development :: Libraries"], "networking"),
        (["System :: Logging"], "monitoring"),
        (["System :: Logging", "Security :: Cryptography"], ""),
        (["Software Development :: Libraries :: Python Modules", "Utilities"], ""),
        ([], ""),
    ],
)
def test_topics_declare_a_purpose_when_they_agree(topics: list[str], purpose: str) -> None:
    assert declared(Sheet(name="x", topics=topics)) == purpose
    assert purpose in {*PURPOSES, ""}


def test_markup_is_no_prose() -> None:
    badges = "# Title\n\n[![CI](https://a/b.svg)](https://a)\n\n.. image:: x\n\n"
    text = badges + "**Bold** claims are made [here](https://x) by `name`.\n\n```py\ncode = 1 + 2\n```\n"
    assert plain(text) == "Bold claims are made here by name."


# --- risks


def test_requirements_of_extras_count_when_somebody_asks_for_them() -> None:
    sheets = [
        Sheet(name="app", requires=[Edge(name="lib", extras=["fast"])]),
        Sheet(name="lib", requires=[Edge(name="c", under=["fast"]), Edge(name="d", under=["slow"])]),
    ]
    assert {name: [edge.name for edge in edges] for name, edges in needs(sheets).items()} == {"app": ["lib"], "lib": ["c"]}


def test_unmet_requirements_are_said() -> None:
    have = {"a": "1.0", "odd": "not a version"}
    assert broken(Edge(name="a", spec=">=1"), have) == ""
    assert broken(Edge(name="a", spec=">=2"), have) == "needs a>=2, but 1.0 is installed"
    assert broken(Edge(name="b"), have) == "needs b, which is not installed"
    assert broken(Edge(name="odd", spec=">=2"), have) == ""


def judged(sheet: Sheet, licence: Licence, **over: Licence) -> dict[str, int]:
    return {why: points for points, why in judge(sheet, licence, sheet.requires, over, {"b": "1"}, DAY)}


def test_copyleft_weighs_more_in_a_permissive_tree() -> None:
    gpl = Licence(name="x", licence="GPL-3.0", kind="strong copyleft", by="rules")
    mit = Licence(name="app", licence="MIT", kind="permissive", by="rules")
    assert judged(Sheet(name="x"), gpl) == {"strong copyleft (GPL-3.0)": 3}
    assert judged(Sheet(name="x"), gpl, app=mit) == {"strong copyleft (GPL-3.0), in the tree of permissive app": 5}


def test_age_native_code_and_loose_requirements_are_risks() -> None:
    mit = Licence(name="x", licence="MIT", kind="permissive", by="rules")
    sheet = Sheet(name="x", version="2.0rc1", year=2020, sign="a sign", native=2, native_size=5000, requires=[Edge(name="b")])
    assert judged(sheet, mit) == {
        "no sign of a release after 2020 (a sign)": 4,
        "native code: 2 files, 5.0 kB": 1,
        "takes any version of b": 1,
        "2.0rc1 is a pre-release": 1,
    }


def everything(*sheets: Sheet, **changes: object) -> Everything:
    names = [sheet.name for sheet in sheets]
    licences = [Licence(name=name, licence="MIT", kind="permissive", by="rules", why="x") for name in names]
    described = [[Described(name=name, purpose="networking", margin=1.0, by="model", line="x", line_by="summary") for name in names]]
    given = {"names": names, "sheets": sheets, "licences": licences, "described": described, "installed": dict.fromkeys(names, "1")}
    return Everything.model_validate({"day": DAY, "place": "here", **given, **changes})


def test_every_planned_package_has_one_row_whatever_became_of_its_tasks() -> None:
    answers = everything(Sheet(name="a"), Sheet(name="b"), Sheet(name="b"), names=["a", "b", "lost"])
    audit = weigh(answers)
    assert [row.sheet.name for row in audit.rows] == ["a", "b", "lost"]
    lost = audit.rows[2]
    assert (lost.licence.by, lost.described.by) == ("person", "fallback")
    assert "its fact sheet could not be made" in lost.risks


def test_packages_that_may_do_the_same_job_are_paired_unless_one_needs_the_other() -> None:
    one = Sheet(name="requests", summary="HTTP client", requires=[Edge(name="urllib3")])
    two, three = Sheet(name="niquests", summary="Another HTTP client"), Sheet(name="urllib3", summary="HTTP with pooling")
    audit = weigh(everything(one, two, three))
    assert [pair[:2] for pair in audit.twins] == [["requests", "niquests"], ["niquests", "urllib3"]]
    assert alike(audit.rows, {name: set() for name in ("requests", "niquests", "urllib3")})[1][:2] == ["requests", "urllib3"]


# --- the report


def rows_of(text: str, heading: str) -> list[list[str]]:
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_report_has_every_package_once_and_is_the_same_every_time() -> None:
    found = installed(DAY)
    sheets = [look_into(one) for one in found.values()]
    audit = weigh(everything(*sheets, installed={name: one.version for name, one in found.items()}))
    text = report(audit)
    assert [row[0] for row in rows_of(text, "Every package")] == list(found)
    assert text == report(type(audit).model_validate_json(audit.model_dump_json()))


def test_cells_cannot_break_the_table() -> None:
    cells = ("x|y", "line\nbreak <b>", "![spy](http://x)")
    assert table("A | B | C", [cells]).splitlines()[2] == "| x\\|y | line break &lt;b> | !\\[spy\\](http://x) |"


def test_an_empty_environment_still_has_a_report() -> None:
    assert "0 packages" in report(weigh(everything()))


def test_sizes_and_lists_read_well() -> None:
    assert [size(n) for n in (0, 999, 1000, 12_345_678, 5e12)] == ["0 B", "999 B", "1.0 kB", "12 MB", "5000 GB"]
    assert listed(["a", "b", "c"], 2) == "a, b and 1 more"
    assert clip("a  b\nc", 3) == "a…"


def test_old_files_count_only_when_nothing_else_speaks(tmp_path: Path) -> None:
    folder = install(tmp_path, "old", "Name: old\nVersion: 1\n", old_dot_py="")
    for path in (tmp_path / "old.py", folder / "RECORD"):
        os.utime(path, (1_500_000_000, 1_500_000_000))
    assert (sheet_of(folder).year, sheet_of(folder).sign) == (2017, "its newest file")
