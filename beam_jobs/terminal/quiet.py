"""Keep libraries quiet: TensorFlow, Beam, TFX and Google's clients print a lot.

`prepare_libraries` sets what they read at import, so it must run before they are
imported. Child processes inherit the settings through the environment.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import MutableMapping

from beam_jobs.contracts import object_store
from beam_jobs.terminal import failures

_LOG_FORMAT = "%(levelname)s %(name)s: %(message)s"
_OWN_HANDLER = "terrapair"


def prepare_libraries(environment: MutableMapping[str, str], verbose: bool) -> None:
    """Set what TensorFlow, TFX and Beam read when they are imported.

    Args:
        environment: of this process; child processes inherit it. What is set stays.
        verbose: let the libraries log as they like.
    """
    # tensorflow-transform, which TFX imports, chooses Keras 2 for the whole process
    # unless this variable is set.
    environment.setdefault("TF_USE_LEGACY_KERAS", "0")
    environment.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    object_store.complete_environment(environment)
    if verbose:
        logging.basicConfig(level=logging.INFO, format=_LOG_FORMAT)
        return
    # TensorFlow's C++ code reads this when it is loaded; later it has no effect.
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    environment.setdefault("AUTOGRAPH_VERBOSITY", "0")
    # Google's clients warn once a package about the end of life of each Python.
    environment.setdefault("PYTHONWARNINGS", "ignore")
    warnings.simplefilter("ignore")
    errors = logging.StreamHandler()
    # The level of the root logger does not hold for records of other loggers: our own
    # warnings would be printed here, too.
    errors.setLevel(logging.ERROR)
    logging.basicConfig(level=logging.ERROR, format=_LOG_FORMAT, handlers=[errors])
    _show_own_warnings()
    # Beam logs the traceback of a step that fails and then raises: the one line of the
    # error is enough.
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)


def silence_absl() -> None:
    """Keep the log of absl, which TFX uses, off the terminal; other handlers see it."""
    from absl import logging as absl_logging

    absl_logging.use_absl_handler()
    # Records of absl also travel to the root logger; its handlers decide there.
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.ERROR)
    # One of those handlers is absl's own. TFX logs a failed execution as ERROR and then
    # raises: the one line of the error is enough.
    absl_logging.get_absl_handler().setLevel(logging.CRITICAL)


def _show_own_warnings() -> None:
    """Print warnings of our packages by a handler of their own.

    absl takes the handlers off the root logger.
    """
    handler = logging.StreamHandler()
    handler.set_name(_OWN_HANDLER)
    handler.setFormatter(logging.Formatter(_LOG_FORMAT))
    # The root logger prints errors.
    handler.addFilter(lambda record: record.levelno == logging.WARNING)
    for package in failures.PACKAGES:
        logger = logging.getLogger(package)
        if logger.getEffectiveLevel() > logging.WARNING:
            logger.setLevel(logging.WARNING)
        for other in list(logger.handlers):
            if other.get_name() == _OWN_HANDLER:
                logger.removeHandler(other)
        logger.addHandler(handler)
