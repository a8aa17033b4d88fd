"""A forked child is told, never hangs, and can begin anew."""

from __future__ import annotations

from programs import run_program

# Forking with threads is what is tested here; CPython 3.12 and later warn of it.
BUSY = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)

def handle(body):
    entered.set()

runtime.add_consumer("app:worker", queue="app:tasks", func=handle, concurrency=4, prefetch=20)
runtime.start()
running = True

def publish():
    while running:
        runtime.publish("app:tasks", 1, timeout=None)

publishers = [threading.Thread(target=publish) for _ in range(2)]
for thread in publishers:
    thread.start()
entered.wait(10)

def in_child(function):
    child = os.fork()
    if not child:
        code = 1
        try:
            code = function() or 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def end():
    global running
    running = False
    for thread in publishers:
        thread.join()
    runtime.wait_idle(30)
    runtime.stop()
"""


def test_child_forked_under_load_is_told_by_every_call() -> None:
    """Publishing, asking and stopping in the child raise or return at once, and never hang."""
    ended = run_program(
        BUSY
        + """
def child():
    consumer = runtime.consumer("app:worker")
    for call in (
        lambda: runtime.publish("app:tasks", 1),
        lambda: runtime.info("app:tasks"),
        lambda: runtime.wait_idle(1),
        consumer.info,
    ):
        try:
            call()
        except ForkedError:
            continue
        return 2
    assert runtime.stop() == StopReport()
    assert consumer.stop() == StopReport()
    consumer.request_stop()
    assert not consumer.running

for _ in range(20):
    assert in_child(child) == 0
end()
"""
    )
    assert (ended.code, ended.err) == (0, "")


def test_child_that_starts_begins_empty_and_works() -> None:
    """runtime.start() in the child gives it a runtime of its own, without the parent's messages."""
    ended = run_program(
        BUSY
        + """
def child():
    global entered
    entered = threading.Event()  # a handler may have held the parent's for ever
    runtime.start()
    assert runtime.info("app:tasks").message_count == 0
    runtime.publish("app:tasks", "the child's own")
    assert entered.wait(10)
    runtime.wait_idle(10)
    assert runtime.stop().discarded == 0

for _ in range(5):
    assert in_child(child) == 0
end()
"""
    )
    assert (ended.code, ended.err) == (0, "")


def test_child_that_starts_some_consumers_waits_for_these() -> None:
    """Those that ran in the parent only are left out, also while there is something to do."""
    ended = run_program(
        BUSY
        + """
go_on = threading.Event()
runtime.add_queue("app:others", driver="app:memory")
other = runtime.add_consumer("app:other", queue="app:others", func=lambda body: go_on.wait(10))

def child():
    global go_on
    go_on = threading.Event()
    # A thread of the parent may have held it.
    runtime.consumer("app:worker")._lock.acquire(blocking=False)
    runtime.start(["app:other"])
    runtime.publish("app:others", 1)
    try:
        runtime.wait_idle(0)
    except TimeoutError as error:
        assert "app:others has 1" in str(error), error
    else:
        return 2
    go_on.set()
    runtime.wait_idle(10)
    assert other.info().acked == 1
    runtime.stop()

assert in_child(child) == 0
go_on.set()
end()
"""
    )
    assert (ended.code, ended.err) == (0, "")


def test_exit_of_a_forked_child_is_clean() -> None:
    """A child that ends by itself runs the inherited exit hooks, which return at once."""
    ended = run_program(
        BUSY
        + """
child = os.fork()
if not child:
    running = False
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
end()
"""
    )
    assert (ended.code, ended.err) == (0, "")


def test_runtime_that_was_only_loaded_is_the_childs_own() -> None:
    """As with a preloading server: loaded before the fork, started in each child."""
    ended = run_program(
        """
def show(body):
    os.write(1, f"{body}\\n".encode())

runtime.add_consumer("app:worker", queue="app:tasks", func=show)
children = []
for number in range(3):
    child = os.fork()
    if not child:
        with runtime:
            runtime.publish("app:tasks", number)
            runtime.wait_idle(10)
        sys.exit(0)
    children.append(child)
for child in children:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    )
    assert (ended.code, ended.err) == (0, "")
    assert sorted(ended.out.split()) == ["0", "1", "2"]


def test_driver_and_consumer_alone_are_told_too() -> None:
    """Without a runtime the memory driver and the consumer raise, until they are started."""
    ended = run_program(
        """
driver = MemoryDriver()
driver.start()
driver.declare_queue(QueueConfig(id="app:alone"))
consumer = Consumer(driver, "app:alone", lambda body: entered.set())
consumer.start()
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
child = os.fork()
if not child:
    try:
        Publisher(driver).publish("app:alone", 1)
    except ForkedError:
        driver.start()
        consumer.start()
        Publisher(driver).publish("app:alone", 1)
        assert entered.wait(10)
        consumer.stop(10)
        sys.exit(0)
    sys.exit(2)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert not entered.is_set()
consumer.stop(10)
"""
    )
    assert (ended.code, ended.err) == (0, "")


def test_child_of_a_handler_leaves_the_delivery_to_the_parent() -> None:
    """A handler that forks: the child ends where its code ends, and the parent settles."""
    ended = run_program(
        """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)

def handle(body):
    child = os.fork()
    if not child:
        try:
            current_delivery().ack()
        except ForkedError:
            sys.exit(5)
        sys.exit(6)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.write(1, f"child {status}\\n".encode())

runtime.add_consumer("app:worker", queue="app:tasks", func=handle)
with runtime:
    runtime.publish("app:tasks", 1)
    runtime.wait_idle(20)
    assert runtime.consumer("app:worker").info().acked == 1
"""
    )
    assert (ended.code, ended.out, ended.err) == (0, "child 5\n", "")


def test_child_forked_while_a_stack_is_read_can_read_stacks() -> None:
    """Whatever another thread holds at the fork, a stop in the child names what still runs."""
    ended = run_program(
        """
import gc, warnings
from wippy_queue import worker
warnings.simplefilter("ignore", DeprecationWarning)
forking, reading = threading.Event(), threading.Event()
os.register_at_fork(before=forking.set)

def read():
    with worker._COLLECTOR:
        gc.disable()
        reading.set()
        forking.wait(10)
        gc.enable()

def handle(body):
    entered.set()
    forever.wait()

reader = threading.Thread(target=read)
reader.start()
reading.wait(10)
child = os.fork()
if not child:
    runtime.add_consumer("app:worker", queue="app:tasks", func=handle)
    runtime.start()
    runtime.publish("app:tasks", 1)
    entered.wait(10)
    try:
        runtime.stop(0)
    except StopTimeoutError as error:
        os._exit(0 if gc.isenabled() and "in handle" in str(error) else 2)
    os._exit(1)
reader.join()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    )
    assert (ended.code, ended.err) == (0, "")


def test_child_that_only_publishes_starts_what_it_needs() -> None:
    """start(consumers=False) in the child is enough, also where no driver starts by itself."""
    ended = run_program(
        """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
runtime = Runtime.from_yaml(\"\"\"
namespace: app
entries:
  - {name: memory, kind: queue.driver.memory}
  - {name: tasks, kind: queue.queue, driver: memory}
\"\"\")
runtime.publish("app:tasks", 1)
child = os.fork()
if not child:
    runtime.start(consumers=False)
    runtime.publish("app:tasks", 2)
    os._exit(0 if runtime.stop().discarded == 1 else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    )
    assert ended.code == 0, ended.err
