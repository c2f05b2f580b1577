"""User errors: the command, the parts of its message, and the files that cause the error."""

from support.error_inputs import (
    Case,
    add_token,
    copy_model,
    copy_parquet,
    corrupt_weights,
    edit_config,
    edit_rows,
    empty_model,
    experiment,
    experiment_on,
    in_data_folder,
    python,
    queue,
    remove,
    replace,
    set_unknown_token,
    small_disk,
    steps,
    truncate,
    write,
    write_chat,
    write_jsonl,
    write_qa,
)

MODEL = experiment("model=folder", "model.path=mine", until="fetch@model")
DISK = "Check disk space and permissions, then run it again"

CONFIGURATION = {
    "misspelled key": Case(queue("train.learning_rat=1"), ("Could not override 'train.learning_rat'", "use +")),
    "unknown section": Case(queue("trian.seed=1"), ("Could not override 'trian.seed'", "use +")),
    "unknown group": Case(queue("modle=scratch"), ("Could not override 'modle'", "use +")),
    "unknown option": Case(queue("model=gpt5"), ("Could not find 'model/gpt5'", "Available options in 'model'")),
    "unknown preset": Case(queue("experiment=fast"), ("Could not find 'experiment/fast'", "Available options")),
    "null for a group": Case(python("compose", "train=null"), ("train=null: ", "expected KEY=VALUE or GROUP=OPTION")),
    "added key": Case(queue("+train.warmup=3"), ("train.warmup: unknown key; did you mean warmup_steps?",)),
    "removed key": Case(
        python("compose", "~train.seed"), ("train.seed: missing; compose params.yaml again: make params",)
    ),
    "text for a number": Case(queue("train.epochs=many"), ("train.epochs: 'many' is invalid; expected a number",)),
    "list for a number": Case(
        python("compose", "train.learning_rate=[1]"), ("train.learning_rate: [1] is invalid; expected a number",)
    ),
    "text for a list": Case(
        python("compose", "clean.boilerplate=thanks"), ("clean.boilerplate: 'thanks' is invalid", "a list")
    ),
    "fraction of a seed": Case(
        python("compose", "train.seed=1.5"), ("train.seed: 1.5 is invalid; expected a whole number",)
    ),
    "negative rate": Case(
        python("compose", "train.learning_rate=-1"), ("train.learning_rate: -1", "expected greater than 0")
    ),
    "no rows in a batch": Case(
        python("compose", "train.batch_size=0"), ("train.batch_size: 0", "greater than or equal to 1")
    ),
    "null": Case(python("compose", "train.learning_rate=null"), ("train.learning_rate: required, but null",)),
    "not a number": Case(
        python("compose", "train.learning_rate=nan"), ("train.learning_rate: nan", "expected a finite number")
    ),
    "unknown choice": Case(
        python("compose", "train.optimizer=adam"), ("train.optimizer: 'adam'", "expected 'adamw_torch'")
    ),
    "unknown source": Case(queue("data.source=ftp"), ("data.source: 'ftp'; expected 'generated', 'file', 'hub'",)),
    "no rows left for training": Case(
        queue("format.test_fraction=0.5", "format.validation_fraction=0.5"),
        ("format: test_fraction + validation_fraction must leave something to train on (less than 1)",),
    ),
    "invalid regular expression": Case(
        queue("clean.boilerplate=['(']"), ("clean: boilerplate '(' is not a regular expression: missing )",)
    ),
    "template without question": Case(
        python("compose", "format.template.prompt='Q:'"), ("format.template: prompt 'Q:' must hold {question} once",)
    ),
    "template with an unknown name": Case(
        python("compose", "format.template.completion='{answer} {x}'"),
        ("format.template: completion", "must hold {answer} once"),
    ),
    "heads that do not divide the hidden size": Case(
        queue("model=scratch", "model.heads=5"), ("model: hidden_size 32 must be a multiple of heads 5",)
    ),
    "rows longer than the model": Case(
        queue("tokenize.max_length=97"), ("tokenize.max_length: 97", "expected at most 96 (it has 96 positions)")
    ),
    "answers longer than the model": Case(
        python("compose", "evaluate.max_new_tokens=96"), ("evaluate.max_new_tokens: 96", "expected at most 95")
    ),
    "hub without a name": Case(queue("model=hub"), ("model.name: required, but null",)),
    "unknown schedule": Case(queue("train/schedule=cosin"), ("Could not find 'train/schedule/cosin'", "Available opt")),
    "name instead of a schedule option": Case(
        queue("train.schedule=linear"), ("train.schedule: 'linear' is invalid; choose an option", "train/schedule=…")
    ),
    "key of another schedule": Case(
        queue("train/schedule=linear", "+train.schedule.cycles=2"),
        ("train.schedule.cycles: unknown key; known here: kind, floor",),
    ),
    "QLoRA without library or card": Case(
        queue("train/method=qlora"), ("train.method: qlora needs a CUDA GPU", "train/method=lora runs on any machine")
    ),
    "adapter modules that the model lacks": Case(
        queue("model=scratch", "train/method=lora", "train.method.target_modules=[q_proj]"),
        (
            "train.method.target_modules: the model has no linear module q_proj for an adapter; it has dense, dense_4h_to_h, ",
        ),
    ),
    "adapter modules that a model folder lacks": Case(
        queue("model=folder", "model.path=mine", "train/method=lora", "train.method.target_modules=[q_proj]"),
        (
            "train.method.target_modules: the model has no linear module q_proj for an adapter; it has dense, dense_4h_to_h, ",
        ),
        copy_model(),
    ),
    "a number for adapter modules": Case(
        python("compose", "train/method=lora", "train.method.target_modules=3"),
        ("train.method.target_modules: 3 is invalid; expected all-linear, or a list of module names",),
    ),
    "early stopping on answers without completion loss": Case(
        queue("tokenize.loss=full", "train.early_stopping.metric=f1"),
        ("train.early_stopping.metric: f1 scores answers", "use validation_loss, or tokenize.loss=assistant"),
    ),
    "several errors": Case(
        queue("train.epochs=oops", "model=folder", "+train.warmup=3"),
        ("3 invalid parameters", "train.epochs: 'oops'", "model.path: required, but null", "train.warmup: unknown key"),
    ),
}

