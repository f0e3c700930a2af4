"""What a user may choose about a comparison of two encoders; `swinssl_cka --help` shows it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

TOKENS = 16


class ComparisonConfig(BaseModel):
    """Choices of a comparison; None means: as the data have it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    crops: int = Field(default=384, ge=4, description="Crops in all, as far as they fill whole minibatches.")
    batch_size: int = Field(default=48, ge=4, description="Crops of a minibatch; the more, the steadier the estimate.")
    tokens: int | None = Field(
        default=None,
        ge=1,
        description="Tokens looked at in each crop, at the same places in both encoders and at every block; at most "
        f"one in every 16 x 16 x 16 voxels. Default: {TOKENS}, or as many as there are.",
    )
    patch: tuple[int, int, int] | None = Field(
        default=None, description="Crop: z y x voxels, multiples of 32. Default: as planned for the data set."
    )
    seed: int = Field(default=0, ge=0, description="Seed of crops and tokens.")
