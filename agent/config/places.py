"""Where things are: buckets, folders, Hugging Face names."""

import re
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, ValidationInfo

from agent.config.refusal import refuse

PACKED = re.compile(r"(gs|file)://.+/[0-9a-f]{64}\.tar\.gz")
"""Where packed code is: named by its digest."""
_BUCKET = re.compile(r"[a-z0-9][a-z0-9_.-]{1,220}[a-z0-9]")
CHECKPOINT = re.compile(r"(?P<url>(?:gs://|file:///)[^@\s]+/(?P<run_id>[a-z][a-z0-9-]*))@(?P<step>\d+)")
"""Where a checkpoint of a run is."""
STANDARD_LIBRARY = "stdlib"
SCENES = ("scenes:stamps", "scenes:emoji", "scenes:digits", "scenes:panes")
"""Pictures with questions that are composed on the machine: workloads/scenes."""


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
    if source == STANDARD_LIBRARY or source in SCENES:
        return source
    if source.startswith("scenes:"):
        raise refuse(f"there are no {source!r}", f"write {', '.join(SCENES[:-1])} or {SCENES[-1]}")
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


def _check_code(code: str, info: ValidationInfo) -> str:
    if "://" not in code:
        return resolve_folder(code, info)
    if not PACKED.fullmatch(code):
        raise refuse(f"{code!r} is no packed code", "write a folder; it is packed, and named by its digest, for the VM")
    if code.startswith("gs://"):
        _check_bucket_name(code)
    return code


def _check_inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or name.startswith("~") or ".." in path.parts or not path.parts:
        raise refuse(f"{name!r} is no file of the code", "write its name in workload.code, and keep it there")
    return str(path)


def _check_saves_to(folder: Path) -> Path:
    """`~` is another folder for each user, and the code's own would be put back over the code."""
    if folder.parts[:1] and folder.parts[0].startswith("~"):
        raise refuse(
            f"{str(folder)!r} is not the same folder on a VM",
            "write a folder below the code's, such as saves, or /FOLDER",
        )
    if not folder.is_absolute() and (not folder.parts or ".." in folder.parts):
        raise refuse(
            f"{str(folder)!r} holds the program's code or more",
            "write a folder below the code's, such as saves, or /FOLDER",
        )
    return folder


def _check_start(address: str) -> str:
    if not CHECKPOINT.fullmatch(address):
        raise refuse(
            f"{address!r} names no checkpoint",
            "write gs://BUCKET/PREFIX/RUN_ID@STEP; `spot checkpoints ls` lists the steps",
        )
    if address.startswith("gs://"):
        _check_bucket_name(address)
    return address


def _path(value: object) -> object:
    return Path(value) if isinstance(value, str) else value


Bucket = Annotated[str, AfterValidator(check_bucket), Field(examples=["gs://my-bucket/runs", "file:///data/runs"])]
Source = Annotated[str, AfterValidator(_check_source), Field(min_length=1)]
StartFrom = Annotated[str, AfterValidator(_check_start)]
"""A checkpoint of another run."""
HuggingFaceName = Annotated[str, AfterValidator(_resolve_name), Field(min_length=1)]
"""A name on the Hugging Face hub, or a folder when it starts with `.`, `/` or `~`."""
Code = Annotated[str, AfterValidator(_check_code), Field(min_length=1)]
"""A folder, or, on a VM, the address of what it was packed to."""
InCode = Annotated[str, AfterValidator(_check_inside), Field(min_length=1)]
"""A file of the code, relative to its folder."""
SavesTo = Annotated[
    Path, AfterValidator(_check_saves_to), BeforeValidator(_path), PlainSerializer(str, return_type=str)
]
"""A folder that is absolute, or relative to the code's."""
