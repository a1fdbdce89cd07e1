"""The environment as one frozen, validated object. Nothing else reads it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_network

_STAGE = re.compile(r"[a-z][a-z0-9-]{0,19}\Z")
_TYPE_LIMIT = re.compile(r"[a-z][a-z0-9_]*=(-|[0-9]{1,4})/(-|[0-9]{1,4})\Z")
MOST_LIMIT = 1000  # the moments of a minute are kept in one item
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
NOT_DEPLOYED = "arn:aws:dynamodb:us-east-1:000000000000:table/not-deployed/stream/not-deployed"


class SettingsError(Exception):
    """The environment cannot be used; the message names the variable."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting, with its default. `docs/settings.md` is printed from here.

    stage: names every resource, `headrace-<stage>-...`.
    jobs_stream_arn: only read while deploying; its ARN holds the time the stream was made, so no convention can name it.
    allowed_origins: browsers' origins that may call the API; empty: none.
    max_lane_depth: messages that a lane may hold, of all tenants together, before submissions to it are refused.
    webhook_networks: networks (`10.1.0.0/16`, separated by commas) that webhooks may reach besides public addresses, and without TLS.
    mail_from: the sender of e-mail, verified in SES; empty: this stage sends none.
    type_limits: jobs of a type at work at once, and begun in a minute, in the place of its own: `export=2/5,general=-/600`; at most 1000.
    """

    stage: str = "local"
    log_level: str = "INFO"
    allowed_origins: tuple[str, ...] = ()
    jobs_stream_arn: str = NOT_DEPLOYED
    requests_per_minute: int = 600
    max_long_polls: int = 100
    max_lane_depth: int = 100_000
    frames_per_second: float = 4.0
    provider_idle_timeout: float = 60.0
    webhook_networks: tuple[str, ...] = ()
    mail_from: str | None = None
    type_limits: tuple[str, ...] = ()

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Read `HEADRACE_*`.

        Raises:
            SettingsError: a value cannot be used.
        """
        stage = env.get("HEADRACE_STAGE", cls.stage)
        if not _STAGE.match(stage):
            raise SettingsError(f"HEADRACE_STAGE must be lower-case letters, digits and dashes, not {stage!r}")
        level = env.get("HEADRACE_LOG_LEVEL", cls.log_level)
        if level not in LEVELS:
            raise SettingsError(f"HEADRACE_LOG_LEVEL must be one of {', '.join(LEVELS)}, not {level!r}")
        origins = tuple(origin.strip() for origin in env.get("HEADRACE_ALLOWED_ORIGINS", "").split(",") if origin.strip())
        return cls(
            stage=stage,
            log_level=level,
            allowed_origins=origins,
            jobs_stream_arn=env.get("HEADRACE_JOBS_STREAM_ARN", cls.jobs_stream_arn),
            requests_per_minute=int(_number(env, "HEADRACE_REQUESTS_PER_MINUTE", cls.requests_per_minute)),
            max_long_polls=int(_number(env, "HEADRACE_MAX_LONG_POLLS", cls.max_long_polls)),
            max_lane_depth=int(_number(env, "HEADRACE_MAX_LANE_DEPTH", cls.max_lane_depth)),
            frames_per_second=_number(env, "HEADRACE_FRAMES_PER_SECOND", cls.frames_per_second),
            provider_idle_timeout=_number(env, "HEADRACE_PROVIDER_IDLE_TIMEOUT", cls.provider_idle_timeout),
            webhook_networks=_networks(env.get("HEADRACE_WEBHOOK_NETWORKS", "")),
            mail_from=env.get("HEADRACE_MAIL_FROM", "").strip() or None,
            type_limits=_type_limits(env.get("HEADRACE_TYPE_LIMITS", "")),
        )


def _networks(said: str) -> tuple[str, ...]:
    texts = tuple(text.strip() for text in said.split(",") if text.strip())
    try:
        return tuple(str(ip_network(text)) for text in texts)
    except ValueError as exc:
        raise SettingsError(f"HEADRACE_WEBHOOK_NETWORKS must be networks such as 10.1.0.0/16: {exc}") from exc


def _type_limits(text: str) -> tuple[str, ...]:
    said = tuple(part.strip() for part in text.split(",") if part.strip())
    for part in said:
        match = _TYPE_LIMIT.match(part)
        if match is None or any(number != "-" and not 1 <= int(number) <= MOST_LIMIT for number in match.groups()):
            raise SettingsError(f"HEADRACE_TYPE_LIMITS must be like export=2/5, each - or 1 to {MOST_LIMIT}, not {part!r}")
    return said


def _number(env: Mapping[str, str], name: str, default: float) -> float:
    try:
        value = float(env.get(name, default))
    except ValueError as exc:
        raise SettingsError(f"{name} must be a number, not {env[name]!r}") from exc
    if value <= 0:
        raise SettingsError(f"{name} must be above 0, not {value}")
    return value


@cache
def settings() -> Settings:
    """The settings of this process, read at the first call."""
    return Settings.from_env(os.environ)
