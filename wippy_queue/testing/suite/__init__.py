"""The suite that every driver has to pass, split by topic."""

from .consuming import Consuming
from .counts import Counts
from .dead_letters import DeadLetters
from .declaring import Declaring
from .delays import Delays
from .durability import Durability
from .forks import Forks
from .full_queues import FullQueues
from .lifecycle import Lifecycle
from .publishing import Publishing
from .settling import Settling
from .taking import Taking
from .tools import Tools


class DriverSuite(
    Lifecycle,
    Declaring,
    Publishing,
    FullQueues,
    Taking,
    Settling,
    Delays,
    Counts,
    Tools,
    DeadLetters,
    Consuming,
    Durability,
    Forks,
):
    """
    What a driver has to do, as tests for pytest.

    Subclass it under a name that pytest collects, state the driver's ``features``, and return
    from the fixture ``make_driver`` what makes a driver::

        class TestMyDriver(DriverSuite):
            features = Features(durable=True, ...)

            @pytest.fixture
            def make_driver(self, tmp_path):
                return lambda: MyDriver(path=tmp_path / "queues")

    Each call of that within a test makes a new driver on the same storage, and each test has
    a storage of its own. What the features say that a driver cannot do is skipped, with the
    reason. ``options``, ``soon``, ``moment`` and ``longest`` may be overridden.

    Attributes:
        features: What the driver can do. It has to say the same of itself.
        soon: Seconds within which everything happens that a test waits for, 10 by default.
            Nothing takes longer where it works, so a slow broker may have more.
        moment: Seconds for which a test watches that nothing happens, 0.05 by default. More
            of it finds more; a broker that is farther away needs more to find anything.
        longest: Seconds after which a whole test fails, with the stack of where it hangs, 60
            by default.
    """


__all__ = ["DriverSuite"]
