"""The inventory: facts about installed packages, read from this environment's own folders."""

import re
import site
from collections import defaultdict
from datetime import date
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from audit.answers import Edge, Found, LicenceFile, Sheet
from audit.licences import licences_in
from audit.words import clip, plain

LICENCE_NAME = re.compile(r"licen[cs]e|copying|unlicense", re.I)
NATIVE_NAME = re.compile(r"\.(so|pyd|dll|dylib)(\.\d+)*$")
PROGRAM_HEADS = (b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
METADATA_YEARS = {"2.2": 2020, "2.3": 2022, "2.4": 2024, "2.5": 2025}
"""The year in which each version of the metadata standard came up (PEPs 643, 685, 639, 794)."""


def installed(day: str = "") -> dict[str, Found]:
    """Every package in this environment's own folders, by canonical name; the first folder on the path wins."""
    folders = [*site.getsitepackages(), site.getusersitepackages()] if site.ENABLE_USER_SITE else site.getsitepackages()
    found: dict[str, Found] = {}
    for place in dict.fromkeys(Path(folder).resolve() for folder in folders):
        for folder in sorted([*place.glob("*.dist-info"), *place.glob("*.egg-info")]):
            if folder.name.startswith("~"):
                continue  # what pip leaves of a broken uninstall is no package
            header = metadata(Distribution.at(folder))
            raw = header.get("Name", [""])[0] or folder.name.rsplit(".", 1)[0].split("-")[0]
            name = re.sub(r"[^a-z0-9.-]+", "-", canonicalize_name(raw)).strip("-.") or "unnamed"
            version = header.get("Version", [""])[0]
            found.setdefault(name, Found(name=name, folder=str(folder), version=version, day=day))
    return dict(sorted(found.items()))


def metadata(dist: Distribution) -> dict[str, list[str]]:
    """The metadata's headers and its body (under ``""``); empty when the file is missing or unreadable."""
    try:
        message: Any = dist.metadata
    except Exception:  # missing, a folder, or bytes that are no text: each Python raises something else
        return {}
    headers: dict[str, list[str]] = defaultdict(list)
    for key, value in message.items() if message is not None else ():
        headers[key].append("" if value == "UNKNOWN" else str(value).strip())
    if message is not None:
        headers[""] = headers.get("Description") or [str(message.get_payload() or "")]
    return headers


def look_into(found: Found) -> Sheet:
    """The fact sheet of one package. What can't be read is said in ``wrong``; nothing raises."""
    dist = Distribution.at(Path(found.folder))
    headers, wrong = metadata(dist), []
    one = {key.lower(): values[0] for key, values in headers.items() if values}
    if "name" not in one:
        wrong.append("its metadata is missing or names no package")
    requires = []
    for line in headers.get("Requires-Dist", []):
        try:
            requires += edges(requirement(line), headers.get("Provides-Extra", []))
        except InvalidRequirement:
            wrong.append(f"a requirement can't be read: {clip(line, 60)}")
    try:
        files = [Path(str(file.locate())) for file in dist.files or []]
        commands = sorted({point.name for point in dist.entry_points if point.group == "console_scripts"})
    except Exception:  # a broken RECORD or entry_points.txt raises whatever its reader met
        wrong.append("its list of files or commands can't be read")
        files, commands = [], []
    sizes = {path: path.stat().st_size for path in dict.fromkeys(files) if path.is_file()}
    if files and len(sizes) < len(set(files)) * 0.9:
        wrong.append(f"{len(set(files)) - len(sizes)} of its {len(set(files))} files are missing")
    native = [size for path, size in sizes.items() if is_native(path)]
    year, sign = newest_sign(headers, dist.read_text("WHEEL") or "", max((path.stat().st_mtime for path in sizes), default=0.0))
    return Sheet(
        name=found.name,
        version=one.get("version", ""),
        summary=clip(one.get("summary", ""), 160),
        words=" ".join(plain(one.get("", "")[:6000]).split()[:40]),
        topics=[c.removeprefix("Topic :: ") for c in headers.get("Classifier", []) if c.startswith("Topic :: ")][:12],
        keywords=keywords(one.get("keywords", "")),
        expression=clip(one.get("license-expression", ""), 120),
        field=clip(one.get("license", ""), 600),
        classifiers=[c.split("::")[-1].strip() for c in headers.get("Classifier", []) if c.startswith("License ::")],
        licence_files=licence_files(Path(found.folder), files),
        requires=requires,
        files=len(sizes),
        size=sum(sizes.values()),
        native=len(native),
        native_size=sum(native),
        commands=commands[:5],
        year=year,
        sign=sign,
        editable='"editable": true' in (dist.read_text("direct_url.json") or ""),
        wrong=wrong,
    )


def requirement(line: str) -> Requirement:
    """One requirement; raises ``InvalidRequirement``."""
    for _ in range(100):
        try:
            return Requirement(line)
        except SystemError:
            # Markers are read by ``ast``, which in CPython 3.11 counts its nesting for all threads together: a neighbour disturbed it.
            continue
    raise InvalidRequirement(f"{line!r} could not be read")


def edges(requirement: Requirement, extras: list[str]) -> list[Edge]:
    """The requirement as an edge, if it applies on this machine at all."""
    marker, under = requirement.marker, list[str]()
    if marker is not None and not marker.evaluate({"extra": ""}):
        under = sorted({str(canonicalize_name(extra)) for extra in extras if marker.evaluate({"extra": extra})})
        if not under:
            return []
    wanted = sorted(str(canonicalize_name(extra)) for extra in requirement.extras)
    return [Edge(name=canonicalize_name(requirement.name), spec=str(requirement.specifier), extras=wanted, under=under)]


def keywords(text: str) -> list[str]:
    """The first keywords of a field that has them divided by commas or else by spaces."""
    return [word.strip() for word in text.split("," if "," in text else None) if word.strip()][:8]


def is_native(path: Path) -> bool:
    """Whether a file is compiled code: a library by its name, or a program by its first bytes."""
    if NATIVE_NAME.search(path.name):
        return True
    if path.parent.name not in ("bin", "Scripts") or path.suffix == ".py":
        return False
    with path.open("rb") as file:
        return file.read(4).startswith(PROGRAM_HEADS)


def newest_sign(headers: dict[str, list[str]], wheel: str, touched: float) -> tuple[int | None, str]:
    """The newest year in which this release must have been alive, and what says so.

    Installers write files anew, so a file's date only bounds the age from above; it counts when nothing else speaks.
    """
    signs = []
    minors = [int(m[1]) for c in headers.get("Classifier", []) if (m := re.search(r":: Python :: 3\.(\d+)$", c))]
    if minors:
        signs.append((max(2011 + max(minors), 2016), f"the newest Python it names is 3.{max(minors)}"))
    standard = headers.get("Metadata-Version", [""])[0]
    if standard in METADATA_YEARS:
        signs.append((METADATA_YEARS[standard], f"metadata {standard}"))
    if "Generator: setuptools (" in wheel:  # setuptools signs wheels itself since version 70.1
        signs.append((2024, "a wheel made by setuptools 70 or later"))
    if calendar := re.match(r"(20\d\d)\.", headers.get("Version", [""])[0]):
        signs.append((int(calendar[1]), "its version is a date"))
    if not signs and touched > 631_152_000:  # 1990: archives that carry no dates say 1980
        signs.append((date.fromtimestamp(touched).year, "its newest file"))
    return max(signs) if signs else (None, "")


def licence_files(folder: Path, files: list[Path]) -> list[LicenceFile]:
    """The licence files next to the metadata, the package's own ones first; vendored parts keep theirs in subfolders."""
    if folder.is_dir():
        files = [*files, *(path for path in folder.rglob("*") if path.is_file())]
    found = []
    for path in dict.fromkeys(files):
        if not LICENCE_NAME.search(path.name) or path.suffix in (".py", ".pyc") or folder.name not in path.parts:
            continue
        try:
            with path.open("rb") as file:
                text = file.read(65_536).decode(errors="replace")
        except OSError:
            continue
        inside = path.parts[path.parts.index(folder.name) + 1 :]
        ids = licences_in(text)
        words = "" if ids else " ".join(text.split()[:40])
        found.append(LicenceFile(path="/".join(inside), ids=ids, words=clip(words, 300), own=len(inside) <= 2))
    return sorted(found, key=lambda file: (not file.own, file.path))[:8]
