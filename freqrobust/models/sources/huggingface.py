"""``hf:ORG/NAME``: image classifiers of transformers, from the hub, its cache or a local folder."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from freqrobust.core.errors import ModelError
from freqrobust.core.text import describe_error
from freqrobust.core.user_code import running_user_code
from freqrobust.models.hub import HubAccess, local_folder, weights_only
from freqrobust.models.image_processor import processor_input
from freqrobust.models.source_table import LoadedModel, ModelRequest, ModelSource


def load(request: ModelRequest) -> LoadedModel:
    """``AutoModelForImageClassification`` with the normalisation and the preprocessing of ``AutoImageProcessor``.

    Code of the repository is run, and pickled files that can run code are read, only if the user trusts them.

    Raises:
        ModelError: transformers or files are missing, it is no image classifier, or its image processor does more than
            resizing, cropping and normalising.
    """
    spec, name = request.spec, request.argument
    folder = local_folder(name)
    if folder is not None and not (folder / "config.json").is_file():
        raise ModelError(f"{spec}: expected a folder with config.json, the weights and preprocessor_config.json")
    with running_user_code(_import_error), _quiet():
        library: Any = import_module("transformers")
    access = HubAccess()

    def failed(error: BaseException) -> ModelError:
        if folder is None and _absent(error):
            return ModelError(f"{spec} cannot be loaded: {access.missing(name)}")
        return ModelError(f"{spec} cannot be loaded: {describe_error(error)}")

    where, _, revision = name.partition("@")
    options: dict[str, Any] = {"trust_remote_code": request.trust}
    if folder is not None:
        where = str(folder)
    elif revision:
        options["revision"] = revision
    with running_user_code(failed), _quiet(), weights_only(not request.trust), access:
        config = library.AutoConfig.from_pretrained(where, **options)
        if config.model_type == "timm_wrapper":
            raise ModelError(f"{spec} is a model of timm: give timm:{name}")
        model, found = library.AutoModelForImageClassification.from_pretrained(
            where, config=config, output_loading_info=True, **options
        )
        processor = library.AutoImageProcessor.from_pretrained(where, **options)
    absent = sorted(found["missing_keys"]) + sorted(str(key) for key in found.get("mismatched_keys", ()))
    if absent:
        raise ModelError(
            f"{spec} has no weights for {len(absent)} parameters of {type(model).__name__} "
            f"({', '.join(absent[:3])}); expected a trained image classifier"
        )
    with _quiet():
        input_config, known = processor_input(processor, spec)
    names = {int(index): str(label) for index, label in (config.id2label or {}).items()}
    placeholders = all(label == f"LABEL_{index}" for index, label in names.items())
    complete = not placeholders and sorted(names) == list(range(len(names)))
    labels = tuple(names[index] for index in sorted(names)) if complete else ()
    return LoadedModel(model, spec, known, input=input_config, labels=labels)


def _absent(error: BaseException) -> bool:
    """Whether files are neither in the cache nor can they be downloaded; transformers wraps the errors of the hub."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, HfHubHTTPError | LocalEntryNotFoundError | OfflineModeIsEnabled):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars, log lines and warnings of transformers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging: Any = import_module("transformers.utils.logging")
        level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity(logging.CRITICAL)
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(level)
            if bars:
                logging.enable_progress_bar()


def _import_error(error: BaseException) -> ModelError:
    if isinstance(error, ModuleNotFoundError) and error.name == "transformers":
        return ModelError("hf: models need the extra 'hf': pip install 'freqrobust[hf]'")
    return ModelError(f"transformers cannot be imported: {describe_error(error)}")


SOURCES = (
    ModelSource("hf:ORG/NAME|DIR", "image classifiers of transformers, of the hub or a folder (extra 'hf')", load),
)
