"""Use the rules of gradmix in your own trainer: one file, standard library only, Python 3.9 or later.

Copy this file beside your trainer, or put its folder on PYTHONPATH. On rank 0:

    with Mixer(["web", "code"], rule="dga") as mixer:
        weights = mixer.weights                      # {"web": 0.5, "code": 0.5}: draw with these
        ...
        weights = mixer.observe(step, alignments={"web": 0.2, "code": 0.5}, standard_errors={...})

`Mixer` starts the process `gradmix mix` and exchanges messages with it over its standard input and output, or over HTTP with one that listens on this machine. Your
trainer broadcasts the k weights to the other ranks. `read_weights` reads the file that `gradmix mix --weights-file` writes.

Three functions measure alignments in a PyTorch module, in one process, under DistributedDataParallel, and under FSDP2 (`fully_shard`). They import PyTorch when they are called:

    two_loss_alignments      forward passes at θ ± ε·ĝ, no hooks, no gradients of the domains
    exact_alignments         a backward pass for every batch
    last_layer_alignments    the gradient of the language model's head alone, from forward passes

The protocol is described in docs/trainers.md of gradmix.
"""

from __future__ import annotations

import array
import atexit
import base64
import collections
import contextlib
import dataclasses
import http.client
import json
import math
import operator
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import warnings
import weakref
import zlib
from typing import (
    IO,
    Any,
    Callable,
    Deque,
    Dict,
    FrozenSet,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Sized,
    Tuple,
    Union,
)

__all__ = [
    "GradmixError",
    "Measurement",
    "Mixer",
    "TargetGradient",
    "WeightsFile",
    "exact_alignments",
    "last_layer_alignments",
    "read_weights",
    "target_gradient",
    "two_loss_alignments",
]


class GradmixError(Exception):
    """A refused value or a failure, described in one line. `field` is the path of the wrong value, such as "alignments.code", or None."""

    def __init__(self, message: str, field: Optional[str] = None) -> None:
        super().__init__(message)
        self.field = field


# ---------------------------------------------------------------------------------------------------------------------
# Numbers


def _number(value: Any, field: str, advice: str = "") -> float:
    """Returns a finite number from a Python, NumPy or PyTorch scalar. `advice` says what else to do about one that is not finite."""
    try:
        plain = value.item() if callable(getattr(value, "item", None)) else value
        if isinstance(plain, (bool, str, bytes, bytearray)):
            raise TypeError
        number = float(plain)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise GradmixError(f"{field} is {_shown(value)}; it must be one number", field) from None
    if not math.isfinite(number):
        raise GradmixError(f"{field} is {number}; it must be finite{advice}", field)
    return number


def _integer(value: Any, field: str) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise GradmixError(f"{field} is {_shown(value)}; it must be an integer", field) from None


def _short(text: str) -> str:
    """Shows a value on one line of a message."""
    text = " ".join(text.split())
    return text if len(text) <= 80 else text[:77] + "..."


def _shown(value: Any) -> str:
    return _short(repr(value))


def _by_name(values: Any, field: str) -> Dict[str, Optional[float]]:
    """Returns numbers by domain; None stays None, which means "not measured" (or "not known")."""
    if not isinstance(values, Mapping):
        raise GradmixError(f"{field} is {_shown(values)}; it must map names of domains to numbers", field)
    advice = "" if field in ("sizes", "averaged") else ". Leave out a domain that was not measured"
    return {name: None if value is None else _number(value, f"{field}.{name}", advice) for name, value in values.items()}


def _listed(values: Any, field: str) -> List[Any]:
    """Returns the entries of a list, a NumPy array or a PyTorch tensor."""
    values = values.tolist() if callable(getattr(values, "tolist", None)) else values
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Sequence):
        raise GradmixError(f"{field} is {_shown(values)}; it must be a list of numbers", field)
    return list(values)


def _gram(gram: Any) -> Any:
    if isinstance(gram, Mapping):
        return {name: _by_name(row, f"gram.{name}") for name, row in gram.items()}
    return [
        [_number(value, f"gram.{i}.{j}") for j, value in enumerate(_listed(row, f"gram.{i}"))]
        for i, row in enumerate(_listed(gram, "gram"))
    ]


def _sketches(sketches: Any) -> Dict[str, str]:
    """Returns base64 of little-endian f32, from lists, arrays or tensors of one axis."""
    if not isinstance(sketches, Mapping):
        raise GradmixError(
            f"sketches is {_shown(sketches)}; it must map names of domains, and target, to numbers", "sketches"
        )
    texts = {}
    for name, values in sketches.items():
        field = f"sketches.{name}"
        numbers = array.array("f", [_number(value, field) for value in _listed(values, field)])
        if any(math.isinf(value) for value in numbers):
            raise GradmixError(f"{field} has a number that is too large for f32", field)
        if sys.byteorder == "big":
            numbers.byteswap()
        texts[name] = base64.b64encode(numbers.tobytes()).decode("ascii")
    return texts


def _targets(targets: Any) -> Dict[str, Dict[str, Any]]:
    if not isinstance(targets, Mapping):
        raise GradmixError(f"targets is {_shown(targets)}; it must map names of targets to their measurements", "targets")
    out = {}
    for name, target in targets.items():
        field = f"targets.{name}"
        if not isinstance(target, Mapping) or set(target) != {"alignments", "norm", "loss"}:
            raise GradmixError(f"{field} is {_shown(target)}; it must have alignments, norm and loss", field)
        out[name] = {
            "alignments": _by_name(target["alignments"], f"{field}.alignments"),
            "norm": _number(target["norm"], f"{field}.norm"),
            "loss": _number(target["loss"], f"{field}.loss"),
        }
    return out


def _given(**fields: Any) -> Dict[str, Any]:
    """Returns the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def _check_names(value: Any, field: str) -> None:
    """Refuses keys that are not text anywhere in a message: JSON would make 1 and "1" one name, of which the last number counts."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if not isinstance(name, str):
                raise GradmixError(f'{field} has the name {_shown(name)}; names must be text, such as "1"', field)
            _check_names(inner, f"{field}.{name}" if field else name)
    elif isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            if isinstance(inner, (Mapping, list, tuple)):
                _check_names(inner, f"{field}.{i}")


def _unless_none(convert: Callable[..., Any], value: Any, *more: Any) -> Any:
    return None if value is None else convert(value, *more)


# ---------------------------------------------------------------------------------------------------------------------
# The two transports


class _Transport:
    """A transport to `gradmix mix`, which sends one line and returns the line that replies to it."""

    name: str
    # The reason why it accepts no more lines; None while it does.
    broken: Optional[str] = None

    def exchange(self, line: bytes, timeout: float) -> bytes:
        raise NotImplementedError

    def close(self) -> None:
        """Releases the resources that are held between two lines."""

    @contextlib.contextmanager
    def _watched(self, timeout: float, stop: Callable[[], None]) -> Iterator[float]:
        """Returns the time of the deadline, and calls `stop` then, which ends the waiting call."""
        watchdog = threading.Timer(timeout, stop)
        watchdog.daemon = True
        deadline = time.monotonic() + timeout
        watchdog.start()
        try:
            yield deadline
        finally:
            watchdog.cancel()


