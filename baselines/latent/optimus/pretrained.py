"""What Optimus takes from a BERT and a GPT that were trained before: all of their weights, or a reason why not."""

from __future__ import annotations

from torch import nn

from gmbench.errors import UserError
from gmbench.model import Model
from gmbench.spaces import TokenSequence

from ...autoregressive.gpt.model import GPT
from ...masked.bert.model import BERT

PARENTS: dict[str, type[GPT] | type[BERT]] = {"encoder": BERT, "decoder": GPT}
SIZES = ("num_layers", "dim", "num_heads")


def pretrained(name: str, parent: Model, model: Model) -> nn.Module:
    """The network of the fitted `parent` whose weights the part `name` of `model` can take.

    Raises:
        UserError: There is no such part; or the parent is no model of that kind, or of other sizes, of sequences of
            another length, of other words, or with classes.
    """
    if name not in PARENTS:
        raise UserError(f"optimus takes the inputs {' and '.join(PARENTS)}, not {name!r}")
    wanted, own, theirs = PARENTS[name], model.space, parent.space
    start = f"optimus cannot take its {name} from this {type(parent).__name__}"
    if not isinstance(parent, wanted):
        raise UserError(f"{start}: it must be a {wanted.__name__}")
    assert isinstance(own, TokenSequence) and isinstance(theirs, TokenSequence)
    for size in SIZES:
        there, here = getattr(parent.config, size), getattr(model.config, size)
        if there != here:
            raise UserError(f"{start}: it has {size}={there}, and optimus {here}; --set {size}={there} is right")
    for what in ("vocab_size", "max_length", "words"):
        there, here = getattr(theirs, what), getattr(own, what)
        if there != here:
            told = "other words" if what == "words" else f"{what} {there}, not {here},"
            raise UserError(f"{start}: it was trained on sequences of {told}; train it on the same task and variant")
    if getattr(parent.config, "num_classes", 0):
        raise UserError(f"{start}: its sequences start with their classes; train it with num_classes=0")
    return parent.best.network
