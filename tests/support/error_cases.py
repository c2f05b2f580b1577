"""The table of what users get wrong: the command that they give, what they are told, and what lies in the project."""

from support.error_inputs import (
    Case,
    broken_weights,
    chat,
    config,
    cut,
    edited,
    elsewhere,
    exp,
    file,
    folder,
    jsonl,
    model,
    more_tokens,
    other_tokens,
    parquet,
    python,
    qa,
    queue,
    removed,
    rows,
    rows_of,
    small_disk,
)

MODEL = exp("model=folder", "model.path=mine", until="fetch@model")
DISK = "Check disk space and permissions, then run it again"

CONFIGURATION = {
    "misspelt key": Case(queue("train.learning_rat=1"), ("Could not override 'train.learning_rat'", "use +")),
    "unknown section": Case(queue("trian.seed=1"), ("Could not override 'trian.seed'", "use +")),
    "unknown group": Case(queue("modle=scratch"), ("Could not override 'modle'", "use +")),
    "unknown option": Case(queue("model=gpt5"), ("Could not find 'model/gpt5'", "Available options in 'model'")),
    "unknown preset": Case(queue("experiment=fast"), ("Could not find 'experiment/fast'", "Available options")),
    "a group that is null": Case(
        python("compose", "train=null"), ("train=null: ", "expected KEY=VALUE or GROUP=OPTION")
    ),
    "added key": Case(queue("+train.warmup=3"), ("train.warmup: unknown key; did you mean warmup_steps?",)),
    "removed key": Case(
        python("compose", "~train.seed"), ("train.seed: missing; compose params.yaml again: make params",)
    ),
    "text for a number": Case(queue("train.epochs=many"), ("train.epochs: 'many' is not right; expected a number",)),
    "list for a number": Case(
        python("compose", "train.learning_rate=[1]"), ("train.learning_rate: [1] is not right; expected a number",)
    ),
    "text for a list": Case(
        python("compose", "clean.boilerplate=thanks"), ("clean.boilerplate: 'thanks' is not right", "a list")
    ),
    "fraction of a seed": Case(
        python("compose", "train.seed=1.5"), ("train.seed: 1.5 is not right; expected a whole number",)
    ),
    "negative rate": Case(
        python("compose", "train.learning_rate=-1"), ("train.learning_rate: -1", "expected greater than 0")
    ),
    "no rows in a batch": Case(
        python("compose", "train.batch_size=0"), ("train.batch_size: 0", "greater than or equal to 1")
    ),
    "null": Case(python("compose", "train.learning_rate=null"), ("train.learning_rate: is null; expected a value",)),
    "not a number": Case(
        python("compose", "train.learning_rate=nan"), ("train.learning_rate: nan", "expected a finite number")
    ),
    "unknown choice": Case(
        python("compose", "train.optimizer=adam"), ("train.optimizer: 'adam'", "expected 'adamw_torch'")
    ),
    "unknown source": Case(queue("data.source=ftp"), ("data.source: 'ftp'; expected 'generated', 'file', 'hub'",)),
    "nothing left to train on": Case(
        queue("format.test_fraction=0.5", "format.validation_fraction=0.5"),
        ("format: test_fraction + validation_fraction must leave something to train on (less than 1)",),
    ),
    "no regular expression": Case(
        queue("clean.boilerplate=['(']"), ("clean: boilerplate '(' is not a regular expression: missing )",)
    ),
    "template without question": Case(
        python("compose", "format.template.prompt='Q:'"), ("format.template: prompt 'Q:' must hold {question} once",)
    ),
    "template with something else": Case(
        python("compose", "format.template.completion='{answer} {x}'"),
        ("format.template: completion", "must hold {answer} once"),
    ),
    "heads that do not divide": Case(
        queue("model=scratch", "model.heads=5"), ("model: hidden_size 32 must be a multiple of heads 5",)
    ),
    "rows longer than the model": Case(
        queue("tokenize.max_length=97"), ("tokenize.max_length: 97", "expected at most 96 (it has 96 positions)")
    ),
    "answers longer than the model": Case(
        python("compose", "evaluate.max_new_tokens=96"), ("evaluate.max_new_tokens: 96", "expected at most 95")
    ),
    "hub without a name": Case(queue("model=hub"), ("model.name: is null; expected a value",)),
    "unknown schedule": Case(queue("train/schedule=cosin"), ("Could not find 'train/schedule/cosin'", "Available opt")),
    "schedule in the place of its group": Case(
        queue("train.schedule=linear"), ("train.schedule: 'linear' is not right; choose an option", "train/schedule=…")
    ),
    "key of another schedule": Case(
        queue("train/schedule=linear", "+train.schedule.cycles=2"),
        ("train.schedule.cycles: unknown key; known here: kind, floor",),
    ),
    "QLoRA without library or card": Case(
        queue("train/method=qlora"), ("train.method: qlora needs a CUDA GPU", "train/method=lora runs on any machine")
    ),
    "modules that the model lacks": Case(
        queue("model=scratch", "train/method=lora", "train.method.target_modules=[q_proj]"),
        (
            "train.method.target_modules: the model has no linear module q_proj for an adapter; it has dense, dense_4h_to_h, ",
        ),
    ),
    "modules of a model folder": Case(
        queue("model=folder", "model.path=mine", "train/method=lora", "train.method.target_modules=[q_proj]"),
        (
            "train.method.target_modules: the model has no linear module q_proj for an adapter; it has dense, dense_4h_to_h, ",
        ),
        model(),
    ),
    "modules that are a number": Case(
        python("compose", "train/method=lora", "train.method.target_modules=3"),
        ("train.method.target_modules: 3 is not right; expected all-linear, or a list of module names",),
    ),
    "kept by answers that are not told apart": Case(
        queue("tokenize.loss=full", "train.early_stopping.metric=f1"),
        ("train.early_stopping.metric: f1 scores answers", "use validation_loss, or tokenize.loss=completion"),
    ),
    "several at once": Case(
        queue("train.epochs=oops", "model=folder", "+train.warmup=3"),
        ("3 parameters are wrong", "train.epochs: 'oops'", "model.path: is null", "train.warmup: unknown key"),
    ),
}

