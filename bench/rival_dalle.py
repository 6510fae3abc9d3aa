"""A rival: DALLE-pytorch 1.6.6, trained as its README says: a discrete VAE, then DALL-E. Run by `rivals.py`.

The settings of "scripts" are the defaults of its train_vae.py and train_dalle.py, which its README runs, but for the
size of the pictures; those of "fitted" are what somebody who knows it would take for so few and small pictures.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from dalle_pytorch import DALLE, DiscreteVAE  # type: ignore[import-not-found]
from dalle_pytorch.dalle_pytorch import gumbel_sample, top_k  # type: ignore[import-not-found]
from dalle_pytorch.tokenizer import tokenizer  # type: ignore[import-not-found]
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from rival_task import Task, opened, parameters

VAE_SHARE = 0.4
"""Of the time; its README trains each for 20 epochs."""
ROWS = 50
"""Pictures drawn at a time."""


@dataclass(frozen=True)
class Recipe:
    halvings: int
    codes: int
    text: int
    """Text positions; 0 takes as many as the captions need."""
    positions: bool
    """Rotary embeddings and shifted tokens, which the class has by default and the script has not."""
    vae_batch: int
    batch: int


RECIPES = {
    "scripts": Recipe(halvings=2, codes=8192, text=256, positions=False, vae_batch=8, batch=4),
    "fitted": Recipe(halvings=3, codes=1024, text=0, positions=True, vae_batch=16, batch=16),
}


def train_vae(task: Task, recipe: Recipe) -> tuple[DiscreteVAE, int]:
    vae = DiscreteVAE(image_size=task.pixels, num_layers=recipe.halvings, num_tokens=recipe.codes, codebook_dim=512,
                      hidden_dim=256, num_resnet_blocks=2)  # fmt: skip
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.98)
    temperature, done = 1.0, 0
    for pixels, _, step in task.batches(recipe.vae_batch, 1.0, False, VAE_SHARE):
        optimizer.zero_grad()
        vae(pixels, return_loss=True, temp=temperature).backward()
        optimizer.step()
        if step % 100 == 0:
            temperature = max(temperature * math.exp(-1e-6 * step), 0.5)
            schedule.step()
        done = step + 1
    return vae.eval(), done


def train_dalle(task: Task, recipe: Recipe, vae: DiscreteVAE) -> tuple[DALLE, int]:
    text = recipe.text or longest(task)
    model = DALLE(
        vae=vae, num_text_tokens=tokenizer.vocab_size, text_seq_len=text, dim=512, depth=2, heads=8, dim_head=64,
        loss_img_weight=7, shift_tokens=recipe.positions, rotary_emb=recipe.positions,
    )  # fmt: skip
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer, done = torch.optim.Adam(weights, lr=3e-4), 0
    for pixels, captions, step in task.batches(recipe.batch, 0.75, False, 1.0):
        model(tokens(captions, text), pixels, return_loss=True).backward()
        clip_grad_norm_(weights, 0.5)
        optimizer.step()
        optimizer.zero_grad()
        done = step + 1
    return model.eval(), done


def longest(task: Task) -> int:
    """Positions that hold 99.5 % of the captions."""
    lengths = sorted(len(tokenizer.encode(c)) for captions in task.learned for c in captions)
    return -(-lengths[int(0.995 * (len(lengths) - 1))] // 8) * 8


def tokens(captions: list[str], length: int) -> Tensor:
    return tokenizer.tokenize(captions, length, truncate_text=True)


@torch.no_grad()
def draw(model: DALLE, captions: list[str]) -> Tensor:
    """As its generate.py draws (the tenth of the likeliest codes, temperature 1), by its cached forward, which
    `generate_images` never reaches without guidance; in 0 ... 1."""
    text, codes, cache = tokens(captions, model.text_seq_len), torch.zeros(len(captions), 0, dtype=torch.long), {}
    for _ in range(model.image_seq_len):
        logits = model(text.clone(), codes, cache=cache)[:, -1]
        code = gumbel_sample(top_k(logits, thres=0.9)) - model.num_text_tokens
        codes = torch.cat((codes, code[:, None]), 1)
    return model.vae.decode(codes) * 0.5 + 0.5


def main() -> None:
    task, name = opened()
    recipe, busy = RECIPES[name], time.process_time()
    vae, vae_steps = train_vae(task, recipe)
    model, steps = train_dalle(task, recipe, vae)
    took, busy, began = task.gone(), time.process_time() - busy, time.monotonic()
    captions = [caption for caption, _ in task.asked]
    for i in range(0, len(captions), ROWS):
        torch.manual_seed(task.asked[i][1])
        task.keep("as its generate.py", i, draw(model, captions[i : i + ROWS]))
    task.tell(
        steps={"vae": vae_steps, "dalle": steps}, epochs=round(steps * recipe.batch / len(task.learned), 1),
        seconds_of_training=round(took, 1), cpu_seconds=round(busy, 1), parameters=parameters(model),
        seconds_a_drawing=round((time.monotonic() - began) / len(captions), 3),
        codes=model.image_seq_len, text=model.text_seq_len,
    )  # fmt: skip


if __name__ == "__main__":
    main()
