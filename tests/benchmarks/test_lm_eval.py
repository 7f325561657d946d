"""Scoring a checkpoint beside lm-eval: the same network, texts and windows (select with -m benchmark).

    OMP_NUM_THREADS=1 GMBENCH_LM_EVAL=/path/to/python pytest -m benchmark tests/benchmarks/test_lm_eval.py

lm-eval 0.4.13 over ours, one thread of a machine of two cores, at its batch sizes of 1 and 32: 600 sentences 3.5 and
2.6 (2.1 to 2.7 at 32 beside other work), 30 documents of .3 to 1.7 kB 1.3 and 2.1, one of 30 kB 1.6 and 1.8, multiple
choice 8.0 and 10.6. Where there is a GPU, both sides compute there, and the time is the wall's.

The interpreter in $GMBENCH_LM_EVAL (this one by default) needs lm-eval beside gmbench and transformers; without it the
benchmark is skipped. Both sides are handed texts and give nats, in one process on one thread, in turn, each first half
of the time; the time is the process's own. What lm-eval does around its model (reading tasks, bootstrap) is left out on
both sides. `extra_info` has lm-eval's time over ours, at its default batch size of 1 and at 32, and the number of
tokens. Asserted is that all log-likelihoods are equal.

Ours reads the checkpoint as `hf` loads it, with GELU in one pass. The network is a GPT-2 of 4 layers and 128 dimensions
with random weights, the tokenizer a byte-level BPE trained on the text of Python's own documentation of its language,
which also is what is scored.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WINDOW = 256
BATCH_SIZES = (1, 32)
ROUNDS = 3
LARGEST_GAP = 1e-3  # nats of a document of thousands of tokens, each rounded to float32


@pytest.mark.benchmark
@pytest.mark.parametrize("workload", ["sentences", "documents", "long_document", "multiple_choice"])
def test_beside_lm_eval(benchmark: Any, workload: str) -> None:
    pytest.importorskip("transformers")
    interpreter = os.environ.get("GMBENCH_LM_EVAL", sys.executable)
    asked = "import importlib.util as u, sys; sys.exit(u.find_spec('lm_eval') is None)"
    if subprocess.run([interpreter, "-c", asked], check=False).returncode:
        pytest.skip(f"{interpreter} has no lm_eval: GMBENCH_LM_EVAL names an interpreter that has")
    found: dict[str, Any] = {}

    def call() -> None:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(
            [interpreter, __file__, workload], capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found.update(json.loads(done.stdout.splitlines()[-1]))

    benchmark.pedantic(call, rounds=1)
    benchmark.extra_info.update(found)
    assert found["largest_gap"] < LARGEST_GAP


def measured(workload: str) -> dict[str, Any]:
    """Runs one workload on both sides."""
    import torch
    from lm_eval.models.huggingface import HFLM

    from gmbench.baselines.autoregressive.hf.checkpoint import load

    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    clock = time.perf_counter if device == "cuda" else time.process_time
    text = corpus()
    network, tokenizer = checkpoint(text)
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        loaded = load(Path(folder))
    network, ours_network = network.to(device), loaded.network.to(device)
    work = multiple_choice(text) if workload == "multiple_choice" else texts(workload, text)
    found: dict[str, Any] = {"workload": workload}
    gaps = []
    for batch_size in BATCH_SIZES:
        harness = HFLM(
            network, tokenizer=tokenizer, backend="causal", device=device, batch_size=batch_size, max_length=WINDOW
        )
        sides: list[Callable[[], list[float]]] = [
            lambda harness=harness: of_lm_eval(harness, work),  # type: ignore[misc]
            lambda: of_gmbench(ours_network, loaded.tokenizer, work),
        ]
        spent: tuple[list[float], list[float]] = ([], [])
        for turn in range(ROUNDS + 1):
            values: dict[int, list[float]] = {}
            for side in (turn % 2, 1 - turn % 2):
                begin = clock()
                values[side] = sides[side]()
                spent[side].append(clock() - begin)
            gaps.append(max(abs(a - b) for a, b in zip(values[0], values[1], strict=True)))
        theirs, ours = (seconds[1:] for seconds in spent)  # the first turn warms up
        found[f"lm_eval_seconds_bs{batch_size}"] = statistics.median(theirs)
        found[f"gmbench_seconds_bs{batch_size}"] = statistics.median(ours)
        found[f"ratio_bs{batch_size}"] = statistics.median(a / b for a, b in zip(theirs, ours, strict=True))
    flat = work if isinstance(work[0], str) else [context + answer for context, some in work for answer in some]
    found["num_texts"] = len(flat)
    found["num_tokens"] = sum(map(len, tokenizer(flat, verbose=False)["input_ids"]))
    found["largest_gap"] = max(gaps)
    return found


def of_lm_eval(harness: Any, work: list[Any]) -> list[float]:
    from lm_eval.api.instance import Instance

    if isinstance(work[0], str):
        asked = [Instance("loglikelihood_rolling", {}, (text,), number) for number, text in enumerate(work)]
        return list(harness.loglikelihood_rolling(asked, disable_tqdm=True))
    pairs = [(context, answer) for context, answers in work for answer in answers]
    asked = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
    return [value for value, _ in harness.loglikelihood(asked, disable_tqdm=True)]


def of_gmbench(network: Any, tokenizer: Any, work: list[Any]) -> list[float]:
    """As the model `hf` scores, without the end of a text and in windows that follow each other, as lm-eval does."""
    import torch

    from gmbench.baselines.autoregressive.hf.encoding import Encoder
    from gmbench.baselines.autoregressive.hf.model import TOKENS, TOKENS_ON_GPU, answer_tokens
    from gmbench.baselines.autoregressive.hf.readout import readout
    from gmbench.baselines.autoregressive.hf.scoring import score, score_answers, windows

    parts, encoder = readout(network), Encoder(tokenizer, network.config.vocab_size)
    tokens_per_batch = TOKENS.get(parts.device.type, TOKENS_ON_GPU)
    if not isinstance(work[0], str):
        contexts, answers = [context for context, _ in work], [some for _, some in work]
        sequences, num_scored = answer_tokens(encoder, contexts, answers, start=False)
        return score_answers(parts, sequences, num_scored, tokens_per_batch=tokens_per_batch).tolist()
    spans = windows([[encoder.start, *tokens] for tokens in encoder.encode(work)], WINDOW, WINDOW)
    log_p = score(parts, spans, tokens_per_batch=tokens_per_batch)
    return torch.zeros(len(work), dtype=torch.float64).index_add_(0, spans.sequence, log_p).tolist()


def corpus() -> list[str]:
    from pydoc_data.topics import topics

    return [" ".join(line.split()) for _, page in sorted(topics.items()) for line in page.split("\n\n")]


def checkpoint(text: list[str]) -> tuple[Any, Any]:
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    end = "<|endoftext|>"
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(text, vocab_size=8192, special_tokens=[end], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer, bos_token=end, eos_token=end, model_max_length=WINDOW
    )
    size = {"vocab_size": 8192, "n_positions": WINDOW, "n_embd": 128, "n_layer": 4, "n_head": 4}
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0)).eval(), tokenizer


def texts(workload: str, text: list[str]) -> list[str]:
    """Sentences of about 15 tokens, documents of 0.3 to 1.7 kB, or one of 30 kB."""
    joined = " ".join(text)
    if workload == "sentences":
        words = joined.split()
        return [" ".join(words[at : at + 5 + at % 12]) for at in range(0, 16 * 600, 16)]
    if workload == "documents":
        sizes = [300 + 1400 * number // 30 for number in range(30)]
        begins = [2000 * number for number in range(30)]
        return [joined[begin : begin + size] for begin, size in zip(begins, sizes, strict=True)]
    return [joined[:30_000]]


def multiple_choice(text: list[str]) -> list[tuple[str, list[str]]]:
    """20 questions of about 15 tokens with 8 answers of about 10, behind the same 150 tokens of examples.

    Every other question ends in a blank, which both sides take for the answers'.
    """
    words = " ".join(text).split()
    shots = " ".join(words[:75])
    questions = []
    for number in range(20):
        at = 1000 + 200 * number
        answers = [" ".join(words[at + 20 + 6 * other : at + 26 + 6 * other]) for other in range(8)]
        before, behind = (" ", "") if number % 2 else ("", " ")
        asked = f"{shots} {' '.join(words[at : at + 8])}{behind}"
        questions.append((asked, [before + answer for answer in answers]))
    return questions


if __name__ == "__main__":
    if importlib.util.find_spec("lm_eval") is None:
        sys.exit("lm_eval is not installed here")
    print(json.dumps(measured(sys.argv[1])))