FILES = {
    "no file": Case(rows("rows.csv"), ("data.path: no such file: rows.csv",)),
    "a folder without data": Case(
        rows("conf"), ("data.path: conf has no data files; expected some that end in .jsonl, .json",)
    ),
    "a glob that matches nothing": Case(rows("'*.csv'"), ("data.path: no file matches *.csv",)),
    "a folder of two kinds": Case(
        rows("mine"),
        (
            "data.path: mine has files in 2 formats (.csv, .jsonl); expected one: select it, as in data.path=mine/*.csv",
        ),
        lambda at: (folder("mine")(at), file("mine/a.csv", "text\na\n")(at), file("mine/b.jsonl", '{"text": "b"}')(at)),
    ),
    "an address of no known kind": Case(rows("gopher://a/rows.csv"), ("data.path: gopher://a/rows.csv", "gopher")),
    "other content than asked for": Case(
        rows("rows.jsonl", f"data.sha256={'0' * 64}", until="fetch@data"),
        ("fetch stopped: rows.jsonl has changed", "Correct data.sha256"),
        qa(9, "Why {}?", "So."),
    ),
    "columns of two tasks": Case(
        rows("rows.jsonl"),
        ("fit more than one task equally well. Choose one:", "-S 'data.columns={"),
        jsonl({"prompt": "a", "completion": "b", "question": "c", "answer": "d"}),
    ),
    "template of a column that is not there": Case(
        rows("rows.jsonl", 'data.columns={question: "{question} {body}", answer: answer}'),
        ("data.path: no column body, which data.columns names",),
        qa(1, "Why?", "So."),
    ),
    "template with a stray brace": Case(
        python("compose", "data.columns={question: 'Description}', answer: Doctor}"),
        ("columns.question: 'Description}' is not a template", "{{ and }} for literal braces"),
    ),
    "unknown ending": Case(
        rows("README.md"),
        ("data.path: README.md: unknown extension .md; expected one of .jsonl, .json, .csv, .tsv, .parquet",),
    ),
    "no bytes": Case(
        rows("rows.csv"), ("data.path: rows.csv is empty; expected a first line with the names",), file("rows.csv", "")
    ),
    "no lines": Case(rows("rows.jsonl"), ("data.path: rows.jsonl has no rows; expected",), file("rows.jsonl", "")),
    "head alone": Case(rows("rows.csv"), ("rows.csv has no rows; expected",), file("rows.csv", "question,answer\n")),
    "Latin-1": Case(
        rows("rows.csv"),
        ("data.path: rows.csv, line 2: not UTF-8 text (byte 4", "save the file as UTF-8"),
        file("rows.csv", "question,answer\nCafé?,Oui\n".encode("latin-1")),
    ),
    "UTF-16": Case(
        rows("rows.csv"),
        ("data.path: rows.csv, line 1: not UTF-8 text (byte 1", "save the file as UTF-8"),
        file("rows.csv", "question,answer\nWhy?,So\n".encode("utf-16")),
    ),
    "ragged": Case(
        rows("rows.csv"),
        ("data.path: rows.csv, line 3: 3 cells; expected 2, as in the first line",),
        file("rows.csv", "question,answer\na,b\na,b,c\n"),
    ),
    "column twice": Case(
        rows("rows.csv"),
        ("data.path: rows.csv: more than one column is called answer",),
        file("rows.csv", "question,answer,answer\na,b,c\n"),
    ),
    "JSON that is an object": Case(
        rows("rows.json"),
        ("data.path: rows.json: expected a JSON list of objects; for one object a line, name it .jsonl",),
        file("rows.json", '{"question": "a", "answer": "b"}'),
    ),
    "null bytes": Case(
        rows("rows.jsonl"),
        ("data.path: rows.jsonl, line 2: not JSON", "expected one object a line"),
        file("rows.jsonl", '{"question": "a", "answer": "b"}\n' + "\0" * 40),
    ),
    "mixed types": Case(
        rows("rows.jsonl"),
        ("data.path: rows.jsonl, row 2: column answer holds a int, 3", "expected one type per column"),
        jsonl({"question": "a", "answer": "b"}, {"question": "c", "answer": 3}),
    ),
    "Parquet cut off": Case(
        rows("rows.parquet"),
        ("data.path: rows.parquet: not a valid .parquet file", "write the file again"),
        lambda at: (parquet(at), cut("rows.parquet", 500)(at)),
    ),
    "no such column": Case(
        rows("rows.jsonl", "data.columns={question: question, answer: reply}"),
        ("data.path: no column reply, which data.columns names; the source has question, answer",),
        qa(1, "Why?", "So."),
    ),
    "columns of no task": Case(
        rows("rows.jsonl"),
        ("data.path: No known task has the columns q, a.", "Map the source's columns"),
        jsonl({"q": "Why?", "a": "So."}),
    ),
    "mapping to no task": Case(
        rows("rows.jsonl", "data.columns={question: question, reply: answer}"),
        ("data.columns maps question, reply, which is no known task", "Expected exactly the columns of one"),
        qa(1, "Why?", "So."),
    ),
    "broken line deep in a file": Case(
        rows("rows.jsonl", until="fetch@data"),
        ("fetch stopped: rows.jsonl, line 201: not JSON", "expected one object a line"),
        file("rows.jsonl", '{"question": "a", "answer": "b"}\n' * 200 + '{"question": "a", "ans\n'),
    ),
    "nested text": Case(
        rows("rows.jsonl", until="clean"),
        ("clean stopped: row 0, answer: a dict; expected text (see data.columns)",),
        jsonl({"question": "a", "answer": {"text": "b"}}),
    ),
    "unknown role": Case(
        rows("rows.jsonl", until="clean"),
        ("no row left of 3: dropped 3 malformed", "messages are lists of {role: system, user, assistant; content} or"),
        chat([{"role": "bot", "content": "Hi"}]),
    ),
    "boilerplate rows": Case(
        rows("rows.jsonl", "clean/patterns=medical", until="clean"),
        ("no row left of 3: dropped 3 boilerplate", "the clean section"),
        qa(3, "Why {}?", "Hi. Take care."),
    ),
    "language of no kind": Case(
        exp("clean.languages=[xx]", until="clean"), ("clean stopped: clean.languages: xx unknown; expected some of",)
    ),
    "rows in another language": Case(
        exp("clean.languages=[de]", until="clean"), ("clean stopped: no row left of", "other_language")
    ),
    "a shuffle that leaks": Case(
        exp("format.split=row", "clean.deduplicate=false", until="format"),
        ("format stopped: format.max_leakage: ", "Split by question (format.split=question), or allow it"),
    ),
    "a fold that is none": Case(queue("format.folds=5", "format.fold=5"), ("fold 5 must be less than folds (5)",)),
    "one question asked again and again": Case(
        rows("rows.jsonl", until="format"),
        ("format stopped: the split", "would be empty (train ", "Give more rows, or change format.test_fraction"),
        qa(9, "Why?", "So."),
    ),
}

