"""its-hub's particle filter on the server of `_its_hub`, in an environment of its own: `_its_hub_peer.py N-PORT`."""

import asyncio
import sys
import warnings

import aiohttp
import numpy as np
from _its_hub_server import END, PROMPT, STEP
from _serve import serve
from its_hub import OpenAICompatibleLanguageModel, StepGeneration
from its_hub.api import AbstractProcessRewardModel
from its_hub.core.algorithms.particle_gibbs import ParticleFiltering

CONCURRENCY = 32


class Scorer(AbstractProcessRewardModel):
    """The server's scores, one request a step, on a connection that is kept."""

    def __init__(self, url: str):
        self.url, self._session, self._loop = url, None, None

    def score(self, prompt_or_messages, steps):
        return asyncio.run(self.ascore(prompt_or_messages, steps))

    async def ascore(self, prompt_or_messages, steps):
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            self._session, self._loop = aiohttp.ClientSession(), loop
        async with self._session.post(self.url, json={"text_1": prompt_or_messages, "text_2": steps}) as reply:
            data = (await reply.json())["data"]
        return [each["score"] for each in sorted(data, key=lambda each: each["index"])]

    async def close(self):
        if self._session is not None:
            await self._session.close()
            self._session = None


def program(num: int, port: int):
    """One run of N particles; it gives each one's number of steps."""
    warnings.simplefilter("ignore", DeprecationWarning)
    root = f"http://127.0.0.1:{port}"
    model = OpenAICompatibleLanguageModel(f"{root}/v1", "none", "scripted", max_concurrency=CONCURRENCY)
    scorer = Scorer(f"{root}/score")
    steps = StepGeneration(40, [STEP], stop_token=END, temperature=0.8, include_stop_str_in_output=True)
    method = ParticleFiltering(steps, scorer)

    async def whole():
        try:
            return await method.ainfer(model, PROMPT, num, return_response_only=False)
        finally:
            await scorer.close()

    def once():
        return np.array(asyncio.run(whole()).steps_used_lst)

    return once


if __name__ == "__main__":
    serve(lambda: program(*map(int, sys.argv[1].split("-"))))
