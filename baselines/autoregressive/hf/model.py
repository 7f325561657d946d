"""Checkpoints of transformers as they are, by the texts that they score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from gmbench.errors import MissingCapability, UserError
from gmbench.model import Config, Data, Model, TokenCounts
from gmbench.spaces import TokenSequence
from gmbench.training import Stage

from .checkpoint import Loaded, digest, load, locate
from .encoding import Encoder
from .masked import pseudo_log_prob
from .readout import readout
from .scoring import common_prefix, score, score_answers, windows

MANY = 1_000_000  # tokenizers state a limit beyond this where they know none
TOKENS = {"cpu": 1024}  # more are no faster, and take memory
TOKENS_ON_GPU = 16_384


class HuggingFace(Model):
    """A causal or masked language model of the library transformers, which is measured and not fitted.

    A causal one has `score_text`, a masked one `pseudo_log_prob`; each declines the other. The network is no part of
    the model's state, so a run's folder holds no copy of it: it is read again from where it lies, and its digest,
    which is in the config, says whether it still is the same.
    """

    class Config(Config):
        checkpoint: str = Field(exclude=True)
        """A folder with config.json, model.safetensors and a tokenizer, or a name on the Hugging Face hub.

        What the run is known by is `sha256`: the same files elsewhere are the same model.
        """
        sha256: str
        """SHA-256 over the checkpoint's files, filled in; one that is given must be the checkpoint's."""
        window: int = Field(ge=0)
        """Tokens that the network reads at once; 0 for as many as the checkpoint states."""
        stride: int = Field(ge=0)
        """Tokens by which windows on a longer text advance; 0 for half a window."""
        tokens_per_batch: int = Field(ge=0)
        """About how many tokens are read at once, a matter of speed and memory; 0 for what suits the device."""

        @model_validator(mode="before")
        @classmethod
        def _knows_its_content(cls, values: Any) -> Any:
            checkpoint = values.get("checkpoint")
            if not checkpoint or not isinstance(checkpoint, str):
                return values
            found, meant = digest(locate(checkpoint)), values.get("sha256")
            if meant and meant != found:
                raise UserError(f"checkpoint {checkpoint} has the SHA-256 {found}, and not {meant}")
            return {**values, "sha256": found}

    def __init__(self, config: HuggingFace.Config, space: TokenSequence) -> None:
        super().__init__(config, space)
        self.register_buffer("place", torch.zeros(()), persistent=False)  # goes where the model goes
        self._kept: Loaded | None = None

    def stages(self, data: Data) -> Sequence[Stage]:
        if not isinstance(data.space, TokenSequence) or not data.space.words:
            raise UserError("a checkpoint reads text, and this task's tokens are not written as words")
        loaded = self._load()
        if not loaded.masked:
            readout(loaded.network)  # a network that is not causal is refused before anything is measured
        return []

    def score_text(self, texts: list[str]) -> Tensor:
        """log p of each text and of its end behind it, nats, (B,), float64, on the CPU.

        Raises:
            MissingCapability: The checkpoint is of a masked model.
            UserError: The tokenizer cannot write a text.
        """
        parts, encoder = self._causal()
        start, end = encoder.start, encoder.end
        ids = [[start, *tokens, end] for tokens in encoder.encode(texts)]
        if not ids:
            return torch.zeros(0, dtype=torch.float64)
        size = self.window
        stride = self.config.stride or max(1, size // 2)
        if stride > size:
            raise UserError(f"a stride of {stride} leaves out tokens between windows of {size}")
        spans = windows(ids, size, stride)
        log_p = score(parts, spans, tokens_per_batch=self.tokens_per_batch)
        return torch.zeros(len(ids), dtype=torch.float64).index_add_(0, spans.sequence, log_p)

    def count_tokens(self, texts: list[str]) -> TokenCounts:
        """The tokenizer's tokens of each text, and one for its end; the start, which is not scored, is none.

        Raises:
            MissingCapability: The checkpoint is of a masked model.
            UserError: The tokenizer cannot write a text.
        """
        _, encoder = self._causal()
        num = torch.tensor([len(tokens) + 1 for tokens in encoder.encode(texts)], dtype=torch.int64)
        return TokenCounts(encoder.name, num)

    def choose(self, contexts: Sequence[str], answers: Sequence[Sequence[str]]) -> list[Tensor]:
        """log p of each answer given its context, for each of N questions a tensor (num_answers,) of nats, float64.

        A context and its answer are split together, white space at the context's end being the answer's. From the first
        token on that the context by itself does not have, all are scored: a token which joins the end of the context
        with the answer is, and where one answer to a question has such a token, the others are scored from there on as
        well, so that all are given the same. The start stands in front; no end is scored. What all have in common in
        front is read once.

        Raises:
            MissingCapability: The checkpoint is of a masked model.
            UserError: An answer has no tokens, or is with its context longer than the window.
        """
        parts, encoder = self._causal()
        sequences, num_scored = answer_tokens(encoder, contexts, answers)
        if not sequences:
            return [torch.zeros(0, dtype=torch.float64) for _ in answers]
        if (longest := max(map(len, sequences)) - 1) > self.window:
            raise UserError(f"a context and its answer have {longest} tokens, and the window is of {self.window}")
        log_p = score_answers(parts, sequences, num_scored, tokens_per_batch=self.tokens_per_batch)
        return list(log_p.split([len(one) for one in answers]))

    def pseudo_log_prob(self, x: Tensor) -> Tensor:
        """Of x (B, T) as it is written: sum of log p of each of the checkpoint's own tokens given all others, (B,).

        Its closing mark counts as a token, as the end of the text.

        Raises:
            MissingCapability: The checkpoint is of a causal model.
            UserError: The tokenizer cannot write a text or lacks a mask, or a text is longer than the window.
        """
        network, masked = self._loaded.network, self._loaded.masked
        if not masked:
            raise MissingCapability("a causal model reads no later token; it is measured by score_text")
        encoder = self._encoder(lossless=False)
        first, last, mask = (encoder.mark(*names) for names in (("cls", "bos"), ("sep", "eos"), ("mask",)))
        texts = self.space.text(x.cpu())
        ids = [[first, *tokens, last] for tokens in encoder.encode(texts)]
        if (longest := max(map(len, ids))) > self.window:
            raise UserError(f"a text has {longest} tokens, and the masked model reads {self.window}")
        return pseudo_log_prob(network, ids, mask=mask).to(x.device)

    @property
    def num_parameters(self) -> int:
        """Those of the checkpoint's network."""
        return sum(parameter.numel() for parameter in self._loaded.network.parameters())

    @property
    def window(self) -> int:
        """Tokens that the network reads at once.

        Raises:
            UserError: The checkpoint states no limit and the config does not either, or the config's is above it.
        """
        loaded = self._loaded
        stated = num_positions(loaded.network)
        limits = [limit for limit in (stated, loaded.tokenizer.model_max_length) if limit and 0 < limit < MANY]
        chosen: int = self.config.window or min(limits, default=0)
        if not chosen:
            raise UserError("the checkpoint states no longest text: --set window=… says how many tokens it reads")
        if stated and chosen > stated:
            raise UserError(f"a window of {chosen} tokens, and the checkpoint has {stated} positions")
        return chosen

    @property
    def tokens_per_batch(self) -> int:
        """About how many tokens are read at once."""
        chosen: int = self.config.tokens_per_batch or TOKENS.get(self.device.type, TOKENS_ON_GPU)
        return chosen

    @property
    def _loaded(self) -> Loaded:
        return self._load()

    def _load(self) -> Loaded:
        """The checkpoint on the model's device, read at the first call.

        Raises:
            MissingCapability: The config names none.
            UserError: It cannot be loaded, or is no longer what was planned.
        """
        if self._kept is None:
            if not self.config.checkpoint:
                raise MissingCapability("names no checkpoint: --model hf:FOLDER or --model hf:NAME")
            folder = locate(self.config.checkpoint)
            self._kept = load(folder)
            if digest(folder) != self.config.sha256:
                raise UserError(f"{folder} has changed since the run was planned: the same command plans another run")
        if self._kept.network.device != self.device:
            self._kept.network.to(self.device)
        return self._kept

    def _causal(self) -> tuple[Any, Encoder]:
        if self._loaded.masked:
            raise MissingCapability("a masked model has no log p of a text; it is measured by pseudo_log_prob")
        return readout(self._loaded.network), self._encoder()

    def _encoder(self, *, lossless: bool = True) -> Encoder:
        num_ids = self._loaded.network.get_input_embeddings().num_embeddings
        return Encoder(self._loaded.tokenizer, num_ids, lossless)


