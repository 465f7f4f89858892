"""The steps that make the bundled pair and its router from nothing: `python -m` commands, some three hours on 2 cores.

The small model is trained first: a token costs it a fifth of what it costs the large one. The large model is then grown
out of it, so that neither learns the look-up circuit and the everyday clauses twice. Half way the circuit that chooses
a tool is put in. At the end the small one gets a stretch of its own.
"""

_WORKERS = ("--workers", "2")

STEPS: tuple[tuple[str, ...], ...] = (
    ("bundled_models", "tokenizer"),
    ("bundled_models", "train", "--size", "small", "--minutes", "18", "--decay", "0", "--rate", "0.5", *_WORKERS),
    ("bundled_models", "grow"),
    ("bundled_models", "train", "--size", "large", "--minutes", "50", "--decay", "0.2", "--rate", "0.5", *_WORKERS),
    ("bundled_models", "choose"),
    ("bundled_models", "train", "--size", "large", "--minutes", "60", "--rate", "0.4", *_WORKERS),
    ("bundled_models", "train", "--size", "small", "--minutes", "15", "--rate", "0.4", *_WORKERS),
    ("bundled_models", "export", "--size", "small"),
    ("bundled_models", "export", "--size", "large"),
    ("bundled_models", "requests", "--count", "3000", "--out", "bundled_models/runs/requests.jsonl"),
    (
        *("gateway", "router", "generate-outcomes", "--data", "bundled_models/runs/requests.jsonl"),
        *("--out", "bundled_models/runs/outcomes.jsonl.gz"),
    ),
    (
        *("gateway", "router", "train", "--data", "bundled_models/runs/outcomes.jsonl.gz"),
        *("--small", "bundled_models/small", "--large", "bundled_models/large", "--out", "bundled_models/router"),
    ),
    ("bundled_models", "evaluate", "--json", "bundled_models/results.json"),
)
