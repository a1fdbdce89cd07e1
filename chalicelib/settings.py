"""Read and validate the environment. No other module reads it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_network

_STAGE = re.compile(r"[a-z][a-z0-9-]{0,19}\Z")
_TYPE_LIMIT = re.compile(r"[a-z][a-z0-9_]*=(-|[0-9]{1,4})/(-|[0-9]{1,4})\Z")
MAX_TYPE_LIMIT = 1000  # the start times of one minute must fit into one DynamoDB item
MAX_SHARDS = 16
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
OMITTABLE = ("stream", "stream_options", "store", "prompt_cache_key", "max_output_tokens")
PROMPT_CACHES = ("organisation", "tenant")
PLACEHOLDER_STREAM_ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/not-deployed/stream/not-deployed"


class SettingsError(Exception):
    """An environment variable has an invalid value; the message names it."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting, with its default. `docs/settings.md` prints the meanings below.

    stage: the stage, part of every resource name: `headrace-<stage>-...`.
    log_level: the minimum level that is logged: `DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`.
    allowed_origins: browser origins that may call the API, separated by commas. Empty: none.
    jobs_stream_arn: the change stream of the jobs table; read only while deploying. The ARN contains a time, so it cannot be derived.
    requests_per_minute: maximum requests per key and clock minute. Large bodies count as several; event streams are never rejected.
    max_long_polls: maximum requests held at the same time (`?wait=`, `async: false`, event streams); more are answered at once.
    max_connections: about how many WebSockets of one API key may be open, those of its tickets included.
    max_lane_depth: maximum messages in a lane, and in the queue of tasks, of all tenants together; submissions to a full one are rejected.
    frames_per_second: token frames per second to one WebSocket. In the first three seconds it is ten.
    provider_idle_timeout: maximum seconds of silence while OpenAI writes. Before that and while it reasons `config.timeout` counts.
    omit_parameters: what is never sent: any of `stream`, `stream_options`, `store`, `prompt_cache_key`, `max_output_tokens`.
    prompt_cache: who shares OpenAI's prompt cache: `organisation`, or `tenant`, which costs some fifteen input tokens a request.
    webhook_networks: private networks (`10.1.0.0/16`, separated by commas) that webhooks may reach, also without TLS.
    mail_from: the sender address of e-mail, verified in SES. Empty: the stage sends no e-mail.
    report_batch_failures: `true` if the event source of the function takes the ids of failed messages as an answer; set per function.
    tenant_concurrency: how many jobs of a tenant run at once, unless `PUT /limits/tenants/{tenant}` says otherwise. Empty: no limit.
    user_concurrency: the same for each user.
    tenant_queued: how many jobs of a tenant may be unfinished, unless `PUT /limits/tenants/{tenant}` says otherwise. Empty: no limit.
    scheduler_shards: loops that serve the lines of held jobs when many causes hold jobs at once, 1 to 16.
    type_limits: replace the limits of job types: `type=concurrency/starts per minute`, such as `export=2/5,general=-/600`. `-`: unlimited.
    """

    stage: str = "local"
    log_level: str = "INFO"
    allowed_origins: tuple[str, ...] = ()
    jobs_stream_arn: str = PLACEHOLDER_STREAM_ARN
    requests_per_minute: int = 600
    max_long_polls: int = 100
    max_connections: int = 500
    max_lane_depth: int = 1_000_000
    frames_per_second: float = 4.0
    provider_idle_timeout: float = 60.0
    omit_parameters: tuple[str, ...] = ()
    prompt_cache: str = "organisation"
    webhook_networks: tuple[str, ...] = ()
    mail_from: str | None = None
    report_batch_failures: bool = False
    tenant_concurrency: int | None = None
    user_concurrency: int | None = None
    tenant_queued: int | None = None
    scheduler_shards: int = 2
    type_limits: tuple[str, ...] = ()

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Read the `HEADRACE_*` variables of `env`.

        Raises:
            SettingsError: a value is invalid.
        """
        stage = env.get("HEADRACE_STAGE", cls.stage)
        if not _STAGE.match(stage):
            raise SettingsError(f"HEADRACE_STAGE must be lower-case letters, digits and dashes, not {stage!r}")
        level = env.get("HEADRACE_LOG_LEVEL", cls.log_level)
        if level not in LEVELS:
            raise SettingsError(f"HEADRACE_LOG_LEVEL must be one of {', '.join(LEVELS)}, not {level!r}")
        prompt_cache = env.get("HEADRACE_PROMPT_CACHE", cls.prompt_cache)
        if prompt_cache not in PROMPT_CACHES:
            raise SettingsError(f"HEADRACE_PROMPT_CACHE must be one of {', '.join(PROMPT_CACHES)}, not {prompt_cache!r}")
        origins = tuple(origin.strip() for origin in env.get("HEADRACE_ALLOWED_ORIGINS", "").split(",") if origin.strip())
        return cls(
            stage=stage,
            log_level=level,
            allowed_origins=origins,
            jobs_stream_arn=env.get("HEADRACE_JOBS_STREAM_ARN", cls.jobs_stream_arn),
            requests_per_minute=int(_number(env, "HEADRACE_REQUESTS_PER_MINUTE", cls.requests_per_minute)),
            max_long_polls=int(_number(env, "HEADRACE_MAX_LONG_POLLS", cls.max_long_polls)),
            max_connections=int(_number(env, "HEADRACE_MAX_CONNECTIONS", cls.max_connections)),
            max_lane_depth=int(_number(env, "HEADRACE_MAX_LANE_DEPTH", cls.max_lane_depth)),
            frames_per_second=_number(env, "HEADRACE_FRAMES_PER_SECOND", cls.frames_per_second),
            provider_idle_timeout=_number(env, "HEADRACE_PROVIDER_IDLE_TIMEOUT", cls.provider_idle_timeout),
            omit_parameters=_parameters(env.get("HEADRACE_OMIT_PARAMETERS", "")),
            prompt_cache=prompt_cache,
            webhook_networks=_networks(env.get("HEADRACE_WEBHOOK_NETWORKS", "")),
            mail_from=env.get("HEADRACE_MAIL_FROM", "").strip() or None,
            report_batch_failures=_flag(env, "HEADRACE_REPORT_BATCH_FAILURES"),
            tenant_concurrency=_optional(env, "HEADRACE_TENANT_CONCURRENCY"),
            user_concurrency=_optional(env, "HEADRACE_USER_CONCURRENCY"),
            tenant_queued=_optional(env, "HEADRACE_TENANT_QUEUED"),
            scheduler_shards=_shards(env),
            type_limits=_type_limits(env.get("HEADRACE_TYPE_LIMITS", "")),
        )


