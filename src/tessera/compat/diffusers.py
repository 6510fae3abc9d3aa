"""A call in the form of diffusers' pipelines, as a thin face over `Pipeline`. It draws nothing itself.

    pipe = TextToImagePipeline.from_pretrained("user/name")
    pipe("a red bird", num_images_per_prompt=4, guidance_scale=3.0, generator=torch.Generator().manual_seed(7)).images

What diffusers' pipelines have and a transformer over codes has not (steps, sizes, negative prompts) is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from tessera.config.merging import cast, nearest
from tessera.config.ranges import Pictures
from tessera.errors import ConfigError
from tessera.generate.pipeline import Pipeline

SEEDS = 2**53
"""Seeds are drawn below this, so that every program can hold them."""
WEIGHTS = {torch.float32: "float32", torch.bfloat16: "bf16"}
"""`torch_dtype` in the house's words."""
NONE_SUCH = {
    "num_inference_steps": "it draws one code after the other, as many as its grid has",
    "timesteps": "it draws one code after the other, as many as its grid has",
    "height": "its pictures have the size of those that it learned; resize them",
    "width": "its pictures have the size of those that it learned; resize them",
    "negative_prompt": "guidance pushes away from no caption at all",
    "latents": "its noise belongs to the seed; give a generator",
    "image": "tessera generate --prime begins with a picture",
}
"""Arguments that mean nothing here, and what to know instead."""
Images = list[Image.Image] | np.ndarray | torch.Tensor
FORMS: Mapping[str, Callable[[list[Image.Image]], Images]] = {
    "pil": lambda images: images,
    "np": lambda images: np.stack([_floats(image) for image in images]),
    "pt": lambda images: torch.from_numpy(np.stack([_floats(image) for image in images])).permute(0, 3, 1, 2),
}
"""By `output_type`: PIL images; floats 0 ... 1, [B, S, S, C]; a tensor of the same, [B, C, S, S]."""


@dataclass(frozen=True)
class Output:
    """What a call gives back."""

    images: Images
    """In the order of the prompts, all pictures of the first one before those of the second."""
    seeds: tuple[int, ...] = ()
    """Of each picture: `tessera generate --seed` draws it again."""


class TextToImagePipeline:
    """A trained run behind the call that diffusers' pipelines have."""

    def __init__(self, pipeline: Pipeline):
        self.pipeline = pipeline
        self._weights = "float32"

    @classmethod
    def from_pretrained(
        cls, name: str, torch_dtype: torch.dtype = torch.float32, revision: str = "", device: str = "auto"
    ) -> TextToImagePipeline:
        """From a run folder or user/name on the hub. Raises CheckpointError where there is none, ConfigError where the
        type of the weights is none in which it draws."""
        if torch_dtype not in WEIGHTS:
            known = ", ".join(map(str, WEIGHTS))
            raise ConfigError(f"torch_dtype is {torch_dtype}; known: {known}. int8: tessera.load(..., weights='int8').")
        if revision and "@" in name:
            raise ConfigError(f"{name} names a revision, and so does revision={revision!r}: leave one of them out.")
        place = f"{name}@{revision}" if revision else name
        found = cls(Pipeline.load(place, device, WEIGHTS[torch_dtype]))
        found._weights = WEIGHTS[torch_dtype]
        return found

    def to(self, device: str | torch.device) -> TextToImagePipeline:
        """On another device: read again, because weights are laid out for the device on which they draw."""
        if not self.pipeline.name:
            raise ConfigError(
                "This pipeline was not read from a run. Make it on its device: Pipeline.load(RUN, device)."
            )
        self.pipeline = Pipeline.load(self.pipeline.name, str(device), self._weights)
        return self

    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        num_images_per_prompt: int = 1,
        guidance_scale: float | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        output_type: str = "pil",
        **others: float,
    ) -> Output:
        """Draw each prompt so many times.

        `guidance_scale` 1 is off, as in diffusers; None takes what the run usually draws with. Seeds are drawn from the
        generator, one for each picture, or one from each of a list with a generator for each picture; without one, from
        torch's own, which `torch.manual_seed` sets. `others` are the run's own ways of drawing: temperature, top_k,
        top_p, ahead. Raises ConfigError that names an argument that means nothing here, DataError where a prompt is
        too long.
        """
        _refuse(others, output_type)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        count = cast(num_images_per_prompt, Pictures, "num_images_per_prompt")
        asked = [text for text in prompts for _ in range(count)]
        if not asked:
            raise ConfigError("There is no prompt: say what to draw.")
        changes = others if guidance_scale is None else {**others, "guidance": guidance_scale}
        sampling = replace(self.pipeline.sampling, **changes)
        seeds = _seeds(generator, len(asked))
        drawn = self.pipeline.draw(asked, seeds, sampling)
        return Output(FORMS[output_type]([picture.image for picture in drawn]), tuple(seeds))


WAYS = ("temperature", "top_k", "top_p", "ahead")


def _refuse(others: Mapping[str, object], output_type: str) -> None:
    for name in others:
        if why := NONE_SUCH.get(name):
            raise ConfigError(f"{name} means nothing to this model: {why}. Leave it out.")
        if name not in WAYS:
            known = ("num_images_per_prompt", "guidance_scale", "generator", "output_type", *WAYS)
            raise ConfigError(f"There is no argument '{name}'{nearest(name, known) or '.'} Known: {', '.join(known)}.")
    if output_type not in FORMS:
        raise ConfigError(f"output_type is {output_type!r}; known: {', '.join(FORMS)}.")


def _seeds(generator: torch.Generator | Sequence[torch.Generator] | None, count: int) -> list[int]:
    """One for each picture."""
    if generator is None or isinstance(generator, torch.Generator):
        device = generator.device if generator is not None else None
        return torch.randint(SEEDS, (count,), generator=generator, device=device).tolist()
    if len(generator) != count:
        raise ConfigError(f"There are {len(generator)} generators for {count} pictures; give one, or one for each.")
    return [int(torch.randint(SEEDS, (), generator=g, device=g.device)) for g in generator]


def _floats(image: Image.Image) -> np.ndarray:
    """[S, S, C] in 0 ... 1."""
    values = np.asarray(image, dtype=np.float32) / 255
    return values if values.ndim == 3 else values[..., None]
