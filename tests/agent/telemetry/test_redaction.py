"""Redaction: what is a secret is hidden, what only sounds like one is not, and neither takes long."""

from __future__ import annotations

import time

import pytest

from agent.telemetry.redaction import HIDDEN, clean, hide

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
