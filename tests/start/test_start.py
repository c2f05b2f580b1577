"""python -m pipeline.start: from a source to the configuration."""

import io
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.tickets import Start, write_tickets

from pipeline.compose.composition import compose_params, parse_params
from pipeline.compose.yaml_files import load_yaml
from pipeline.start import cli
from pipeline.start.questions import Questions


def files_of(folder: Path) -> dict[str, bytes]:
    """conf/ and params.yaml."""
    paths = [*(folder / "conf").rglob("*"), folder / "params.yaml"]
    return {str(path): path.read_bytes() for path in paths if path.is_file()}


def composed() -> dict[str, Any]:
    return parse_params(compose_params())


def test_the_project_is_about_the_users_file_from_then_on(start: Start, in_project: Path) -> None:
    code, output, error = start("tickets.csv", "--yes")
    assert (code, error) == (0, "")
    params = parse_params(Path("params.yaml").read_text())
    assert params == composed()
    assert (params["data"]["source"], params["data"]["path"]) == ("file", "tickets.csv")
    assert params["data"]["columns"] == {"question": "{Subject}\n\n{Body}", "answer": "Agent reply"}
    assert params["clean"]["boilerplate"] == []
    assert params["train"]["epochs"] == 30
    assert load_yaml(Path("conf/config.yaml"))["defaults"][-3:] == [
        {"start": "tickets"},
        "_self_",
        {"experiment": None},
    ]
    assert "Next: dvc repro, then open metrics/report.html" in output


def test_comments_and_keys_of_the_users_configuration_stay(start: Start, in_project: Path) -> None:
    config = Path("conf/config.yaml")
    config.write_text(config.read_text() + "\ntrain:\n  epochs: 4  # enough for me\n")
    before = config.read_text().splitlines()
    code, output, _ = start("tickets.csv", "--yes")
    assert code == 0
    changed = [line for line in config.read_text().splitlines() if line not in before]
    assert [line.split("#")[0].strip() for line in changed] == ["- data: tickets", "- start: tickets"]
    assert composed()["train"]["epochs"] == 4
    assert "train.epochs stays 4, which conf/ sets; the recommended value is 30" in output


def test_the_first_rows_are_shown_as_the_model_sees_them(start: Start) -> None:
    _, output, _ = start("tickets.csv", "--yes")
    assert "Data: tickets.csv: 40 rows, 4 columns" in output
    assert "Not used: Id" in output
    assert "Row 0, prompt:\n  | ### Question:\n  | Invoice 0 is wrong\n" in output
    assert "what the model learns to write):\n  | \n  | We corrected 0.\n  | - Tom\n" in output
    assert "Row 1, prompt:" in output
    assert "Row 2" not in output


def test_conversational_prompts_are_shown_as_one_text(start: Start) -> None:
    row = '{"prompt": [{"role": "user", "content": "Why %d?"}], "completion": [{"role": "assistant", "content": "So %d."}]}\n'
    Path("trl.jsonl").write_text("".join(row % (n, n) for n in range(12)))
    code, output, _ = start("trl.jsonl", "--yes")
    assert code == 0
    assert "  | ### Question:\n  | Why 0?\n" in output


def test_terminal_escapes_of_the_data_are_shown_not_sent(start: Start, in_project: Path) -> None:
    Path("esc.jsonl").write_text(
        "".join(
            f'{{"question": "red \\u001b[31m {n}", "answer": "bell \\u0007 {n}", "\\u001b]0;x": 1}}\n' for n in range(5)
        )
    )
    code, output, _ = start("esc.jsonl", "--yes")
    assert code == 0
    assert "\x1b" not in output + Path("conf/data/esc.yaml").read_text() + Path("conf/start/esc.yaml").read_text()
    assert r"red \x1b[31m 0" in output


