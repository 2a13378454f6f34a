import json
from pathlib import Path

import pytest

from tests.llm.conftest import make_data
from workloads.errors import DataError
from workloads.folders import matches
from workloads.llm.sources import list_files


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("name", "pattern", "fits"),
    [
        ("a.py", "**/*.py", True),
        ("a/b/c.py", "**/*.py", True),
        ("a/b/c.py", "*.py", False),
        ("a/b/c.py", "a/**/c.py", True),
        ("a/c.py", "a/**/c.py", True),
        ("xa/c.py", "a/*.py", False),
        ("a.pyc", "*.py", False),
        ("docs/x", "docs/**", True),
        ("a1.txt", "a?.txt", True),
        ("a(1).txt", "a(1).txt", True),
    ],
)
def test_globs_cross_folders_only_with_two_stars(name: str, pattern: str, fits: bool) -> None:
    assert matches(name, [pattern]) is fits


def test_folder_gives_the_files_that_are_included(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", {"a.md": "A", "b/c.md": "C", "b/d.py": "D", ".git/x.md": "hidden", "empty.md": ""})

    files = list_files(make_data(source=str(folder), include=["**/*.md"]))

    assert {file.name: file.texts() for file in files} == {"a.md": ["A"], "b/c.md": ["C"]}


def test_order_of_files_does_not_depend_on_the_disk(tmp_path: Path) -> None:
    names = [f"{n}.md" for n in range(20)]
    one = write(tmp_path / "one", dict.fromkeys(names, "x"))
    two = write(tmp_path / "two", dict.fromkeys(reversed(names), "x"))

    orders = [[f.name for f in list_files(make_data(source=str(folder), include=["*.md"]))] for folder in (one, two)]

    assert orders[0] == orders[1]
    assert orders[0] != sorted(names)


def test_digest_changes_with_the_content(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", {"a.md": "A"})
    data = make_data(source=str(folder), include=["*.md"])
    before = list_files(data)[0].digest
    write(folder, {"a.md": "B"})
    assert list_files(data)[0].digest != before


def test_json_lines_have_a_document_each(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps({"body": text}) for text in ("one\u2028line", "two", "")) + "\n"
    folder = write(tmp_path / "in", {"a.jsonl": lines})
    (file,) = list_files(make_data(source=str(folder), include=["*.jsonl"], text_field="body"))
    assert file.texts() == ["one\u2028line", "two"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n{"body": "b"}\n', r"a\.jsonl:2 is no JSON object with 'text': set data\.text_field"),
        ("nonsense\n", r"a\.jsonl:1 is no JSON object"),
        ('{"text": 1}\n', r"a\.jsonl:1: 'text' is not a text but int"),
    ],
)
def test_bad_json_lines_are_named(tmp_path: Path, content: str, message: str) -> None:
    folder = write(tmp_path / "in", {"a.jsonl": content})
    (file,) = list_files(make_data(source=str(folder), include=["*.jsonl"]))
    with pytest.raises(DataError, match=message):
        file.texts()


def test_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_bytes(b"ok\xff")
    (file,) = list_files(make_data(source=str(tmp_path), include=["*.md"]))
    with pytest.raises(DataError, match=r"a\.md is not UTF-8 text \(byte 2\)"):
        file.texts()


def test_folder_without_text_says_which_patterns_were_tried(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no text found in .* under \*\.md: change data\.include"):
        list_files(make_data(source=str(tmp_path), include=["*.md"]))


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone is not a folder"):
        list_files(make_data(source=str(tmp_path / "gone")))


def test_standard_library_is_modules_and_topics_without_installed_packages_or_tests() -> None:
    files = {file.name: file for file in list_files(make_data(include=["**"]))}

    assert files["json/decoder.py"].texts()[0] == Path(json.decoder.__file__).read_text()
    assert "object" in files["topics/CLASSES.txt" if "topics/CLASSES.txt" in files else "topics/class.txt"].texts()[0]
    assert not [name for name in files if "site-packages" in name or name.startswith("test/")]


def test_hugging_face_dataset_without_the_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(DataError, match="pip install datasets"):
        list_files(make_data(source="hf://some/dataset"))


def test_hugging_face_dataset_gives_its_rows(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    write(tmp_path, {"a.jsonl": "\n".join(json.dumps({"text": f"row {n}"}) for n in range(1500))})
    data = make_data(source=f"hf://{tmp_path}:train")

    files = sorted(list_files(data), key=lambda file: file.name)

    assert [text for file in files for text in file.texts()] == [f"row {n}" for n in range(1500)]
    with pytest.raises(DataError, match=r"no field 'body'.*one of text"):
        list_files(make_data(source=f"hf://{tmp_path}", text_field="body"))
