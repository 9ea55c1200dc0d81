"""gradmix_client.py against the real `gradmix mix`, and against processes and servers that misbehave. Run by client.test.ts."""

import base64
import contextlib
import inspect
import io
import json
import os
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import gradmix_client
from gradmix_client import GradmixError, Mixer, WeightsFile, read_weights

ROOT = Path(__file__).resolve().parent.parent.parent
MIX = ["node", str(ROOT / "dist/cli/main.js"), "mix"]
DOMAINS = ["web", "code", "mail"]
RULE = {"name": "dga", "normalise": "raw", "beta": 1}
FIRST = {"web": 0.1, "code": 0.4, "mail": -0.2}
FIRST_ERRORS = {"web": 0.1, "code": 0.1, "mail": 0.1}
SECOND = {"web": 0.3, "code": 0.1}


@contextlib.contextmanager
def refused(field, words=""):
    try:
        yield
    except GradmixError as error:
        assert error.field == field, f"field {error.field!r} in place of {field!r}: {error}"
        assert words in str(error), f"{words!r} is not in {error}"
        assert "\n" not in str(error)
    else:
        raise AssertionError(f"nothing was refused, in place of {field}")


def script(code):
    """A process that does not keep to the protocol."""
    return [sys.executable, "-c", code]


def exists(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that has ended and that nobody has waited for is not there any more.
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return True


def ends(pid, seconds=20):
    until = time.monotonic() + seconds
    while exists(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not exists(pid)


def spoken(*messages):
    """What `gradmix mix` answers to these lines: the oracle."""
    lines = "".join(json.dumps(message) + "\n" for message in messages)
    done = subprocess.run(MIX, input=lines, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


class Scalar:
    """What a scalar of NumPy or PyTorch has in common with the other."""

    def __init__(self, value):
        self.value = value

    def item(self):
        return self.value


class Array:
    def __init__(self, values):
        self.values = values

    def tolist(self):
        return self.values


def test_the_weights_are_those_of_the_protocol_whatever_kind_of_scalar_tells_the_numbers(folder):
    shared = {"sizes": {"web": 9, "code": 99, "mail": 999}, "tokens": 50}
    floor = [{"name": "floor", "least": 0.05}]
    init = {"type": "init", "domains": DOMAINS, "rule": RULE, "combinators": floor, **shared}
    half = {"web": 2, "code": 1, "mail": 1}
    first, second, third = spoken(
        {**init, "updateEvery": 10, "updateAfter": 10, "shares": half, "lossMultipliers": True},
        {"type": "observe", "step": 10, "alignments": FIRST, "losses": FIRST, "targetNorm": 2, "averaged": True},
        {"type": "observe", "step": 20, "alignments": SECOND, "averaged": True},
    )
    with Mixer(
        DOMAINS,
        rule=RULE,
        combinators=floor,
        **shared,
        update_every=10,
        update_after=10,
        shares=half,
        multipliers=True,
        command=MIX,
    ) as mixer:
        assert mixer.weights == first["weights"] and mixer.step == 0 and mixer.averaged is None and not mixer.changed
        found = mixer.observe(
            10, alignments={name: Scalar(value) for name, value in FIRST.items()}, losses=FIRST, target_norm=Scalar(2)
        )
        assert found == mixer.weights == second["weights"] != first["weights"] and mixer.changed
        assert mixer.loss_multipliers == second["lossMultipliers"]
        assert mixer.averaged == second["averaged"]
        # None is "not measured", as is leaving out.
        assert mixer.observe(20, alignments={**SECOND, "mail": None}) == third["weights"]
        assert mixer.averaged == third["averaged"] and mixer.step == 20
        assert mixer.diagnostics == third["diagnostics"] and mixer.diagnostics["measured"] == 2
        # What is handed out is a copy.
        mixer.weights["web"] = 7
        assert mixer.weights == third["weights"]


def test_what_cannot_be_used_is_refused_with_its_field_and_moves_nothing(folder):
    with Mixer(DOMAINS, rule=RULE, command=MIX) as mixer:
        mixer.observe(10, alignments=FIRST)
        before = (mixer.weights, mixer.state_dict(), mixer.step)
        nan, inf = float("nan"), float("inf")
        cases = [
            ("alignments.code", "finite", {"alignments": {"code": nan}}),
            ("losses.web", "finite", {"losses": {"web": -inf}}),
            ("norms.web", "one number", {"norms": {"web": "3"}}),
            ("norms.web", "one number", {"norms": {"web": True}}),
            ("norms.web", "one number", {"norms": {"web": Scalar(False)}}),
            ("tokens.web", "one number", {"tokens": {"web": [1]}}),
            ("alignments", "map names", {"alignments": [1, 2, 3]}),
            ("targetNorm", "finite", {"target_norm": nan}),
            ("targetExamples", "integer", {"target_examples": 1.5}),
            ("gram.1.0", "one number", {"gram": [[1, 2, 3], [None, 2, 3], [1, 2, 3]]}),
            ("gram.web.code", "finite", {"gram": {"web": {"code": nan}}}),
            ("sketches.web", "one number", {"sketches": {"web": ["a"], "target": [1]}}),
            ("sketches.web", "too large", {"sketches": {"web": [1e39], "target": [1]}}),
            ("targets", "map names of targets", {"targets": [1, 2]}),
            ("targets.t", "norm", {"targets": {"t": {"alignments": FIRST}}}),
            # In JSON they would have one name, or a name that is not the domain's.
            ("alignments", "the name 1; names must be text", {"alignments": {1: 5.0, "1": -5.0}}),
            ("gram.web", "the name None", {"gram": {"web": {None: 1}}}),
            ("sketches", "the name 3", {"sketches": {3: [1.0], "target": [1.0]}}),
            ("targets.t.alignments", "the name True", {"targets": {"t": {"alignments": {True: 1}, "norm": 1, "loss": 1}}}),
            # By gradmix itself:
            (
                "alignments.wob",
                'alignments.wob: it is not a domain; did you mean "web"?',
                {"alignments": {"wob": 1}},
            ),
        ]
        for field, words, given in cases:
            with refused(field, words):
                mixer.observe(20, **given)
        with refused("step", "integer"):
            mixer.observe(1.5, alignments=FIRST)
        with refused("step"):
            mixer.observe(9, alignments=FIRST)
        assert (mixer.weights, mixer.state_dict(), mixer.step) == before
        mixer.observe(20, alignments=SECOND)

    for field, words, given in [
        ("domains", "list of names", {"domains": "web"}),
        ("domains", "list of names", {"domains": [1, 2]}),
        ("sizes.web", "finite", {"sizes": {"web": nan}}),
        ("update_every", "integer", {"update_every": 2.5}),
        ("timeout", "more than 0", {"timeout": 0}),
        ("timeout", "at most", {"timeout": 1e10}),
        ("timeout", "at most", {"timeout": 1e300}),
        ("command", "list of words", {"command": "gradmix mix"}),
        ("command", "could not be started", {"command": ["no-such-program-anywhere"]}),
        ("token", "is for url", {"token": "x"}),
        ("domains", "list of names", {"domains": 3}),
        ("command", "list of words", {"command": [1]}),
        ("combinators", "must be a list", {"combinators": 3}),
        ("combinators", "has no name of a combinator", {"combinators": ["floor"]}),
        ("rule", "the options have no name of a rule", {"rule": {"eta": 1}}),
        ("domains", "list of names", {"domains": []}),
        ("url", "http://", {"url": "https://127.0.0.1"}),
        ("url", "http://", {"url": "http://127.0.0.1:99999"}),
        ("url", "http://", {"url": "http://[::1"}),
        ("url", "http://", {"url": 8123}),
        *(("token", "is not a token", {"url": "http://127.0.0.1:1", "token": bad}) for bad in ("", "a\nb", "ä", b"ab", 1)),
        ("timeout", "it must be finite", {"timeout": inf}),
        *(("multipliers", "must be True or False", {"multipliers": bad}) for bad in ("no", 0, [])),
        ("rule", "the name 1", {"rule": {"name": "dga", 1: 2}}),
        ("combinators.0", "the name 1", {"combinators": [{"name": "floor", 1: 2}]}),
        ("histogram", "the name 1", {"histogram": {1: 2}}),
        ("rule", 'rule: there is no rule "dgaa"', {"rule": "dgaa"}),
        ("rule", "a name or options", {"rule": 3}),
        ("combinators", "must be a list", {"combinators": {"name": "floor", "least": 0.01}}),
    ]:
        with refused(field, words):
            Mixer(**{"domains": DOMAINS, "command": MIX, **given})


def test_numbers_are_in_the_order_of_the_domains_whatever_their_names(folder):
    # JavaScript moves names that are whole numbers to the front of an object.
    domains = ["web", "10", "9", "__proto__", "1"]
    with Mixer((name for name in domains), multipliers=True, command=MIX) as mixer:
        assert list(mixer.weights) == list(mixer.loss_multipliers) == domains
        errors = dict.fromkeys(domains, 0.1)
        found = mixer.observe(10, alignments={"9": 0.5, "10": 0.2, "web": 0.1, "1": 0, "__proto__": 0}, standard_errors=errors)
        assert list(found) == list(mixer.averaged) == domains
        assert found["9"] > found["10"] > found["web"] > found["1"]


def test_weights_multipliers_and_averages_are_floats_also_where_json_has_whole_numbers(folder):
    given = {"rule": {"name": "static", "weights": [1, 0]}, "multipliers": True, "shares": {"a": 1, "b": 1}}
    with Mixer(["a", "b"], **given, command=MIX) as mixer:
        found = mixer.observe(10, losses={"a": 1, "b": 1})
        for numbers, first in ((mixer.weights, 1), (found, 1), (mixer.loss_multipliers, 2), (mixer.averaged, 1)):
            assert numbers["a"] == first and [type(number) for number in numbers.values()] == [float, float], numbers


def test_a_state_goes_on_to_the_same_bits_and_only_where_it_belongs(folder):
    with Mixer(DOMAINS, command=MIX) as mixer:
        mixer.observe(10, alignments=FIRST, standard_errors={"web": 0.1, "code": None})
        saved = json.dumps(mixer.state_dict())
        later = mixer.observe(20, alignments=SECOND, standard_errors={"web": 0.05})
        after = (mixer.averaged, mixer.state_dict())
        # In the same process, back and on again.
        mixer.load_state_dict(json.loads(saved))
        assert mixer.step == 10
        # A run that was interrupted after its last update ends without another one.
        assert mixer.averaged == json.loads(saved)["averaged"] != None  # noqa: E711
        assert mixer.observe(20, alignments=SECOND, standard_errors={"web": 0.05}) == later
        for wrong in (
            {},
            {"version": 2, "state": {}},
            {"version": 1, "state": {"version": 1}},
            {"version": 1, "state": {"version": 1, "multipliers": 3}},
            {"version": 1, "state": None},
            None,
        ):
            with refused("state"):
                mixer.load_state_dict(wrong)
        for wrong in ({"web": 1}, {"web": 0.5, "code": 0.5, "male": 0}, [0.5, 0.25, 0.25]):
            with refused("averaged"):
                mixer.load_state_dict({**json.loads(saved), "averaged": wrong})
        assert (mixer.averaged, mixer.state_dict()) == after
        # What is handed out is a copy.
        mixer.state_dict()["state"].clear()
        assert (mixer.averaged, mixer.state_dict()) == after

        # A process that was killed: noticed, and its last acknowledged state is not lost.
        os.kill(mixer._talk.child.pid, signal.SIGKILL)
        with refused(None, "killed by signal 9"):
            mixer.observe(30, alignments=FIRST)
        with refused(None, "killed by signal 9"):
            mixer.observe(30, alignments=FIRST)
        assert (mixer.averaged, mixer.state_dict()) == after
        with refused("state"):
            mixer.load_state_dict({"version": 1, "state": {"version": 1}})
        with refused(None, "killed by signal 9"):
            mixer.observe(30, alignments=FIRST)
        # Another mixer of the same settings, and the same one again.
        with Mixer(DOMAINS, command=MIX) as other:
            other.load_state_dict(json.loads(saved))
            assert other.observe(20, alignments=SECOND, standard_errors={"web": 0.05}) == later
        mixer.load_state_dict(json.loads(saved))
        assert mixer.observe(20, alignments=SECOND, standard_errors={"web": 0.05}) == later

    with refused(None, "was closed"):
        mixer.observe(30, alignments=FIRST)
    assert mixer.weights == later
    with Mixer(DOMAINS, rule=RULE, command=MIX) as other:
        before = other.state_dict()
        with refused("state"):
            other.load_state_dict(json.loads(saved))
        assert other.state_dict() == before


def test_multipliers_that_a_mixer_was_made_with_are_there_after_a_state_without_them(folder):
    with Mixer(DOMAINS, command=MIX) as mixer:
        mixer.observe(10, alignments=FIRST)
        plain = mixer.state_dict()
    half = {"web": 2, "code": 1, "mail": 1}
    with Mixer(DOMAINS, shares=half, command=MIX) as mixer:
        mixer.load_state_dict(plain)
        third = {name: 3 * weight for name, weight in mixer.weights.items()}
        assert mixer.loss_multipliers == {name: mixer.weights[name] / (half[name] / 4) for name in DOMAINS}
        mixer.observe(20, shares={"web": 1, "code": 1, "mail": 2})
        moved, newer = mixer.loss_multipliers, mixer.state_dict()
    # Shares that changed during the run are in the state, and are newer than those that the program begins with.
    with Mixer(DOMAINS, shares=half, command=MIX) as mixer:
        mixer.load_state_dict(newer)
        assert mixer.loss_multipliers == moved
    with Mixer(DOMAINS, multipliers=True, command=MIX) as mixer:
        mixer.load_state_dict(plain)
        found = mixer.loss_multipliers
        assert all(abs(found[name] - third[name]) < 1e-12 for name in DOMAINS)


def test_every_field_of_observe_in_the_documentation_is_an_argument(folder):
    text = (ROOT / "docs/trainers.md").read_text("utf-8")
    table = text.split("\n### observe\n")[1].split("\n### ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    fields = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    # Those that `Mixer` sends itself or is made with; rows of `gram` are in the order of its domains.
    own = {"averaged", "snapshot", "lossMultipliers", "gramDomains"}
    assert own < fields and "heldOutLosses" in fields
    wanted = {re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), name) for name in fields - own}
    assert wanted == set(inspect.signature(Mixer.observe).parameters) - {"self"}


def test_a_guard_gives_weight_back_to_a_domain_whose_held_out_loss_rises(folder):
    guard = [{"name": "guard", "limits": {"mail": 1}}]
    first = {"web": 2.0, "code": 3.0, "mail": 4}
    risen = {"web": 2.0, "code": 3.0, "mail": Scalar(5.0)}
    given = {"held_out_references": first, "held_out_errors": {"mail": 0.001}}
    with Mixer(DOMAINS, combinators=guard, command=MIX) as mixer:
        start = mixer.state_dict()
        still = mixer.observe(10, alignments=FIRST, standard_errors=FIRST_ERRORS, held_out_losses=first, **given)
        mixer.load_state_dict(start)
        guarded = mixer.observe(10, alignments=FIRST, standard_errors=FIRST_ERRORS, held_out_losses=risen, **given)
        assert guarded["mail"] > still["mail"]
        assert mixer.diagnostics["ignored"] == []
        with refused("heldOutLosses"):
            mixer.observe(20, alignments=FIRST, held_out_errors={"mail": 0.001})
        with refused("heldOutLosses.web", "finite"):
            mixer.observe(20, alignments=FIRST, held_out_losses={"web": float("nan")})


def test_sketches_gram_matrices_and_several_targets_are_told_as_the_protocol_has_them(folder):
    sketches = {
        "web": [1.0, 2.0, 0.5],
        "code": (0.25, -1.0, 3.0),
        "mail": Array([1.5, 0.0, 0.0]),
        "target": [1.0, 1.0, 1.0],
    }
    sent = gradmix_client._sketches(sketches)
    assert base64.b64decode(sent["code"]) == struct.pack("<3f", 0.25, -1, 3)
    with Mixer(DOMAINS, rule=RULE, command=MIX) as mixer:
        start = mixer.state_dict()
        direct = mixer.observe(10, alignments={"web": 3.5, "code": 2.25, "mail": 1.5})
        mixer.load_state_dict(start)
        assert mixer.observe(10, sketches=sketches) == direct
    rows = [[2.0, 0.5, 0.1], [0.5, 1.0, 0.2], [0.1, 0.2, 3.0]]
    named = {a: dict(zip(DOMAINS, row)) for a, row in zip(DOMAINS, rows)}
    with Mixer(DOMAINS, rule="rnb", command=MIX) as mixer:
        start, before = mixer.state_dict(), mixer.weights
        by_rows = mixer.observe(10, gram=Array(rows))
        assert by_rows != before
        mixer.load_state_dict(start)
        assert mixer.observe(10, gram=named) == by_rows
    with Mixer(DOMAINS, rule={"name": "grape", "targets": ["a", "b"]}, command=MIX) as mixer:
        start = mixer.weights
        target = {"alignments": FIRST, "norm": Scalar(1.0), "loss": 2}
        assert mixer.observe(10, targets={"a": target, "b": target}, norms={name: 1 for name in DOMAINS}) != start


def test_a_process_that_misbehaves_is_named_and_ended_and_never_waited_for(folder):
    big = [f"domain {i}" for i in range(20_000)]
    sleeps = "import time; time.sleep(60)"
    # A grandchild holds the pipes open when its parent is gone.
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {sleeps!r}])"
    closes = "import os, time; os.close(1); time.sleep(60)"
    half = "import sys; sys.stdin.readline(); sys.stdout.write('{\"type\":'); sys.stdout.flush(); " + sleeps
    fails = "import sys; print('first line', file=sys.stderr); print('out of luck ', file=sys.stderr); sys.exit(3)"
    echoes = "import sys\nfor line in sys.stdin: sys.stdout.write(line); sys.stdout.flush()"
    stranger = (
        'import sys; sys.stdin.readline(); print(\'{"type":"weights","weights":{"x":1},"state":{}}\'); sys.stdin.read()'
    )
    for domains, code, words in [
        (DOMAINS, sleeps, "did not answer within 0.5 s"),
        (big, sleeps, "did not answer within 0.5 s"),
        (DOMAINS, nested, "did not answer within 0.5 s"),
        (DOMAINS, half, "did not answer within 0.5 s"),
        (DOMAINS, closes, "closed its output"),
        (DOMAINS, fails, "ended (exit code 3): out of luck"),
        (big, fails, "ended (exit code 3): out of luck"),
        (DOMAINS, echoes, "is not a reply of gradmix mix"),
        (DOMAINS, stranger, "is not a reply of gradmix mix"),
    ]:
        started = []
        popen = subprocess.Popen

        class Noted(popen):
            def __init__(self, *args, **options):
                super().__init__(*args, **options)
                started.append(self)

        subprocess.Popen = Noted
        begun = time.monotonic()
        try:
            with refused(None, words):
                # Only those that are to run into it have little time.
                Mixer(domains, command=script(code), timeout=0.5 if "within" in words else 30)
        finally:
            subprocess.Popen = popen
        assert time.monotonic() - begun < 20, f"{words} took long"
        (child,) = started
        assert child.returncode is not None, f"{words}: the process is still there"


