"""An OpenAI-compatible server on the loopback: scripted texts, latency, faults on demand, and a log of requests.

What it writes is a function of prompt, text so far, seed and number of the choice, so that the same questions have the
same answers however often they had to be asked.
"""

import asyncio
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b

STEP = "\n\n"


@dataclass
class Entry:
    """One request: when it came and was answered (`time.monotonic`), what it asked, and what it got."""

    path: str
    body: dict
    received: float
    headers: dict = field(repr=False, default_factory=dict)
    answered: float = float("nan")
    status: int = 0
    n: int = 1
    tokens: int = 0
    fault: str | None = None


def chance(share, kinds, *, seed=0):
    """Faults at random: the same for the same body and try, whatever the order in which requests come."""

    def fault(number, body, tries):
        del number
        drawn = random.Random(f"{seed} {tries} {json.dumps(body, sort_keys=True)}")
        return drawn.choice(kinds) if drawn.random() < share else None

    return fault


def schedule(*kinds):
    """These faults for the first completions requests, in their order; None for none."""
    return lambda number, body, tries: kinds[number] if number < len(kinds) else None


@dataclass
class Server:
    """`with Server(...) as server:` answers at `server.url` (chat, completions, models) and `server.root` (scores).

    - `steps`, `words`: an answer has so many steps of so many words; a blank line ends each but the last.
    - `latency`: seconds a token; choices of a request are written at the same time. `slow(body)`: a factor.
    - `faults(number, body, tries)`: what goes wrong with this request; None for nothing.
    - `extras`: vLLM's own fields are "taken", "ignored" or "refused". `echo`: stop strings stay in the text, "asked"
      for by `include_stop_str_in_output`, "always" or "never". `tells`: the reply names the stop string.
    """

    steps: int = 3
    words: int = 4
    latency: float = 0.0
    slow: Callable = lambda body: 1.0
    faults: Callable = lambda number, body, tries: None
    retry_after: str = "0.05"
    extras: str = "taken"
    echo: str = "asked"
    tells: bool = True
    several: bool = True
    stops: bool = True
    continues: bool = True
    seeds: bool = True
    draws: bool = True
    log_probs: bool = True
    usage: bool = True
    key: str | None = None
    write: Callable | None = None  # in place of the script: (prompt, text, choice) -> next token, None for the end

    def __enter__(self):
        self.log: list[Entry] = []
        self._tries, self._number, self._under_way, self.most_at_a_time = Counter(), 0, 0, 0
        self._loop, ready = asyncio.new_event_loop(), threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()
        self.root = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.root}/v1"
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def asked(self, path="completions"):
        """Requests whose path ends so."""
        return [entry for entry in self.log if entry.path.endswith(path)]

    def _serve(self, ready):
        async def main():
            self._stop = asyncio.Event()
            open_ones = set()

            async def connected(reader, writer):
                open_ones.add(asyncio.current_task())
                try:
                    await self._connection(reader, writer)
                except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                    pass
                finally:
                    open_ones.discard(asyncio.current_task())
                    writer.close()

            server = await asyncio.start_server(connected, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await self._stop.wait()
            server.close()
            for task in list(open_ones):
                task.cancel()
            await asyncio.gather(*open_ones, return_exceptions=True)
            await asyncio.sleep(0.01)  # transports are closed by later turns of the loop

        self._loop.run_until_complete(main())
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _connection(self, reader, writer):
        while head := await reader.readuntil(b"\r\n\r\n"):
            first, *lines = head.decode("latin-1").strip().split("\r\n")
            headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
            content = await reader.readexactly(int(headers.get("content-length", 0)))
            entry = Entry(first.split()[1], json.loads(content or b"{}"), time.monotonic(), headers)
            self.log.append(entry)
            self._under_way += 1
            self.most_at_a_time = max(self.most_at_a_time, self._under_way)
            try:
                status, reply, more = await self._answer(entry)
            finally:
                self._under_way -= 1
            entry.answered, entry.status = time.monotonic(), status
            body = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            size = len(body) + (100 if entry.fault == "truncated" else 0)
            told = "".join(f"{k}: {v}\r\n" for k, v in {"Content-Type": "application/json", **more}.items())
            if entry.fault != "drop":
                writer.write(f"HTTP/1.1 {status} -\r\nContent-Length: {size}\r\n{told}\r\n".encode() + body)
                await writer.drain()
            if entry.fault in {"drop", "truncated"}:
                return

    async def _answer(self, entry):
        body, path = entry.body, entry.path
        if self.key is not None and entry.headers.get("authorization") != f"Bearer {self.key}":
            sent = entry.headers.get("authorization", "no key")
            return 401, {"error": {"message": f"Incorrect API key provided: {sent}"}}, {}
        if path.endswith("/models"):
            return 200, {"object": "list", "data": [{"id": "scripted", "object": "model"}]}, {}
        name = json.dumps(body, sort_keys=True)
        entry.fault = self.faults(self._number, body, self._tries[name])
        self._number += 1
        self._tries[name] += 1
        if entry.fault == "hang":
            await asyncio.Event().wait()
        if entry.fault in {"429", "503"}:
            return int(entry.fault), {"error": {"message": "too much"}}, {"Retry-After": self.retry_after}
        if entry.fault is not None and entry.fault.isdigit():
            return int(entry.fault), {"error": {"message": "it is what it is", "type": "scripted"}}, {}
        if entry.fault == "page":
            return 200, b"<html>a proxy says hello</html>", {}
        if path.endswith("/completions"):
            status, reply = await self._completions(entry)
        else:
            status, reply = self._scores(path, body)
        if entry.fault == "empty":
            reply = {**reply, "choices": [], "data": []}
        if entry.fault == "invalid":
            return status, json.dumps(reply).encode()[:-20], {}
        return status, reply, {}

    # Completions

    async def _completions(self, entry):
        body, chat = entry.body, "messages" in entry.body
        vllm = {"continue_final_message", "add_generation_prompt", "include_stop_str_in_output", "stop_token_ids"}
        vllm |= {"return_token_ids"}
        if self.extras == "refused" and vllm & set(body):
            return 422, {"detail": f"Unexpected keys in the request: {sorted(vllm & set(body))}"}
        asked = {k: v for k, v in body.items() if self.extras == "taken" or k not in vllm}
        if asked.get("n", 1) > 1 and not self.several:
            asked["n"] = 1
        prompt, text, header = self._prompt(asked, chat)
        entry.n = asked.get("n", 1)
        drawn = []
        for i in range(entry.n):
            seed = asked.get("seed", 0) if self.seeds else self._number
            likeliest = asked.get("temperature") == 0 or not self.draws
            drawn.append(self._one(asked, prompt, text, "likeliest" if likeliest else f"{seed} {i}"))
        entry.tokens = sum(len(tokens) for tokens, _, _ in drawn)
        if self.latency:
            await asyncio.sleep(self.latency * max(len(tokens) for tokens, _, _ in drawn) * self.slow(body))
        choices = [self._choice(i, asked, chat, *one) for i, one in enumerate(drawn)]
        if (entry.fault or "").startswith("finish:"):
            reason = entry.fault.partition(":")[2]
            for choice in choices:
                choice["finish_reason"] = None if reason == "null" else reason
                if reason == "tool_calls" and chat:
                    call = {"name": "add", "arguments": '{"a": 1}'}
                    choice["message"]["tool_calls"] = [{"id": "1", "type": "function", "function": call}]
        if entry.fault == "fewer":
            choices = choices[:-1]
        if entry.fault == "more":
            choices.append({**choices[-1], "index": len(choices)})
            entry.tokens += len(drawn[-1][0])
        read = len(prompt.split()) + len(text.split()) + header
        usage = {"prompt_tokens": read, "completion_tokens": entry.tokens, "total_tokens": read + entry.tokens}
        return 200, {"object": "scripted", "choices": choices, **({"usage": usage} if self.usage else {})}

    def _prompt(self, body, chat):
        if not chat:  # prompts of the tests end with a newline, answers have no single ones
            prompt, line, text = body["prompt"].rpartition("?")
            return prompt + line, text, 0
        messages = list(body["messages"])
        if self.continues and body.get("continue_final_message"):
            last = messages.pop()["content"]
            text = last if isinstance(last, str) else "".join(part.get("text", "") for part in last)
            return json.dumps(messages), text, 0
        return json.dumps(messages), "", 3

    def _one(self, body, prompt, text, choice):
        """Tokens, why it ended ("stop", "length"), and the stop string or token that it met."""
        stops = body.get("stop") or [] if self.stops else []
        tokens: list[str] = []
        while len(tokens) < body.get("max_tokens", 16):
            token = (self.write or self._scripted)(prompt, text + "".join(tokens), choice)
            if token is None:
                return tokens, "stop", None
            tokens.append(token)
            met = next((stop for stop in stops if stop in "".join(tokens)), None)
            met = number(token) if number(token) in body.get("stop_token_ids", ()) else met
            if met is not None:
                return tokens, "stop", met
        return tokens, "length", None

    def _scripted(self, prompt, text, choice):
        done, tail = text.count(STEP), text.rpartition(STEP)[2]
        if done >= self.steps:
            return None
        if len(tail.split()) >= self.words:
            return STEP if done < self.steps - 1 else None
        return f" w{draw(prompt, text, choice) % 100}"

    def _choice(self, index, body, chat, tokens, finish, met):
        text = "".join(tokens)
        if isinstance(met, str):
            end = text.index(met)
            echo = self.echo == "always" or (self.echo == "asked" and body.get("include_stop_str_in_output"))
            text = text[: end + len(met)] if echo else text[:end]
        choice = {"index": index, "finish_reason": finish}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        if self.tells:
            choice["stop_reason"] = met
        if body.get("return_token_ids"):
            choice["token_ids"] = [number(token) for token in tokens]
        if body.get("logprobs") and self.log_probs:
            values = [-0.1 - (number(token) % 7) / 7 for token in tokens]
            content = [{"token": t, "logprob": v} for t, v in zip(tokens, values, strict=True)]
            choice["logprobs"] = {"content": content} if chat else {"tokens": tokens, "token_logprobs": values}
        return choice

    # Scores

    def _scores(self, path, body):
        if path.endswith("/score"):
            data = [{"index": i, "score": value(body["text_1"], text)} for i, text in enumerate(body["text_2"])]
            return 200, {"data": data[::-1]}
        if path.endswith("/json"):
            return 200, {"scores": [value(str(item["messages"]), item["text"]) for item in body["items"]]}
        texts = body["input"] if "input" in body else [json.dumps(body["messages"])]
        good = [value("", text) for text in texts]
        if path.endswith("/classify"):
            return 200, {"data": [{"index": i, "label": "1", "probs": [1 - v, v]} for i, v in enumerate(good)]}
        rows = [[[1 - v, v], [1 - v / 2, v / 2]] for v in good]
        return 200, {"data": [{"index": i, "object": "pooling", "data": row} for i, row in enumerate(rows)]}


def draw(*parts):
    """A number that belongs to these texts."""
    return int.from_bytes(blake2b("\0".join(map(str, parts)).encode(), digest_size=6).digest())


def number(token):
    """Of a token."""
    return draw(token) % 1000


def value(prompt, text):
    """The score of an answer, in (0, 1)."""
    return (draw(prompt, text) % 9998 + 1) / 10000


def dead_url():
    """An address at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def finished(user, work):
    """The result of a coroutine in a new event loop; connections of `user` are closed, and no task may be left."""

    async def main():
        try:
            return await work
        finally:
            await user.aclose()
            assert asyncio.all_tasks() == {asyncio.current_task()}

    return asyncio.run(main())
