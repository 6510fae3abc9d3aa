"""Whether drawings show what was asked for, by a judge of its own and by single words. It knows no files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tessera.data.pictures import MODES, middle_square, resized, to_image
from tessera.data.sources import Pair
from tessera.errors import CheckpointError
from tessera.evaluate.distances import named
from tessera.evaluate.drawings import Asked
from tessera.evaluate.figures import Figure, Word
from tessera.evaluate.intervals import Estimate
from tessera.evaluate.likelihood import candidates
from tessera.evaluate.looking import Look, floats, spread
from tessera.evaluate.meanings import MEANINGS
from tessera.evaluate.measuring import REFERENCE, exact
from tessera.evaluate.text_fit import WordProbes, content_words, r_precision
from tessera.generate.judge import CLIPJudge
from tessera.tokens import text as text_tokens

ROWS = 64


@torch.inference_mode()
def pictures_read(judge: CLIPJudge, pixels: Tensor) -> Tensor:
    """Unit vectors [B, D] of pictures, uint8 [B, C, S, S], in the judge's channels and size."""
    c, device = judge.model.config, judge.model.temperature.device
    arrays = [np.array(to_image(floats(p)).convert(MODES[c.channels])) for p in pixels]
    planes = [torch.from_numpy(a.reshape(*a.shape[:2], -1)).permute(2, 0, 1) for a in arrays]
    small = torch.stack([resized(p, middle_square(*p.shape[1:]), c.pixels) for p in planes])
    return torch.cat([judge.model.look(floats(part.to(device))).cpu() for part in small.split(ROWS)])


@torch.inference_mode()
def captions_read(judge: CLIPJudge, captions: Sequence[str]) -> Tensor:
    """Unit vectors [B, D] of captions, cut where they are too long for the judge."""
    c, device = judge.model.config, judge.model.temperature.device
    ids = [judge.text.encode(caption) for caption in captions]
    if max((max(i, default=0) for i in ids), default=0) >= c.text_vocab:
        raise CheckpointError("The judge's text tokenizer has more tokens than its model: they do not belong together.")
    tokens = text_tokens.pad(ids, c.text_len, c.text_vocab, True, captions).to(device)
    return torch.cat([judge.model.read(t, t < c.text_vocab).cpu() for t in tokens.split(ROWS)])


def judged(
    judge: CLIPJudge, asked: Sequence[Asked], pixels: Tensor, photographs: Tensor, held: Sequence[Pair],
    learned: Sequence[Pair], seed: int,
) -> Figure:  # fmt: skip
    """R-precision of drawings [B, ...]; the ceiling is that of the held-out photographs [H, ...] with their first
    captions."""
    both = [(asked, pixels), ([Asked(i, p.captions[0], 0) for i, p in enumerate(held)], photographs)]
    estimates: list[Estimate] = []
    among = 0
    for wanted, pictures in both:
        lists = [candidates(held, learned, a.picture, a.caption, seed) for a in wanted]
        among = min(map(len, lists))
        lists = [captions[:among] for captions in lists]
        known = {caption: i for i, caption in enumerate(dict.fromkeys(c for captions in lists for c in captions))}
        texts, images = captions_read(judge, list(known)), pictures_read(judge, pictures)
        rows = torch.tensor([[known[c] for c in captions] for captions in lists])  # [B, C]
        similarity = (texts[rows] * images[:, None]).sum(-1)
        estimates.append(r_precision(similarity, torch.zeros(len(wanted), dtype=torch.long)))
    return Figure(
        name=f"R-precision among {among}", group="text", value=estimates[0], ceiling=estimates[1],
        floor=exact(1 / max(1, among), estimates[0].count),
        about=MEANINGS["r_precision"],
    )  # fmt: skip


def words(
    learned: Sequence[Pair], seen: Look, asked: Sequence[Asked], drawn: Look, held: Sequence[Pair], look: Look,
    senseless: Look, name: str,
) -> tuple[Figure, list[Word]]:  # fmt: skip
    """Linear probes on photographs' features, asked of drawings, of held-out photographs, and of the floor."""
    probes = _probes(learned, seen)
    prompts, firsts = [a.caption for a in asked], [p.captions[0] for p in held]  # one caption each, to be fair
    by_drawing, by_photograph = probes.score(drawn.features, prompts), probes.score(look.features, firsts)
    found = [
        Word(
            word=word,
            photographs=by_photograph[word].value if word in by_photograph else None,
            drawings=by_drawing[word].value if word in by_drawing else None,
            asked=sum(word in content_words(prompt) for prompt in prompts),
        )
        for word in probes.words
    ]
    figure = Figure(
        name=named(f"{len(probes.words)} words seen, AUC", name), group="text",
        value=probes.overall(drawn.features, prompts), ceiling=probes.overall(look.features, firsts),
        floor=probes.overall(senseless.features, firsts),
        about=MEANINGS["words"],
    )  # fmt: skip
    return figure, found


def words_through_codes(
    learned: Sequence[Pair], coded: Look, asked: Sequence[Asked], drawn: Look, held: Sequence[Pair], again: Look,
    senseless: Look, name: str,
) -> Figure:  # fmt: skip
    """The same with probes on what the codes keep of photographs, so that what the image tokenizer loses does not count
    against the drawings; the ceiling is what the codes keep of held-out photographs."""
    probes = _probes(learned, coded)
    prompts, firsts = [a.caption for a in asked], [p.captions[0] for p in held]
    return Figure(
        name=named("words through the codes, AUC", name), group="text",
        value=probes.overall(drawn.features, prompts), ceiling=probes.overall(again.features, firsts),
        floor=probes.overall(senseless.features, firsts),
        about=MEANINGS["words through codes"],
    )  # fmt: skip


def _probes(learned: Sequence[Pair], look: Look) -> WordProbes:
    rows = spread(range(len(learned)), REFERENCE)
    return WordProbes.fit(look.features[torch.tensor(rows)], ["\n".join(learned[i].captions) for i in rows])
