"""What SOURCE and --model mean, the names of options, and the facts of models in folders and on the Hub."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub.utils import close_session
from hypothesis import given
from hypothesis import strategies as st
from support.hub import Failure, Hub, serve_hub
from support.project import ROOT
from support.snapshots import isolate_client, point_client_to
from support.sources import OWN_TEMPLATE, folder_model, hub_model
from support.tickets import Start

from pipeline.chat.model_template import read_model_templates
from pipeline.compose.adopt import adopt
from pipeline.compose.composition import compose_params, parse_params
from pipeline.config.sources import ScratchModel
from pipeline.errors import DataError, ModelError
from pipeline.fetch.scratch_model import build_scratch_model
from pipeline.start.lengths import Lengths, measure_lengths
from pipeline.start.model_facts import model_facts
from pipeline.start.naming import RESERVED, VALID, option_name, require_option_name
from pipeline.start.source import Named, data_source

NANO = ROOT / "models/nano"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with a dataset of two splits and the model nano."""
    rows = tmp_path / "hub/datasets/owner/faq"
    rows.mkdir(parents=True)
    for split, count in (("train", 40), ("test", 9)):
        lines = [json.dumps({"question": f"{split} question {n}?", "answer": f"answer {n}"}) for n in range(count)]
        (rows / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    shutil.copytree(NANO, tmp_path / "hub/models/owner/nano")
    isolate_client(tmp_path / "hf", monkeypatch)
    with serve_hub(tmp_path / "hub") as hub:
        point_client_to(hub.address, monkeypatch)
        yield hub
    close_session()


def test_a_dataset_and_a_model_of_the_hub_become_the_default(start: Start, hub: Hub) -> None:
    code, output, _ = start("owner/faq", "--model", "owner/nano", "--yes")
    assert code == 0
    params = parse_params(Path("params.yaml").read_text())
    assert (params["data"]["source"], params["data"]["name"], params["data"]["split"]) == ("hub", "owner/faq", "train")
    assert (params["model"]["source"], params["model"]["name"]) == ("hub", "owner/nano")
    assert "Data: owner/faq: 40 rows, 2 columns" in output
    assert "The dataset has a test split. To use it as the test set, set test_split: test" in output
    assert "Model: owner/nano (3,352,704 parameters, 512 positions)" in output
    weights = [request for request in hub.downloads() if "safetensors" in request]
    assert len(weights) <= 2, "only the header of the weights is read"


def test_a_chat_model_of_the_hub_renders_with_its_small_files(
    start: Start, hub: Hub, write_chat_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_chat_model(hub.root / "models/owner/chatty")
    tools = folder / "additional_chat_templates/tool_use.jinja"
    tools.parent.mkdir()
    tools.write_text("tools")
    code, output, _ = start("owner/faq", "--model", "owner/chatty", "--yes")
    assert code == 0
    assert "Rows: rendered by the model's chat template\n" in output
    assert "  | <|user|>train question 0?<|end|><|assistant|>\n" in output
    fetched = {request.partition("/resolve/")[2].partition("/")[2] for request in hub.downloads()}
    small = {"chat_template.jinja", "generation_config.json", "tokenizer_config.json", "tokenizer.json", "config.json"}
    assert small | {"additional_chat_templates/tool_use.jinja"} <= fetched
    model = hub_model("owner/chatty")
    facts = model_facts(model)
    assert facts.folder is not None
    assert (facts.folder / "additional_chat_templates/tool_use.jinja").read_text() == "tools"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert model_facts(model).folder == facts.folder


def test_a_model_that_the_hub_does_not_have_is_an_error(hub: Hub) -> None:
    with pytest.raises(ModelError, match="owner/gone"):
        model_facts(hub_model("owner/gone"))


def test_a_hub_out_of_reach_leaves_the_size_unknown(hub: Hub) -> None:
    hub.failures.append(Failure("models/owner/nano", drop=-1, times=99))
    hub.failures.append(Failure("owner/nano/resolve", drop=-1, times=99))
    facts = model_facts(hub_model("owner/nano"))
    assert (facts.parameters, facts.folder, facts.may_have_chat_template) == (None, None, True)


def test_a_model_out_of_reach_may_have_a_chat_template(start: Start, hub: Hub, in_project: Path) -> None:
    hub.failures.append(Failure("owner/chatty", drop=-1, times=99))
    code, output, _ = start("tickets.csv", "--model", "owner/chatty", "--yes")
    assert code == 0
    assert "rendered by the prompt template, unless the model has a chat template, which is known after fetch" in output


def test_a_tokenizer_in_another_format_is_converted_with_the_chat_template(
    write_chat_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_chat_model(tmp_path / "model")
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"] | {"<|end|>": 256}
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    config = {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|end|>", "unk_token": "<|end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    facts = model_facts(folder_model(folder))
    assert facts.folder is not None
    assert facts.folder != folder
    assert read_model_templates(facts.folder) == read_model_templates(folder)
    assert (facts.folder / "generation_config.json").exists()
    assert not (folder / "tokenizer.json").exists()


def test_facts_of_a_folder_are_read_from_headers_and_config() -> None:
    facts = model_facts(folder_model(NANO))
    assert facts[1:6] == (3_352_704, 512, 4, 192, 4096)
    assert facts.encoder is not None
    assert facts.folder == NANO


def test_a_scratch_model_has_the_size_that_start_reports(tmp_path: Path) -> None:
    data = {
        "source": "generated", "path": str(ROOT / "data/knowledge/conditions.yaml"), "sha256": None, "rows": 60, "turns": "one",
        "length": "short", "seed": 0, "limit": None, "columns": {"question": "Description", "answer": "Doctor"},
    }  # fmt: skip
    sizes = {"vocabulary": 400, "positions": 96, "layers": 2, "hidden_size": 32, "heads": 2}
    model = ScratchModel(source="scratch", seed=0, data=data, **sizes, **OWN_TEMPLATE)
    build_scratch_model(model, tmp_path)
    created = model_facts(folder_model(tmp_path))
    assert model_facts(model)[1:6] == created[1:6]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tickets.csv", Named("file", "path", "tickets.csv")),
        ("./tickets.csv", Named("file", "path", "tickets.csv")),
        ("tick*.csv", Named("file", "path", "tick*.csv")),
        ("conf", Named("file", "path", "conf")),
        ("s3://bucket/rows.jsonl", Named("file", "path", "s3://bucket/rows.jsonl")),
        ("hf://datasets/owner/faq/train.jsonl", Named("file", "path", "hf://datasets/owner/faq/train.jsonl")),
        ("owner/faq", Named("hub", "name", "owner/faq")),
    ],
)
def test_an_argument_is_a_path_an_address_or_a_name(in_project: Path, text: str, expected: Named) -> None:
    assert data_source(text) == expected
    if expected.key == "path" and "://" not in text:
        assert data_source(str(in_project / text)).value in (expected.value, str(in_project / text))


@pytest.mark.parametrize("text", ["data/missing.csv", "owner/rows.parquet", "nothing", "no*.csv", "conf/gone"])
def test_a_missing_path_is_no_name_on_the_hub(in_project: Path, text: str) -> None:
    with pytest.raises(DataError):
        data_source(text)


@given(st.text(max_size=30))
def test_every_path_gives_a_name_that_an_option_can_have(path: str) -> None:
    for group in ("data", "model"):
        name = option_name(path, group)
        assert VALID.fullmatch(name)
        assert name not in RESERVED[group]
        assert require_option_name(name, group) == name


def test_lengths_are_those_of_the_tokenizer_and_of_a_cut() -> None:
    facts = model_facts(folder_model(NANO))
    lengths = measure_lengths([("### Question:", " Rest."), ("", "")], facts.encoder)
    assert (lengths.prompts[1], lengths.completions[1], lengths.is_estimate) == (0, 1, False)
    cut = Lengths([10, 100, 1], [5, 5, 120], is_estimate=False)
    assert (cut.too_long(100), cut.unended(100), cut.longest_row) == (2, 1, 121)
    assert measure_lengths([("abcdef", "abc")], None) == Lengths([3], [2], is_estimate=True)


def test_adopt_changes_what_start_chose(start: Start, in_project: Path) -> None:
    start("tickets.csv", "--yes")
    started = Path("conf/start/tickets.yaml")
    header, rest = started.read_text().split("\n\n", 1)
    method = "defaults:\n  - override /train/method@_global_.train.method: lora\n  - _self_\n"
    started.write_text(f"{header}\n{method}\n{rest}")
    assert parse_params(compose_params())["train"]["method"]["kind"] == "lora"
    wanted = compose_params("train/method=full", "train.epochs=3", "data.limit=30")
    Path("params.yaml").write_text(wanted)
    adopt()
    assert Path("params.yaml").read_text() == wanted == compose_params()
