"""What a run learns from: its pictures with their captions, what makes tokens and codes of them, and noise in these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from tessera.config.merging import Checked
from tessera.config.ranges import Processes, Share, ShareAboveZero, ShareBelowOne


@dataclass(frozen=True, kw_only=True)
class DataConfig(Checked):
    """Where the captioned pictures are, and how they are prepared."""

    path: str = ""
    """Folder of pictures with captions: same-name .txt, two trees, metadata.{csv,jsonl,parquet} or COCO JSON; or
    webdataset shards: a .tar, a folder of them, train-{000..099}.tar, http(s)://, gs://, s3://, pipe:COMMAND; or
    hf:NAME, a Hugging Face dataset."""
    captions: str = ""
    """A second folder (or COCO JSON file) with the captions, where they are not beside the pictures; for shards and
    datasets the column: txt, json.caption."""
    codes: str = ""
    """Folder of packed codes that `tessera data encode` wrote; training then does not run the image tokenizer."""
    holdout: ShareBelowOne = 0.05
    """Share of the pairs held out to measure the loss, chosen by a stable hash of their names."""
    crop: ShareAboveZero = 0.75
    """Smallest share of the area that a random crop keeps; 1 always takes the largest centred square."""
    flip: bool = False
    """Mirror half of the pictures."""
    truncate: bool = False
    """Cut captions that are longer than model.text-len instead of refusing them."""
    workers: Processes = 1
    """Processes that read pictures; 0 reads them in the training process."""


@dataclass(frozen=True, kw_only=True)
class TokensConfig(Checked):
    """Which tokenizers the prior uses."""

    image: str = ""
    """A run folder with a trained image tokenizer, or user/name on the hub."""
    text: str = "bpe"
    """bpe trains one on your captions; clip is CLIP's (49,408 entries); chinese is bert-base-chinese; or a file: a
    tokenizer.json, a YouTokenToMe .model, a BERT vocab.txt, CLIP's merges."""
    vocab: Annotated[int, Ge(257), Le(1_048_576)] = 4096
    """Largest vocabulary of a trained bpe."""
    alike: Share = 0.0
    """How much of a prior's fresh weights codes with near vectors have in common: a share of their variance."""


@dataclass(frozen=True, kw_only=True)
class NoiseConfig(Checked):
    """What a prior reads in training in place of the captions and the codes as they are."""

    codes: Share = 0.0
    """Share of the codes that are replaced where they are read; the true ones are predicted all the same."""
    by: Literal["any", "near"] = "near"
    """What stands in their place: any other code, or one of the nearest."""
    join: Annotated[int, Ge(1), Le(16)] = 1
    """One to so many captions of a picture are read one after the other, each time others."""
    drop_words: ShareBelowOne = 0.0
    """Share of the words of a caption that are left out, each time others."""
