"""Asks one program about pairs: JSON lines in, JSON lines out. Run by the program's own interpreter, without Nacre.

    python worker.py PROGRAM CHECKOUT

A job is {"subject", "reference", "texts"}: two folders and a file of texts. An answer is {"score", "said", "seconds"},
or {"error"}. The programs are imported from their checkouts as they are; nothing of theirs is written here. Where a
program moves tensors to a GPU by name, the CPU answers to that name.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import runpy
import sys
import tempfile
import time
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

Answer = dict[str, Any]
Ask = Callable[[Path, Path, Path], Answer]
N_TEXTS, BLOCK = 16, 64  # sequences and tokens of each that MATCH reads: 1,024 activations for up to 240 neurons


def awm(checkout: Path) -> Ask:
    """The similarity of its quick comparison of two folders; the z-score is against its own constants."""
    sys.path.insert(0, str(checkout))
    import main as program  # type: ignore[import-not-found]

    kept: list[dict[str, Any]] = []
    inner = program.calculate_attention_cka_similarities

    def recording(*given: Any, **named: Any) -> Any:
        kept.append(inner(*given, **named))
        return kept[-1]

    program.calculate_attention_cka_similarities = recording

    def ask(subject: Path, reference: Path, texts: Path) -> Answer:
        kept.clear()
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            program.run_experiment(model1_path=str(reference), model2_path=str(subject), device="cpu")
        z_score = [line for line in printed.getvalue().splitlines() if "Absolute Z-Score" in line]
        return {"score": kept[-1]["averages"]["Wq_Wk_weights"], "said": z_score[-1].strip() if z_score else ""}

    return ask


def huref(checkout: Path) -> Ask:
    """Cosine similarity of invariant terms in percent, by its two scripts. Its images play no part in the score."""
    sys.path.insert(0, str(checkout))
    generator = types.ModuleType("stylegan2.makegan")
    generator.make_stylegan2 = None  # type: ignore[attr-defined]  # compiles CUDA code on import, draws pictures only
    sys.modules["stylegan2.makegan"] = generator
    import main as program  # type: ignore[import-not-found]
    from transformers import AutoModelForCausalLM

    names = ("llama-7b-hf", "alpaca-native")  # its scripts choose a layout by name: these two are its Llama layout

    def ask(subject: Path, reference: Path, texts: Path) -> Answer:
        lines = texts.read_text(encoding="utf-8").splitlines()
        tokens = [_by_frequency(folder, lines) for folder in (reference, subject)]
        count = min(4096, *map(len, tokens))  # its own number where a vocabulary has that many
        with tempfile.TemporaryDirectory() as folder:
            program.invariant_terms_saved_path = folder + os.sep
            for name, model, chosen in zip(names, (reference, subject), tokens, strict=True):
                state = AutoModelForCausalLM.from_pretrained(model).state_dict()
                program.get_invariant_terms2save(state, name, chosen[-count:])
            script = checkout / "Invariant_terms_Cos_Sim.py"
            sys.argv = [str(script), "--invariant_terms_saved_path", folder]
            sys.argv += ["--ics_calcu_models", "llama_family_models"]
            done = runpy.run_path(str(script), run_name="__main__")
        row, column = (done["model_names"].index(name) for name in names)
        return {"score": float(done["cosine_matrix"][row, column]), "said": ""}

    return ask


def _by_frequency(folder: Path, lines: list[str]) -> list[int]:
    """Token ids, the most frequent first, special ones left out: the list that HuRef asks its user for."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    counts = Counter(dict.fromkeys(range(len(tokenizer)), 0))
    for line in lines:
        counts.update(tokenizer(line, add_special_tokens=False)["input_ids"])
    special = set(tokenizer.all_special_ids)
    return [one for one, _ in sorted(counts.items(), key=lambda item: (-item[1], -item[0])) if one not in special]


def csw(checkout: Path) -> Ask:
    """The p-value of the constrained test on up projections (its `csu`)."""
    load = _tracing(checkout)
    from tracing.statistics.csu import statistic  # type: ignore[import-not-found]

    def ask(subject: Path, reference: Path, texts: Path) -> Answer:
        p_value, layers = statistic(load(reference), load(subject))
        return {"score": -float(p_value), "said": f"p = {float(p_value):.3g} over {len(layers)} blocks"}

    return ask