class _Process(_Transport):
    """`gradmix mix` as a child process: one line in, one line out. It is ended by `close`, at exit, and by the end of its standard input if this process is killed."""

    def __init__(self, command: Sequence[str]) -> None:
        # On Windows the command of an npm package is a .cmd file, which is only found by a search of the PATH.
        program = shutil.which(command[0]) or command[0]
        self.name = _short(" ".join(command))
        self.owner = os.getpid()
        try:
            # The process has its own session, so that Ctrl-C at the terminal reaches only the trainer, which may need one more reply before it stops.
            self.child = subprocess.Popen(
                [program, *command[1:]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=os.name == "posix",
            )
        except OSError as error:
            raise GradmixError(
                f"{self.name} could not be started ({error.strerror or error}); install gradmix, or pass the command that starts it as command=",
                "command",
            ) from None
        assert self.child.stdin and self.child.stdout and self.child.stderr
        self.pipes: Tuple[IO[bytes], IO[bytes], IO[bytes]] = (self.child.stdin, self.child.stdout, self.child.stderr)
        self.lines: "queue.SimpleQueue[Optional[bytes]]" = queue.SimpleQueue()
        self.errors: Deque[str] = collections.deque(maxlen=20)
        self.readers = [
            threading.Thread(target=_read_lines, args=(self.pipes[1], self.lines.put), daemon=True),
            threading.Thread(target=_read_lines, args=(self.pipes[2], self._note), daemon=True),
        ]
        for reader in self.readers:
            reader.start()
        _processes.add(self)

    def _note(self, line: Optional[bytes]) -> None:
        text = "" if line is None else line.decode("utf-8", "replace").strip()
        if text:
            self.errors.append(text)

    def exchange(self, line: bytes, timeout: float) -> bytes:
        """Sends a line and returns the reply. Any failure ends the process, because a late reply must not be taken for the reply to the next line."""
        if os.getpid() != self.owner:
            raise GradmixError(f"this mixer belongs to process {self.owner}, and this process was forked from it")
        if self.broken is not None:
            raise GradmixError(self.broken)
        # A write waits while the pipe is full; killing the reader ends the wait.
        with self._watched(timeout, self._kill) as deadline:
            try:
                try:
                    _write_all(self.pipes[0], line + b"\n")
                    answer = self.lines.get(timeout=max(0.0, deadline - time.monotonic()))
                except (OSError, ValueError, queue.Empty):
                    answer = None
                if answer is not None:
                    return answer
                late = time.monotonic() >= deadline
                raise GradmixError(
                    self._break(f"did not answer within {timeout:g} s and was stopped" if late else None)
                )
            except BaseException:
                self._break("was stopped in the middle of a message")
                raise

    def _break(self, what: Optional[str]) -> str:
        """Ends the process and records the reason. `what` is None if it ended by itself."""
        if self.broken is None:
            if what is None:
                # The pipes close shortly before the exit status is available.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.child.wait(1)
                status = self.child.poll()
                what = "closed its output" if status is None else f"ended ({_status(status)})"
            self.close(0)
            last = f": {self.errors[-1]}" if self.errors else ""
            self.broken = f"{self.name} {what}{last}"
        return self.broken

    def _kill(self) -> None:
        if self.child.returncode is not None:
            return
        with contextlib.suppress(OSError):
            # Its children are killed too, since the command can be a script that starts node.
            if os.name == "posix":
                os.killpg(self.child.pid, signal.SIGKILL)
            else:
                self.child.kill()

    def close(self, grace: float = 5.0) -> None:
        """Closes the standard input, waits up to `grace` seconds for the end, and kills the processes that remain. Does nothing in a forked process."""
        if os.getpid() != self.owner:
            return
        self.broken = self.broken or f"{self.name} was closed"
        with contextlib.suppress(OSError):
            self.pipes[0].close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(grace)
        if self.child.returncode is None:
            self._kill()
            self.child.wait()
        for reader in self.readers:
            reader.join(1)
        for pipe in self.pipes[1:]:
            pipe.close()
        _processes.discard(self)


_processes: "weakref.WeakSet[_Process]" = weakref.WeakSet()


def _close_all() -> None:
    for process in list(_processes):
        process.close()


def _release_in_child() -> None:
    """Closes the pipe in a forked process (such as a worker of a data loader), because its end tells `gradmix mix` that the trainer is gone."""
    for process in list(_processes):
        with contextlib.suppress(OSError):
            process.pipes[0].close()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)


def _read_lines(pipe: IO[bytes], take: Callable[[Optional[bytes]], None]) -> None:
    rest = bytearray()
    with contextlib.suppress(OSError, ValueError):
        while True:
            read = pipe.read(1 << 16)
            if not read:
                break
            *lines, last = read.split(b"\n")
            for line in lines:
                take(bytes(rest) + line)
                rest.clear()
            rest += last
    if rest:
        take(bytes(rest))
    take(None)


