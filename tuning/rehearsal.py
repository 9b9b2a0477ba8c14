"""The first rows as the model will read them, before a GPU is bought: tokenised, with what is learned of them shown.

What cannot be rehearsed here (a tokenizer that only transformers can read, a hub that does not answer) is said in the
log and left to the run; what is wrong with the data or the chat template is raised.
"""

from concurrent.futures import Future

from artifacts import looks
from artifacts.weights import few
from artifacts.weights.errors import WeightsError
from tuning.config import TuningConfig
from tuning.data import bounds, masks, rows
from tuning.data import tokenizer as tokenizers
from tuning.data.heads import Seen
from tuning.errors import ConfigInvalid, DataInvalid
from tuning.places import Places
from tuning.report import log

SHOWN = 3


class CannotError(Exception):
    """Nothing can be rehearsed here; why."""


def files(config: TuningConfig, places: Places) -> tokenizers.Files:
    """The few small files of the model's tokenizer, at its revision; CannotError where it has none to be had here."""
    if places.model:
        return tokenizers.read(places.model)
    try:
        found = few.fetch(config.model, tokenizers.FILES, places.pull_auth)
    except WeightsError as error:
        raise CannotError(str(error)) from error
    if tokenizers.FILES[0] not in found:
        raise CannotError(f"{config.model.id} has no {tokenizers.FILES[0]} that can be looked at apart")
    return found


def rehearse(config: TuningConfig, seen: list[Seen], begun: "Future[tokenizers.Files]", asked: looks.Looks) -> None:
    """Show the first rows; raise unless one of them can be learned from."""
    found, dropped = [row for each in seen for row in each.found], rows.Dropped()
    for where, reason in (row for each in seen for row in each.dropped):
        dropped.add(where, reason)
    if dropped.count and not found:
        raise DataInvalid(f"tuning.input: none of the first {dropped.count} rows can be used: {dropped}")
    try:
        encoder = _encoder(config, asked.found(begun, CannotError(f"the model's tokenizer {asked.late}")))
    except CannotError as why:
        log.info("what the rows are to the model is seen on the node: %s", why)
        return
    encoded = encoder.encode_all(found, dropped)
    if found and not encoded:
        raise DataInvalid(f"tuning.input: nothing can be learned from the first {dropped.count} rows: {dropped}")
    if dropped.count:
        log.warning("of the first %d rows %d are left out: %s", dropped.count + len(encoded), dropped.count, dropped)
    for number, row in enumerate(encoded[:SHOWN], start=1):
        log.info("row %d, learned from between ⟦ and ⟧:\n%s", number, encoder.show(row))


def _encoder(config: TuningConfig, files: tokenizers.Files) -> masks.Encoder:
    """As the run makes it; raises for a template of the user's own that is none."""
    try:
        tokenizer = tokenizers.Light(files)
    except tokenizers.Unreadable as error:
        raise CannotError(str(error)) from error
    own = config.training.model.chat_template
    tokenizer.chat_template = own or tokenizer.chat_template or masks.PLAIN_TEMPLATE
    arguments, dataset = config.training.arguments, config.training.dataset
    try:
        with bounds.bounded(len(str(tokenizer.chat_template))):  # its constants are computed then
            tokenizer.see_template()
    except ValueError as error:
        if own:
            raise ConfigInvalid(f"ModelConfig.chat_template: {error}; correct the template") from error
        raise CannotError(f"the model's own template: {error}") from error
    return masks.Encoder(tokenizer, max_length=arguments.max_length, loss=dataset.loss)
