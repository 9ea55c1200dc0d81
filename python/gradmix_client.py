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
import weakref
import zlib
from typing import (
    IO,
    Any,
    Callable,
    Deque,
    Dict,
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
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            if isinstance(inner, (Mapping, list)):
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

    Raises GradmixError if a gradient is pending, or if the loss is not finite.
    """
    world = _world(group)
    if not batches:
        raise GradmixError("the target has no batch", "batches")
    with _evaluating(model):
        params = _trainable(model)
        _check_no_gradient(params)
        try:
            losses = []
            for batch in batches:
                loss = _loss(loss_fn, model, batch) / len(batches)
                loss.backward()
                losses.append(loss.detach())
            # The gradients are copied, because with gradient_as_bucket_view DDP writes the next gradient to the same memory.
            tensors = [_unless_none(_cloned, _gradient(param)) for param in _trainable(model)]
        finally:
            model.zero_grad(set_to_none=True)
        (total,) = _sum_over([sum(loss.item() for loss in losses)], tensors, world)
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
    measurements. 0.001 suits losses that are computed in f32; if products are in bf16 (autocast, or a mixed-precision policy of FSDP2), use 0.003. Parameters that are
    themselves bf16 or f16 are refused; keep master weights in f32.

    Args:
        batches: some batches of each domain to measure, all of one size. Two or more give standard errors.
        target_direction: g_t from `target_gradient`, or any list with a tensor for each parameter that requires a gradient (None: zero).
        group: the process group of the ranks that share the model and the batches; default: all.

    Raises GradmixError for low-precision parameters, for a direction that is zero or does not fit, and for losses that are not finite.
    """
    torch = _torch()
    eps = _number(eps, "eps")
    if eps <= 0:
        raise GradmixError(f"eps is {eps}; it must be more than 0", "eps")
    world = _world(group)
    mark = _mark(batches)
    with _evaluating(model), torch.no_grad():
        params = _trainable(model)
        for name, param in model.named_parameters():
            if param.requires_grad and param.dtype in (torch.bfloat16, torch.float16):
                raise GradmixError(
                    f"parameter {name} is {param.dtype}, in which a small step is rounded away; two losses need f32 parameters",
                    "model",
                )
        held = [_local(param) for param in params]
        direction = _directions(params, target_direction)
        copies = [_copies(param, world) for param in params]
        norms = [_inner(held, held, copies), _inner(direction, direction, copies)]
        parameters, target = map(math.sqrt, _checked_sums(norms, mark, held, world))
        if not math.isfinite(target) or target == 0:
            raise GradmixError(f"the target's gradient has the norm {target}, so it has no direction; the norm must be positive and finite", "target_direction")
        delta = eps * parameters
        before = [tensor.clone() for tensor in held]
        sides = []
        try:
            for sign in (1, -1):
                for tensor, old, toward in zip(held, before, direction):
                    tensor.copy_(old)
                    if toward is not None:
                        tensor.add_(toward, alpha=sign * delta / target)
                sides.append([_loss(loss_fn, model, batch).item() for _, own in batches.items() for batch in own])
                _reshard(model)
        finally:
            for tensor, old in zip(held, before):
                tensor.copy_(old)
            _reshard(model)
    plus, minus = sides
    slopes = [target * (up - down) / (2 * delta) for up, down in zip(plus, minus)]
    means = [(up + down) / 2 for up, down in zip(plus, minus)]
    return _measurement(batches, slopes, means, held, world, target, by_rank=True)


def exact_alignments(
    model: Any,
    loss_fn: LossFunction,
    batches: Mapping[str, Sequence[Any]],
    target_direction: Sequence[Any],
    *,
    group: Any = None,
) -> Measurement:
    """Computes ⟨gᵢ, g_t⟩ and ‖gᵢ‖ from gradients: one backward pass per batch, in which DDP or FSDP2 averages the gradient over the ranks as in training. The ranks' parts of
    ⟨gᵢ, g_t⟩ are summed at the end, together with all other numbers of all domains.

    Call it when no gradient is pending (after `zero_grad()`). It leaves no gradient. The arguments are those of `two_loss_alignments`. Standard errors are computed from batches
    that are already averaged over the ranks, so every rank needs two batches of each domain, for any number of ranks.

    Raises GradmixError if a gradient is pending, for a direction that does not fit, and for losses or gradients that are not finite.
    """
    world = _world(group)
    mark = _mark(batches)
    with _evaluating(model):
        params = _trainable(model)
        _check_no_gradient(params)
        direction = _directions(params, target_direction)
        copies = [_copies(param, world) for param in params]
        (squared,) = _checked_sums([_inner(direction, direction, copies)], mark, direction, world)
        slopes, means, norms = [], [], []
        try:
            for own in batches.values():
                model.zero_grad(set_to_none=True)
                so_far = 0.0
                for batch in own:
                    loss = _loss(loss_fn, model, batch)
                    loss.backward()
                    means.append(loss.item())
                    # The gradients of a domain accumulate, for the norm of their mean; the difference is the gradient of one batch.
                    gradients = [_gradient(param) for param in _trainable(model)]
                    along = _inner(gradients, direction, copies)
                    slopes.append(along - so_far)
                    so_far = along
                norms.append(_inner(gradients, gradients, copies) / len(own) ** 2)
        finally:
            model.zero_grad(set_to_none=True)
    return _measurement(batches, slopes, means, direction, world, math.sqrt(squared), by_rank=False, squares=norms)


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
        head: the module whose output the model returns (the logits [..., V]) and whose first argument are the features [..., D], such as a `Linear`. A weight that is tied
            to the embedding counts only in its use as a head.

    loss_fn must call `model` with the inputs of the batch and compute the loss from its result. Raises GradmixError if the model returns anything but the head's
    output, and for losses that are not finite.
    """
    torch = _torch()
    world = _world(group)
    mark = _mark(batches)
    if not target_batches:
        raise GradmixError("the target has no batch", "target_batches")
    with _evaluating(model):
        parts = [_head_factors(model, loss_fn, batch, head) for batch in target_batches]
        gradient = sum(slopes.T @ features for _, features, slopes in parts) / len(parts)
        if world.size > 1:
            torch.distributed.all_reduce(gradient, group=world.group)
            gradient /= world.size
        # Every rank holds the same sum, so it counts once.
        (squared,) = _checked_sums([_inner([gradient], [gradient], [world.size])], mark, [gradient], world)
        slopes, means = [], []
        for own in batches.values():
            for batch in own:
                loss, features, along = _head_factors(model, loss_fn, batch, head)
                # ⟨dZᵀH, G⟩ = ⟨dZ, H Gᵀ⟩, so the domain's own gradient is not computed.
                slopes.append(_inner([along], [features @ gradient.T], [1]))
                means.append(loss)
    return _measurement(batches, slopes, means, [gradient], world, math.sqrt(squared), by_rank=True)


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise GradmixError(f"PyTorch is needed for this, and could not be imported: {error}") from None
    return torch


class _World(NamedTuple):
    group: Any
    size: int


def _world(group: Any) -> _World:
    distributed = _torch().distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return _World(None, 1)
    return _World(group, distributed.get_world_size(group))


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


def _check_no_gradient(params: Sequence[Any]) -> None:
    if any(param.grad is not None for param in params):
        raise GradmixError(
            "gradients are pending, and the measurement would change them; call this function after optimizer.zero_grad(set_to_none=True)",
            "model",
        )


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


def _sum_over(numbers: Sequence[float], like: Sequence[Any], world: _World) -> List[float]:
    """Sums all numbers over the ranks in one exchange, on the device of `like`."""
    if world.size == 1:
        return list(numbers)
    torch = _torch()
    device = next((tensor.device for tensor in like if tensor is not None), torch.device("cpu"))
    sums = torch.tensor(numbers, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(sums, group=world.group)
    return [float(number) for number in sums.tolist()]


def _mark(batches: Mapping[str, Sequence[Any]]) -> int:
    """Returns a number that differs (nearly always) between other domains, other orders of them, and other numbers of their batches. Its square is exact in f64."""
    if not isinstance(batches, Mapping) or not all(isinstance(own, Sized) for own in batches.values()):
        raise GradmixError(f"batches is {_shown(batches)}; it must map names of domains to lists of batches", "batches")
    counts = [[str(name), len(own)] for name, own in batches.items()]
    if not counts or any(count == 0 for _, count in counts):
        raise GradmixError(
            "every domain that is measured needs a batch; leave out those that are not measured", "batches"
        )
    return zlib.crc32(json.dumps(counts).encode("ascii")) % (1 << 20)


def _checked_sums(numbers: Sequence[float], mark: int, like: Sequence[Any], world: _World) -> List[float]:
    """Sums over the ranks. All ranks refuse if their marks differ: with other numbers of batches they would later wait for each other, and in another order
    the numbers of different domains would be added."""
    *sums, first, second = _sum_over([*numbers, mark, mark * mark], like, world)
    if second * world.size != first * first:
        raise GradmixError(
            "the ranks do not have the same domains in the same order, with the same number of batches of every domain", "batches"
        )
    return sums


def _loss(loss_fn: LossFunction, model: Any, batch: Any) -> Any:
    loss = loss_fn(model, batch)
    if not hasattr(loss, "ndim") or loss.ndim != 0:
        raise GradmixError(f"loss_fn returned {_shown(loss)}; it must return a tensor without axes", "loss_fn")
    return loss


def _finite(number: float, what: str, field: Optional[str] = None) -> float:
    if not math.isfinite(number):
        raise GradmixError(f"{what} is {number}; it must be finite", field)
    return number


def _head_factors(model: Any, loss_fn: LossFunction, batch: Any, head: Any) -> Tuple[float, Any, Any]:
    """Returns the loss of a batch, the features [N, D] that are the head's input, and the derivatives [N, V] of the loss by its outputs. The gradient of the head's weight is slopesᵀ·features."""
    torch = _torch()
    seen: List[Any] = []
    returned: List[Any] = []

    def once(*args: Any, **kwargs: Any) -> Any:
        """Runs the model without gradients, except for that of its result."""
        with torch.no_grad():
            logits = model(*args, **kwargs)
        if len(seen) != 1 or logits is not seen[0][1]:
            raise GradmixError(
                "the model must call head once and return its output; compute the loss in loss_fn", "head"
            )
        returned.append(logits.detach().requires_grad_())
        return returned[0]

    handle = head.register_forward_hook(lambda _, args, output: seen.append((args[0], output)))
    try:
        with torch.enable_grad():
            loss = _loss(loss_fn, once, batch)
            if not returned:
                raise GradmixError("loss_fn did not call the model that it was given", "loss_fn")
            (slopes,) = torch.autograd.grad(loss, returned)
    finally:
        handle.remove()
        _reshard(model)
    features = seen[0][0]
    return (
        loss.item(),
        features.detach().reshape(-1, features.shape[-1]).float(),
        slopes.reshape(-1, slopes.shape[-1]).float(),
    )


def _measurement(
    batches: Mapping[str, Sequence[Any]],
    slopes: Sequence[float],
    losses: Sequence[float],
    like: Sequence[Any],
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
    sums = _sum_over(sent, like, world)
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
