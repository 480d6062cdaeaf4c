"""What a detector's model begins with: a version of a registry."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from tidewarden.resources.base import REFERENCE_PATTERN, Model, SecretRef


def _quoted(reference: Any) -> Any:
    """A number is refused, as the API server refuses it, but with the remedy."""
    if isinstance(reference, int) and not isinstance(reference, bool):
        raise ValueError(f"{reference} is a number: write it in quotation marks, '{reference}'")
    return reference


class TrainingSpec(Model):
    """The registered version of its model that a detector begins with; from then on it learns by itself."""

    model_config = ConfigDict(
        alias_generator=lambda name: to_camel(name.rstrip("_")), populate_by_name=True, frozen=True, extra="ignore"
    )

    registry: str = Field(
        min_length=1, max_length=2_048, description="Folder, or s3://BUCKET/PREFIX, with ?endpoint=URL if not Amazon's."
    )
    from_: Annotated[str, BeforeValidator(_quoted)] = Field(
        "champion",
        pattern=REFERENCE_PATTERN,
        description="champion, latest or a version's number. Looked up once, when the detector begins without a "
        "snapshot of its own; another value makes it begin anew.",
    )

    secret_ref: SecretRef | None = Field(
        None,
        description="Credentials of an s3:// registry: keys access-key-id and secret-access-key; absent: the "
        "process's own, such as its role's.",
    )

    @property
    def reference(self) -> int | str:
        """The same for `Registry.resolve`."""
        return int(self.from_) if self.from_.isdigit() else self.from_