MODELS = {
    "no folder": Case(MODEL, ("model.path: mine does not exist; expected a model folder",)),
    "no config.json": Case(MODEL, ("mine has no config.json; expected a folder written by save_pretrained",), folder()),
    "no weights": Case(MODEL, ("model.path: mine has no safetensors weights",), folder("config.json")),
    "pickled weights": Case(
        MODEL,
        ("model.path: mine has only pickled weights (pytorch_model.bin)", "Convert them"),
        folder("config.json", "pytorch_model.bin"),
    ),
    "no tokenizer": Case(
        MODEL,
        ("model.path: mine has no tokenizer; expected one of tokenizer.json",),
        folder("config.json", "model.safetensors"),
    ),
    "config.json that is no JSON": Case(
        MODEL,
        ("model.path: mine/config.json is not JSON", "save the model again, or run dvc repro"),
        model(file("mine/config.json", "{")),
    ),
    "weights cut off": Case(
        MODEL,
        ("model.path=mine does not load as a causal language model; expected a folder written by save_pretrained",),
        model(cut("mine/model.safetensors", 20_000)),
    ),
    "weights of another shape": Case(
        MODEL,
        ("model.path=mine: the weights do not match config.json", "save both together"),
        model(config(intermediate_size=64)),
    ),
    "weights that are no numbers": Case(
        MODEL, ("model.path=mine: weights that are not finite numbers: ", "save the model again"), model(broken_weights)
    ),
    "tokenizer of another model": Case(
        MODEL,
        ("model.path=mine: the tokenizer has 401 tokens, the model embeds 400", "put the model's own"),
        model(more_tokens),
    ),
    "encoder and decoder": Case(
        MODEL, ("model.path=mine does not load as a causal language model", "T5Config"), model(config(model_type="t5"))
    ),
}