FILES = {
    "no file": Case(experiment_on("rows.csv"), ("data.path: no such file: rows.csv",)),
    "folder without data": Case(
        experiment_on("conf"), ("data.path: conf has no data files; expected some that end in .jsonl, .json",)
    ),
    "glob that matches nothing": Case(experiment_on("'*.csv'"), ("data.path: no file matches *.csv",)),
    "folder with two formats": Case(
        experiment_on("mine"),
        ("data.path: mine has files in 2 formats (.csv, .jsonl); expected one: select it, as in data.path=mine/*.csv",),
        steps(empty_model("mine"), write("mine/a.csv", "text\na\n"), write("mine/b.jsonl", '{"text": "b"}')),
    ),
    "unknown address scheme": Case(experiment_on("gopher://a/rows.csv"), ("data.path: gopher://a/rows.csv", "gopher")),
    "content that differs from its SHA-256": Case(
        experiment_on("rows.jsonl", f"data.sha256={'0' * 64}", until="fetch@data"),
        ("fetch stopped: rows.jsonl has changed", "Correct data.sha256"),
        write_qa(9, "Why {}?", "So."),
    ),
    "columns of two tasks": Case(
        experiment_on("rows.jsonl"),
        ("fit more than one task equally well. Choose one:", "-S 'data.columns={"),
        write_jsonl({"prompt": "a", "completion": "b", "question": "c", "answer": "d"}),
    ),
    "template with a missing column": Case(
        experiment_on("rows.jsonl", 'data.columns={question: "{question} {body}", answer: answer}'),
        ("data.path: no column body, which data.columns names",),
        write_qa(1, "Why?", "So."),
    ),
    "template with a stray brace": Case(
        python("compose", "data.columns={question: 'Description}', answer: Doctor}"),
        ("columns.question: 'Description}' is not a template", "{{ and }} for literal braces"),
    ),
    "unknown extension": Case(
        experiment_on("README.md"),
        ("data.path: README.md: unknown extension .md; expected one of .jsonl, .json, .csv, .tsv, .parquet",),
    ),
    "empty CSV": Case(
        experiment_on("rows.csv"),
        ("data.path: rows.csv is empty; expected a first line with the names",),
        write("rows.csv", ""),
    ),
    "empty JSON Lines": Case(
        experiment_on("rows.jsonl"), ("data.path: rows.jsonl is empty; expected",), write("rows.jsonl", "")
    ),
    "header only": Case(
        experiment_on("rows.csv"), ("rows.csv has no rows; expected",), write("rows.csv", "question,answer\n")
    ),
    "Latin-1": Case(
        experiment_on("rows.csv"),
        ("data.path: rows.csv, line 2: not UTF-8 text (byte 4", "save the file as UTF-8"),
        write("rows.csv", "question,answer\nCafé?,Oui\n".encode("latin-1")),
    ),
    "UTF-16 cut in a character": Case(
        experiment_on("rows.csv"),
        ("data.path: rows.csv", "not utf-16 text"),
        write("rows.csv", "question,answer\nWhy?,So\n".encode("utf-16") + b"\x41"),
    ),
    "ragged CSV": Case(
        experiment_on("rows.csv"),
        ("data.path: rows.csv, line 3: 3 cells; expected 2, one for each column (question, answer)",),
        write("rows.csv", "question,answer\na,b\na,b,c\n"),
    ),
    "duplicate column": Case(
        experiment_on("rows.csv"),
        ("data.path: No known task has the columns question, answer_1, answer_2.", 'answer: "answer_1"}'),
        write("rows.csv", "question,answer,answer\na,b,c\n"),
    ),
    "JSON object with two lists": Case(
        experiment_on("rows.json"),
        ("data.path: rows.json: more than one key holds a list of objects", "data.field=easy", "data.field=hard"),
        write("rows.json", '{"easy": [{"question": "a", "answer": "b"}], "hard": [{"question": "a", "answer": "b"}]}'),
    ),
    "null bytes": Case(
        experiment_on("rows.jsonl"),
        ("data.path: rows.jsonl, line 2: not JSON", "expected one object a line"),
        write("rows.jsonl", '{"question": "a", "answer": "b"}\n' + "\0" * 40),
    ),
    "a list as an answer": Case(
        experiment_on("rows.jsonl"),
        ("clean stopped: row 1, column answer: the list [3]; expected text",),
        write_jsonl({"question": "a", "answer": "b"}, {"question": "c", "answer": [3]}),
    ),
    "truncated Parquet": Case(
        experiment_on("rows.parquet"),
        ("data.path: rows.parquet: not a valid .parquet file", "write the file again"),
        steps(copy_parquet, truncate("rows.parquet", 500)),
    ),
    "missing column": Case(
        experiment_on("rows.jsonl", "data.columns={question: question, answer: reply}"),
        ("data.path: no column reply, which data.columns names; the source has question, answer",),
        write_qa(1, "Why?", "So."),
    ),
    "columns that fit no task": Case(
        experiment_on("rows.jsonl"),
        ("data.path: No known task has the columns x, y.", "Map them onto those of a task"),
        write_jsonl({"x": "Why?", "y": "So."}),
    ),
    "mapping that fits no task": Case(
        experiment_on("rows.jsonl", "data.columns={question: question, reply: answer}"),
        ("data.columns maps question, reply, which is no known task", "Expected exactly the columns of one"),
        write_qa(1, "Why?", "So."),
    ),
    "invalid JSON on a late line": Case(
        experiment_on("rows.jsonl", until="fetch@data"),
        ("fetch stopped: rows.jsonl, line 201: not JSON", "expected one object a line"),
        write("rows.jsonl", '{"question": "a", "answer": "b"}\n' * 200 + '{"question": "a", "ans\n'),
    ),
    "nested text": Case(
        experiment_on("rows.jsonl", until="clean"),
        ("clean stopped: row 0, column answer: the object {",),
        write_jsonl({"question": "a", "answer": {"text": "b"}}),
    ),
    "unknown role": Case(
        experiment_on("rows.jsonl", until="clean"),
        (
            "no row left of 3: dropped 3 malformed",
            "messages are lists of {role: system, user, assistant or tool; content} or",
        ),
        write_chat([{"role": "narrator", "content": "Hi"}]),
    ),
    "rows with only boilerplate": Case(
        experiment_on("rows.jsonl", "clean/preset=medical", until="clean"),
        ("no row left of 3: dropped 3 boilerplate", "the clean section"),
        write_qa(3, "Why {}?", "Hi. Take care."),
    ),
    "unknown language": Case(
        experiment("clean.languages=[xx]", until="clean"),
        ("clean stopped: clean.languages: xx unknown; expected some of",),
    ),
    "rows in another language": Case(
        experiment("clean.languages=[de]", until="clean"), ("clean stopped: no row left of", "other_language")
    ),
    "split that leaks": Case(
        experiment("format.split=row", "clean.deduplicate=false", until="format"),
        ("format stopped: format.max_leakage: ", "Split by question (format.split=question), or allow it"),
    ),
    "fold out of range": Case(queue("format.folds=5", "format.fold=5"), ("fold 5 must be less than folds (5)",)),
    "one question repeated": Case(
        experiment_on("rows.jsonl", until="format"),
        ("format stopped: the split", "would be empty (train ", "Add rows: at least 3 clusters are needed"),
        write_qa(9, "Why?", "So."),
    ),
}

