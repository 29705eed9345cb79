"""What every message looks like, written down for each schema, so that none changes its shape unnoticed.

After ``SCHEMA`` was raised: ``python -m tests.orchestrator.journal.shapes``. A schema that is written down stays as it is; one that no
release has written yet can be written again with ``--again``.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from protocols.messages import MESSAGES, SCHEMA

FILE = Path(__file__).parent / "golden" / "shapes.json"
_WORDS = {"title", "description"}


def shapes() -> dict[str, str]:
    """A fingerprint of every message's JSON schema, by tag; words for people do not count."""
    return {kind.__name__: _print(_bare(kind.model_json_schema())) for kind in sorted(MESSAGES, key=lambda kind: kind.__name__)}


def written() -> dict[str, dict[str, str]]:
    """The fingerprints on file, by schema."""
    found: dict[str, dict[str, str]] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return found


def _print(schema: Any) -> str:
    return hashlib.sha256(json.dumps(schema, sort_keys=True).encode()).hexdigest()[:16]


def _bare(part: Any, names: bool = False) -> Any:
    """Without titles and descriptions; ``names`` says that the keys are a message's own, where a field may have such a name."""
    if isinstance(part, dict):
        return {key: _bare(value, key in ("properties", "$defs")) for key, value in part.items() if names or key not in _WORDS}
    return [_bare(one) for one in part] if isinstance(part, list) else part


def main() -> None:
    """Write today's shapes down."""
    known, today = written(), shapes()
    if known.get(str(SCHEMA), today) != today and "--again" not in sys.argv[1:]:
        sys.exit(f"schema {SCHEMA} is written down with other shapes; raise SCHEMA, or add --again when no release has written it yet")
    FILE.write_text(json.dumps(known | {str(SCHEMA): today}, indent=1) + "\n")


if __name__ == "__main__":
    main()
