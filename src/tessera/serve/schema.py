"""What OpenAI's images interface takes and gives, and the options of Tessera beside it. It does not know models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from tessera.config import EditingConfig, Request, SampleConfig, request
from tessera.config.merging import nearest, short
from tessera.config.order import Order, Schedule, Steps
from tessera.config.ranges import Guidance, NotNegative, Seed, Share, ShareAboveZero
from tessera.config.serving import MOST
from tessera.serve.errors import Refused
from tessera.serve.pictures import Format

Size = Annotated[str, Field(max_length=16, pattern=r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$")]
Number = Annotated[float, Field(allow_inf_nan=False)]
Quality = Literal["auto", "standard", "hd", "low", "medium", "high", "xhigh", "max"]
SAMPLING = ("guidance", "temperature", "top_k", "top_p", "steps", "order", "choice_temperature", "guidance_schedule")
"""Fields of SampleConfig that a request may give; what it does not is as the run usually draws."""
EDITING = ("outpaint", "vary", "vary_first", "restore")
"""Fields of EditingConfig, likewise."""


class Wanted(BaseModel):
    """What generations and edits have in common. Fields after `stream` are Tessera's own (`extra_body` in OpenAI's
    Python client)."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(min_length=1, description="What to draw.")
    model: str | None = Field(None, description="One of /v1/models; without it the first.")
    n: int | None = Field(None, ge=1, le=MOST, description="Pictures; 1 without it.")
    size: Size | None = Field(None, description="The model's own (auto), or a multiple of it: 64x64, 128x128, ...")
    response_format: Literal["b64_json", "url"] | None = Field(None, description="b64_json without it.")
    output_format: Format | None = Field(None, description="png without it; a png holds its prompt and seed.")
    output_compression: int | None = Field(None, ge=0, le=100, description="Quality of webp and jpeg.")
    stream: bool | None = Field(None, description="Server-sent events while the pictures are drawn.")
    partial_images: int | None = Field(None, ge=0, le=3, description="Unfinished pictures of each that a stream shows.")
    quality: Quality | None = Field(None, description="Changes nothing: a model has one.")
    background: Literal["auto", "opaque", "transparent"] | None = Field(None, description="Changes nothing.")
    moderation: Literal["auto", "low"] | None = Field(None, description="Changes nothing: nothing is moderated.")
    user: str | None = Field(None, max_length=512, description="Changes nothing, and is not kept.")
    seed: Seed | None = Field(None, description="Of the first picture; the next have seed + 1, ... Chance without it.")
    guidance: Annotated[Guidance, Field(allow_inf_nan=False)] | None = Field(
        None, validation_alias=AliasChoices("guidance", "guidance_scale"), description="Classifier-free guidance scale."
    )
    temperature: Annotated[NotNegative, Field(allow_inf_nan=False)] | None = Field(
        None, description="0: the likeliest code."
    )
    top_k: Annotated[float, Field(ge=0, le=1_048_576, allow_inf_nan=False)] | None = Field(
        None, description="Keep the k likeliest codes."
    )
    top_p: Annotated[ShareAboveZero, Field(allow_inf_nan=False)] | None = Field(None, description="Nucleus sampling.")
    steps: Steps | None = Field(None, description="Draw in so many steps (a prior of any order); 0: code by code.")
    order: Order | None = Field(None, description="Which codes come first (a prior of any order).")
    choice_temperature: Annotated[NotNegative, Field(allow_inf_nan=False)] | None = Field(
        None, description="Chance in what counts as sure (order confidence)."
    )
    guidance_schedule: Schedule | None = Field(None, description="Guidance is constant, or grows (linear).")
    best_of: int | None = Field(
        None, ge=1, le=MOST, description="Draw so many, keep the n that the judge ranks highest."
    )
    truncate: bool | None = Field(None, description="Cut a prompt that is too long, instead of refusing it.")

    def drawing(self, usual: SampleConfig, chance: int) -> Request:
        """What is to be drawn; `chance` is the seed where none is asked for. Raises ConfigError for a wrong option."""
        given = {name: value for name in SAMPLING if (value := getattr(self, name)) is not None}
        seed = chance if self.seed is None else self.seed
        count = self.best_of or self.n or 1
        asked = request(self.prompt, usual, count=count, seed=seed, truncate=bool(self.truncate), **given)
        asked.check()
        return asked


