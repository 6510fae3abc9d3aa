"""A rival: a small text-conditional diffusion U-Net from `diffusers`, trained from scratch. Run by `rivals.py`.

The recipe is that of its own script for training from scratch (train_unconditional.py: noise prediction over 1,000
steps of DDPM, AdamW at 1e-4 with betas 0.95 and 0.999, 500 steps of warm-up, then a cosine, batches of 16, the mean of
the weights), with what its text-to-image models add: cross-attention to a caption that is dropped in 10 % of cases,
guidance without a classifier, DDIM in 50 steps. The captions are read by a small transformer that is trained along.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DConditionModel  # type: ignore[import-not-found]
from diffusers.training_utils import EMAModel  # type: ignore[import-not-found]
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn

from rival_task import Task, bf16, opened, parameters

RATES = {"recipe": 1e-4, "fast": 4e-4}
"""Learning rates: its script's, and one for a short time."""
WIDTHS, WIDTH, LAYERS, VOCAB = (32, 64, 128, 128), 128, 2, 4096
BATCH, WARM, DROPPED, STEPS, ROWS = 16, 500, 0.1, 50, 50
GUIDANCE = (1.0, 2.0, 4.0)
"""All are drawn and measured; the best is the rival's."""


class Painter(nn.Module):
    """The U-Net and the reader of its captions. An empty caption is all padding."""

    def __init__(self, captions: Sequence[str], pixels: int):
        super().__init__()
        self.words = vocabulary(captions)
        lengths = sorted(len(self.words.encode(c).ids) for c in captions)
        self.length = max(1, lengths[int(0.995 * (len(lengths) - 1))])
        self.tokens = nn.Embedding(self.words.get_vocab_size(), WIDTH)
        self.places = nn.Parameter(torch.randn(self.length, WIDTH) * 0.02)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)
        self.reader = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.unet = UNet2DConditionModel(
            sample_size=pixels, in_channels=3, out_channels=3, block_out_channels=WIDTHS, layers_per_block=1,
            down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
            cross_attention_dim=WIDTH, attention_head_dim=8, norm_num_groups=16,
        )  # fmt: skip

    def read(self, captions: Sequence[str]) -> Tensor:
        """[B, T] token ids."""
        rows = [self.words.encode(c).ids[: self.length] for c in captions]
        return torch.tensor([ids + [0] * (self.length - len(ids)) for ids in rows])

    def forward(self, noisy: Tensor, times: Tensor, tokens: Tensor) -> Tensor:
        """The noise in pictures [B, 3, S, S]."""
        return self.unet(noisy, times, self.reader(self.tokens(tokens) + self.places)).sample


def vocabulary(captions: Sequence[str]) -> Tokenizer:
    """A byte-level BPE of the captions; id 0 is padding."""
    words = Tokenizer(models.BPE())
    words.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words.train_from_iterator(captions, trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=["<pad>"], initial_alphabet=alphabet, show_progress=False))  # fmt: skip
    return words


def autocast() -> object:
    return torch.autocast("cpu", torch.bfloat16) if bf16() else nullcontext()


def train(task: Task, rate: float) -> tuple[Painter, DDPMScheduler, int]:
    """Until the time is gone. The model comes back with the mean of its weights."""
    model = Painter([c for captions in task.learned for c in captions], task.pixels)
    process = DDPMScheduler(num_train_timesteps=1000)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.95, 0.999), weight_decay=1e-6)
    mean = EMAModel(model.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    done = 0
    for pixels, captions, step in task.batches(BATCH, 0.75, task.flip, 1.0):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / WARM) * (1 + math.cos(math.pi * min(1.0, task.share()))) / 2
        clean, noise = 2 * pixels - 1, torch.randn_like(pixels)
        times = torch.randint(process.config.num_train_timesteps, (len(clean),))
        tokens = model.read(captions) * (torch.rand(len(clean), 1) >= DROPPED)
        with autocast():  # type: ignore[attr-defined]
            found = model(process.add_noise(clean, noise, times), times, tokens)
        F.mse_loss(found.float(), noise).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        mean.step(model.parameters())
        done = step + 1
    mean.copy_to(model.parameters())
    return model.eval(), process, done


@torch.no_grad()
def draw(
    model: Painter, process: DDPMScheduler, asked: Sequence[tuple[str, int]], guidance: float, pixels: int
) -> Tensor:
    """DDIM from the noise of each seed; in 0 ... 1."""
    steps = DDIMScheduler.from_config(process.config)
    steps.set_timesteps(STEPS)
    found = torch.stack([torch.randn(3, pixels, pixels, generator=torch.Generator().manual_seed(s)) for _, s in asked])
    tokens = model.read([caption for caption, _ in asked])
    both = torch.cat((tokens, torch.zeros_like(tokens)))
    for time_ in steps.timesteps:
        with autocast():  # type: ignore[attr-defined]
            if guidance == 1:
                noise = model(found, time_, tokens)
            else:
                with_, without = model(torch.cat((found, found)), time_, both).float().chunk(2)
                noise = without + guidance * (with_ - without)
        found = steps.step(noise.float(), time_, found).prev_sample
    return found * 0.5 + 0.5


def main() -> None:
    task, name = opened()
    busy = time.process_time()
    model, process, steps = train(task, RATES[name])
    took, busy, began = task.gone(), time.process_time() - busy, time.monotonic()
    for guidance in GUIDANCE:
        for i in range(0, len(task.asked), ROWS):
            part = task.asked[i : i + ROWS]
            task.keep(f"guidance {guidance:g}", i, draw(model, process, part, guidance, task.pixels))
    task.tell(
        steps=steps, epochs=round(steps * BATCH / len(task.learned), 1), seconds_of_training=round(took, 1),
        cpu_seconds=round(busy, 1), parameters=parameters(model), bf16=bf16(),
        seconds_a_drawing=round((time.monotonic() - began) / len(task.asked) / len(GUIDANCE), 3),
    )  # fmt: skip


if __name__ == "__main__":
    main()