MODELS = {
    "no folder": Case(MODEL, ("model.path: mine does not exist; expected a model folder",)),
    "no config.json": Case(
        MODEL, ("mine has no config.json; expected a folder written by save_pretrained",), empty_model()
    ),
    "no weights": Case(MODEL, ("model.path: mine has no safetensors weights",), empty_model("config.json")),
    "pickled weights": Case(
        MODEL,
        ("model.path: mine has only pickled weights (pytorch_model.bin)", "Convert them"),
        empty_model("config.json", "pytorch_model.bin"),
    ),
    "no tokenizer": Case(
        MODEL,
        ("model.path: mine has no tokenizer; expected one of tokenizer.json",),
        empty_model("config.json", "model.safetensors"),
    ),
    "invalid config.json": Case(
        MODEL,
        ("model.path: mine/config.json is not JSON", "save the model again, or run dvc repro"),
        copy_model(write("mine/config.json", "{")),
    ),
    "truncated weights": Case(
        MODEL,
        ("model.path=mine does not load as a causal language model; expected a folder written by save_pretrained",),
        copy_model(truncate("mine/model.safetensors", 20_000)),
    ),
    "weights of another shape": Case(
        MODEL,
        ("model.path=mine: the weights do not match config.json", "save both together"),
        copy_model(edit_config(intermediate_size=64)),
    ),
    "weights that are not finite": Case(
        MODEL,
        ("model.path=mine: weights that are not finite numbers: ", "save the model again"),
        copy_model(corrupt_weights),
    ),
    "tokenizer of another model": Case(
        MODEL,
        ("model.path=mine: the tokenizer has 401 tokens, the model embeds 400", "put the model's own"),
        copy_model(add_token),
    ),
    "encoder-decoder model": Case(
        MODEL,
        ("model.path=mine does not load as a causal language model", "T5Config"),
        copy_model(edit_config(model_type="t5")),
    ),
}

