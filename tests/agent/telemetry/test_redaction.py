"""Redaction: what is a secret is hidden, what only sounds like one is not, and neither takes long."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from re._constants import (  # type: ignore[import-not-found]
    ASSERT,
    ASSERT_NOT,
    BRANCH,
    MAX_REPEAT,
    MIN_REPEAT,
    SUBPATTERN,
)
from re._parser import parse  # type: ignore[import-not-found]
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis.strategies import from_regex

from agent.config.forms import FORMS
from agent.telemetry.redaction import HIDDEN, clean, hide
from tests.agent.telemetry.gitleaks import MOST

SECRET = "s3cr3tS3cr3tS3cr3t"
TELLTALE = [
    f"AWS_SECRET_ACCESS_KEY={SECRET}",
    f"aws_access_key_id = {SECRET}",
    f"python train.py --token {SECRET} --steps 4",
    f"['python', 'train.py', '--wandb-api-key', '{SECRET}']",
    f"--hub-token={SECRET}",
    f"GITHUB_PAT={SECRET}",
    f"MY_PASSPHRASE: {SECRET}",
    f"AccountKey={SECRET};EndpointSuffix=x",
    f'{{"api_key": "{SECRET}"}}',
    f"Authorization: Bearer {SECRET}",
    f"https://me:{SECRET}@example.com/x",
    "openai.error: sk-proj-s3cr3tS3cr3tS3cr3t1234",
    "key AKIAS3CR3TS3CR3TABCD was used",
    "github_pat_11S3cr3tS3cr3tS3cr3tS3",
    "xoxb-s3cr3tS3cr3t-1234",
    "glpat-s3cr3tS3cr3tS3cr3t",
    "hf_s3cr3tS3cr3tS3cr3tS3",
    "eyJhbGciOiJIUzI1.s3cr3tS3cr3t.s3cr3t",
    f"stripe answered sk_live_{SECRET * 2}",
    f"pplx-{(SECRET * 3)[:48]}",
    f"databricks said dapi{'5ec3e7' * 6}s3cr3t",
    f"lin_api_{(SECRET * 3)[:40]}s3cr3tlonger",
]
HARMLESS = [
    "step 400 loss=2.31 lr=3e-4 tokens=4096 tokens/s: 18,342.5",
    "loss per token: 2.3",
    "{'loss': 1.23, 'grad_norm': 0.7, 'learning_rate': 5e-05, 'num_input_tokens_seen': 131072, 'epoch': 0.1}",
    "GPTNeoXTokenizer(eos_token=</s>, bos_token='<s>', pad_token=None)",
    "Special tokens have been added in the vocabulary",
    "commit 3f786850e387550fdab836ed7e6dc881de23001b",
    " 45%|████▌     | 450/1000 [00:12<00:15, 36.1it/s, v_num=3, train_loss_step=0.12]",
    "max_token: 2048",
    "the token was renewed, 3599 s left",
    "sk-learn and sk-image are not keys",
    "patience=3, sat. 4, layers.0.mlp.experts.12.gate_proj.weight q~0.95 sg.1 hf_hub fm1=0.81",
    "wandb: run-20260722_101010-3f786850 at https://wandb.ai/me/pplx/runs/a3-b2",
]


@pytest.mark.parametrize("text", TELLTALE)
def test_a_secret_is_hidden_in_whatever_form_it_is_told(text: str) -> None:
    told = hide(text)
    assert "s3cr3t" not in told.lower()
    assert HIDDEN in told


@pytest.mark.parametrize("text", HARMLESS)
def test_what_training_prints_of_itself_stays_as_it_is(text: str) -> None:
    assert hide(text) == text


@pytest.mark.parametrize("key", ["wandb_api_key", "AWS_SECRET_ACCESS_KEY", "GITHUB_PAT", "hub_token"])
def test_a_field_whose_name_says_so_is_hidden_whatever_is_in_it(key: str) -> None:
    assert clean("anything", key) == HIDDEN


def repeats(pattern: Any, inside: int = 1) -> Iterator[tuple[int, int]]:
    """Of each repeat in a parsed pattern: the most it takes, and how often one around it may be tried again."""
    for operation, value in pattern:
        if operation in (MAX_REPEAT, MIN_REPEAT):
            low, high, body = value
            yield high, inside
            yield from repeats(body, inside * (high - low + 1))
        elif operation is SUBPATTERN:
            yield from repeats(value[-1], inside)
        elif operation is BRANCH:
            for branch in value[1]:
                yield from repeats(branch, inside)
        elif operation in (ASSERT, ASSERT_NOT):
            yield from repeats(value[1], inside)


@pytest.mark.parametrize(("name", "pattern"), [(name, pattern) for name, _, pattern in FORMS])
def test_a_form_looks_at_a_bounded_number_of_characters_in_few_ways(name: str, pattern: str) -> None:
    """So that a text of twice the length takes twice the time, whatever is in it: no repeat is without end, and none
    that varies is in another that does."""
    found = list(repeats(parse(pattern)))
    assert all(high <= MOST for high, _ in found)
    assert all(again == 1 or high == 1 for high, again in found), found


@pytest.mark.slow
@pytest.mark.parametrize(("keywords", "pattern"), [form[1:] for form in FORMS], ids=[form[0] for form in FORMS])
def test_each_form_of_the_list_is_hidden_and_takes_no_time(keywords: tuple[str, ...], pattern: str) -> None:
    @settings(max_examples=3, deadline=None, derandomize=True, database=None)
    @given(secret=from_regex(re.compile(pattern, re.ASCII), fullmatch=True))
    def check(secret: str) -> None:
        assert secret not in hide(f"{keywords[0]} {secret} and so on")

    check()
    for piece in (*keywords, keywords[0].upper(), keywords[0] + "a"):
        begun = time.process_time()
        hide(piece * (100_000 // len(piece)))
        assert time.process_time() - begun < 10.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece",
    ["eyJ-", "token", "token ", "://a:", "-----BEGIN PRIVATE KEY-----", "--token ", "a-", "=", "bearer ", "sk-"],
)
def test_no_text_takes_more_than_its_length(piece: str) -> None:
    """Twice the text may take 2 times as long; quadratic would be 4 times, and hours for what a trainer prints."""

    def seconds(size: int) -> float:
        text = piece * (size // len(piece))
        begun = time.process_time()
        hide(text)
        return time.process_time() - begun

    assert seconds(1 << 21) < 30.0, "2 MB; a quadratic pattern needs many minutes"
