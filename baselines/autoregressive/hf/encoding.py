"""Text as the token ids of a checkpoint's tokenizer; what it cannot write is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gmbench.errors import UserError
from gmbench.record import canonical


@dataclass(frozen=True)
class Encoder:
    """A tokenizer that says so where it cannot write a text.

    Arguments:
        tokenizer: Of transformers.
        num_ids: How many ids the network knows: a tokenizer of another checkpoint may make others.
        lossless: Whether it must give a text back, white space apart. Otherwise the tokens stand for many texts, and
            their probability is no text's.
    """

    tokenizer: Any
    num_ids: int
    lossless: bool = True

    @property
    def start(self) -> int:
        """What stands before the first token: BOS, or EOS where the tokenizer has no BOS."""
        return self.mark("bos", "eos")

    @property
    def end(self) -> int:
        """What stands behind the last token and is scored: EOS, without which the end of a text has no probability."""
        return self.mark("eos")

    def mark(self, *names: str) -> int:
        """The id of the first of the marks with these names that the tokenizer has.

        Raises:
            UserError: It has none, or the network does not know the id.
        """
        found = {name: getattr(self.tokenizer, f"{name}_token_id") for name in names}
        name, chosen = next(((name, one) for name, one in found.items() if one is not None), ("", None))
        if chosen is None:
            raise UserError(f"the checkpoint's tokenizer has no {' or '.join(name.upper() for name in names)} token")
        if chosen >= self.num_ids:
            raise UserError(
                f"the tokenizer's {name.upper()} is token {chosen}, and the network knows {self.num_ids} only"
            )
        return int(chosen)

    @property
    def name(self) -> str:
        """Eight digits of the SHA-256 over the tokenizer's vocabulary."""
        return hashlib.sha256(canonical(sorted(self.tokenizer.get_vocab().items())).encode()).hexdigest()[:8]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, without a start or an end. What a text spells like a marker is split like text.

        Raises:
            UserError: The tokenizer fails, makes unknown tokens, or does not give a text back.
        """
        if not texts:
            return []
        try:
            ids = self._ids(list(texts))
        except Exception:  # the tokenizer's own; which text it was is found one by one
            ids = [self._ids_of_one(text) for text in texts]
        self._refuse_unknown(texts, ids)
        if (highest := max((max(one, default=0) for one in ids), default=0)) >= self.num_ids:
            raise UserError(f"the tokenizer makes token {highest}, and the network knows {self.num_ids} only")
        if self.lossless:
            self._refuse_loss(texts, ids)
        return ids

    def _ids(self, texts: list[str]) -> list[list[int]]:
        found = self.tokenizer(
            texts,
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        ids: list[list[int]] = found["input_ids"]
        return ids

    def _ids_of_one(self, text: str) -> list[int]:
        try:
            return self._ids([text])[0]
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(f"the checkpoint's tokenizer cannot encode {_begin(text)}: {reason[:200]}") from None

    def _refuse_unknown(self, texts: Sequence[str], ids: list[list[int]]) -> None:
        unknown = self.tokenizer.unk_token_id
        if unknown is None:
            return
        for text, tokens in zip(texts, ids, strict=True):
            num = tokens.count(unknown)
            # A corpus may write the marker itself, and a tokenizer of words then has it as a word.
            if num and num > text.count(self.tokenizer.unk_token):
                raise UserError(
                    f"the checkpoint's tokenizer makes {num} unknown tokens of {_begin(text)}: "
                    "all texts that it does not know would share their probability"
                )

    def _refuse_loss(self, texts: Sequence[str], ids: list[list[int]]) -> None:
        back = self.tokenizer.batch_decode(ids, clean_up_tokenization_spaces=False)
        for text, again in zip(texts, back, strict=True):
            if text != again and "".join(text.split()) != "".join(again.split()):
                raise UserError(
                    f"the checkpoint's tokenizer makes {_begin(again)} of {_begin(text)}: "
                    "the probability would be that of every text it changes alike"
                )


def _begin(text: str) -> str:
    """The beginning of a text, on one line, with escapes for what cannot be printed."""
    return ascii(text if len(text) <= 60 else text[:60] + "…") if not text.isprintable() else repr(text[:60])