STATES = {
    "no params.yaml": Case(
        python("clean"), ("params.yaml is missing; compose it from conf/: make params",), remove("params.yaml")
    ),
    "invalid params.yaml": Case(
        python("clean"),
        ("params.yaml is not YAML; compose it from conf/: make params",),
        write("params.yaml", "train: {seed: 0"),
    ),
    "params.yaml without a section": Case(
        python("clean"),
        ("compare: missing; compose params.yaml again: make params",),
        replace("params.yaml", "compare:\n  examples: 50\n  resamples: 10000\n  seed: 0\n", ""),
    ),
    "params.yaml with an unknown reference": Case(
        python("clean"),
        ("train.epochs: Interpolation key 'x'", "make params"),
        replace("params.yaml", "epochs: 1", "epochs: ${x}"),
    ),
    "data changed since composition": Case(
        python("fetch", "instance=data"),
        ("data/knowledge/conditions.yaml has changed since params.yaml was composed", "make params"),
        replace("data/knowledge/conditions.yaml", "\n", "\n\n"),
    ),
    "missing input": Case(
        python("clean"),
        ("data/raw/rows.parquet does not exist; an earlier stage writes it: dvc repro",),
        remove("data/raw/rows.parquet"),
    ),
    "truncated input": Case(
        python("clean"), ("data/raw/rows.parquet is damaged", "dvc repro"), truncate("data/raw/rows.parquet", 500)
    ),
    "no column mapping": Case(
        python("clean"),
        ("data/raw/columns.json does not exist; an earlier stage writes it: dvc repro",),
        remove("data/raw/columns.json"),
    ),
    "unknown task": Case(
        python("format"),
        ("data/clean/task.json is damaged (task is 'haiku'; expected one of chat, alpaca", "dvc repro"),
        write("data/clean/task.json", '{"task": "haiku"}'),
    ),
    "truncated test rows": Case(
        python("evaluate", "instance=base"),
        ("data/formatted/test.jsonl, line", "not JSON", "expected"),
        truncate("data/formatted/test.jsonl", 700),
    ),
    "truncated config.json of the base model": Case(
        python("tokenize"),
        ("models/base/config.json is not JSON", "save the model again, or run dvc repro"),
        truncate("models/base/config.json", 50),
    ),
    "truncated tokenizer": Case(
        python("tokenize"),
        ("models/base/tokenizer.json is damaged", "dvc repro"),
        truncate("models/base/tokenizer.json", 500),
    ),
    "answers truncated by max_length": Case(
        python("tokenize", "tokenize.max_length=24", "tokenize.gates.max_unended=0"),
        (
            "tokenize.gates.max_unended: ",
            "rows of train (",
            "Raise tokenize.max_length",
            "or allow it: tokenize.gates.",
        ),
    ),
    "truncated metrics": Case(
        python("compare"),
        ("metrics/details/train.json is damaged", "dvc repro"),
        truncate("metrics/details/train.json", 9),
    ),
    "truncated tokenized rows": Case(
        python("train"),
        ("data/tokenized/train.parquet is damaged", "dvc repro"),
        truncate("data/tokenized/train.parquet", 99),
    ),
    "rows of another tokenizer": Case(
        python("train"),
        ("data/tokenized/train.parquet: token id 9999, but models/base embeds 400 tokens", "dvc repro"),
        set_unknown_token,
    ),
    "empty training history": Case(
        python("compare"), ("metrics/train/history.tsv is damaged", "dvc repro"), write("metrics/train/history.tsv", "")
    ),
    "unknown instance": Case(
        python("fetch", "instance=both"), ("pipeline.fetch needs instance=data or instance=model, not both",)
    ),
    "misspelled override of a stage": Case(
        python("clean", "clean.boilerplat=[]"), ("Could not override 'clean.boilerplat'", "use +")
    ),
    "outside the project's root": Case(
        in_data_folder(python("clean")), ("conf/stage.yaml is missing; run this command in the project's root",)
    ),
    "failure under DVC": Case(
        ["env", "DVC_STAGE=clean", *python("clean", "clean.boilerplate=['(']")],
        ("clean: boilerplate", "git restore metrics"),
    ),
}

