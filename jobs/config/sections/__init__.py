"""The sections of a run's configuration, one frozen model each."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator


class Section(BaseModel):
    """A group of settings. It is frozen and refuses unknown keys. A setting's docstring is also its description."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _check_encodable(cls, value: Any) -> Any:
        """Refuse text that cannot be encoded as UTF-8. Such text can come from JSON or from a command line."""
        try:
            json.dumps(value, ensure_ascii=False, default=repr).encode()
        except UnicodeEncodeError:
            raise ValueError(
                "contains bytes that are not UTF-8, or half of a surrogate pair; in a path, write such a byte as in"
                " file:///folder/%FF"
            ) from None
        return value