STATES = {
    "no params": Case(
        python("clean"), ("params.yaml is missing; compose it from conf/: make params",), removed("params.yaml")
    ),
    "params that are not YAML": Case(
        python("clean"),
        ("params.yaml is not YAML; compose it from conf/: make params",),
        file("params.yaml", "train: {seed: 0"),
    ),
    "params without a section": Case(
        python("clean"),
        ("compare: missing; compose params.yaml again: make params",),
        edited("params.yaml", "compare:\n  examples: 50\n  resamples: 10000\n  seed: 0\n", ""),
    ),
    "params with an unknown reference": Case(
        python("clean"),
        ("train.epochs: Interpolation key 'x'", "make params"),
        edited("params.yaml", "epochs: 1", "epochs: ${x}"),
    ),
    "data changed since composition": Case(
        python("fetch", "instance=data"),
        ("data/knowledge/conditions.yaml has changed since params.yaml was composed", "make params"),
        edited("data/knowledge/conditions.yaml", "\n", "\n\n"),
    ),
    "no input": Case(
        python("clean"),
        ("data/raw/rows.parquet does not exist; an earlier stage writes it: dvc repro",),
        removed("data/raw/rows.parquet"),
    ),
    "input cut off": Case(
        python("clean"), ("data/raw/rows.parquet is damaged", "dvc repro"), cut("data/raw/rows.parquet", 500)
    ),
    "no column mapping": Case(
        python("clean"),
        ("data/raw/columns.json does not exist; an earlier stage writes it: dvc repro",),
        removed("data/raw/columns.json"),
    ),
    "unknown task": Case(
        python("format"),
        ("data/clean/task.json is damaged (task is 'haiku'; expected one of chat, alpaca", "dvc repro"),
        file("data/clean/task.json", '{"task": "haiku"}'),
    ),
    "test rows cut off": Case(
        python("evaluate", "instance=base"),
        ("data/formatted/test.jsonl, line", "not JSON", "expected"),
        cut("data/formatted/test.jsonl", 700),
    ),
    "base model's configuration cut off": Case(
        python("tokenize"),
        ("models/base/config.json is not JSON", "save the model again, or run dvc repro"),
        cut("models/base/config.json", 50),
    ),
    "tokenizer cut off": Case(
        python("tokenize"),
        ("models/base/tokenizer.json is damaged", "dvc repro"),
        cut("models/base/tokenizer.json", 500),
    ),
    "answers cut off by max_length": Case(
        python("tokenize", "tokenize.max_length=24", "tokenize.gates.max_unended=0"),
        (
            "tokenize.gates.max_unended: ",
            "rows of train (",
            "Raise tokenize.max_length",
            "or allow it: tokenize.gates.",
        ),
    ),
    "metrics cut off": Case(
        python("compare"), ("metrics/train.json is damaged", "dvc repro"), cut("metrics/train.json", 9)
    ),
    "tokenized rows cut off": Case(
        python("train"),
        ("data/tokenized/train.parquet is damaged", "dvc repro"),
        cut("data/tokenized/train.parquet", 99),
    ),
    "rows of another tokenizer": Case(
        python("train"),
        ("data/tokenized/train.parquet: token id 9999, but models/base embeds 400 tokens", "dvc repro"),
        other_tokens,
    ),
    "history cut off": Case(
        python("compare"), ("metrics/train/history.tsv is damaged", "dvc repro"), file("metrics/train/history.tsv", "")
    ),
    "no such instance": Case(
        python("fetch", "instance=both"), ("pipeline.fetch needs instance=data or instance=model, not both",)
    ),
    "misspelt override of a stage": Case(
        python("clean", "clean.boilerplat=[]"), ("Could not override 'clean.boilerplat'", "use +")
    ),
    "outside of the project's root": Case(
        elsewhere(python("clean")), ("conf/stage.yaml is missing; run this command in the project's root",)
    ),
    "failed under DVC": Case(
        ["env", "DVC_STAGE=clean", *python("clean", "clean.boilerplate=['(']")],
        ("clean: boilerplate", "git restore metrics"),
    ),
}

