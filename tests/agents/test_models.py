import asyncio
import sys
import types

import cloudpickle
import pytest
from pydantic import BaseModel

from agents import LocalDesk, Role, ScriptedModel, call, say
from agents.loop import work
from agents.models.http import HttpModel
from agents.models.port import Model
from agents.models.provider import ProviderModel
from agents.models.registry import resolve
from protocols.chat import ChatMessage, Choice, ModelRequest, Option, ToolSpec
from protocols.failures import BadInput, Failed, ModelError
from protocols.trust import Origin


class Out(BaseModel):
    n: int


def ask(model: Model, request: ModelRequest | None = None) -> object:
    request = request or ModelRequest(messages=(ChatMessage(role="user", content="hi"),))
    return asyncio.run(model.complete(request))


def chosen(*labels: str, texts: int = 1) -> ModelRequest:
    options = tuple(Option(label=one, description=one) for one in labels)
    return ModelRequest(choice=Choice(texts=("t",) * texts, options=options))


def test_scripted_replies_of_every_kind() -> None:
    tools = (ToolSpec(name="f", description="", parameters={}),)
    request = ModelRequest(messages=(ChatMessage(role="user", content="hi"),), tools=tools)

    def reply(one: object) -> object:
        return asyncio.run(ScriptedModel([one]).complete(request))

    assert reply("text").text == "text"  # type: ignore[attr-defined]
    assert reply(say("text", output_tokens=3)).output_tokens == 3  # type: ignore[attr-defined]
    assert reply(Out(n=1)).text == '{"n":1}'  # type: ignore[attr-defined]
    assert reply({"a": [1]}).text == '{"a":[1]}'  # type: ignore[attr-defined]
    assert [one.name for one in reply([call("f"), call("g", n=1)]).tool_calls] == ["f", "g"]  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="down"):
        reply(ModelError("down"))


def test_a_list_script_answers_by_the_place_in_the_conversation() -> None:
    model = ScriptedModel(["one", "two"])
    said = ChatMessage(role="assistant", content="one", origin=Origin.MODEL)
    request = ModelRequest(messages=(ChatMessage(role="user", content="hi"), said))
    assert ask(model).text == "one"  # type: ignore[attr-defined]
    assert ask(model, request).text == "two"  # type: ignore[attr-defined]
    assert ask(model).text == "one"  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="asked for number 3"):
        ask(model, ModelRequest(messages=(said, said)))
    assert model.calls == 4


def test_scripted_choices_must_be_among_the_options() -> None:
    assert ask(ScriptedModel(["b"]), chosen("a", "b", texts=2)).labels == ("b", "b")  # type: ignore[attr-defined]
    assert ask(ScriptedModel([["a", "b"]]), chosen("a", "b", texts=2)).labels == ("a", "b")  # type: ignore[attr-defined]
    for wrong in ("c", ["a"]):
        with pytest.raises(ModelError):
            ask(ScriptedModel([wrong]), chosen("a", "b", texts=2))


def test_scripted_functions_may_be_async_and_travel_by_cloudpickle() -> None:
    async def script(request: ModelRequest) -> str:
        await asyncio.sleep(0)
        return "later"

    assert ask(cloudpickle.loads(cloudpickle.dumps(ScriptedModel(script)))).text == "later"  # type: ignore[attr-defined]
    with pytest.raises(BadInput):
        ScriptedModel("text")


def test_scripted_usage_never_passes_its_bound() -> None:
    request = ModelRequest(messages=(ChatMessage(role="user", content="x" * 999),), max_output_tokens=5)
    model = ScriptedModel(["y" * 999])
    reply = asyncio.run(model.complete(request))
    assert (reply.input_tokens or 0, reply.output_tokens or 0) == model.bound(request)


def test_ids_of_providers_resolve_without_connecting() -> None:
    for wanted in ("openai:model-x", "anthropic:model-x", "google:model-x"):
        made = resolve(wanted)
        assert isinstance(made, ProviderModel)
        assert isinstance(made, Model)
        assert made.id == wanted


def test_ids_resolve_to_models_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("own_models")
    module.made, module.make, module.nothing = ScriptedModel([], name="own"), lambda: ScriptedModel([], name="new"), 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_models", module)
    assert resolve("python:own_models:made").id == "scripted:own"
    assert resolve("python:own_models:make").id == "scripted:new"
    for wrong in ("nothing", "missing", ""):
        with pytest.raises(BadInput):
            resolve(f"python:own_models:{wrong}")


def test_unknown_ids_say_what_exists() -> None:
    for wrong, help in (("model-x", "embedded"), ("openai:", "openai:NAME"), ("scripted:x", "ScriptedModel"), ("recorded:last", "--model")):
        with pytest.raises(BadInput, match=help):
            resolve(wrong)


def test_ports_are_met() -> None:
    assert isinstance(ScriptedModel([]), Model)
    assert isinstance(HttpModel("http://x/v1", "m"), Model)


@pytest.mark.parametrize("gone", [True, False])
def test_another_model_is_asked_where_it_is_not_the_request_that_is_wrong(gone: bool) -> None:
    error = cloudpickle.loads(cloudpickle.dumps(ModelError("no such model" if gone else "no such setting", charged=False, elsewhere=gone)))
    first, standby = ScriptedModel([error], name="first"), ScriptedModel(["here"], name="standby")
    working = work(Role("a"), "go", LocalDesk(), first, fallback_models=[standby])
    if gone:
        assert asyncio.run(working) == "here"
    else:
        with pytest.raises(Failed, match="no such setting"):
            asyncio.run(working)
    assert standby.calls == gone
