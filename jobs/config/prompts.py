"""The prompts of a run, from its configuration or from the file that the configuration names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from jobs.config import GenerateConfig
from jobs.errors import InputError
from jobs.lake.uri import ending_of, to_uri

_RECORDS = (".jsonl", ".ndjson")


def read_prompts(config: GenerateConfig, read_bytes: Callable[[str], bytes]) -> tuple[str, ...]:
    """Return the prompts in `config`, or in the file that `config` names.

    `read_bytes` returns the content of the file at a URI.

    Raises:
        InputError: if the file cannot be read, has no prompt or has a wrong line, or if a prompt cannot be encoded.
    """
    prompts = config.prompts
    if config.prompts_file is not None:
        prompts = _of_file(to_uri(config.prompts_file), config.prompt_unit, read_bytes)
    for prompt in prompts:
        try:
            prompt.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"generate.prompts: {prompt!r} holds half of a surrogate pair, which cannot be encoded; remove it"
            ) from None
    return prompts


def _of_file(uri: str, unit: str, read_bytes: Callable[[str], bytes]) -> tuple[str, ...]:
    try:
        text = read_bytes(uri).decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"generate.prompts_file: {uri} cannot be read ({error.strerror or 'no such file'})") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"generate.prompts_file: {uri} is not UTF-8 at byte {error.start}; convert it to UTF-8"
        ) from None
    if "\0" in text:
        raise InputError(f"generate.prompts_file: {uri} holds NUL, as text in UTF-16 does; convert it to UTF-8")
    lines = re.split("\r\n|\n|\r", text)  # `str.splitlines` splits at other characters, too
    lines = lines if lines[-1] else lines[:-1]
    whole = "\n".join(lines)
    if ending_of(uri, _RECORDS):
        lines = [_prompt(uri, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    elif unit == "file":
        lines = [whole]
    if not text or not lines:
        raise InputError(f"generate.prompts_file: {uri} holds no prompt; write one into it")
    return tuple(lines)


def _prompt(uri: str, number: int, line: str) -> str:
    try:
        prompt = json.loads(line)["prompt"]
    except (ValueError, TypeError, KeyError, RecursionError):
        prompt = None
    if not isinstance(prompt, str):
        raise InputError(f'generate.prompts_file: {uri}, line {number}: expected {{"prompt": "text"}}')
    return prompt
