"""What the config's sections are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
# Snakemake hands `--config seeds=[0,1]` over as texts; nothing else that is no integer may pass as one.
_Digits = BeforeValidator(lambda value: int(value) if isinstance(value, str) and value.isdigit() else value)
Seed = Annotated[int, Field(strict=True, ge=0), _Digits]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._]*$")]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