def match(checkout: Path) -> Ask:
    """The p-value of the unconstrained test on activations: Fisher's combination of its blocks."""
    load = _tracing(checkout)
    from datasets import Dataset
    from tracing.statistics.match import statistic  # type: ignore[import-not-found]
    from tracing.utils import evaluate  # type: ignore[import-not-found]
    from tracing.utils.utils import fisher  # type: ignore[import-not-found]
    from transformers import AutoTokenizer

    def ask(subject: Path, reference: Path, texts: Path) -> Answer:
        lines = [one for one in texts.read_text(encoding="utf-8").splitlines() if one]
        evaluate.load_dataset = lambda path, split: Dataset.from_dict({"text": ["\n".join(lines)]})
        data = evaluate.prepare_hf_dataset("held-out texts", BLOCK, AutoTokenizer.from_pretrained(reference))
        data = data.select(range(min(N_TEXTS, len(data))))
        loader = evaluate.prepare_hf_dataloader(data, len(data))
        base, tuned = load(reference), load(subject)
        found = statistic(base, tuned, loader, n_blocks=base.config.num_hidden_layers)
        p_value = float(fisher(found))
        return {"score": -p_value, "said": f"p = {p_value:.3g} over {len(found)} blocks, {len(data) * BLOCK} tokens"}

    return ask


def _tracing(checkout: Path) -> Callable[[Path], Any]:
    """Makes the reference code importable and gives its way of loading a model."""
    sys.path.insert(0, str(checkout))
    import torch
    from transformers import AutoModelForCausalLM

    _answer_as_cuda()
    return lambda folder: AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)


def _answer_as_cuda() -> None:
    """`.to("cuda")` stays on the CPU: the reference code names its device in the text of its functions."""
    import torch

    for kind in (torch.Tensor, torch.nn.Module):
        inner = kind.to

        def moved(self: Any, *given: Any, _inner: Any = inner, **named: Any) -> Any:
            return _inner(self, *["cpu" if isinstance(one, str) and "cuda" in one else one for one in given], **named)

        kind.to = moved  # type: ignore[assignment,method-assign]


def cisco(checkout: Path) -> Ask:
    """The pipeline score and decision of its comparison, without its cache."""
    sys.path.insert(0, str(checkout / "src"))
    from provenancekit.core.scanner import ModelProvenanceScanner  # type: ignore[import-not-found]
    from provenancekit.services.cache import NullCache  # type: ignore[import-not-found]

    scanner = ModelProvenanceScanner(cache=NullCache())

    def ask(subject: Path, reference: Path, texts: Path) -> Answer:
        found = scanner.compare(str(reference), str(subject)).scores
        said = f"{found.provenance_decision} (tier {found.mfi_tier}, identity score {found.identity_score})"
        return {"score": found.pipeline_score, "second": found.identity_score, "said": said}

    return ask


def nacre(checkout: Path) -> Ask:
    """What the whole audit says of the weights; its score is minus the p-value that decided, where one did."""
    from nacre.lifecycle.audit.audit import audit

    def ask(subject: Path, reference: Path, texts: Path) -> Answer:
        [found] = audit(subject, [reference])
        stage = found.stages["weights"]
        score = None if stage.p_value is None else -stage.p_value
        return {"score": score, "said": " ".join(filter(None, (stage.verdict, stage.kind)))}

    return ask


PROGRAMS: dict[str, Callable[[Path], Ask]] = {
    "AWM": awm,
    "HuRef": huref,
    "CSW": csw,
    "MATCH": match,
    "model-provenance-kit": cisco,
    "nacre audit": nacre,
}


def main() -> None:
    """Reads jobs until the input ends. What the program prints itself goes to standard error."""
    import torch

    torch.set_num_threads(1)
    answers, sys.stdout = sys.stdout, sys.stderr
    ask = PROGRAMS[sys.argv[1]](Path(sys.argv[2]).resolve())
    for line in sys.stdin:
        job = json.loads(line)
        began = time.perf_counter()
        try:
            answer = ask(Path(job["subject"]), Path(job["reference"]), Path(job["texts"]))
        except Exception as error:  # noqa: BLE001 - a program that fails on a pair is a result of the comparison
            answer = {"error": f"{type(error).__name__}: {error}".replace("\n", " ")[:200]}
        if isinstance(answer.get("score"), float) and math.isnan(answer["score"]):
            answer = {"error": f"the score is not a number: {answer['said']}"}
        answer["seconds"] = round(time.perf_counter() - began, 3)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