def test_running_it_again_changes_nothing(start: Start, in_project: Path) -> None:
    start("tickets.csv", "--yes")
    before = files_of(in_project)
    assert start("tickets.csv", "--yes")[0] == 0
    assert files_of(in_project) == before


def test_another_file_replaces_the_settings_of_the_first(start: Start, in_project: Path) -> None:
    start("tickets.csv", "--yes")
    Path("notes.jsonl").write_text("".join(f'{{"text": "note {n} about something"}}\n' for n in range(700)))
    code, _, _ = start("notes.jsonl", "--yes")
    params = composed()
    assert (code, params["data"]["columns"], params["train"]["epochs"]) == (0, {"text": "text"}, 20)
    assert params["format"]["test_fraction"] == 0.15
    config = Path("conf/config.yaml").read_text()
    assert (config.count("- start:"), config.count("- data:")) == (1, 1)


def test_what_the_user_changed_in_the_option_stays(start: Start, in_project: Path) -> None:
    start("tickets.csv", "--yes")
    option = Path("conf/data/tickets.yaml")
    option.write_text(option.read_text().replace("limit: null", "limit: 30").replace("{Subject}\\n\\n{Body}", "{Body}"))
    code, output, _ = start("tickets.csv", "--yes")
    assert (code, composed()["data"]["limit"], composed()["data"]["columns"]["question"]) == (0, 30, "{Body}")
    assert "30 rows" in output


def test_keys_of_the_data_section_are_written_into_the_option(start: Start, in_project: Path) -> None:
    rows = "".join(f"Wo ist Büro {n}?,Über der Küche {n}.\n" for n in range(12))
    Path("latin.csv").write_bytes(f"Frage,Antwort\n{rows}".encode("cp1252"))
    code, _, error = start("latin.csv", "--yes")
    assert (code, "data.encoding=cp1252" in error) == (1, True)
    code, _, _ = start("latin.csv", "-S", "data.encoding=cp1252", "--yes")
    assert (code, composed()["data"]["encoding"]) == (0, "cp1252")
    assert start("latin.csv", "-S", "train.epochs=3", "--yes")[2].strip() == (
        "start stopped: -S train.epochs=3: start sets keys of the data section only; set train.epochs in conf/config.yaml"
    )


def test_a_model_folder_becomes_an_option(start: Start, in_project: Path) -> None:
    shutil.copytree("models/nano", "models/My Modell")
    code, output, _ = start("tickets.csv", "--model", "models/My Modell", "--yes")
    assert code == 0
    assert composed()["model"]["path"] == "models/My Modell"
    assert Path("conf/model/my_modell.yaml").exists()
    assert "Model: models/My Modell (3,352,704 parameters, 512 positions)" in output
    assert start("tickets.csv", "--model", "nano", "--yes")[0] == 0
    assert composed()["model"]["path"] == "models/nano"


def test_names_of_umlauts_and_spaces_work_from_start_to_composition(start: Start, in_project: Path) -> None:
    write_tickets(Path("Über Fragen/file #1, it's.csv"))
    code, _, error = start("Über Fragen/file #1, it's.csv", "--yes")
    assert (code, error) == (0, "")
    assert composed()["data"]["path"] == "Über Fragen/file #1, it's.csv"


