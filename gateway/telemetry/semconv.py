"""Every span, attribute and metric name, in one place.

`gen_ai.*` follows OpenTelemetry's GenAI conventions, which are still at status Development and moved to their own
repository in 2026; the constants of opentelemetry-semantic-conventions are deprecated, so the names stand here. Metrics
carry vLLM's names under our prefix, so that its dashboards need a search and replace only.
"""

from typing import Final

PROVIDER: Final = "pointsman"

# Spans
SPAN_COMPILE: Final = "grammar.compile"
SPAN_ROUTE: Final = "route.decide"
SPAN_QUEUE: Final = "engine.queue"
SPAN_PREFILL: Final = "engine.prefill"
SPAN_DECODE: Final = "engine.decode"

# Attributes of OpenTelemetry
HTTP_METHOD: Final = "http.request.method"
HTTP_ROUTE: Final = "http.route"
HTTP_STATUS: Final = "http.response.status_code"
ERROR_TYPE: Final = "error.type"
GEN_AI_OPERATION: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER: Final = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
GEN_AI_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_CHOICES: Final = "gen_ai.request.choice.count"
GEN_AI_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"

# Attributes of our own
CHOICE_INDEX: Final = "pointsman.choice.index"
CONSTRAINT_KIND: Final = "pointsman.constraint.kind"
CONSTRAINT_BACKEND: Final = "pointsman.constraint.backend"
CONSTRAINT_CACHED: Final = "pointsman.constraint.cached"
ROUTE_CHOICE: Final = "pointsman.route.choice"
ROUTE_REASON: Final = "pointsman.route.reason"
ROUTE_SCORE: Final = "pointsman.route.score"
ROUTE_RANK: Final = "pointsman.route.rank"
ROUTE_THRESHOLD: Final = "pointsman.route.threshold"
ROUTE_PROPENSITY: Final = "pointsman.route.propensity"
ROUTE_POLICY: Final = "pointsman.route.policy"
ROUTE_ESCALATED: Final = "pointsman.route.escalate_reason"
COST_USD: Final = "pointsman.cost_usd"
DISCARDED: Final = "pointsman.discarded"
TOKENS_COMPUTED: Final = "pointsman.tokens.computed"
TOKENS_CACHED: Final = "pointsman.tokens.cached"
CACHE_MISS: Final = "pointsman.cache.miss"
TOKENS_GENERATED: Final = "pointsman.tokens.generated"
TOKENS_DRAFTED: Final = "pointsman.tokens.drafted"
TOKENS_ACCEPTED: Final = "pointsman.tokens.accepted"
TOKENS_FORCED: Final = "pointsman.tokens.forced"
# Followed by the source of the drafts, and `.drafted` or `.accepted`.
DRAFTS_PREFIX: Final = "pointsman.drafts."
STEPS: Final = "pointsman.steps"
PREEMPTIONS: Final = "pointsman.preemptions"
MASK_SECONDS: Final = "pointsman.mask_s"

# Metrics. prometheus-client appends _total to counters.
METRIC_REQUESTS: Final = "pointsman_requests"
METRIC_PROMPT_TOKENS: Final = "pointsman_prompt_tokens"
METRIC_CACHED_TOKENS: Final = "pointsman_cached_prompt_tokens"
METRIC_GENERATION_TOKENS: Final = "pointsman_generation_tokens"
METRIC_COST: Final = "pointsman_cost_usd"
METRIC_COST_IF_LARGE: Final = "pointsman_cost_if_large_usd"
METRIC_INVALID: Final = "pointsman_invalid_answers"
METRIC_DECISIONS: Final = "pointsman_decisions"
METRIC_ESCALATIONS: Final = "pointsman_escalations"
METRIC_NOT_ESCALATED: Final = "pointsman_escalations_forgone"
METRIC_UNCALIBRATED: Final = "pointsman_uncalibrated_decisions"
METRIC_LARGE_SHARE: Final = "pointsman_large_share"
METRIC_DRIFT: Final = "pointsman_router_drift"
METRIC_SHIFTED_ROUTES: Final = "pointsman_router_shifted_routes"
METRIC_OOD_SHARE: Final = "pointsman_router_out_of_domain_share"
METRIC_CALIBRATION_ERROR: Final = "pointsman_router_calibration_error"
METRIC_OUTCOMES: Final = "pointsman_outcomes"
METRIC_SHADOW_PAIRS: Final = "pointsman_shadow_pairs"
METRIC_SHADOW_COST: Final = "pointsman_shadow_cost_usd"
METRIC_LIVE_GRADES: Final = "pointsman_live_grades"
METRIC_TTFT_PREDICTION: Final = "pointsman_time_to_first_token_prediction_ratio"
METRIC_ROUTER_OVERHEAD: Final = "pointsman_router_overhead_seconds"
METRIC_TTFT: Final = "pointsman_time_to_first_token_seconds"
METRIC_ITL: Final = "pointsman_inter_token_latency_seconds"
METRIC_E2E: Final = "pointsman_e2e_request_latency_seconds"
METRIC_QUEUE: Final = "pointsman_request_queue_time_seconds"
METRIC_COMPILE: Final = "pointsman_grammar_compile_seconds"
METRIC_IN_FLIGHT: Final = "pointsman_requests_in_flight"
METRIC_ENGINE_UP: Final = "pointsman_engine_up"
METRIC_ENGINE_RESTARTS: Final = "pointsman_engine_restarts"
METRIC_ENGINE_LAST_DEATH: Final = "pointsman_engine_last_death_timestamp_seconds"
METRIC_ENGINE_HEARTBEAT_AGE: Final = "pointsman_engine_heartbeat_age_seconds"
METRIC_ENGINE_CALLS: Final = "pointsman_engine_calls"
METRIC_ENGINE_HANDLES: Final = "pointsman_engine_handles"
METRIC_ENGINE_PREFIX: Final = "pointsman_engine_"
METRIC_DRAFTED_BY: Final = "pointsman_draft_tokens"
METRIC_ACCEPTED_BY: Final = "pointsman_accepted_draft_tokens"
METRIC_WASTED_BY: Final = "pointsman_wasted_draft_tokens"
METRIC_ROWS_WRITTEN: Final = "pointsman_rows_written"
METRIC_ROWS_LOST: Final = "pointsman_rows_lost"
METRIC_ROWS_REFUSED: Final = "pointsman_rows_refused"
METRIC_WRITE_FAILURES: Final = "pointsman_row_write_failures"
METRIC_SPOOL_BYTES: Final = "pointsman_spool_bytes"

# The engine's counters and gauges that vLLM has a name for; others are METRIC_ENGINE_PREFIX and the engine's own name.
VLLM_NAMES: Final = {
    "running_now": "pointsman_num_requests_running",
    "waiting_now": "pointsman_num_requests_waiting",
    "kv_usage_now": "pointsman_kv_cache_usage_perc",
    "prefix_queries": "pointsman_prefix_cache_queries",
    "prefix_hits": "pointsman_prefix_cache_hits",
    "preemptions": "pointsman_num_preemptions",
    "tokens_drafted": "pointsman_spec_decode_num_draft_tokens",
    "tokens_accepted": "pointsman_spec_decode_num_accepted_tokens",
}