MACHINE = {
    "no GPU": Case(python("train", "compute.device=cuda"), ("compute.device: cuda, but PyTorch", "use auto or cpu")),
    "no disk space for params.yaml": Case(small_disk(1, python("compose")), ("File too large", DISK)),
    "no disk space for rows": Case(small_disk(4, python("fetch", "instance=data")), ("data/raw: File too large", DISK)),
    "no disk space for formatted rows": Case(
        small_disk(4, python("format")), ("data/formatted/train.jsonl: File too large", DISK)
    ),
    "no disk space for a model": Case(
        small_disk(40, python("fetch", "instance=model")), ("models/base/*.safetensors: File too large", DISK)
    ),
    "no disk space for tokens": Case(
        small_disk(4, python("tokenize")), ("data/tokenized/train.parquet: File too", DISK)
    ),
    "no disk space for a checkpoint": Case(
        small_disk(40, python("train")), ("/checkpoint-", "/*.safetensors: File too large", DISK)
    ),
    "no disk space for an optimizer": Case(
        small_disk(300, python("train")), ("/checkpoint-", "/optimizer.pt: it could not be written completely", DISK)
    ),
    "no disk space for predictions": Case(
        small_disk(4, python("evaluate", "instance=base")), ("data/predictions/base.jsonl: File too large", DISK)
    ),
    "no disk space for the report": Case(
        small_disk(30, python("compare")), ("metrics/report.html: File too large", DISK)
    ),
    "learning rate that diverges": Case(
        python("train", "train.learning_rate=9", "train.weight_decay=1e9"),
        ("train stopped: the loss is nan at step ", "Training has diverged: lower train.learning_rate"),
    ),
}

