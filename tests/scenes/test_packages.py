"""A package comes from the first place that has the pinned bytes, is unpacked whole, and says what to do where not."""

import hashlib
import io
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from workloads.errors import DataError
from workloads.scenes.make import scenes_folder
from workloads.scenes.packages import STAMPS, Package, unpacked
from workloads.scenes.things import GROUPS, STAMP_FILES, load_things


def deb(files: dict[str, bytes]) -> bytes:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w:xz") as out:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
    made = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.xz", tar.getvalue())):
        made += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content
        made += b"\n" * (len(content) % 2)
    return made


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPOT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_it_comes_from_the_first_place_that_has_the_pinned_bytes(cache: Path, tmp_path: Path) -> None:
    content = deb(
        {"./usr/x/a/owl.png": b"owl", "./usr/x/owl.ogg": b"hoot", "./etc/passwd.png": b"", "./usr/x/../b.png": b"b"}
    )
    (tmp_path / "good.deb").write_bytes(content)
    (tmp_path / "newer.deb").write_bytes(content + b"newer")
    package = Package(
        name="stamps",
        megabytes=1,
        sha256=hashlib.sha256(content).hexdigest(),
        command=("cp", str(tmp_path / "newer.deb"), "."),
        urls=((tmp_path / "gone.deb").as_uri(), (tmp_path / "good.deb").as_uri()),
        inside="usr/x",
        wanted=(".png",),
        instead="draw it yourself",
    )
    said: list[str] = []
    folder = unpacked(package, said.append)
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")} == {"a/owl.png"}
    assert (folder / "a/owl.png").read_bytes() == b"owl"
    assert [path for path in folder.rglob("*") if path.is_file()] == [folder / "a/owl.png"]
    assert list(cache.iterdir()) == [folder]
    assert unpacked(package, said.append) == folder
    assert said == ["fetching stamps, 1 MB, once on this machine"]

    with pytest.raises(DataError) as refused:
        unpacked(replace(package, sha256="0" * 64))
    for part in ("cp ", "another version, sha256", "gone.deb", "SPOT_CACHE_DIR", "or draw it yourself"):
        assert part in str(refused.value)
    assert list(cache.iterdir()) == [folder]


def test_there_are_only_scenes_that_are_named(cache: Path) -> None:
    with pytest.raises(DataError, match="write scenes:stamps, scenes:emoji, scenes:digits, scenes:panes"):
        scenes_folder("scenes:stamp")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_real_package_has_every_thing_with_a_caption_that_says_so(cache: Path) -> None:
    """161 MB over the network; SPOT_STAMPS_DEB names a file that is there already."""
    package = STAMPS
    if at_hand := os.environ.get("SPOT_STAMPS_DEB"):
        package = replace(package, command=("cp", at_hand, "."))
    try:
        folder = unpacked(package)
    except DataError as error:
        if "another version" in str(error) or "404" in str(error):
            raise
        pytest.skip(f"no network: {error}")
    assert len(list(folder.rglob("*.png"))) == 796
    things = load_things(folder, STAMP_FILES)
    assert [thing.name for thing in things] == [name for names in GROUPS.values() for name in names]
    for name, files in STAMP_FILES.items():
        for file in files:
            caption = (folder / f"{file}.txt").read_text(errors="replace").splitlines()[0]
            assert name in caption.lower(), (file, caption)
