"""The original, DALLE-pytorch 1.6.6, at the 2021 notebook's configuration: it answers what `against.py` asks.

Its core needs a few small packages and empty modules in place of those that it imports and does not use here; `place`
installs both beside nothing else, under the user's cache.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from common import answer, placed

PACKAGES = ["dalle-pytorch==1.6.6", "einops", "axial_positional_embedding", "rotary-embedding-torch", "g-mlp-pytorch"]
EMPTY = {
    "youtokentome.py": "",
    "taming/__init__.py": "",
    "taming/models/__init__.py": "",
    "taming/models/vqgan.py": "VQModel = GumbelVQ = type(None)",
    "torchvision/__init__.py": "",
    "torchvision/transforms.py": "",
    "omegaconf.py": "OmegaConf = None",
    "requests.py": "",
    "transformers.py": "BertTokenizer = type(None)",
    "pkg_resources.py": "from types import SimpleNamespace\n"
    "get_distribution = lambda name: SimpleNamespace(version='1.6.6')",
}


def place() -> Path:
    """The folder to put on the path; made on the first call."""
    return placed("dalle-pytorch-1.6.6", PACKAGES, EMPTY)


def main() -> None:
    import torch
    from dalle_pytorch import DALLE, DiscreteVAE  # type: ignore[import-not-found]
    from dalle_pytorch.dalle_pytorch import gumbel_sample, top_k  # type: ignore[import-not-found]

    device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    torch.manual_seed(0)
    vae = DiscreteVAE(image_size=256, num_layers=3, num_tokens=8192, codebook_dim=512, hidden_dim=256,
                      num_resnet_blocks=2)  # fmt: skip
    model = DALLE(dim=512, vae=vae, num_text_tokens=49408, text_seq_len=256, depth=2, heads=4, dim_head=64,
                  reversible=True, shift_tokens=True, rotary_emb=True, loss_img_weight=7)  # fmt: skip
    model.to(device).train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-4)
    state: dict[str, Any] = {}

    def data(batch: int, words: int) -> None:
        """Captions of so many words, filled up with zeros; pictures of noise."""
        text = torch.zeros(batch, 256, dtype=torch.long)
        text[:, :words] = torch.randint(1, 49408, (batch, words))
        pictures = torch.rand(batch, 3, 256, 256)
        state.update(text=text.to(device), pictures=pictures.to(device))

    def step() -> float:
        loss = model(state["text"], state["pictures"], return_loss=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    @torch.no_grad()
    def draw(limit: int, guidance: float = 1.0, start: int = 0) -> list[float]:
        """The loop of `generate_images`, from code `start` for `limit` codes: seconds of each."""
        text, seconds = state["text"][:1].clone(), []
        out = torch.cat((text, torch.randint(0, 8192, (1, start), device=device)), 1)
        for _ in range(limit):
            began = time.perf_counter()
            logits = model.forward_with_cond_scale(out[:, :256].clone(), out[:, 256:], cond_scale=guidance)[:, -1]
            code = gumbel_sample(top_k(logits, thres=0.9), temperature=1.0, dim=-1) - model.num_text_tokens
            out = torch.cat((out, code[:, None]), -1)
            seconds.append(_since(began))
        return seconds

    @torch.no_grad()
    def draw_cached(limit: int) -> list[float]:
        """The same by its cached forward, which `generate_images` never reaches without guidance."""
        text, seconds = state["text"][:1].clone(), []
        out, cache = text, {}
        for _ in range(limit):
            began = time.perf_counter()
            logits = model(out[:, :256].clone(), out[:, 256:], cache=cache)[:, -1]
            code = gumbel_sample(top_k(logits, thres=0.9), temperature=1.0, dim=-1) - model.num_text_tokens
            out = torch.cat((out, code[:, None]), -1)
            seconds.append(_since(began))
        return seconds

    def _since(began: float) -> float:
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    def evaluate() -> None:
        model.eval()
        optimizer.state.clear()

    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad) * 4
    held = lambda: {"weights": parameters, "gradients": parameters, "optimizer": 2 * parameters}
    answer({"data": data, "step": step, "held": held, "evaluate": evaluate, "draw": draw, "draw_cached": draw_cached})


if __name__ == "__main__":
    main()