COMPARISONS = {
    "missing predictions": Case(
        python("compare"),
        (
            "data/predictions/finetuned.jsonl has ",
            " rows, but metrics/details/evaluate/finetuned.json reports ",
            "dvc repro -s -f evaluate",
        ),
        edit_rows("data/predictions/finetuned.jsonl", lambda rows: rows[:-1]),
    ),
    "predictions of different test rows": Case(
        python("compare"),
        ("not for the same test rows: 1 only in base (id ", "1 only in finetuned (id 999)", "dvc repro -s -f evaluate"),
        edit_rows("data/predictions/finetuned.jsonl", lambda rows: [{**rows[0], "id": 999}, *rows[1:]]),
    ),
    "another version of the metrics": Case(
        python("compare"),
        ("base was scored with version 1 of the metrics, but this code has version 2", "dvc repro -s -f evaluate"),
        replace("metrics/details/evaluate/base.json", '"version": 2', '"version": 1'),
    ),
    "score that is not a number": Case(
        python("compare"),
        ("the prediction of test row ", "f1 is 'high'; expected a number", "dvc repro -s -f evaluate"),
        edit_rows("data/predictions/base.jsonl", lambda rows: [{**rows[0], "f1": "high"}, *rows[1:]]),
    ),
    "test row without a reference answer": Case(
        python("evaluate", "instance=base"),
        ("data/formatted/test.jsonl: test row ", "has no reference answer"),
        edit_rows("data/formatted/test.jsonl", lambda rows: [{**rows[0], "completion": " "}, *rows[1:]]),
    ),
    "no test rows": Case(
        python("evaluate", "instance=base"),
        ("data/formatted/test.jsonl has no rows; raise format.test_fraction",),
        write("data/formatted/test.jsonl", ""),
    ),
    "too few resamples": Case(python("compose", "compare.resamples=10"), ("compare.resamples: 10", "1000")),
    "unknown encoder": Case(
        python("compose", "evaluate.semantic_model=nowhere"), ("evaluate.semantic_model: ", "nowhere")
    ),
    "unknown experiment": Case(
        python("leaderboard", "HEAD", "exp-that-is-not"),
        ("exp-that-is-not: no git revision or experiment has this name", "dvc exp list -A"),
    ),
    "unknown metric": Case(
        python("leaderboard", "HEAD", "--by", "accuracy"), ("--by accuracy: ", "choose one of exact_match, f1")
    ),
}

CASES = {**CONFIGURATION, **FILES, **MODELS, **STATES, **COMPARISONS, **MACHINE}