MACHINE = {
    "no card": Case(python("train", "compute.device=cuda"), ("compute.device: cuda, but PyTorch", "use auto or cpu")),
    "no room for params": Case(small_disk(1, python("compose")), ("File too large", DISK)),
    "no room for rows": Case(small_disk(4, python("fetch", "instance=data")), ("data/raw: ", "File too large", DISK)),
    "no room for formatted rows": Case(small_disk(4, python("format")), ("data/formatted: ", "File too large", DISK)),
    "no room for a model": Case(
        small_disk(40, python("fetch", "instance=model")), ("models/base: File too large", DISK)
    ),
    "no room for a checkpoint": Case(small_disk(40, python("train")), (".checkpoints/", "File too large", DISK)),
    "a rate that diverges": Case(
        python("train", "train.learning_rate=9", "train.weight_decay=1e9"),
        ("train stopped: ", "training has diverged", "Lower train.learning_rate"),
    ),
}

COMPARISONS = {
    "rows missing": Case(
        python("compare"),
        (
            "data/predictions/finetuned.jsonl has 15 rows, but metrics/evaluate/finetuned.json reports 16",
            "dvc repro -f evaluate",
        ),
        rows_of("data/predictions/finetuned.jsonl", lambda rows: rows[:-1]),
    ),
    "predictions of different test rows": Case(
        python("compare"),
        ("not for the same test rows: 1 only in base (id ", "1 only in finetuned (id 999)", "dvc repro -f evaluate"),
        rows_of("data/predictions/finetuned.jsonl", lambda rows: [{**rows[0], "id": 999}, *rows[1:]]),
    ),
    "another version of the metrics": Case(
        python("compare"),
        ("base was scored with version 1 of the metrics, but this code has version 2", "dvc repro -f evaluate"),
        edited("metrics/evaluate/base.json", '"version": 2', '"version": 1'),
    ),
    "a score that is no number": Case(
        python("compare"),
        ("the prediction of test row ", "f1 is 'high'; expected a number", "dvc repro -f evaluate"),
        rows_of("data/predictions/base.jsonl", lambda rows: [{**rows[0], "f1": "high"}, *rows[1:]]),
    ),
    "a test row without a reference": Case(
        python("evaluate", "instance=base"),
        ("data/formatted/test.jsonl: test row ", "has no reference answer"),
        rows_of("data/formatted/test.jsonl", lambda rows: [{**rows[0], "completion": " "}, *rows[1:]]),
    ),
    "no test rows": Case(
        python("evaluate", "instance=base"),
        ("data/formatted/test.jsonl has no rows; raise format.test_fraction",),
        file("data/formatted/test.jsonl", ""),
    ),
    "too few resamples": Case(python("compose", "compare.resamples=10"), ("compare.resamples: 10", "1000")),
    "no such encoder": Case(
        python("compose", "evaluate.semantic_model=nowhere"), ("evaluate.semantic_model: ", "nowhere")
    ),
    "no such experiment": Case(
        python("leaderboard", "HEAD", "exp-that-is-not"),
        ("exp-that-is-not: no git revision or experiment has this name", "dvc exp list -A"),
    ),
    "no such metric": Case(
        python("leaderboard", "HEAD", "--by", "accuracy"), ("--by accuracy: ", "choose one of exact_match, f1")
    ),
}

CASES = {**CONFIGURATION, **FILES, **MODELS, **STATES, **COMPARISONS, **MACHINE}
