"""The one base of everything that is said or stored: a frozen pydantic model that refuses unknown fields."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """An immutable value. Unknown fields are an error, so a misspelt or newer field never passes silently."""

    model_config = ConfigDict(frozen=True, extra="forbid")
