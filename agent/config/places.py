"""Where things are: buckets, folders, Hugging Face names."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, ValidationInfo

from agent.config.refusal import refuse

_BUCKET = re.compile(r"[a-z0-9][a-z0-9_.-]{1,220}[a-z0-9]")
STANDARD_LIBRARY = "stdlib"


def _check_bucket_name(url: str) -> None:
    name = url.removeprefix("gs://").partition("/")[0]
    if not _BUCKET.fullmatch(name):
        raise refuse(
            f"{name!r} is not a bucket name",
            "write gs://BUCKET/PREFIX; a bucket has 3 or more lower-case letters, digits, '-', '_' and '.'",
        )


def check_bucket(url: str) -> str:
    """`gs://bucket/prefix` or `file:///folder`, without a slash at the end."""
    if url.startswith("gs://"):
        _check_bucket_name(url)
    elif url.startswith("file://"):
        if not url.startswith("file:///"):
            raise refuse("a file:// bucket needs a whole path", f"write file:///{url.removeprefix('file://')}")
    else:
        raise refuse(f"{url!r} is no place for checkpoints", "write gs://BUCKET/PREFIX or file:///FOLDER")
    return url.rstrip("/")


def resolve_folder(folder: str, info: ValidationInfo) -> str:
    """A relative folder becomes one below the run file's folder (validation context `base`), `~` the home folder."""
    base = (info.context or {}).get("base", Path.cwd())
    return str((Path(base) / Path(folder).expanduser()).resolve())


def _check_source(source: str, info: ValidationInfo) -> str:
    if source == STANDARD_LIBRARY:
        return source
    scheme, separator, rest = source.partition("://")
    if not separator:
        return resolve_folder(source, info)
    if scheme not in ("gs", "hf") or not rest:
        raise refuse(
            f"{source!r} is no source of data",
            "write a folder, gs://BUCKET/PREFIX, hf://DATASET or stdlib",
        )
    if scheme == "gs":
        _check_bucket_name(source)
    return source.rstrip("/")


def _resolve_name(name: str, info: ValidationInfo) -> str:
    return resolve_folder(name, info) if name.startswith((".", "/", "~")) else name


def _path(value: object) -> object:
    return Path(value) if isinstance(value, str) else value


def _resolve_path(path: Path, info: ValidationInfo) -> Path:
    return Path(resolve_folder(str(path), info))


Bucket = Annotated[str, AfterValidator(check_bucket), Field(examples=["gs://my-bucket/runs", "file:///data/runs"])]
Source = Annotated[str, AfterValidator(_check_source), Field(min_length=1)]
HuggingFaceName = Annotated[str, AfterValidator(_resolve_name), Field(min_length=1)]
"""A name on the Hugging Face hub, or a folder when it starts with `.`, `/` or `~`."""
Folder = Annotated[Path, AfterValidator(_resolve_path), BeforeValidator(_path), PlainSerializer(str, return_type=str)]
