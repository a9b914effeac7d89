"""The arithmetic example: its data, and a short run of all of it."""

import re

import numpy as np
import pytest

from examples_test import ROOT, load_example

arithmetic = load_example(ROOT / "examples" / "arithmetic" / "train.py")


@pytest.mark.parametrize(("sign", "symbol"), [(10, "+"), (11, "-")])
def test_problems_are_right_and_padded_by_the_end(sign, symbol):
    batch = arithmetic.problems(np.random.default_rng(0), 50, 3, sign)
    for tokens, start, end in zip(*batch.values(), strict=True):
        question = arithmetic.text_of(tokens[:start])
        answer = arithmetic.text_of(tokens[start:end])
        a, b = map(int, question.removesuffix("=").split(symbol))
        assert a >= b
        assert answer == f"{a + b if symbol == '+' else a - b}"[::-1] + "."
        assert set(tokens[end:].tolist()) <= {arithmetic.END}


def test_the_loss_counts_the_answers_alone():
    batch = arithmetic.problems(np.random.default_rng(0), 4, 2, arithmetic.PLUS)

    def model(tokens):  # knows all answers, and nothing about the questions
        following = batch["tokens"][:, 1:]
        logits = np.full((*following.shape, 14), -50.0, np.float32)
        position = np.arange(1, batch["tokens"].shape[1])
        known = (position >= batch["starts"][:, None]) * 100.0
        np.put_along_axis(logits, following[..., None], known[..., None] - 50, -1)
        return logits

    assert float(arithmetic.loss_of(model, batch)) < 1e-6


@pytest.mark.slow
def test_a_short_run_adds_subtracts_and_says_so(capsys):
    arithmetic.main(["--smoke"])
    printed = capsys.readouterr().out
    assert "of 500 sums it writes" in printed
    assert "differences it writes" in printed
    assert re.search(r"right [01]\.\d{3} in \d+ seconds\n$", printed)


def test_a_run_below_its_target_fails(monkeypatch):
    monkeypatch.setattr(arithmetic, "train", lambda model, *_: model)
    monkeypatch.setattr(arithmetic, "answers", lambda *_: (["1."], ["2."]))
    with pytest.raises(AssertionError, match=r"below the target of 0\.3"):
        arithmetic.main(["--smoke"])