REFUSED = {
    "misspelled": (["tickest.csv"], "no such file: tickest.csv; did you mean tickets.csv"),
    "empty": (["empty.csv"], "empty.csv is empty"),
    "project": (["."], ". is the project's own folder"),
    "device": (["/dev/null"], "/dev/null is a device or a pipe"),
    "binary": (["junk.bin"], "junk.bin: unknown extension .bin"),
    "no rows": (["header.csv"], "has no rows"),
    "two rows": (["two.csv"], "2 usable rows; expected at least 3"),
    "no such column": (["tickets.csv", "--columns", "{question: Subjct, answer: Agent reply}"], "no column Subjct"),
    "no mapping": (["tickets.csv", "--columns", "question=Subject"], "--columns: 'question=Subject' is not a mapping"),
    "unknown key": (["tickets.csv", "-S", "data.delimeter=x"], "data.delimeter: unknown key"),
    "grammar": (["tickets.csv", "-S", "data.sheet=Blätter"], "data.sheet='Blätter'"),
    "password": (["https://ann:secret@example.org/x.csv"], "user name or password"),
    "query": (["x.csv", "-S", "data.test_path=https://example.org/x.csv?token=secret"], "only within quotes"),
    "reserved name": (["tickets.csv", "--name", "generated"], "comes with the project"),
    "invalid name": (["tickets.csv", "--name", "Größe"], "such as grosse"),
    "no model folder": (["tickets.csv", "--model", "models/nope"], "no folder models/nope"),
    "no tokenizer": (["tickets.csv", "--model", "models/headless"], "models/headless has no tokenizer"),
    "interpolation": (["rows ${x}.csv"], "has ${ in it"),
    "expanded pattern": (["a.csv", "b.csv"], "Put the pattern in quotes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_error_and_nothing_is_written(start: Start, in_project: Path, case: str) -> None:
    Path("empty.csv").touch()
    Path("junk.bin").write_bytes(bytes(range(256)))
    Path("header.csv").write_text("question,answer\n")
    Path("rows ${x}.csv").write_text("question,answer\na,b\n")
    Path("two.csv").write_text("question,answer\na,b\nc,d\n")
    shutil.copytree("models/nano", "models/headless", ignore=shutil.ignore_patterns("tokenizer*"))
    before = files_of(in_project)
    arguments, message = REFUSED[case]
    code, output, error = start(*arguments, "--yes")
    assert code == 1
    assert message in error
    assert "secret" not in output + error
    assert files_of(in_project) == before


def test_a_name_that_other_rows_have_is_not_taken(start: Start, in_project: Path) -> None:
    start("tickets.csv", "--yes")
    write_tickets(Path("old/tickets.csv"))
    assert start("old/tickets.csv", "--yes")[0] == 0
    assert composed()["data"]["path"] == "old/tickets.csv"
    assert Path("conf/data/tickets_2.yaml").exists()
    code, _, error = start("old/tickets.csv", "--name", "tickets", "--yes")
    assert (code, "tickets is taken: conf/data/tickets.yaml is about tickets.csv" in error) == (1, True)


def test_failed_composition_restores_every_file(
    start: Start, in_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Path("conf/config.yaml")
    config.write_text(config.read_text() + "\ntokenize:\n  max_length: 5000\n")  # more than the model's positions
    before = files_of(in_project)
    code, _, error = start("tickets.csv", "--yes")
    assert (code, "tokenize.max_length: 5000 is too long" in error) == (1, True)
    assert files_of(in_project) == before
    assert not Path("conf/start").exists()


def test_outside_the_root_start_says_where_to_run(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "run this command in the project's root" in start("tickets.csv", "--yes")[2]


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("y\ny\n", "Inhalt"),
        ("n\nquestion: Kopf, answer: nope\nquestion: Kopf, answer: Ergebnis\ny\n", "Ergebnis"),
    ],
)
def test_an_uncertain_mapping_is_asked_for(
    in_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str, answer: str
) -> None:
    rows = "".join(f"Fall {n} kurz,Der Inhalt von Fall {n} in vielen Worten mehr,Text {n} hier\n" for n in range(12))
    Path("rows.csv").write_text(f"Kopf,Inhalt,Ergebnis\n{rows}")
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    cli.start(cli.parse_command_line(["rows.csv"]), Questions(is_interactive=True))
    assert composed()["data"]["columns"] == {"question": "Kopf", "answer": answer}


def test_end_of_input_writes_nothing(in_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files_of(in_project)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(Exception, match="nothing was written"):
        cli.start(cli.parse_command_line(["tickets.csv"]), Questions(is_interactive=True))
    assert files_of(in_project) == before