class Generation(Wanted):
    """The body of /v1/images/generations."""

    model_config = ConfigDict(extra="forbid", strict=True)

    style: Literal["vivid", "natural"] | None = Field(None, description="Changes nothing.")


class Edit(Wanted):
    """The fields of /v1/images/edits, beside `image` and `mask`."""

    input_fidelity: Literal["high", "low"] | None = Field(None, description="Changes nothing.")
    outpaint: Annotated[str, Field(max_length=100)] | None = Field(
        None, description="left,right,top,bottom: go on beyond these sides, by shares of the picture's own."
    )
    vary: Annotated[Share, Field(allow_inf_nan=False)] | None = Field(None, description="Draw so many codes anew.")
    vary_first: Literal["uncertain", "random"] | None = Field(None, description="Which codes these are.")
    restore: bool | None = Field(None, description="Put the picture's own pixels back; true without it.")

    def editing(self) -> EditingConfig:
        """What is drawn anew beside the mask. Raises ConfigError for a wrong option."""
        given = {name: value for name in EDITING if (value := getattr(self, name)) is not None}
        config = EditingConfig(**given)
        config.check()
        return config


class TokenDetails(BaseModel):
    """Text, and codes that were given."""

    text_tokens: int
    image_tokens: int


class Usage(BaseModel):
    """Text tokens and given codes that were read; codes that were drawn."""

    input_tokens: int
    input_tokens_details: TokenDetails
    output_tokens: int
    total_tokens: int

    @staticmethod
    def of(text: int, given: int, drawn: int) -> Usage:
        details = TokenDetails(text_tokens=text, image_tokens=given)
        total = text + given + drawn
        return Usage(input_tokens=text + given, input_tokens_details=details, output_tokens=drawn, total_tokens=total)


class Drawn(BaseModel):
    """One picture. `seed` draws it again."""

    b64_json: str | None = None
    url: str | None = None
    revised_prompt: str | None = None
    seed: int
    score: float | None = None


class Images(BaseModel):
    """The answer to generations and edits."""

    created: int
    data: list[Drawn]
    usage: Usage
    output_format: Format
    size: str
    background: Literal["opaque", "transparent"]
    model: str


class Model(BaseModel):
    """A run that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "tessera"
    side: int
    codes: int
    prompt_tokens: int


class Models(BaseModel):
    """All runs that are served."""

    object: Literal["list"] = "list"
    data: list[Model]


class Said(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class Wrong(BaseModel):
    """OpenAI's form of an error."""

    error: Said


class State(BaseModel):
    """Whether the server lives, or is ready."""

    status: str


def wrong_fields(errors: list[dict[str, object]], known: set[str]) -> Refused:
    """The answer to a body that does not fit: the first thing that is wrong with it, in a sentence."""
    first = errors[0]
    path = [str(part) for part in first["loc"] if part not in ("body",)]  # type: ignore[union-attr]
    name, kind, given = ".".join(path[:1]), str(first["type"]), first.get("input")
    if kind == "extra_forbidden":
        near = nearest(name, known) or "."
        return Refused(400, f"There is no option '{short(name, '')}'{near}", name, "unknown_parameter")
    if kind == "missing" and name:
        return Refused(400, f"{name} is missing.", name, "missing_required_parameter")
    if not name or kind == "json_invalid":
        return Refused(400, "The body is not a JSON object with the fields of this request.", code="invalid_json")
    rule = str(first["msg"]).removeprefix("Input ").removeprefix("Value ").removesuffix(".")
    return Refused(400, f"{name} is {short(given)}; it {rule}.", name, "invalid_value")


def edit_of(fields: dict[str, str]) -> Edit:
    """The fields of a form. Raises Refused that names a wrong one."""
    try:
        return Edit.model_validate({name: value for name, value in fields.items() if value != "" or name == "prompt"})
    except ValidationError as error:
        raise wrong_fields([dict(e) for e in error.errors(include_url=False)], set(Edit.model_fields)) from error
