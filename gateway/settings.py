"""Everything that can be configured, in one frozen structure; `settings_loader` fills it from file and environment.

Each field carries its own description and bounds; `python -m gateway.settings_reference` writes docs/settings.md from
them.
"""

import importlib.util
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.prices import PriceTable, bundled_prices
from gateway.secret import Secret

# A test holds it to `grammars.dialects.DIALECTS`.
DialectName = Literal[
    "auto", "generic", "hermes", "llama3_json", "mistral", "mistral_v11", "pythonic", "xlam", "xlam_v1"
]
# A test holds it to `engine.speculation.proposer.Source`, without `heads`: they are given to an engine in Python only.
SourceName = Literal["forced", "prediction", "ngram", "draft_model"]


class SettingsError(Exception):
    """A setting is missing, unknown or out of bounds; the message says which, from where, and what to change."""


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The embedded engine that runs both models."""

    mode: Annotated[
        Literal["process", "thread"],
        Meta(description="Where the engine runs: a supervised child process, or a thread of the gateway (for tests)."),
    ] = "process"
    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"],
        Meta(
            description="Number format of weights and activations; auto is bfloat16 where the device computes it, "
            "else float32; float16 is for GPUs."
        ),
    ] = "auto"
    quantize: Annotated[
        Literal["none", "w8a8", "int8", "int4", "fp8"],
        Meta(
            description="Rounding of the weights at load: w8a8 is int8 with int8 activations, half the bytes; int4 is "
            "groups of 32, a quarter of them, and less exact; int8 and fp8 leave activations as they are (GPU)."
        ),
    ] = "none"
    invariant: Annotated[
        bool,
        Meta(description="Bitwise equal logits whatever a request is batched with; slower in long prompts."),
    ] = False
    threads: Annotated[int, Meta(ge=0, le=1024, description="CPU threads of the engine; 0 uses every core.")] = 0
    kv_bytes: Annotated[
        Annotated[int, Meta(ge=1 << 20)] | None,
        Meta(
            description="Memory for the KV pages of both models together, in bytes; else what is left of a GPU, "
            "or 512 MiB for each model on a CPU, taken as it is used."
        ),
    ] = None
    kv_dtype: Annotated[
        Literal["auto", "int8", "fp8"],
        Meta(
            description="What keys and values are rounded to: auto is the models' own format; int8 and fp8 (GPU) hold "
            "nearly twice as many tokens."
        ),
    ] = "auto"
    memory_share: Annotated[
        float, Meta(gt=0, le=1, description="Share of a GPU's memory for weights, KV pages and steps together.")
    ] = 0.9
    token_budget: Annotated[
        Annotated[int, Meta(ge=16)] | None,
        Meta(description="Most tokens computed in one step of a model; else 512 on a CPU, 8192 on a GPU."),
    ] = None
    block_size: Annotated[int, Meta(ge=1, le=256, description="Tokens in one KV page.")] = 16
    max_running: Annotated[
        Annotated[int, Meta(ge=1, le=4096)] | None,
        Meta(description="Most requests of one model in a step; else 64 on a CPU, 256 on a GPU."),
    ] = None
    max_waiting: Annotated[
        int, Meta(ge=0, description="Most requests waiting for one model; more are answered 429 with Retry-After.")
    ] = 256
    load_s: Annotated[
        float, Meta(gt=0, description="Seconds that the engine's process may take to load the models.")
    ] = 600.0
    silence_s: Annotated[
        float,
        Meta(
            ge=1,
            description="Seconds without a sign of life after which the engine's process is killed and started again; "
            "a step gets ten times its predicted time, where that is more.",
        ),
    ] = 60.0


class SpeculationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Drafts: tokens proposed by something cheap and verified by the model, see docs/speculation.md."""

    mode: Annotated[
        Literal["auto", "off"],
        Meta(description="auto drafts where by measurement it pays, down to nothing; off never drafts."),
    ] = "auto"
    sources: Annotated[
        tuple[SourceName, ...],
        Meta(
            description="Who may draft: forced (text that a grammar prescribes), prediction (the request's own), ngram "
            "(what followed the same words before), draft_model (the small model for the large one)."
        ),
    ] = ("forced", "prediction", "ngram", "draft_model")
    max_draft: Annotated[
        int, Meta(ge=1, le=63, description="Most drafted tokens that follow one another in a step.")
    ] = 16
    width: Annotated[
        int, Meta(ge=1, le=8, description="Choices drafted where the draft model is unsure; 1 drafts chains only.")
    ] = 2
    verification: Annotated[
        Literal["coupled", "ratio"],
        Meta(
            description="coupled gives the very tokens that a seed gives without drafts; ratio (rejection sampling) "
            "accepts a little more above temperature 0 and keeps their distribution only."
        ),
    ] = "coupled"


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one request may ask for; more is answered 400 (413 for its size)."""

    body_bytes: Annotated[int, Meta(ge=1024, description="Size of a request body, in bytes.")] = 2_000_000
    json_depth: Annotated[int, Meta(ge=8, le=900, description="Nesting of a request body.")] = 128
    messages: Annotated[int, Meta(ge=1, description="Messages in a chat.")] = 2048
    tools: Annotated[int, Meta(ge=1, description="Tools offered.")] = 128
    choices: Annotated[int, Meta(ge=1, le=128, description="Answers to one prompt (`n`).")] = 8
    stop_strings: Annotated[int, Meta(ge=1, description="Stop strings (`stop`).")] = 4
    logit_bias: Annotated[int, Meta(ge=0, description="Entries of `logit_bias`.")] = 1024
    top_logprobs: Annotated[int, Meta(ge=0, le=20, description="Rivals listed for each token (`top_logprobs`).")] = 20
    metadata_pairs: Annotated[int, Meta(ge=0, description="Pairs in `metadata`.")] = 16
    compile_s: Annotated[
        float,
        Meta(
            gt=0, description="Seconds that compiling a request's schema or grammar may take; else it is answered 503."
        ),
    ] = 2.0
    compile_cpu_s: Annotated[
        float, Meta(gt=0, description="CPU seconds that a schema or grammar may take; one that takes more is refused.")
    ] = 1.0
    compile_memory_bytes: Annotated[
        int,
        Meta(ge=64 << 20, description="Memory that compiling a schema or grammar may take; beyond it is refused."),
    ] = 1 << 30
    compile_cache_bytes: Annotated[
        int, Meta(ge=1 << 20, description="Memory for compiled schemas and grammars that are kept, by vocabulary.")
    ] = 256 << 20
    mask_ms: Annotated[
        float,
        Meta(
            gt=0,
            description="CPU milliseconds of a slow token mask; an answer with several, or one of ten times as long, "
            "ends with grammar_too_slow.",
        ),
    ] = 50.0


class RoutingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How `auto` chooses between the small and the large model, see docs/routing.md."""

    quality_target: Annotated[
        float,
        Meta(ge=0, le=1, description="Quality that `auto` keeps, with 95 % confidence; in the units of quality_scale."),
    ] = 0.9
    quality_scale: Annotated[
        Literal["large", "gap"],
        Meta(
            description="What a quality is a share of: large is the large model's own quality, gap its lead over the "
            "small one."
        ),
    ] = "large"
    cost_target: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Meta(
            description="Budget of `auto-cost`, as a share of what answering everything with the large model would "
            "cost; else the router's own target of that name."
        ),
    ] = None
    exploration: Annotated[
        float,
        Meta(
            ge=0,
            le=0.5,
            description="Share of routable requests that take the other model, to measure quality.",
        ),
    ] = 0.05
    max_regret: Annotated[
        float,
        Meta(
            ge=0,
            description="Requests whose rank (the expected gain by their costs, mostly in -1 to 1) lies further than "
            "this from the threshold are never explored.",
        ),
    ] = 1.0
    early: Annotated[
        bool,
        Meta(description="Send clear cases to the large model before the small model's prefill was computed for them."),
    ] = True
    cascade: Annotated[
        Literal["off", "validation", "confidence"],
        Meta(
            description="When the large model answers again what the small one answered: validation is after a failed "
            "validation, confidence also after an unsure answer."
        ),
    ] = "confidence"
    hold_tokens: Annotated[
        int,
        Meta(
            ge=0,
            le=4096,
            description="Tokens of a stream that are held back to judge them; 0 never escalates a stream after its "
            "first token.",
        ),
    ] = 0
    overload_wait_s: Annotated[
        float,
        Meta(
            gt=0,
            description="Predicted seconds to the large model's first token from which the small model takes over "
            "what loses least by it.",
        ),
    ] = 2.0
    session_idle_s: Annotated[
        float, Meta(gt=0, description="Seconds after which a conversation's model is forgotten.")
    ] = 3600.0
    log_features: Annotated[
        bool,
        Meta(description="Keep what the router read of a request in its decision row, to train from; never its text."),
    ] = True
    embedding_model: Annotated[
        Path | None,
        Meta(description="Folder of the sentence encoder, for a router that was trained on its embeddings."),
    ] = None
    shadow_share: Annotated[
        float,
        Meta(ge=0, le=1, description="Share of routed requests that the other model answers, too, for comparison."),
    ] = 0.0
    shadow_at_once: Annotated[int, Meta(ge=1, le=64, description="Most such comparisons at the same time.")] = 2
    graded_share: Annotated[
        float, Meta(ge=0, le=1, description="Share of routed answers that the grader grades, beside those compared.")
    ] = 0.0
    grade_at_once: Annotated[int, Meta(ge=1, le=64, description="Most such answers graded at the same time.")] = 2
    grader_command: Annotated[
        str | None,
        Meta(description="Command that grades answers: a request as JSON on its standard input, 0 to 1 on its output."),
    ] = None
    grader_timeout_s: Annotated[float, Meta(gt=0, description="Seconds that the grader may take for an answer.")] = 10.0


class AccountSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """API keys."""

    key_pepper: Annotated[
        Secret,
        Meta(description="Secret mixed into stored key hashes, the same on every gateway; a change voids all keys."),
    ] = Secret("")
    cache_s: Annotated[
        float, Meta(gt=0, le=5, description="Seconds that a checked key is trusted, so the delay of a revocation.")
    ] = 4.0
    outage_grace_s: Annotated[
        float, Meta(ge=0, description="Seconds that known keys go on working while the database is away.")
    ] = 600.0


class StorageSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How requests and decisions are written behind the answers."""

    flush_s: Annotated[float, Meta(gt=0, le=60, description="Seconds that rows are gathered before an insert.")] = 0.1
    batch_rows: Annotated[int, Meta(ge=1, le=1000, description="Rows of one insert.")] = 200
    timeout_s: Annotated[float, Meta(gt=0, description="Seconds that the database may take for one statement.")] = 5.0
    spool_bytes: Annotated[
        int, Meta(ge=1 << 16, description="Disk space for rows while the database is away, in bytes.")
    ] = 256 << 20
    overflow_rows: Annotated[
        int, Meta(ge=0, description="Rows kept in memory while the spool's disk cannot be written either.")
    ] = 10_000
    sqlite_synchronous: Annotated[
        Literal["normal", "full"],
        Meta(description="SQLite only: full keeps the last rows through a power cut, for an fsync per insert."),
    ] = "normal"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration. Order of precedence: command line, environment, TOML file, defaults."""

    host: Annotated[
        str, Meta(min_length=1, description="Address to listen on; beyond loopback requests need a key.")
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 8000
    data_dir: Annotated[Path, Meta(description="Folder of database and spool; created when missing.")] = Path(
        "~/.pointsman"
    )
    small: Annotated[Path | None, Meta(description="Checkpoint folder of the small model; else the bundled.")] = None
    large: Annotated[Path | None, Meta(description="Checkpoint folder of the large model; else the bundled.")] = None
    small_dialect: Annotated[
        DialectName,
        Meta(description="Tool-call format of the small model; auto is the one that its chat template shows."),
    ] = "auto"
    large_dialect: Annotated[
        DialectName,
        Meta(description="Tool-call format of the large model; auto is the one that its chat template shows."),
    ] = "auto"
    router: Annotated[
        Path | None,
        Meta(description="Folder of the router artefact; else the bundled one, which fits the bundled pair only."),
    ] = None
    database_url: Annotated[
        Secret | None,
        Meta(description="postgresql://user:password@host/name or sqlite:///path; SQLite in data_dir by default."),
    ] = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least severe log lines written.")
    ] = "info"
    strict_params: Annotated[
        bool, Meta(description="Refuse requests with unknown fields instead of listing them in x-ignored-params.")
    ] = False
    deadline_s: Annotated[
        float, Meta(gt=0, description="Seconds that a request may take in all when it does not say so itself.")
    ] = 120.0
    shutdown_grace_s: Annotated[
        float, Meta(ge=0, description="Seconds for running requests to finish at shutdown.")
    ] = 30.0
    engine: EngineSettings = EngineSettings()
    speculation: SpeculationSettings = SpeculationSettings()
    limits: LimitSettings = LimitSettings()
    routing: RoutingSettings = RoutingSettings()
    accounts: AccountSettings = AccountSettings()
    storage: StorageSettings = StorageSettings()
    prices: Annotated[
        PriceTable,
        Meta(description="USD per million tokens: version and `[prices.models.NAME]` (input, cached_input, output)."),
    ] = msgspec.field(default_factory=bundled_prices)

    @property
    def uses_predictions(self) -> bool:
        """Whether a request's `prediction` is drafted from."""
        return self.speculation.mode != "off" and "prediction" in self.speculation.sources

    @property
    def dialects(self) -> dict[str, str | None]:
        """The tool-call formats that were set, by model alias."""
        given = {"small": self.small_dialect, "large": self.large_dialect}
        return {alias: None if name == "auto" else name for alias, name in given.items()}

    @property
    def small_path(self) -> Path:
        """Checkpoint folder of the small model."""
        return self.small or bundled_path("small")

    @property
    def large_path(self) -> Path:
        """Checkpoint folder of the large model."""
        return self.large or bundled_path("large")

    @property
    def router_path(self) -> Path | None:
        """Folder of the router artefact; None for a pair of one's own without one."""
        if self.router is not None:
            return self.router
        return bundled_path("router") if self.small is None and self.large is None else None

    @property
    def storage_url(self) -> str:
        """SQLAlchemy URL with its asynchronous driver. Contains the password: not for logs."""
        if self.database_url is None:
            return f"sqlite+aiosqlite:///{self.data_dir / 'pointsman.sqlite3'}"
        url = self.database_url.reveal()
        for scheme, driver in (("postgresql", "asyncpg"), ("postgres", "asyncpg"), ("sqlite", "aiosqlite")):
            if url.startswith(f"{scheme}://"):
                return f"{'sqlite' if scheme == 'sqlite' else 'postgresql'}+{driver}{url[len(scheme) :]}"
        return url

    @property
    def registry_dir(self) -> Path:
        """Folder of the routers that were trained here."""
        return self.data_dir / "routers"

    @property
    def spool_dir(self) -> Path:
        """Folder of the rows that are not in the database yet."""
        return self.data_dir / "spool"


def bundled_path(name: str) -> Path:
    """Where the bundled `small`, `large` or `router` lies, found without importing it."""
    spec = importlib.util.find_spec("bundled_models")
    if spec is None or not spec.submodule_search_locations:
        raise SettingsError(f"the bundled models are not installed: set {name} to a folder of your own")
    return Path(next(iter(spec.submodule_search_locations))) / name
