"""Clients of `kanets serve`, as locust runs them for `serving.py load`.

SERVING_REQUESTS names a JSON file with the most pictures of a request and pairs
of a picture, in base 64, and its class; SERVING_ANSWERS the file to write, with
the seconds, the time of the end, the pictures, those of another class and the
error, or none, of each request.
"""

import json
import os
import random
from pathlib import Path

from locust import FastHttpUser, events, task

MOST, PICTURES = json.loads(Path(os.environ["SERVING_REQUESTS"]).read_text())
ANSWERS = []


class Client(FastHttpUser):
    @task
    def ask(self):
        chosen = random.choices(PICTURES, k=random.randint(1, MOST))
        instances = [{"image_bytes": {"b64": text}} for text, _ in chosen]
        about = {"pictures": len(chosen), "others": 0}
        with self.client.post(
            ":predict",
            json={"instances": instances},
            context=about,
            catch_response=True,
        ) as response:
            if response.status_code == 200:
                answers = response.json()["predictions"]
                about["others"] = sum(
                    found["classes"][0] != name
                    for found, (_, name) in zip(answers, chosen, strict=True)
                )


@events.request.add_listener
def note(response_time, start_time, context, exception, **_):
    seconds = response_time / 1e3
    error = None if exception is None else str(exception)
    counts = context["pictures"], context["others"]
    ANSWERS.append((seconds, start_time + seconds, *counts, error))


@events.quitting.add_listener
def write(**_):
    Path(os.environ["SERVING_ANSWERS"]).write_text(json.dumps(ANSWERS))
