"""``runbooks sandbox``: the command line of the local control plane."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from runbooks_sandbox import lifecycle
from runbooks_sandbox.binaries import BinariesUnavailable, find
from runbooks_sandbox.faults import FAULTS
from runbooks_sandbox.lifecycle import Played
from runbooks_sandbox.state import GATEWAYS, INGRESSES, SandboxError, State, WrongCall

_NAME = click.option("--name", default="default", show_default=True, help="Which sandbox; several can run at once.")


def _console() -> Console:
    """Where progress goes; paths stay whole, whatever is in them and however narrow the terminal is."""
    return Console(stderr=True, soft_wrap=True, markup=False, highlight=False)


def _explained(function: Callable[..., Any]) -> Callable[..., Any]:
    """Errors in a sentence with what to do; exit code 1, or that of a wrong call."""

    @functools.wraps(function)
    def run(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except WrongCall as error:
            raise click.UsageError(str(error), click.get_current_context()) from error
        except (SandboxError, BinariesUnavailable) as error:
            raise click.ClickException(str(error)) from error
        except BrokenPipeError:
            raise  # not ours: whoever read our output has read enough
        except OSError as error:
            attempted = click.get_current_context().command_path
            raise click.ClickException(str(SandboxError.of(attempted, error))) from error

    return run


def _played(function: Callable[..., Any]) -> Callable[..., Any]:
    folder = click.Path(exists=True, file_okay=False, path_type=Path)
    mesh = "Version of Service Mesh to play; 1.x beside Kourier only.  [default: 2.3]"
    gateway = (
        "Who configures it: a real istiod, or files.  [default: auto: istiod where it is here and Istio the ingress]"
    )
    kourier = "kourier: Knative Serving is there already, with Kourier.  [default: istio]"
    for option in (
        click.option(
            "--crds", metavar="DIR", type=folder, help="Load the CRDs exported into this folder, not our own."
        ),
        click.option("--ingress", type=click.Choice(INGRESSES), help=kourier),
        click.option("--gateway", type=click.Choice(GATEWAYS), help=gateway),
        click.option("--mesh", metavar="VERSION", help=mesh),
        click.option("--serverless", metavar="VERSION", help="Version of OpenShift Serverless.  [default: 1.26]"),
    ):
        function = option(function)
    return function


@click.group()
def sandbox() -> None:
    """A real Kubernetes control plane on this machine, to rehearse the runbooks against.

    etcd, kube-apiserver and Envoy are real. The operators, the node and the application are stand-ins.

    \b
    Examples:
      runbooks sandbox start
      runbooks run all --parameters parameters/sandbox --mode apply
      runbooks sandbox fault on slow-operators 10
      runbooks sandbox stop
    """


@sandbox.command()
@_NAME
@_played
@_explained
def start(name: str, **played: Any) -> None:
    """Start it; what it held when it was stopped is there again."""
    state, console = State(name), _console()
    if not lifecycle.start(state, Played(**played), console):
        console.print(f"sandbox {name} is already running")
    _show(lifecycle.status(state))


@sandbox.command()
@click.option("--gateway", type=click.Choice(GATEWAYS), default="auto", help="istio: istiod, too.")
@_explained
def prepare(gateway: str) -> None:
    """Get kube-apiserver and etcd onto this machine now, not at the first start.

    Once; it takes some minutes where they cannot be downloaded and are compiled. istiod is always compiled.

    \b
    Examples:
      runbooks sandbox prepare
      runbooks sandbox prepare --gateway istio
    """
    console = _console()
    found = find(console, istiod=gateway == "istio")
    if gateway == "istio":
        console.print(f"istiod: {found.istiod}")


@sandbox.command()
@_NAME
@_explained
def stop(name: str) -> None:
    """Stop it and everything that belongs to it; its data is kept."""
    was_running, said = lifecycle.stop(State(name))
    for line in said:
        click.echo(line)
    click.echo(f"sandbox {name} {'is stopped' if was_running else 'was not running'}")


@sandbox.command()
@_NAME
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@_explained
def status(name: str, as_json: bool) -> None:
    """Where it is, what it plays, what is real, which faults are on. Exit code 1 where it does not run."""
    found = lifecycle.status(State(name))
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _show(found)
    if not found["running"]:
        raise SystemExit(1)


def _show(found: dict[str, Any]) -> None:
    for key, value in found.items():
        click.echo(f"{key.replace('_', ' '):17}{_words(value) or 'none'}")


def _words(value: Any) -> str:
    if isinstance(value, dict):
        parts = ((name, text["pid"] if isinstance(text, dict) else text) for name, text in value.items())
        return ", ".join(f"{name} {text}".strip() for name, text in parts)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


@sandbox.command()
@_NAME
@_played
@click.option("--own-crds", is_flag=True, help="Load our own CRDs again.")
@_explained
def reset(name: str, **played: Any) -> None:
    """Begin anew: empty cluster, no certificates, no faults; other versions if you say so."""
    was_running = lifecycle.reset(State(name), Played(**played), _console())
    click.echo(f"sandbox {name} is {'as new' if was_running else 'empty; runbooks sandbox start begins anew'}")


@sandbox.group()
def fault() -> None:
    """Make things go wrong, to see how a runbook copes."""


@fault.command("list")
def fault_list() -> None:
    """The faults that there are."""
    for one in FAULTS.values():
        click.echo(f"{one.name:18} {one.said}" + (f" (value: {one.value})" if one.value else ""))


@fault.command("on")
@click.argument("fault_name")
@click.argument("value", default="")
@_NAME
@_explained
def fault_on(fault_name: str, value: str, name: str) -> None:
    """Switch a fault on."""
    lifecycle.switch(State(name), fault_name, value, on=True)
    click.echo(f"{fault_name}: done" if FAULTS[fault_name].kills else f"{fault_name} is on")


@fault.command("off")
@click.argument("fault_name")
@_NAME
@_explained
def fault_off(fault_name: str, name: str) -> None:
    """Switch a fault off."""
    lifecycle.switch(State(name), fault_name, "", on=False)
    click.echo(f"{fault_name} is off")