def num_positions(network: Any) -> int | None:
    """Tokens for which a transformers model has positions; None if it states no limit.

    Positions of the kind `longrope` are others in a batch that goes beyond the length which the model was first trained
    on, so that log p of a text would depend on the texts beside it: that length is the limit.

    RoBERTa and its kin count positions from the padding's id + 1 on, so the rows up to there of the table of positions,
    which has as many as the config states, are of no token.
    """
    config = network.config.get_text_config()
    stated = getattr(config, "max_position_embeddings", None)
    if not stated or stated < 1:
        return None
    rotary = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if "longrope" in (rotary.get("rope_type"), rotary.get("type")):
        first = rotary.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", 0)
        return min(int(stated), int(first or stated))
    for name, module in network.named_modules():
        weight, padding = getattr(module, "weight", None), getattr(module, "padding_idx", None)
        if "position" in name and padding is not None and weight is not None and len(weight) == stated:
            return int(stated) - padding - 1
    return int(stated)


def answer_tokens(
    encoder: Encoder, contexts: Sequence[str], answers: Sequence[Sequence[str]], *, start: bool = True
) -> tuple[list[list[int]], list[int]]:
    """Contexts with each of their answers as tokens, and how many of these are the answer's.

    Arguments:
        start: Whether the start stands in front.
    """
    bare = [context.rstrip() for context in contexts]
    own = encoder.encode(bare)
    both = [context + answer for context, some in zip(contexts, answers, strict=True) for answer in some]
    of = [number for number, some in enumerate(answers) for _ in some]
    first = [encoder.start] if start else []
    together = encoder.encode(both)
    sequences = [[*first, *tokens] for tokens in together]
    kept = [len(tokens) for tokens in own]  # of each context, by all of its answers: they are given the same
    for number, one in zip(of, together, strict=True):
        kept[number] = min(kept[number], common_prefix([one, own[number]]))
    num_scored = [len(one) - kept[number] for number, one in zip(of, together, strict=True)]
    if num_scored and min(num_scored) < 1:
        at = num_scored.index(min(num_scored))
        raise UserError(f"the answer to question {of[at]} adds no token to its context: nothing is to be scored")
    return sequences, num_scored