def test_an_interrupted_message_does_not_leave_its_answer_to_the_next_one(folder):
    slow = (
        "import json, sys, time\n"
        "for line in sys.stdin:\n"
        "    m = json.loads(line)\n"
        "    time.sleep(1 if m.get('step') == 10 else 0)\n"
        "    print(json.dumps({'type': 'weights', 'step': m.get('step', 0), 'changed': False, 'weights': {'a': 1}, 'state': {}}), flush=True)\n"
    )

    class Interrupted(Exception):
        pass

    def interrupt(*_):
        raise Interrupted

    with Mixer(["a"], command=script(slow)) as mixer:
        mixer.observe(5)
        previous = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            mixer.observe(10)
            raise AssertionError("it was not interrupted")
        except Interrupted:
            pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        with refused(None, "in the middle of a message"):
            mixer.observe(20)
        assert mixer.step == 5
        mixer.load_state_dict(mixer.state_dict())
        mixer.observe(20)
        assert mixer.step == 20


def test_no_process_is_left_behind(folder):
    # After an exception in the block, and when the mixer is forgotten.
    try:
        with Mixer(DOMAINS, command=MIX) as mixer:
            pid = mixer._talk.child.pid
            raise KeyError
    except KeyError:
        pass
    assert not exists(pid)
    mixer = Mixer(DOMAINS, command=MIX)
    pid = mixer._talk.child.pid
    del mixer
    assert not exists(pid)

    # When Python exits without closing it; and when it is killed, while a process that was forked from it lives on and cannot use the mixer.
    ending = (
        "import os, sys, time; sys.path.insert(0, sys.argv[1]); from gradmix_client import *\n"
        "import gradmix_client; gradmix_client._Process.close.__defaults__ = (0.5,)\n"
        # A line in one write: two processes share the pipe.
        "def say(what): os.write(1, f'{what}\\n'.encode())\n"
        "m = Mixer(['a'], command=sys.argv[3:])\n"
        "say(m._talk.child.pid)\n"
        "if sys.argv[2] == 'exit': sys.exit()\n"
        "forked = os.fork()\n"
        "if forked == 0:\n"
        "    try: m.observe(1)\n"
        "    except GradmixError as error: say(error)\n"
        "    m.close(); m = None\n"
        "    time.sleep(60)\n"
        "say(forked); time.sleep(60)\n"
    )
    start = [sys.executable, "-c", ending, str(ROOT / "python")]
    stubborn = 'import sys, time; sys.stdin.readline(); print(\'{"type":"weights","weights":{"a":1},"state":{}}\', flush=True); time.sleep(60)'
    for command in (MIX, script(stubborn)):
        done = subprocess.run([*start, "exit", *command], capture_output=True, text=True, check=True)
        assert done.stderr == "" and ends(int(done.stdout))
    with subprocess.Popen([*start, "killed", *MIX], stdout=subprocess.PIPE, text=True) as trainer:
        forked = None
        try:
            pid = int(trainer.stdout.readline())
            lines = sorted([trainer.stdout.readline(), trainer.stdout.readline()])
            forked = int(lines[0])
            assert "belongs to process" in lines[1]
            assert exists(pid)
            trainer.kill()
            trainer.wait()
            gone = ends(pid)
            assert exists(forked)
            assert gone
        finally:
            trainer.kill()
            if forked is not None:
                os.kill(forked, signal.SIGKILL)