def _write_all(pipe: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[pipe.write(view) :]


def _status(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


class _Server(_Transport):
    """The transport to `gradmix mix --listen`: one message per request. After a failed request the next one uses a new connection."""

    def __init__(self, url: str, token: Optional[str]) -> None:
        wrong = GradmixError(f'url is {_shown(url)}; it must be like "http://127.0.0.1:8123"', "url")
        if not isinstance(url, str):
            raise wrong
        try:
            parts = urllib.parse.urlsplit(url)
            self.port = parts.port or 80
        except ValueError:
            raise wrong from None
        if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.query:
            raise wrong
        self.name, self.host = url, parts.hostname
        self.headers = {"Content-Type": "application/json"}
        if token is not None:
            self.headers["Authorization"] = f"Bearer {_token(token)}"

    def exchange(self, line: bytes, timeout: float) -> bytes:
        # The time-out of a socket applies to each piece of a reply, that of the watchdog to the whole reply.
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        with self._watched(timeout, lambda: _shut(connection)) as deadline:
            try:
                connection.request("POST", "/", line, self.headers)
                answer = connection.getresponse().read()
            except (OSError, http.client.HTTPException, ValueError) as error:
                why = f"did not answer within {timeout:g} s" if time.monotonic() >= deadline else f"failed: {error}"
                raise GradmixError(f"{self.name} {why}") from None
            finally:
                connection.close()
        if time.monotonic() >= deadline:
            raise GradmixError(f"{self.name} did not answer within {timeout:g} s")
        return answer


def _token(token: Any) -> str:
    """Returns a token without the end of the line that its file has. A message about a token does not show it."""
    text = token.strip() if isinstance(token, str) else ""
    if not (text.isascii() and text.isprintable() and len(text.split()) == 1):
        raise GradmixError("token is not a token; pass the one that gradmix mix --listen prints, or the text of its --token-file", "token")
    return text


def _shut(connection: http.client.HTTPConnection) -> None:
    sock = connection.sock
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(2)


# ---------------------------------------------------------------------------------------------------------------------
# The mixer


class Mixer:
    """The weights of the domains, which a rule of gradmix updates. It belongs to one process of the trainer, rank 0.

    Args:
        domains: their names.
        rule: the name of a rule, or its name and options, such as {"name": "dga", "eta": 0.5} (docs/rules.md).
        combinators: the combinators around the rule, in order, such as [{"name": "floor", "least": 0.01}].
        sizes: tokens of each domain.
        tokens: training tokens of the whole run.
        histogram: share (or count) of the target by domain: the prior of dga, the weights of importanceSampling.
        update_every: steps between two updates. None: every `observe` with measurements is an update.
        update_after: no update before this step.
        shares: the shares with which the trainer actually draws, by domain; `loss_multipliers` are then weight / share.
        multipliers: True requests `loss_multipliers` for a trainer that draws every domain equally often.
        seed: has no effect, because no rule draws random numbers.
        command: the command that starts `gradmix mix`.
        url, token: use a `gradmix mix --listen` instead, which must run on this machine (or be forwarded to it).
        timeout: seconds that a reply may take.

    Raises GradmixError for a value that gradmix refuses (`field` names it, and the weights stay as they were), if a reply takes longer than `timeout`, and if the
    process has died, with the last line of its standard error. The last two end the process, but no acknowledged step is lost: `state_dict` still
    returns the state of the last reply, and `load_state_dict` starts a new process with it.

    A mixer is a context manager; `close` ends the process. The process also ends when Python exits or is killed.
    """

    def __init__(
        self,
        domains: Sequence[str],
        *,
        rule: Union[str, Mapping[str, Any]] = "dga",
        combinators: Optional[Sequence[Mapping[str, Any]]] = None,
        sizes: Optional[Mapping[str, Any]] = None,
        tokens: Any = None,
        histogram: Optional[Mapping[str, Any]] = None,
        update_every: Optional[int] = None,
        update_after: Optional[int] = None,
        shares: Optional[Mapping[str, Any]] = None,
        multipliers: Optional[bool] = None,
        seed: Optional[int] = None,
        command: Sequence[str] = ("gradmix", "mix"),
        url: Optional[str] = None,
        token: Optional[str] = None,
        timeout: float = 60.0,
    ) -> None:
        names = [] if isinstance(domains, str) or not isinstance(domains, Iterable) else list(domains)
        if not names or not all(isinstance(name, str) for name in names):
            raise GradmixError(f"domains is {_shown(domains)}; it must be a list of names", "domains")
        self._timeout = _number(timeout, "timeout")
        if not 0 < self._timeout <= threading.TIMEOUT_MAX:
            raise GradmixError(
                f"timeout is {timeout}; it must be more than 0 s and at most {threading.TIMEOUT_MAX:.0f} s", "timeout"
            )
        words = [] if isinstance(command, str) or not isinstance(command, Iterable) else list(command)
        if not words or not all(isinstance(word, (str, os.PathLike)) for word in words):
            raise GradmixError(
                f'command is {_shown(command)}; it must be a list of words, such as ["gradmix", "mix"]', "command"
            )
        if not isinstance(rule, (str, Mapping)):
            raise GradmixError(f'rule is {_shown(rule)}; it must be a name or options, such as {{"name": "dga"}}', "rule")
        if isinstance(combinators, (str, Mapping)) or not isinstance(combinators, (Iterable, type(None))):
            raise GradmixError(
                f'combinators is {_shown(combinators)}; it must be a list, such as [{{"name": "floor", "least": 0.01}}]',
                "combinators",
            )
        if not isinstance(multipliers, (bool, type(None))):
            raise GradmixError(f"multipliers is {_shown(multipliers)}; it must be True or False", "multipliers")
        if url is None and token is not None:
            raise GradmixError("token is for url=; a process that is started here needs none", "token")
        #: The options that determine the weights, with which a state must agree.
        self._settings = _given(
            domains=names,
            rule={"name": rule} if isinstance(rule, str) else dict(rule),
            combinators=_unless_none(list, combinators),
            sizes=_unless_none(_by_name, sizes, "sizes"),
            tokens=_unless_none(_number, tokens, "tokens"),
            histogram=_unless_none(_by_name, histogram, "histogram"),
            updateEvery=_unless_none(_integer, update_every, "update_every"),
            updateAfter=_unless_none(_integer, update_after, "update_after"),
            seed=_unless_none(_integer, seed, "seed"),
        )
        #: How the trainer draws, which may differ from the state.
        self._drawn = _given(
            shares=_unless_none(_by_name, shares, "shares"), lossMultipliers=multipliers
        )
        self._open: Callable[[], _Transport] = (
            (lambda: _Process([os.fspath(word) for word in words])) if url is None else (lambda: _Server(url, token))
        )
        self._lock = threading.Lock()
        self._last: Dict[str, Any] = {}
        self._averaged: Optional[Dict[str, float]] = None
        self._talk = self._open()
        try:
            self._take(type="init", v=1, **self._settings, **self._drawn)
        except BaseException:
            self._talk.close()
            raise

    # The last reply

    @property
    def weights(self) -> Dict[str, float]:
        """The weights to sample with, by domain in the order of `domains`, with a sum of 1."""
        return self._ordered(self._last["weights"])

    @property
    def loss_multipliers(self) -> Optional[Dict[str, float]]:
        """Factors for the losses of each domain, for a trainer that cannot change its sampler; None without `shares` and `multipliers`."""
        return _unless_none(self._ordered, self._last.get("lossMultipliers"))

    @property
    def averaged(self) -> Optional[Dict[str, float]]:
        """The mean of the weights over the steps, as of the last `observe` (also one before `state_dict`); None before the first."""
        return _unless_none(self._ordered, self._averaged)

    @property
    def step(self) -> int:
        """The step that was observed last."""
        return int(self._last["step"])

    @property
    def changed(self) -> bool:
        """Whether the last reply changed the weights."""
        return bool(self._last["changed"])

    @property
    def diagnostics(self) -> Dict[str, Any]:
        """Facts about the last reply: updates, measured, entropy, and the ignored fields with the reasons."""
        return dict(self._last.get("diagnostics", {}))

    def _ordered(self, numbers: Mapping[str, float]) -> Dict[str, float]:
        """Returns numbers in the order of the domains, as floats. A reply has names that are whole numbers first, and JSON writes 1.0 as 1."""
        return {name: float(numbers[name]) for name in self._settings["domains"] if name in numbers}

    # Requests

    def observe(
        self,
        step: int,
        *,
        alignments: Optional[Mapping[str, Any]] = None,
        standard_errors: Optional[Mapping[str, Any]] = None,
        norms: Optional[Mapping[str, Any]] = None,
        target_norm: Any = None,
        target_examples: Optional[int] = None,
        losses: Optional[Mapping[str, Any]] = None,
        target_loss: Any = None,
        reference_losses: Optional[Mapping[str, Any]] = None,
        tokens: Optional[Mapping[str, Any]] = None,
        tokens_seen: Optional[Mapping[str, Any]] = None,
        gram: Any = None,
        sketches: Optional[Mapping[str, Any]] = None,
        targets: Optional[Mapping[str, Mapping[str, Any]]] = None,
        preconditioned_alignments: Optional[Mapping[str, Any]] = None,
        preconditioned_target_norm: Any = None,
        held_out_losses: Optional[Mapping[str, Any]] = None,
        held_out_references: Optional[Mapping[str, Any]] = None,
        held_out_errors: Optional[Mapping[str, Any]] = None,
        shares: Optional[Mapping[str, Any]] = None,
    ) -> Dict[str, float]:
        """Sends the measurements after `step` training steps, and returns the weights to sample with from then on.

        Numbers are by domain, and may be scalars of Python, NumPy or PyTorch. A domain that is missing, or None, was not measured, which differs from 0.

        Args:
            alignments: ⟨∇Lᵢ, ∇L_target⟩ of mean losses per token, with their standard_errors (None: not known).
            norms, target_norm: ‖∇Lᵢ‖ and ‖∇L_target‖.
            target_examples: number of examples of the target.
            losses, target_loss, reference_losses: mean losses per token.
            tokens: number of counted tokens from which each domain's numbers were computed; give it always or never.
            tokens_seen: training tokens of each domain so far, for all domains.
            gram: ⟨∇Lᵢ, ∇Lⱼ⟩ as a mapping of mappings, or as rows in the order of `domains`.
            sketches: projections of the gradients, of all measured domains and of "target", each a list, array or tensor of one axis.
            targets: {target: {"alignments": {...}, "norm": x, "loss": x}} for a rule with several targets.
            preconditioned_alignments, preconditioned_target_norm: the same with Adam's step for the target instead of ∇L_target.
            held_out_losses: for the combinator guard: losses on held-out text, which is the same text every time.
            held_out_references, held_out_errors: the losses to compare with (default: the first that were sent), and the standard error of the difference.
            shares: the shares with which the trainer draws from then on, for `loss_multipliers`.

        Raises GradmixError, and changes nothing, if a number is not finite, if the rule needs other measurements, or if `step` is before the last one.
        """
        self._take(
            type="observe",
            averaged=True,
            step=_integer(step, "step"),
            **_given(
                alignments=_unless_none(_by_name, alignments, "alignments"),
                standardErrors=_unless_none(_by_name, standard_errors, "standardErrors"),
                norms=_unless_none(_by_name, norms, "norms"),
                targetNorm=_unless_none(_number, target_norm, "targetNorm"),
                targetExamples=_unless_none(_integer, target_examples, "targetExamples"),
                losses=_unless_none(_by_name, losses, "losses"),
                targetLoss=_unless_none(_number, target_loss, "targetLoss"),
                referenceLosses=_unless_none(_by_name, reference_losses, "referenceLosses"),
                tokens=_unless_none(_by_name, tokens, "tokens"),
                tokensSeen=_unless_none(_by_name, tokens_seen, "tokensSeen"),
                gram=_unless_none(_gram, gram),
                sketches=_unless_none(_sketches, sketches),
                targets=_unless_none(_targets, targets),
                preconditionedAlignments=_unless_none(_by_name, preconditioned_alignments, "preconditionedAlignments"),
                preconditionedTargetNorm=_unless_none(_number, preconditioned_target_norm, "preconditionedTargetNorm"),
                heldOutLosses=_unless_none(_by_name, held_out_losses, "heldOutLosses"),
                heldOutReferences=_unless_none(_by_name, held_out_references, "heldOutReferences"),
                heldOutErrors=_unless_none(_by_name, held_out_errors, "heldOutErrors"),
                shares=_unless_none(_by_name, shares, "shares"),
            ),
        )
        return self.weights

    def state_dict(self) -> Dict[str, Any]:
        """Returns the state of the last reply as plain JSON values, for the trainer's checkpoint. It sends no message, so it works after the process has died."""
        saved = {"version": 1, "state": self._last["state"], **_given(averaged=self._averaged)}
        copy: Dict[str, Any] = json.loads(json.dumps(saved))
        return copy

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from the result of `state_dict`, to the same bits. Starts a new process if the old one has died.

        Raises GradmixError, and changes nothing, for a state of other domains, of another rule, or with other options than this mixer has.
        """
        if not isinstance(state, Mapping) or state.get("version") != 1 or not isinstance(state.get("state"), Mapping):
            raise GradmixError("state is not a result of state_dict; pass one unchanged", "state")
        saved = state["state"]
        # `observe` may have changed the shares of `Mixer`, so those of the state come first; a state without shares does not replace them.
        multipliers = saved.get("multipliers")
        has_shares = isinstance(multipliers, Mapping) and multipliers.get("shares") is not None
        drawn = {name: value for name, value in self._drawn.items() if name != "shares" or not has_shares}
        averaged = state.get("averaged")
        if averaged is not None and set(_by_name(averaged, "averaged")) != set(self._settings["domains"]):
            raise GradmixError("averaged of the state has other domains than this mixer", "averaged")
        before = self._talk
        if before.broken is not None:
            self._talk = self._open()
        try:
            self._take(type="init", v=1, **self._settings, **drawn, state=saved)
        except BaseException:
            if self._talk is not before:
                self._talk.close()
                self._talk = before
            raise
        self._averaged = averaged

    def close(self) -> None:
        """Ends the process. `weights` and `state_dict` keep their values."""
        self._talk.close()

    def __enter__(self) -> "Mixer":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __del__(self) -> None:
        # While the interpreter shuts down, atexit has already closed it.
        if "_talk" in self.__dict__ and not sys.is_finalizing():
            self._talk.close()

    def _take(self, **message: Any) -> None:
        """Sends a message and stores the reply, which contains the state, so that nothing is lost if the process dies."""
        _check_names(message, "")
        try:
            text = json.dumps({**message, "snapshot": True}, allow_nan=False, ensure_ascii=False)
            line = text.encode("utf-8")
        except (TypeError, ValueError) as error:
            raise GradmixError(f"the message cannot be written as JSON: {error}") from None
        if not self._lock.acquire(timeout=self._timeout):
            raise GradmixError("another thread is waiting for a reply to this mixer; give each thread its own mixer, or wait for it")
        try:
            raw = self._talk.exchange(line, self._timeout)
            self._last = _checked(raw, self._settings["domains"], self._talk.name)
            self._averaged = self._last.get("averaged", self._averaged)
        finally:
            self._lock.release()


def _checked(raw: bytes, domains: Sequence[str], name: str) -> Dict[str, Any]:
    answer: Any = None
    with contextlib.suppress(ValueError):
        answer = json.loads(raw)
    if isinstance(answer, dict) and answer.get("type") == "error":
        field, what = answer.get("field"), answer.get("error")
        named = field is None or str(what).startswith(f"{field}: ")
        raise GradmixError(f"{what}" if named else f"{field}: {what}", field)
    weights = answer.get("weights") if isinstance(answer, dict) and answer.get("type") == "weights" else None
    if not isinstance(weights, dict) or set(weights) != set(domains) or "state" not in answer:
        text = _short(raw.decode("utf-8", "replace"))
        raise GradmixError(f"{name} replied {text}, which is not a reply of gradmix mix")
    return dict(answer)


class WeightsFile(NamedTuple):
    """The contents of the file that `gradmix mix --weights-file` writes."""

    step: int
    weights: Dict[str, float]


def read_weights(path: Union[str, "os.PathLike[str]"]) -> WeightsFile:
    """Reads the file of `gradmix mix --weights-file`, for a sampler that reads weights from a file. The file is replaced as a whole, so it is never read half-written.

    Raises GradmixError if the file does not exist or is not such a file.
    """
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except OSError as error:
        raise GradmixError(f"{os.fspath(path)} cannot be read: {error.strerror}") from None
    except ValueError:
        raise GradmixError(f"{os.fspath(path)} is not JSON") from None
    if not isinstance(found, dict) or found.get("version") != 1 or not isinstance(found.get("weights"), dict):
        raise GradmixError(f"{os.fspath(path)} is not a file of weights of version 1")
    weights = {str(name): _number(value, f"weights.{name}") for name, value in found["weights"].items()}
    return WeightsFile(_integer(found.get("step"), "step"), weights)


# ---------------------------------------------------------------------------------------------------------------------
# Alignments in a PyTorch module, sharded or not
#
# Under DistributedDataParallel every rank holds every parameter; under FSDP2 a rank holds its shard (`DTensor`). The same code serves both: a rank works on the
# tensors that it holds, and in sums over elements each element is divided by the number of ranks that hold it, so that it counts once. Every rank calls these functions
# with batches of its own text, for the same domains in the same order, with the same number of batches. Losses and gradients are means over the batches of all ranks, and all ranks get the same results.
#
# Before the first pass the ranks compare what must be the same on all of them, and what one rank refuses, all refuse (`_begin`). After a backward pass they compare the
# gradients that several ranks hold, and average them if the model did not (`_averaged`).

#: loss_fn(model, batch): the mean loss per token of the batch, as a tensor without axes. It calls `model` as training does.
LossFunction = Callable[[Any, Any], Any]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Measurements of the domains, by name, in nats and gradients of mean losses per token."""

    #: aᵢ = ⟨gᵢ, g_t⟩
    alignments: Dict[str, float]
    #: Standard error of each aᵢ, from the differences between its batches; None if a domain had one batch. The error of the target's gradient is not included.
    standard_errors: Dict[str, Optional[float]]
    losses: Dict[str, float]
    #: ‖g_t‖
    target_norm: float
    #: ‖gᵢ‖ of the mean gradient of the batches, including noise; None if the method does not compute it.
    norms: Optional[Dict[str, float]] = None

    def observed(self) -> Dict[str, Any]:
        """Returns the measurements as arguments of `Mixer.observe`. Unknown standard errors are None."""
        fields = {
            "alignments": self.alignments,
            "standard_errors": self.standard_errors,
            "losses": self.losses,
            "target_norm": self.target_norm,
        }
        return fields if self.norms is None else {**fields, "norms": self.norms}


class TargetGradient(NamedTuple):
    """The gradient of the target's mean loss."""

    #: One tensor for each parameter that requires a gradient, in the order of `model.parameters()`; for a sharded parameter, this rank's shard.
    tensors: List[Any]
    #: The target's mean loss per token.
    loss: float


def target_gradient(model: Any, loss_fn: LossFunction, batches: Sequence[Any], *, group: Any = None) -> TargetGradient:
    """Computes the mean gradient of the target's batches over all ranks, by backward passes. Call it when no gradient is pending (after `zero_grad()`). It leaves no gradient.

    DDP and FSDP2 average the gradients over the ranks in the backward pass. Gradients that differ between the ranks are averaged here, for trainers that do this themselves
    after the backward pass. `group` is that of `two_loss_alignments`.

    Raises GradmixError if a gradient is pending, for parameters with hooks that take their gradients away, for ranks that hold different parameters or have different
    numbers of batches, and if the loss is not finite.
    """
    torch = _torch()
    world = _world(model, group)
    with _evaluating(model), torch.enable_grad():
        held = _begin(model, world, lambda: [0, _count(batches, "batches"), 0], target="batches", backward=True)
        losses = []
        try:
            for batch in batches:
                loss = _loss(loss_fn, model, batch, backward=True) / len(batches)
                _backward(loss, model, held)
                losses.append(loss.detach())
            # The gradients are copied, because with gradient_as_bucket_view DDP writes the next gradient to the same memory.
            tensors = [_unless_none(_cloned, _gradient(param)) for param in _trainable(model)]
        finally:
            _clear(model)
        tensors = _averaged(tensors, held, world)
        (total,) = _sum_over([sum(loss.item() for loss in losses)], world)
    return TargetGradient(tensors, _finite(total / world.size, "the target's loss"))


def two_loss_alignments(
    model: Any,
    loss_fn: LossFunction,
    batches: Mapping[str, Sequence[Any]],
    target_direction: Sequence[Any],
    *,
    eps: float = 1e-3,
    group: Any = None,
) -> Measurement:
    """Computes ⟨gᵢ, g_t⟩ from losses: the central difference ‖g_t‖·(Lᵢ(θ + δ·ĝ) − Lᵢ(θ − δ·ĝ)) / 2δ, with ĝ = g_t/‖g_t‖ and δ = eps·‖θ‖.

    It needs only forward passes, two per batch, with the same batch for both signs. Each rank changes the parameters that it holds. The ranks exchange one sum for the two
    norms, and one for the losses.

    The parameters are restored to the bit: a copy of them (of this rank's shard, if they are sharded) is kept meanwhile and copied back, also if a pass fails.
    Subtracting the step again would not restore the bits.

    eps is relative to ‖θ‖. Rounding causes an error of about the precision of a loss divided by eps, and the curvature an error that grows with eps²: docs/trainers.md has
    measurements. 0.001 suits losses that are computed in f32; if products are in bf16 (autocast, or a mixed-precision policy of FSDP2), use 0.003. A warning says so if that
    can be seen from here. Parameters that are themselves bf16 or f16 are refused; keep master weights in f32.

    Args:
        batches: some batches of each domain to measure, all of one size. Two or more give standard errors.
        target_direction: g_t from `target_gradient`, or any list with a tensor for each parameter that requires a gradient (None: zero).
        group: the process group of the ranks that share the model and the batches; default: all. If each rank trains a model of its own, a group of this rank alone.

    Raises GradmixError for low-precision parameters, for a direction that is zero or does not fit, for ranks that hold different parameters or directions, for FSDP1 and
    tensor parallelism, and for losses that are not finite.
    """
    torch = _torch()
    world = _world(model, group)

    def plan() -> List[float]:
        step = _number(eps, "eps")
        if step <= 0:
            raise GradmixError(f"eps is {eps}; it must be more than 0", "eps")
        for name, param in model.named_parameters():
            if param.requires_grad and param.dtype in (torch.bfloat16, torch.float16):
                raise GradmixError(
                    f"parameter {name} is {param.dtype}, in which a small step is rounded away; two losses need f32 parameters",
                    "model",
                )
        return [_mark(batches), 0, step]

    with _evaluating(model), torch.no_grad():
        held = _begin(model, world, plan, direction=target_direction)
        if held.norm == 0:
            raise GradmixError("all parameters are 0, so a step relative to their norm is 0", "model")
        step, target = _number(eps, "eps"), held.target_norm
        if step < _SMALL_STEP and _low_precision(model, world):
            warnings.warn(
                f"eps is {step:g}, and products are in bf16 or f16, whose rounding is larger than such a step; use eps=0.003 (docs/trainers.md)",
                stacklevel=2,
            )
        delta = step * held.norm
        tensors = [_local(param) for param in held.params]
        before = [tensor.clone() for tensor in tensors]
        sides = []
        try:
            for sign in (1, -1):
                for tensor, old, toward in zip(tensors, before, held.direction):
                    tensor.copy_(old)
                    if toward is not None:
                        tensor.add_(toward, alpha=sign * delta / target)
                # Autocast keeps copies of the parameters, which do not move with them.
                torch.clear_autocast_cache()
                sides.append([_loss(loss_fn, model, batch).item() for _, own in batches.items() for batch in own])
                _reshard(model)
        finally:
            for tensor, old in zip(tensors, before):
                tensor.copy_(old)
            _reshard(model)
    plus, minus = sides
    slopes = [target * (up - down) / (2 * delta) for up, down in zip(plus, minus)]
    means = [(up + down) / 2 for up, down in zip(plus, minus)]
    return _measurement(batches, slopes, means, world, target, by_rank=True)


def exact_alignments(
    model: Any,
    loss_fn: LossFunction,
    batches: Mapping[str, Sequence[Any]],
    target_direction: Sequence[Any],
    *,
    group: Any = None,
) -> Measurement:
    """Computes ⟨gᵢ, g_t⟩ and ‖gᵢ‖ from gradients: one backward pass per batch, in which DDP or FSDP2 averages the gradient over the ranks as in training. The ranks' parts of
    ⟨gᵢ, g_t⟩ are summed at the end, together with all other numbers of all domains. Gradients that differ between the ranks are averaged as in `target_gradient`.

    Call it when no gradient is pending (after `zero_grad()`). It leaves no gradient. The arguments are those of `two_loss_alignments`. Standard errors are computed from batches
    that are already averaged over the ranks, so every rank needs two batches of each domain, for any number of ranks.

    Raises GradmixError for what `target_gradient` refuses, for a direction that is zero or does not fit, and for losses or gradients that are not finite.
    """
    torch = _torch()
    world = _world(model, group)
    with _evaluating(model), torch.enable_grad():
        held = _begin(model, world, lambda: [_mark(batches), 0, 0], direction=target_direction, backward=True)
        slopes, means, norms = [], [], []
        try:
            for own in batches.values():
                model.zero_grad(set_to_none=True)
                so_far = 0.0
                for batch in own:
                    loss = _loss(loss_fn, model, batch, backward=True)
                    _backward(loss, model, held)
                    means.append(loss.item())
                    # The gradients of a domain accumulate, for the norm of their mean; the difference is the gradient of one batch.
                    gradients = [_gradient(param) for param in _trainable(model)]
                    # If the ranks hold different gradients, this is the rank's part of the product with their mean.
                    along = _inner(gradients, held.direction, held.copies)
                    slopes.append(along - so_far)
                    so_far = along
                gradients = _averaged(gradients, held, world)
                norms.append(_inner(gradients, gradients, held.copies) / len(own) ** 2)
        finally:
            _clear(model)
    return _measurement(batches, slopes, means, world, held.target_norm, by_rank=False, squares=norms)


def last_layer_alignments(
    model: Any,
    loss_fn: LossFunction,
    batches: Mapping[str, Sequence[Any]],
    target_batches: Sequence[Any],
    *,
    head: Any,
    group: Any = None,
) -> Measurement:
    """Computes ⟨gᵢ, g_t⟩ of the gradients of the weight of the language model's head, from forward passes and one matrix product of the head's size per batch.

    This is only the last layer's part of the alignment. Compare it with `exact_alignments` on your model before you rely on it. `target_norm` is the norm of the head's part.

    Args:
        target_batches: batches of the target, from which its gradient is measured.
        head: the module whose output the model returns (the logits [..., V]; their type may be another) and whose first argument are the features [..., D], such as a
            `Linear`. A weight that is tied to the embedding counts only in its use as a head.

    loss_fn must call `model` with the inputs of the batch and compute the loss from its result. A compiled model runs uncompiled meanwhile, because its head is no longer
    called as a module. Raises GradmixError if the model returns anything but the head's output, for ranks that hold different parameters, and for losses that are not finite.
    """
    torch = _torch()
    world = _world(model, group)

    def plan() -> List[float]:
        if not isinstance(head, torch.nn.Module):
            raise GradmixError(f"head is {_shown(head)}; it must be the module that computes the logits, such as model.head", "head")
        return [_mark(batches), _count(target_batches, "target_batches"), 0]

    with _evaluating(model), _uncompiled():
        _begin(model, world, plan, target="target_batches", records=True)
        parts = [_head_factors(model, loss_fn, batch, head) for batch in target_batches]
        gradient = sum(_product(slopes.T, features) for _, features, slopes in parts) / len(parts)
        if world.size > 1:
            torch.distributed.all_reduce(gradient, group=world.group)
            gradient /= world.size
        target = _direction_norm(_inner([gradient], [gradient], [1]), "target_batches")
        slopes, means = [], []
        for own in batches.values():
            for batch in own:
                loss, features, along = _head_factors(model, loss_fn, batch, head)
                # ⟨dZᵀH, G⟩ = ⟨dZ, H Gᵀ⟩, so the domain's own gradient is not computed.
                slopes.append(_inner([along], [_product(features, gradient.T)], [1]))
                means.append(loss)
    return _measurement(batches, slopes, means, world, target, by_rank=True)


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise GradmixError(f"PyTorch is needed for this, and could not be imported: {error}") from None
    return torch


class _World(NamedTuple):
    group: Any
    size: int
    #: Where this rank holds parameters, and numbers that ranks exchange.
    device: Any
    #: The numbers of the ranks in the default group; empty in one process.
    ranks: FrozenSet[int] = frozenset()


def _world(model: Any, group: Any) -> _World:
    torch = _torch()
    if not isinstance(model, torch.nn.Module):
        raise GradmixError(f"model is {_shown(model)}; it must be a torch.nn.Module", "model")
    device = next((param.device for param in model.parameters()), torch.device("cpu"))
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return _World(None, 1, device)
    size = distributed.get_world_size(group)
    if size < 1:
        raise GradmixError("this rank is not in the group; only its ranks may call this function", "group")
    return _World(group, size, device, frozenset(distributed.get_process_group_ranks(group or distributed.group.WORLD)))


@contextlib.contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Turns dropout off meanwhile, because its random choices would differ between the two losses and between methods."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        # Autocast keeps copies of parameters, here those without gradients or of moved parameters, and training under the same autocast would use them.
        _torch().clear_autocast_cache()


@contextlib.contextmanager
def _uncompiled() -> Iterator[None]:
    """Runs compiled modules as they were written, so that their hooks are called. Nothing is compiled before torch._dynamo is imported."""
    compiler = getattr(_torch(), "compiler", None)
    if "torch._dynamo" not in sys.modules or not hasattr(compiler, "set_stance"):
        yield
        return
    with compiler.set_stance("force_eager"):
        yield


def _reshard(model: Any) -> None:
    """Makes FSDP2 drop the gathered parameters that its outermost module keeps after a forward pass. Otherwise `parameters()` would return them, and later changes of the shards would have no effect."""
    for module in model.modules():
        if callable(getattr(module, "reshard", None)) and callable(getattr(module, "unshard", None)):
            module.reshard()


def _trainable(model: Any) -> List[Any]:
    _reshard(model)
    params = [param for param in model.parameters() if param.requires_grad]
    if not params:
        raise GradmixError("the model has no parameter that requires a gradient", "model")
    return params


def _local(tensor: Any) -> Any:
    """Returns the part of a tensor that this rank holds: the tensor itself, or its shard. The memory is shared."""
    tensor = tensor.detach()
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _copies(param: Any, world: _World) -> float:
    """Returns how many ranks of the group hold each element that this rank holds."""
    if not hasattr(param, "to_local"):
        return world.size
    mesh, shards = param.device_mesh, 1
    for axis, placement in enumerate(param.placements):
        if placement.is_partial():
            raise GradmixError("a parameter is a partial sum over ranks, which is not supported; use replicated or sharded parameters", "model")
        if placement.is_shard():
            shards *= mesh.size(axis)
    if world.size % shards:
        raise GradmixError(
            f"a parameter is sharded over {shards} ranks, and the group has {world.size}; give the group of all ranks that hold the model",
            "group",
        )
    return world.size / shards


def _fsdp_groups(model: Any) -> List[Any]:
    """Returns what FSDP2 knows about the parameters that it shards. These are no public interfaces, so a version of PyTorch may have none of the attributes that are read from them."""
    groups = []
    for module in model.modules():
        get = getattr(module, "_get_fsdp_state", None)
        state = get() if callable(get) else None
        several = getattr(state, "_fsdp_param_groups", None)
        groups += [getattr(state, "_fsdp_param_group", None)] if several is None else several
    return [group for group in groups if group is not None]


def _fsdp_params(model: Any) -> List[Any]:
    return [one for group in _fsdp_groups(model) for one in getattr(group, "fsdp_params", ())]


def _shard(param: Any) -> List[int]:
    """Returns which shard of a parameter this rank holds."""
    where = param.device_mesh.get_coordinate() or []
    return [at for at, placement in zip(where, param.placements) if placement.is_shard()]


def _check_ranks(ranks: Sequence[int], world: _World) -> None:
    if world.ranks and not world.ranks.issuperset(ranks):
        raise GradmixError("the model averages gradients over ranks that are not in the group; pass the group of all ranks that hold the model", "group")


def _check_parallelism(model: Any, world: _World) -> None:
    """Refuses ways to divide a model among ranks in which a rank's tensors are not what this code takes them for."""
    torch = _torch()
    fsdp1 = getattr(sys.modules.get("torch.distributed.fsdp"), "FullyShardedDataParallel", ())
    for module in model.modules():
        if isinstance(module, fsdp1):
            raise GradmixError(
                "FSDP1 (FullyShardedDataParallel) is not supported, because its parameters do not show how they are sharded; use FSDP2 (fully_shard) or DDP", "model"
            )
        if isinstance(module, torch.nn.parallel.DistributedDataParallel):
            _check_ranks(torch.distributed.get_process_group_ranks(module.process_group), world)
    # If a version of PyTorch does not tell which parameters FSDP2 shards, those that it does not shard cannot be told from them.
    known = {id(getattr(one, "sharded_param", None)): one for one in _fsdp_params(model)}
    unknown = any(hasattr(module, "_get_fsdp_state") for module in model.modules()) and not known
    meshes: Dict[int, Any] = {}
    for name, param in model.named_parameters():
        if getattr(param, "_fsdp_flattened", False):
            raise GradmixError(f"parameter {name} belongs to FSDP1, which is not supported; use FSDP2 (fully_shard) or DDP", "model")
        if not hasattr(param, "to_local"):
            continue
        meshes[id(param.device_mesh)] = param.device_mesh
        one = known.get(id(param))
        if not unknown and (one is None or getattr(one, "is_dtensor", False)):
            raise GradmixError(
                f"parameter {name} is distributed by something other than fully_shard, such as tensor parallelism, which is not supported: ranks with copies of one batch "
                "would count as several batches. Measure on a copy of the model without it",
                "model",
            )
    for mesh in meshes.values():
        _check_ranks(mesh.mesh.flatten().tolist(), world)


def _check_backward(model: Any) -> None:
    """Refuses, before a backward pass, what would take its gradients away or add to others."""
    pending = [param.grad for param in model.parameters() if param.requires_grad]
    # Those that FSDP2 has not averaged yet, after passes with set_requires_gradient_sync(False) or set_requires_all_reduce(False).
    for one in _fsdp_params(model):
        pending += [getattr(one, "unsharded_accumulated_grad", None), getattr(getattr(one, "_unsharded_param", None), "grad", None)]
    pending += [getattr(group, "_partial_reduce_output", None) for group in _fsdp_groups(model)]
    if any(gradient is not None for gradient in pending):
        raise GradmixError(
            "gradients are pending, and the measurement would change them; call this function after optimizer.zero_grad(set_to_none=True)", "model"
        )
    for name, param in model.named_parameters():
        if param.requires_grad and getattr(param, "_post_accumulate_grad_hooks", None):
            raise GradmixError(
                f"parameter {name} has a hook of register_post_accumulate_grad_hook, which could move its gradient elsewhere or make a step with it; remove such hooks while "
                "measuring, or use last_layer_alignments",
                "model",
            )
    for group in _fsdp_groups(model):
        if not (getattr(group, "reduce_grads", True) and getattr(group, "all_reduce_grads", True)):
            raise GradmixError(
                "FSDP2 does not average gradients now; call set_requires_gradient_sync(True) and set_requires_all_reduce(True) before measuring", "model"
            )
        if getattr(group, "gradient_divide_factor", None) is not None:
            raise GradmixError("FSDP2 has a divisor of gradients (set_gradient_divide_factor), so they are not means over the ranks; measure without it", "model")


def _backward(loss: Any, model: Any, held: "_Held") -> None:
    """Runs a backward pass, and refuses if a gradient that it computed is not where it belongs."""
    computed: List[int] = []
    # The shards of FSDP2 are not in autograd's graph, so their hooks are not called.
    handles = [param.register_hook(lambda _, i=i: computed.append(i)) for i, param in enumerate(held.params)]
    try:
        loss.backward()
    finally:
        for handle in handles:
            handle.remove()
    for i in computed:
        if held.params[i].grad is None:
            raise GradmixError(
                f"the backward pass left no gradient in parameter {held.names[i]}, so a hook has taken it away, and may have added it to the gradient of training or made a step with "
                "it; measure without such hooks, or use last_layer_alignments",
                "model",
            )
    if all(param.grad is None for param in _trainable(model)):
        raise GradmixError(
            "the backward pass left no gradient in any parameter; the loss must depend on parameters that require a gradient, and no hook may take their gradients away", "loss_fn"
        )


def _clear(model: Any) -> None:
    """Removes the gradients, also those of shards whose gathered parameters the model has after a failed pass."""
    _reshard(model)
    model.zero_grad(set_to_none=True)


def _gradient(param: Any) -> Optional[Any]:
    return None if param.grad is None else _local(param.grad)


def _cloned(tensor: Any) -> Any:
    return tensor.clone()


def _directions(params: Sequence[Any], direction: Sequence[Any]) -> List[Any]:
    """Returns the parts of the given tensors that this rank holds, checked against the parameters."""
    given = list(direction)
    if len(given) != len(params):
        raise GradmixError(
            f"{len(given)} tensors for {len(params)} parameters that require a gradient; pass target_gradient(…).tensors", "target_direction"
        )
    out = []
    for i, (param, tensor) in enumerate(zip(params, given)):
        local = None if tensor is None else _local(tensor)
        if local is not None and local.shape != _local(param).shape:
            raise GradmixError(
                f"tensor {i} has shape {tuple(local.shape)}, and this rank holds {tuple(_local(param).shape)} of its parameter",
                f"target_direction.{i}",
            )
        out.append(local)
    return out


#: Number of elements that are converted to f64 at a time.
_CHUNK = 1 << 22


def _inner(left: Sequence[Any], right: Sequence[Any], copies: Sequence[float]) -> float:
    """Returns this rank's part of ⟨left, right⟩, in f64 if the device supports it. Its sum over the ranks counts every element once."""
    torch = _torch()
    total = 0.0
    for a, b, times in zip(left, right, copies):
        if a is None or b is None:
            continue
        wide = torch.float32 if a.device.type == "mps" else torch.float64
        parts = [
            torch.dot(x.to(wide), y.to(wide))
            for x, y in zip(a.detach().reshape(-1).split(_CHUNK), b.detach().reshape(-1).split(_CHUNK))
        ]
        total += sum(part.item() for part in parts) / times
    return total


#: Length of the rows into which a tensor is divided for its sketch.
_ROW = 1 << 10


def _sketch(tensor: Any) -> Tuple[float, float]:
    """Returns ‖x‖² and one projection of x, by which other values are recognised. The projection also sees signs and the order of the elements."""
    torch = _torch()
    wide = torch.float32 if tensor.device.type == "mps" else torch.float64
    across = torch.arange(1, _ROW + 1, dtype=wide, device=tensor.device).cos()
    down = torch.arange(1, _CHUNK // _ROW + 2, dtype=wide, device=tensor.device).mul(0.7).cos()
    square = projection = 0.0
    for i, chunk in enumerate(tensor.detach().reshape(-1).split(_CHUNK)):
        x = chunk.to(wide)
        rows, rest = divmod(x.numel(), _ROW)
        along = torch.dot(x[: rows * _ROW].view(rows, _ROW) @ across, down[:rows])
        along = along + torch.dot(x[rows * _ROW :], across[:rest]) * down[rows]
        square += torch.dot(x, x).item()
        projection += along.item() * (1.5 + math.cos(i))
    return square, projection


def _sketches_of_copies(tensors: Sequence[Any], copies: Sequence[float], key: int, world: _World) -> List[float]:
    """Returns [key, ‖x‖², projection] of the tensors that all ranks hold, for which the key is 0, and of those that some of the other ranks hold, which have the same key."""
    whole, some = [0.0, 0.0, 0.0], [float(key), 0.0, 0.0]
    for i, (tensor, times) in enumerate(zip(tensors, copies)):
        if tensor is not None and times > 1 and world.size > 1:
            square, projection = _sketch(tensor)
            sketch = whole if times == world.size else some
            sketch[1] += square
            sketch[2] += projection * (1.5 + math.cos(i))
    return [*whole, *some]


def _different(rows: Sequence[Sequence[float]]) -> Optional[Tuple[int, int]]:
    """Returns two ranks with a sketch [key, ‖x‖², projection] that differs although the key is the same, or None. A row has one sketch or more. Sums of the same numbers may differ by
    rounding."""

    def near(a: float, b: float, scale: float) -> bool:
        return a == b or abs(a - b) <= 1e-6 * scale or (math.isnan(a) and math.isnan(b))

    first: Dict[Tuple[int, float], int] = {}
    for rank, row in enumerate(rows):
        for at in range(0, len(row), 3):
            key, square, projection = row[at : at + 3]
            other = first.setdefault((at, key), rank)
            _, other_square, other_projection = rows[other][at : at + 3]
            if not (near(square, other_square, other_square) and near(projection, other_projection, math.sqrt(abs(other_square)))):
                return other, rank
    return None


def _product(left: Any, right: Any) -> Any:
    """Returns a product of matrices in their own type, also under autocast."""
    with _torch().autocast(left.device.type, enabled=False):
        return left @ right


def _sum_over(numbers: Sequence[float], world: _World) -> List[float]:
    """Sums all numbers over the ranks in one exchange."""
    if world.size == 1:
        return list(numbers)
    torch = _torch()
    sums = torch.tensor(numbers, dtype=torch.float64, device=world.device)
    torch.distributed.all_reduce(sums, group=world.group)
    return [float(number) for number in sums.tolist()]


def _jointly(world: _World, count: int, work: Callable[[], Sequence[float]]) -> List[List[float]]:
    """Runs `work`, which returns `count` numbers, and returns those of every rank in one exchange. If it fails on one rank, all ranks raise an error, so that none waits for others."""
    failure: Optional[Exception] = None
    numbers: Sequence[float] = [0.0] * count
    try:
        numbers = work()
    except Exception as error:
        failure = error
    if world.size == 1 and failure is None:
        return [list(numbers)]
    rows = [] if world.size == 1 else _gathered([float(failure is not None), *numbers], world)
    if failure is not None:
        raise failure
    for rank, (failed, *_) in enumerate(rows):
        if failed:
            raise GradmixError(f"rank {rank} of the group refused this call, and its own error says why; so the other ranks do not measure either")
    return [row for _, *row in rows]


def _gathered(numbers: Sequence[float], world: _World) -> List[List[float]]:
    """Returns the numbers of every rank. They are summed into a table of zeros, because every backend can sum, and some cannot gather on their device."""
    count, rank = len(numbers), _torch().distributed.get_rank(world.group)
    table = [0.0] * (count * world.size)
    table[rank * count : (rank + 1) * count] = numbers
    sums = _sum_over(table, world)
    return [sums[at : at + count] for at in range(0, len(sums), count)]


class _Held(NamedTuple):
    """What a rank holds, of a model that fits the other ranks."""

    names: List[str]
    params: List[Any]
    #: How many ranks hold each element of a parameter.
    copies: List[float]
    #: Equal on ranks that hold the same shards.
    key: int
    #: This rank's part of the direction.
    direction: List[Any]
    #: ‖θ‖
    norm: float
    #: The norm of the direction.
    target_norm: float


def _begin(
    model: Any,
    world: _World,
    plan: Callable[[], Sequence[float]],
    *,
    target: str = "batches",
    direction: Optional[Sequence[Any]] = None,
    backward: bool = False,
    records: bool = False,
) -> _Held:
    """Makes all checks that need no pass, and compares the ranks: their plans, layouts of the model, parameters and directions.

    plan: returns marks of the domains, the number of target batches, and eps, and refuses those that are wrong. target: the argument that has the target's batches. backward:
    there will be backward passes. records: autograd will be used.
    """
    torch = _torch()
    own: Dict[str, Any] = {}

    def check() -> List[float]:
        if (backward or records) and torch.is_inference_mode_enabled():
            raise GradmixError("gradients cannot be computed under torch.inference_mode(); call this function, and draw its batches, outside of it")
        plans = plan()
        params = _trainable(model)
        _check_parallelism(model, world)
        if backward:
            _check_backward(model)
        copies = [_copies(param, world) for param in params]
        toward = [] if direction is None else _directions(params, direction)
        held = [_local(param) for param in params]
        key = _crc([_shard(param) for param, times in zip(params, copies) if times < world.size])
        layout = [[list(param.shape), str(param.dtype), [str(one) for one in getattr(param, "placements", ())]] for param in params]
        names = [name for name, param in model.named_parameters() if param.requires_grad]
        own.update(names=names, params=params, copies=copies, key=key, direction=toward)
        sketches = (_sketches_of_copies(tensors, copies, key, world) for tensors in (held, toward))
        return [*plans, _crc(layout), _inner(held, held, copies), _inner(toward, toward, copies), *(number for sketch in sketches for number in sketch)]

    # 3 plans, the layout, 2 norms, and 6 numbers of each sketch.
    rows = _jointly(world, 18, check)
    marks = (
        ("batches", "the ranks do not have the same domains in the same order, with the same number of batches of every domain"),
        (target, "the ranks do not have the same number of batches of the target"),
        ("eps", "the ranks have different values of eps"),
        ("model", "the ranks hold different models: their parameters that require a gradient have other shapes, types or shardings; pipeline stages are not supported"),
    )
    for (field, message), values in zip(marks, zip(*rows)):
        if len(set(values)) > 1:
            raise GradmixError(message, field)
    ranks = _different([row[6:12] for row in rows])
    if ranks is not None:
        raise GradmixError(
            f"ranks {ranks[0]} and {ranks[1]} of the group hold different values of the same parameters. Give all ranks the same parameters; if each trains a model of its "
            "own, pass the group of the ranks that share one, such as group=dist.new_group([rank], use_local_synchronization=True)",
            "model",
        )
    norm, target_norm = math.sqrt(sum(row[4] for row in rows)), 0.0
    if direction is not None:
        target_norm = _direction_norm(sum(row[5] for row in rows), "target_direction")
        ranks = _different([row[12:18] for row in rows])
        if ranks is not None:
            raise GradmixError(
                f"ranks {ranks[0]} and {ranks[1]} of the group have different target directions; pass target_gradient(…).tensors of the same model and group",
                "target_direction",
            )
    return _Held(**own, norm=norm, target_norm=target_norm)


def _direction_norm(squared: float, field: str) -> float:
    norm = math.sqrt(squared)
    if not math.isfinite(norm) or norm == 0:
        raise GradmixError(f"the target's gradient has the norm {norm}, so it has no direction; the norm must be positive and finite", field)
    return norm


def _averaged(gradients: Sequence[Any], held: _Held, world: _World) -> List[Any]:
    """Returns the mean gradients over the ranks. Those that all ranks hold are averaged here if they differ, because nothing has done so: a module without DDP, or in no_sync()."""
    if world.size == 1:
        return list(gradients)
    torch = _torch()
    missing = _crc([gradient is None for gradient, param in zip(gradients, held.params) if hasattr(param, "to_local")])
    rows = _jointly(world, 7, lambda: [missing, *_sketches_of_copies(gradients, held.copies, held.key, world)])
    if len({row[0] for row in rows}) > 1:
        raise GradmixError(
            "the ranks have gradients of different parameters (as experts that only some ranks use), which FSDP2 mixes up; use every parameter on every rank, or "
            "set_reduce_scatter_unused_params(True) in a PyTorch that has it",
            "model",
        )
    if _different([row[4:7] for row in rows]) is not None:
        raise GradmixError("ranks that hold the same shards have different gradients; average them in the backward pass, as fully_shard does on a mesh of two axes", "model")
    if _different([row[1:4] for row in rows]) is None:
        return list(gradients)
    mean = []
    for gradient, param, times in zip(gradients, held.params, held.copies):
        if times == world.size:
            gradient = torch.zeros_like(_local(param)) if gradient is None else gradient
            torch.distributed.all_reduce(gradient, group=world.group)
            gradient /= world.size
        mean.append(gradient)
    return mean


def _crc(value: Any) -> int:
    return zlib.crc32(json.dumps(value).encode("ascii"))


def _count(batches: Any, field: str) -> int:
    if not isinstance(batches, Sized):
        raise GradmixError(f"{field} is {_shown(batches)}; it must be a list of batches", field)
    if len(batches) == 0:
        raise GradmixError("the target has no batch", field)
    return len(batches)


def _mark(batches: Mapping[str, Sequence[Any]]) -> int:
    """Returns a number that differs (nearly always) between other domains, other orders of them, and other numbers of their batches."""
    if not isinstance(batches, Mapping) or not all(isinstance(own, Sized) for own in batches.values()):
        raise GradmixError(f"batches is {_shown(batches)}; it must map names of domains to lists of batches", "batches")
    counts = [[str(name), len(own)] for name, own in batches.items()]
    if not counts or any(count == 0 for _, count in counts):
        raise GradmixError(
            "every domain that is measured needs a batch; leave out those that are not measured", "batches"
        )
    return _crc(counts)


def _loss(loss_fn: LossFunction, model: Any, batch: Any, *, backward: bool = False) -> Any:
    """Returns a loss. backward: it must be one that autograd can go back from."""
    loss = loss_fn(model, batch)
    if not hasattr(loss, "ndim") or loss.ndim != 0:
        raise GradmixError(f"loss_fn returned {_shown(loss)}; it must return a tensor without axes", "loss_fn")
    if backward and not loss.requires_grad:
        raise GradmixError(
            "loss_fn returned a loss without a gradient; compute it from the model's result without detach(), item() and torch.no_grad()", "loss_fn"
        )
    return loss


#: Steps below this one are lost in the rounding of bf16.
_SMALL_STEP = 0.002


def _low_precision(model: Any, world: _World) -> bool:
    """Whether products are seen to be in bf16 or f16. An autocast inside loss_fn is not seen."""
    torch = _torch()
    try:
        autocast = torch.is_autocast_enabled(world.device.type)
    except TypeError:
        autocast = torch.is_autocast_enabled()
    policies = [getattr(group, "mp_policy", None) for group in _fsdp_groups(model)]
    return autocast or any(getattr(policy, "param_dtype", None) in (torch.bfloat16, torch.float16) for policy in policies)


def _finite(number: float, what: str, field: Optional[str] = None) -> float:
    if not math.isfinite(number):
        raise GradmixError(f"{what} is {number}; it must be finite", field)
    return number


def _same_numbers(returned: Any, output: Any) -> bool:
    """Whether a tensor is another one, or has its numbers in another type, as FSDP2 makes it with output_dtype. A gradient by one of the two is then that by the other."""
    if returned is output:
        return True
    tensors = all(isinstance(one, _torch().Tensor) for one in (returned, output))
    if not tensors or returned.shape != output.shape:
        return False
    cast = output.to(returned.dtype)
    return bool(((returned == cast) | (returned.isnan() & cast.isnan())).all())


def _head_factors(model: Any, loss_fn: LossFunction, batch: Any, head: Any) -> Tuple[float, Any, Any]:
    """Returns the loss of a batch, the features [N, D] that are the head's input, and the derivatives [N, V] of the loss by its outputs. The gradient of the head's weight is slopesᵀ·features."""
    torch = _torch()
    seen: List[Any] = []
    returned: List[Any] = []

    def once(*args: Any, **kwargs: Any) -> Any:
        """Runs the model without gradients, except for that of its result."""
        with torch.no_grad():
            logits = model(*args, **kwargs)
        if len(seen) != 1:
            raise GradmixError(
                f"the model called head {len(seen)} times, and must call it once for a batch; pass the module that computes its logits"
                + (", in a model without torch.compile" if not seen and "torch._dynamo" in sys.modules else ""),
                "head",
            )
        if not _same_numbers(logits, seen[0][1]):
            raise GradmixError(
                "the model does not return the output of head, but must call head once and return its output; compute the loss, and all else that follows the head, in loss_fn",
                "head",
            )
        returned.append(logits.detach().requires_grad_())
        return returned[0]

    def note(_: Any, args: Any, kwargs: Any, output: Any) -> None:
        seen.append((next(iter([*args, *kwargs.values()]), None), output))

    handle = head.register_forward_hook(note, with_kwargs=True)
    try:
        with torch.enable_grad():
            loss = _loss(loss_fn, once, batch)
            if not returned:
                raise GradmixError("loss_fn did not call the model that it was given", "loss_fn")
            slopes = torch.autograd.grad(loss, returned, allow_unused=True)[0] if loss.requires_grad else None
            if slopes is None:
                raise GradmixError(
                    "loss_fn returned a loss that does not depend on the model's result; compute it without detach(), item() and torch.no_grad()", "loss_fn"
                )
    finally:
        handle.remove()
        _reshard(model)
    features = seen[0][0]
    if not isinstance(features, torch.Tensor) or features.numel() * slopes.shape[-1] != slopes.numel() * features.shape[-1]:
        raise GradmixError("the first argument of head is not the features [..., D] of its output [..., V]", "head")
    return (
        loss.item(),
        features.detach().reshape(-1, features.shape[-1]).float(),
        slopes.reshape(-1, slopes.shape[-1]).float(),
    )


def _measurement(
    batches: Mapping[str, Sequence[Any]],
    slopes: Sequence[float],
    losses: Sequence[float],
    world: _World,
    target_norm: float,
    *,
    by_rank: bool,
    squares: Sequence[float] = (),
) -> Measurement:
    """Returns means and standard errors over batches. by_rank: each slope belongs to a batch of this rank; otherwise it is this rank's part of the slope of a batch of all ranks."""
    domains = list(batches)
    n, k = len(slopes), len(domains)
    sent = [*slopes, *losses, *squares] if not by_rank else [*slopes, *losses, *(slope**2 for slope in slopes)]
    sums = _sum_over(sent, world)
    totals, lost, more = sums[:n], sums[n : 2 * n], sums[2 * n :]
    alignments: Dict[str, float] = {}
    errors: Dict[str, Optional[float]] = {}
    means: Dict[str, float] = {}
    at = 0
    for name in domains:
        part = slice(at, at + len(batches[name]))
        at = part.stop
        samples = len(totals[part]) * (world.size if by_rank else 1)
        mean = sum(totals[part]) / samples
        alignments[name] = _finite(mean, f"the alignment of domain {name}", f"alignments.{name}")
        means[name] = sum(lost[part]) / (len(lost[part]) * world.size)
        _finite(means[name], f"the loss of domain {name}", f"losses.{name}")
        spread = sum(more[part]) if by_rank else sum(slope**2 for slope in totals[part])
        variance = max(0.0, spread - samples * mean**2) / max(1, samples - 1)
        errors[name] = None if samples == 1 else math.sqrt(variance / samples)
    norms = dict(zip(domains, map(math.sqrt, more))) if len(squares) == k else None
    return Measurement(alignments, errors, means, target_norm, norms)
