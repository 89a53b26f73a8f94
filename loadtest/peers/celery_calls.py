"""Celery: a task with `rate_limit`, which holds for each worker process, so each gets its share."""
import http.client
import os
import sys
import threading
from urllib.parse import urlparse

from celery import Celery

app = Celery("calls", broker=os.environ["REDIS_URL"])
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=4, broker_connection_retry_on_startup=True)
share = float(os.environ["RATE"]) / int(os.environ["PROCESSES"])
provider = urlparse(os.environ["URL"])
target = "/v1/fares?origin=ICN&destination=NRT&depart=2027-01-05&return=2027-01-09"
own = threading.local()


@app.task(name="calls.call", rate_limit=f"{share}/s")
def call():
    try:
        if not hasattr(own, "connection"):
            own.connection = http.client.HTTPConnection(provider.hostname, provider.port)
        own.connection.request("GET", target, headers={"x-api-key": "a"})
        own.connection.getresponse().read()
    except OSError:
        del own.connection


if __name__ == "__main__" and sys.argv[1:] == ["feed"]:
    with app.connection_for_write() as connection:
        producer = app.amqp.Producer(connection)
        for _ in range(int(os.environ["CALLS"])):
            call.apply_async(producer=producer)
