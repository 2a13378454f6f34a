"""The provider's schema, as the bindings carry it: a jsii assembly, 130 MB of JSON in an archive.

Reading it takes some seconds, so what matters of it is kept in the user's cache folder, under the bindings' version.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from infra.proof.enums import allowed_words

PACKAGE = "cdktn-provider-google"
_MODULE = "cdktn_provider_google"
_READERS = ("bindings.py", "enums.py")
"""What is kept was made by these: it is made again when one of them changes."""

_TERRAFORM_NAME = re.compile(r"\{@link \S+?#(\w+) \w+#\w+\}")
_RESOURCE = re.compile(r"/google/([\d.]+)/docs(?:/\S*)? (google\w*)\}")
_DEPRECATED = re.compile(r"(?si)(?:^\W*deprecated\W+|\bField (?=(?:is|will be) deprecated\b))([^.\n]*)")
"""The schema's own flag is not in the bindings: only descriptions say it."""
_KINDS = {
    "cdktn.TerraformResource": "resource",
    "cdktn.TerraformDataSource": "data",
    "cdktn.TerraformProvider": "provider",
    "cdktn.ComplexObject": "part",
}

Json = dict[str, Any]


class NoBindings(Exception):
    """The bindings are not installed, or are not laid out as expected."""


def load(cache: Path | None = None) -> Json:
    """The schema by kind (resource, data, provider), type and field; see `_compact`.

    `cache`: the folder to keep it in. Default: the user's cache folder.
    """
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise NoBindings(f"{PACKAGE} is not installed\n    fix: make venv, in the checkout") from None
    readers = hashlib.sha256(b"".join((Path(__file__).parent / name).read_bytes() for name in _READERS)).hexdigest()
    kept = (cache or _cache_folder()) / f"{PACKAGE}-{version}-{readers[:8]}.json.gz"
    try:
        found: Json = json.loads(gzip.decompress(kept.read_bytes()))
    except (OSError, EOFError, ValueError):
        found = _compact(_read_assembly())
        _keep(kept, found)
    return found


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spot-training"


def _keep(path: Path, schema: Json) -> None:
    """Written aside and renamed. A cache folder that can't be written costs seconds the next time, nothing else."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(gzip.compress(json.dumps(schema, separators=(",", ":")).encode(), compresslevel=3))
        Path(file.name).replace(path)
    except OSError:
        return


def _read_assembly() -> Json:
    found = importlib.util.find_spec(_MODULE)
    folder = Path(found.origin).parent if found and found.origin else Path()
    archives = sorted(folder.glob("_jsii/*.jsii.tgz"))
    if len(archives) != 1:
        raise NoBindings(f"{PACKAGE} has {len(archives)} jsii archives in {folder}/_jsii, not one: install it again")
    with tarfile.open(archives[0], "r|gz") as archive:
        for member in archive:  # the assembly is the first file: the rest is not even decompressed
            if member.name == "package/.jsii" and (file := archive.extractfile(member)):
                assembly: Json = json.load(file)
                return assembly
    raise NoBindings(f"{archives[0]} has no package/.jsii")


def _compact(assembly: Json) -> Json:
    """{"version": the provider's, KIND: {TYPE: block's name}, "blocks": {NAME: {"fields": ..., "exports": ...}}}.

    A field: {"type": ..., "required": bool, "words": [...], "deprecated": text}, by its name in Terraform. A type is
    "string", "number", "bool", "any", ["list" | "map", type], or ["one" | "many", name of a block].
    Exports are all names that an expression can read, as the bindings spell them: camelCase.
    """
    types: Json = assembly["types"]
    blocks: Json = {}
    schema: Json = {"version": "", "resource": {}, "data": {}, "provider": {}, "blocks": blocks}
    for full_name, found in types.items():
        name = full_name.rpartition(".")[2]
        if found["kind"] == "interface":
            blocks.setdefault(name, {"exports": {}})["fields"] = _fields(name, found)
            continue
        kind = _KINDS.get(found.get("base", ""))
        if kind is None:
            continue
        block = name.removesuffix("OutputReference") if kind == "part" else f"{name}Config"
        blocks.setdefault(block, {"fields": {}})["exports"] = _exports(found)
        if kind != "part" and (said := _RESOURCE.search(found["docs"]["summary"])):
            schema["version"] = said[1]
            schema[kind][said[2]] = block
    if not schema["version"]:
        raise NoBindings(f"{PACKAGE} is not written as expected: no resource type was found")
    return schema


def _fields(block: str, found: Json) -> Json:
    fields: Json = {}
    for prop in found.get("properties", ()):
        docs = prop.get("docs", {})
        text = f"{docs.get('summary', '')} {docs.get('remarks', '')}"
        linked = _TERRAFORM_NAME.search(text)
        name = linked[1] if linked else snake(prop["name"])
        field: Json = {"type": _type_of(prop["type"]), "required": not prop.get("optional", False)}
        if "string" in str(field["type"]) and (words := allowed_words(block, name, text)):
            field["words"] = sorted(words)
        if old := _DEPRECATED.search(text):
            field["deprecated"] = old[1].strip()
        fields[name] = field
    return fields


def _exports(found: Json) -> Json:
    properties = {prop["name"]: prop for prop in found.get("properties", ()) if not prop.get("static")}
    return {
        name: _part_of(prop["type"])
        for name, prop in properties.items()
        if not (name.endswith("Input") and name.removesuffix("Input") in properties)
        and name not in ("internalValue", "fqn")
    }


def _part_of(declared: Json) -> str:
    """The block that an exported value is made of, or nothing where it is plain."""
    name: str = declared.get("fqn", "").rpartition(".")[2]
    for ending in ("OutputReference", "List"):
        if name.endswith(ending) and not declared["fqn"].startswith("cdktn."):
            return name.removesuffix(ending)
    return ""


def _type_of(declared: Json) -> Any:
    if "union" in declared:
        (first, *_) = [one for one in declared["union"]["types"] if one.get("fqn") != "cdktn.IResolvable"] or [{}]
        return _type_of(first)
    if "primitive" in declared:
        return {"string": "string", "number": "number", "boolean": "bool"}.get(declared["primitive"], "any")
    if "collection" in declared:
        element = _type_of(declared["collection"]["elementtype"])
        if declared["collection"]["kind"] == "map":
            return ["map", element]
        return ["many", element[1]] if element[0] == "one" else ["list", element]
    name = declared.get("fqn", "")
    return "any" if not name or name.startswith("cdktn.") else ["one", name.rpartition(".")[2]]


def snake(name: str) -> str:
    """`selfLink` as Terraform writes it."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda found: f"_{found[1].lower()}", name)


def camel(name: str) -> str:
    """`self_link` as the bindings write it."""
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)