def _shards(env: Mapping[str, str]) -> int:
    shards = int(_number(env, "HEADRACE_SCHEDULER_SHARDS", Settings.scheduler_shards))
    if shards > MAX_SHARDS:
        raise SettingsError(f"HEADRACE_SCHEDULER_SHARDS must be at most {MAX_SHARDS}, not {shards}")
    return shards


def _networks(text: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    try:
        return tuple(str(ip_network(part)) for part in parts)
    except ValueError as exc:
        raise SettingsError(f"HEADRACE_WEBHOOK_NETWORKS must be networks such as 10.1.0.0/16: {exc}") from exc


def _parameters(text: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    for part in parts:
        if part not in OMITTABLE:
            raise SettingsError(f"HEADRACE_OMIT_PARAMETERS may name {', '.join(OMITTABLE)}, not {part!r}")
    return parts


def _type_limits(text: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    for part in parts:
        match = _TYPE_LIMIT.match(part)
        if match is None or any(number != "-" and not 1 <= int(number) <= MAX_TYPE_LIMIT for number in match.groups()):
            raise SettingsError(f"HEADRACE_TYPE_LIMITS must be like export=2/5, each - or 1 to {MAX_TYPE_LIMIT}, not {part!r}")
    return parts


def _flag(env: Mapping[str, str], name: str) -> bool:
    text = env.get(name, "false")
    if text not in ("true", "false"):
        raise SettingsError(f"{name} must be true or false, not {text!r}")
    return text == "true"


def _number(env: Mapping[str, str], name: str, default: float) -> float:
    try:
        value = float(env.get(name, default))
    except ValueError as exc:
        raise SettingsError(f"{name} must be a number, not {env[name]!r}") from exc
    if value <= 0:
        raise SettingsError(f"{name} must be above 0, not {value}")
    return value


def _optional(env: Mapping[str, str], name: str) -> int | None:
    text = env.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and 1 <= len(text) <= 8 and int(text) >= 1):
        raise SettingsError(f"{name} must be a whole number from 1 to 99999999, or empty, not {text!r}")
    return int(text)


@cache
def settings() -> Settings:
    """The settings of this process, read on the first call."""
    return Settings.from_env(os.environ)
