"""Small checkpoints of transformers, made by the tests, and plain loops over their tokens."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from building import card_of
from gmbench.baselines.autoregressive.hf.model import HuggingFace
from gmbench.errors import UserError
from gmbench.spaces import TokenSequence

transformers = pytest.importorskip("transformers")

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
SENTENCES = [
    "the cat sees the small dog",
    "a dog that the cats see runs",
    "numbers like 12 and 7, and a café (naïve?)",
    "Capital letters; a <unk> and a </s> that is only spelt",
]
POSITIONS = 24
TOLERANCE = 1e-4  # nats


def byte_pairs() -> Any:
    from tokenizers import ByteLevelBPETokenizer

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(SENTENCES, vocab_size=300, special_tokens=["</s>"], show_progress=False)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, bos_token="</s>", eos_token="</s>")


def whole_words(*words: str, **special: str) -> Any:
    """A tokenizer that knows these words and no others."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    every = [*special.values(), *words]
    one = Tokenizer(models.WordLevel({word: number for number, word in enumerate(every)}, unk_token="<unk>"))
    one.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=one, **special)


def shaken(network: Any) -> Any:
    """The network with large weights, so that its probabilities are far from uniform."""
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=rng))
    return network.eval()


def gpt2(vocab_size: int, **changes: Any) -> Any:
    sizes = {"vocab_size": vocab_size, "n_positions": POSITIONS, "n_embd": 16, "n_layer": 2, "n_head": 2}
    return shaken(transformers.GPT2LMHeadModel(transformers.GPT2Config(**(sizes | changes))))


def save_causal(folder: Path) -> Path:
    """A tiny GPT-2 with byte-level byte pairs."""
    tokenizer = byte_pairs()
    gpt2(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_masked(folder: Path) -> Path:
    """A tiny BERT of whole words."""
    marks = {"pad_token": "[PAD]", "unk_token": "<unk>", "cls_token": "[C]", "sep_token": "[S]", "mask_token": "[M]"}
    tokenizer = whole_words("the", "cat", "dog", "sees", "runs", **marks)
    config = transformers.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=16, **SIZES)
    shaken(transformers.BertForMaskedLM(config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


SPACE = TokenSequence(7, 6, words=("<pad>", "<eos>", "the", "cat", "dog", "sees", "runs"))


def build(checkpoint: Path | str, **changes: Any) -> HuggingFace:
    config = card_of(HuggingFace).config | {"checkpoint": str(checkpoint)} | changes
    return HuggingFace(HuggingFace.Config(**config), SPACE)


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "copy"))


@torch.no_grad()
def token_loop(network: Any, ids: Sequence[int], *, size: int = 10**6, stride: int = 1) -> Tensor:
    """log p of every token but the first, (n,), one call of the plain network for each, in windows by their rule."""
    found = []
    for at in range(1, len(ids)):
        end = at if at <= size else min(size + -(-(at - size) // stride) * stride, len(ids) - 1)
        before = list(ids[max(0, end - size) : at])
        found.append(network(input_ids=torch.tensor([before])).logits[0, -1].double().log_softmax(0)[ids[at]])
    return torch.stack(found)


def plain(folder: Path) -> tuple[Any, Any]:
    network = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    return network, transformers.AutoTokenizer.from_pretrained(folder)


def framed(tokenizer: Any, text: str) -> list[int]:
    """A text with EOS before and behind it, its markers split as the tokenizer splits any text."""
    tokens = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [tokenizer.eos_token_id, *tokens, tokenizer.eos_token_id]


def refused(folder: Path) -> str:
    """The one line by which a checkpoint is refused."""
    with pytest.raises(UserError) as caught:
        build(folder).score_text(["the cat"])
    message = str(caught.value)
    assert "\n" not in message
    return message