def test_over_http_the_same_and_a_server_that_misbehaves_is_not_waited_for(folder):
    token, weights = folder / "token", folder / "weights.json"
    with refused(None, "cannot be read"):
        read_weights(weights)
    serve = [*MIX, "--listen", "0", "--token-file", str(token), "--weights-file", str(weights)]
    with (
        subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server,
        Mixer(DOMAINS, rule=RULE, command=MIX) as here,
    ):
        try:
            url = json.loads(server.stdout.readline())["url"]
            with refused(None, "token"):
                Mixer(DOMAINS, rule=RULE, url=url, token="another")
            # The text of the file ends with a line feed.
            there = Mixer(DOMAINS, rule=RULE, url=url + "/", token=token.read_text())
            assert there.weights == here.weights
            start = there.state_dict()
            with refused("alignments.wob"):
                there.observe(10, alignments={"wob": 1})
            assert there.observe(10, alignments=FIRST) == here.observe(10, alignments=FIRST)
            assert read_weights(weights) == WeightsFile(10, here.weights)
            there.load_state_dict(start)
            assert there.step == 0 and there.observe(10, alignments=FIRST) == here.weights
        finally:
            server.kill()
    with refused(None, "failed"):
        there.observe(20, alignments=FIRST)
    assert there.weights == here.weights

    # A byte now and then: no single wait is long, all of them together are.
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip():
            with contextlib.suppress(OSError):
                connection, _ = listening.accept()
                with connection:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                    while True:
                        connection.sendall(b" ")
                        time.sleep(0.05)

        thread = threading.Thread(target=drip)
        thread.start()
        begun = time.monotonic()
        with refused(None, "did not answer within 0.5 s"):
            Mixer(DOMAINS, url=f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=0.5)
        assert time.monotonic() - begun < 20
        thread.join()

    for text in ("{", "[]", '{"version":2,"step":1,"weights":{}}', '{"version":1,"step":1}'):
        weights.write_text(text)
        with refused(None):
            read_weights(weights)
    weights.write_text('{"version":1,"step":1,"weights":{"a":NaN}}')
    with refused("weights.a"):
        read_weights(weights)


def test_the_code_in_the_documentation_runs(folder):
    blocks = [
        block.split("```")[0]
        for file in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
        for block in file.read_text(encoding="utf-8").split("```python\n")[1:]
    ]
    assert len(blocks) >= 2
    # As it is installed: a command on the PATH.
    (folder / "gradmix").write_text(f'#!/bin/sh\nexec {shlex.join(MIX[:-1])} "$@"\n')
    (folder / "gradmix").chmod(0o755)
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{folder}{os.pathsep}{path}"
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            for block in blocks:
                exec(block, {})
    finally:
        os.environ["PATH"] = path
    assert out.getvalue() == "{'web': 0.5, 'code': 0.5}\nalignments.cod\n"


def test_nothing_is_printed(folder):
    """A trainer's own output is its own."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        with Mixer(DOMAINS, command=MIX) as mixer:
            mixer.observe(1, alignments=FIRST)
    assert out.getvalue() == err.getvalue() == ""
