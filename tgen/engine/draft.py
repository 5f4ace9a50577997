"""Speculative decoding: a small draft model guesses the next ids of the large one (arXiv:2211.17192).

The number of guesses of a row depends on that row alone, so its text does not depend on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import numpy as np

from tgen.arrays import Logits
from tgen.engine.guess import Guesses, Pace
from tgen.engine.prefix import Prefix
from tgen.errors import MemoryLimitError
from tgen.executors.session import Executor, Session
from tgen.options import GenerationOptions
from tgen.sampling.candidates import Candidates
from tgen.sampling.filters import filtered
from tgen.sampling.sampler import stream

# The draft model reads at most this many ids of a text at once.
CHUNK = 256


class Draft:
    """A draft model that is open beside the large one."""

    def __init__(self, executor: Executor, context: int, vocab: int, price: float) -> None:
        """`vocab` is the large model's; `price` is what a step of the draft model costs, measured in steps of the large one."""
        self.executor = executor
        self.context = context
        self.vocab = vocab
        self.price = price

    def offer(self, rows: Sequence[DraftGuesses]) -> None:
        """Make the guesses of these rows together. A row that has guesses keeps them."""
        going = sorted((row for row in rows if row.choose()), key=lambda row: row.wanted, reverse=True)
        try:
            if going:
                self._offer(going)
        except MemoryLimitError:  # the large model goes on alone
            for row in going:
                row.give_up()

    def _offer(self, going: list[DraftGuesses]) -> None:
        session, blocks = self.executor.open(), []
        for row in going:
            alone, unread = row.catch_up()
            session.join(alone)
            blocks.append(unread)
        for made in count(1):
            if not going:
                return
            for place, (row, logits) in enumerate(zip(going, session.extend(blocks), strict=True)):
                row.propose(logits[: self.vocab])
                if made == 1:  # the row comes back to this place if guesses turn out wrong
                    session.mark(place)
            staying = [row for row in going if row.wanted > made]  # in front, because the rows are sorted
            for place in range(len(staying), len(going)):
                going[place].keep(session.split(place))
            session.select(range(len(staying)))
            going, blocks = staying, [row.offered[-1:] for row in staying]


class DraftPrompt:
    """The draft model's row of a prompt, which the samples of a request share until they begin."""

    def __init__(self, draft: Draft, ids: Sequence[int], samples: int, prefix: Prefix | None = None) -> None:
        """The model does not read again what `prefix` has read. With a single sample, `prefix` gets the row back."""
        self.draft = draft
        self.ids = list(ids)
        self.prefix = prefix
        self._samples = samples
        self._session: Session | None = None
        self._done = 0

    def read(self, end: int) -> None:
        """Read the prompt up to this place, but never its last id: the logits after it are needed later."""
        end = min(end, len(self.ids) - 1, self.draft.context)
        if self._session is None:
            session, self._done = self.prefix.take(self.ids) if self.prefix else (None, 0)
            self._session = session or _opened(self.draft.executor)
        while self._done < end:
            stop = min(self._done + CHUNK, end)
            self._session.extend([self.ids[self._done : stop]], [0])
            self._done = stop

    def row(self) -> tuple[Session, int]:
        """A session with a row for one sample, and how many ids it has read."""
        self.read(len(self.ids))
        assert self._session is not None
        self._samples -= 1
        if self._samples:
            self._session.select([0, 0])
        session = self._session.split(0)
        self._session.select([1] if self._samples else [])
        return session, self._done


class DraftGuesses(Guesses):
    """The guesses of one sample, and its row of the draft model."""

    def __init__(self, prompt: DraftPrompt, new: int, options: GenerationOptions, seed: int, index: int) -> None:
        super().__init__(prompt.ids, new)
        self.wanted = 0
        self._prompt = prompt
        self._options = options
        self._random = stream(seed, index, 1)
        self._pace = Pace(prompt.draft.price)
        self._session: Session | None = None
        self._read = 0  # how many of the ids its session has read
        self._proposals: list[Candidates] = []
        self._chosen = False
        self._given_up = False

    def choose(self) -> bool:
        """Settle the number of guesses of the next step, once; returns whether there are any to make."""
        if self._chosen or self._given_up:
            return False
        self._chosen = True
        self.wanted = min(self._pace.most(1), self.room, self._prompt.draft.context - len(self.ids))
        return self.wanted > 0

    def catch_up(self) -> tuple[Session, Sequence[int]]:
        """The session of its row, and the ids that it has to read before it guesses."""
        if self._session is None:
            self._session, self._read = self._prompt.row()
        self._read = self._session.reachable(0, self._read)
        self._session.truncate([self._read])
        while len(self.ids) - self._read > CHUNK:
            self._session.extend([self.ids[self._read : self._read + CHUNK]], [0])
            self._read += CHUNK
        return self._session, self.ids[self._read :]

    def propose(self, logits: Logits) -> None:
        """Add the guess that the draft model's logits [vocab] give."""
        if self._options.temperature == 0:
            self.offered.append(int(np.argmax(logits)))
            return
        # Any distribution may propose. This one leaves out XTC and Mirostat, which depend on what the large model's sampler has drawn.
        candidates = filtered(Candidates(np.arange(len(logits)), logits), self._options)[-1][1]
        self._proposals.append(candidates)
        self.offered.append(candidates.at(self._random.random()))

    def keep(self, session: Session) -> None:
        """Take back the session of its row, which has read all guesses but the last."""
        self._session = session

    def give_up(self) -> None:
        """Make no more guesses."""
        self._given_up, self._session, self.offered, self._proposals = True, None, [], []

    def proposal(self, place: int) -> Candidates | None:
        return self._proposals[place] if self._proposals else None

    def take(self, tokens: Sequence[int]) -> int:
        offered, known = len(self.offered), len(self.ids)
        wrong = super().take(tokens)
        if offered:
            self._read = known + min(len(tokens), offered) - 1
        self._proposals, self._chosen = [], False
        return wrong

    def _learn(self, offered: int, right: int) -> None:
        self._pace.learn(offered, right)

    def remember(self) -> None:
        """Give the row to the prefix of the prompt, for a later prompt that begins with this text."""
        if self._prompt.prefix is not None and self._session is not None:
            self._prompt.prefix.keep(self._session, self.ids[: self._read])


def _opened(executor: Executor) -> Session:
    session = executor.open()
    session.admit([None])
    return session
